"""Any other embedding model, or a GPU: sentence-transformers, when the extra is installed."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from atmosphere.embedding.embedder import Embedder, EmbedderError, Space, Vectors

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


class SentenceTransformerEmbedder(Embedder):
    """A sentence-transformers model. Brings torch (900 MB of memory, seconds to import); not in the default install.

    With the default model its vectors share the space of :class:`MiniLM`.
    """

    def __init__(self, model: Any, name: str) -> None:
        """Use :meth:`load`."""
        self._model = model
        self.max_tokens = int(model.max_seq_length)
        self.space = Space.of(name, int(model.get_embedding_dimension()))

    @classmethod
    def load(
        cls, model: str = DEFAULT_MODEL, *, path: str | None = None, device: str = "cpu"
    ) -> SentenceTransformerEmbedder:
        """Load *model* (from the folder *path* when given), blocking for seconds; may download it.

        Raises :class:`EmbedderError` without the extra or without the model.
        """
        try:
            library = importlib.import_module("sentence_transformers")
        except ImportError as error:
            raise EmbedderError(
                f"{model} needs sentence-transformers ({error}): pip install 'atmosphere-p2p[sentence-transformers]'"
            ) from error
        try:
            return cls(library.SentenceTransformer(path or model, device=device), model)
        except (OSError, ValueError) as error:
            raise EmbedderError(f"cannot load {path or model}: {error}. Check the name and the network.") from error

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = np.empty((len(texts), self.space.dimensions), np.float32)
        for row, text in enumerate(texts):  # one by one: padding to batch mates changes the last bits
            vectors[row] = self._model.encode(text, normalize_embeddings=True, show_progress_bar=False)
        return vectors

    def count_tokens(self, text: str) -> int:
        return len(self._model.tokenizer(text, add_special_tokens=False, truncation=False)["input_ids"])
