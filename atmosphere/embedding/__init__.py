"""Texts to vectors: the interface, the model in the wheel, its twin, and the spaces that vectors live in.

Importing this loads numpy alone; the engines come with ``load()``.
"""

from atmosphere.embedding.embedder import Embedder, EmbedderError, Space, Vectors
from atmosphere.embedding.hashed import HashEmbedder
from atmosphere.embedding.minilm import MiniLM
from atmosphere.embedding.sentence_transformer import SentenceTransformerEmbedder

__all__ = [
    "Embedder",
    "EmbedderError",
    "HashEmbedder",
    "MiniLM",
    "SentenceTransformerEmbedder",
    "Space",
    "Vectors",
]
