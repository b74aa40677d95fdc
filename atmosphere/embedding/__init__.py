"""Texts to vectors: the interface, the model in the wheel, its twin, and the spaces that vectors live in.

Importing this loads numpy alone; the engines come with ``load()``.
"""

from pathlib import Path

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
    "load_embedder",
]


def load_embedder(folder: str = "") -> Embedder:
    """The embedder of a node: of the sentence-transformers model in *folder*; empty: the model in the wheel.

    Blocking for up to seconds. Raises :class:`EmbedderError`.
    """
    return SentenceTransformerEmbedder.load(Path(folder).expanduser()) if folder else MiniLM.load()
