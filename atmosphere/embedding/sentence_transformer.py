"""Another embedding model, or a GPU: sentence-transformers, when the extra is installed."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from atmosphere.embedding.embedder import Embedder, EmbedderError, Space, Vectors, valid


class SentenceTransformerEmbedder(Embedder):
    """A sentence-transformers model. Brings torch (900 MB of memory, seconds to import); not in the default install.

    Its space is named by the folder that the model is in: one called ``all-MiniLM-L6-v2`` shares that of
    :class:`MiniLM`, and nodes whose folders are called the same exchange vectors.
    """

    def __init__(self, model: Any, name: str) -> None:
        """Use :meth:`load`."""
        self._model = model
        self._lock = threading.Lock()  # tokenizers forbid two threads at once ("Already borrowed")
        self.max_tokens = int(model.max_seq_length)
        self.space = Space.of(name, int(model.get_embedding_dimension()))

    @classmethod
    def load(cls, folder: Path) -> SentenceTransformerEmbedder:
        """Load the model in *folder*, blocking for seconds: on a GPU if torch sees one. Never asks the network.

        Raises :class:`EmbedderError` without the folder, the extra, or a model that it can read.
        """
        if not folder.is_dir():
            raise EmbedderError(f"there is no folder {folder}: `embedder` in config.yaml names the folder of a "
                                "sentence-transformers model, which nobody downloads for you")
        try:
            library = importlib.import_module("sentence_transformers")
            importlib.import_module("transformers").utils.logging.disable_progress_bar()  # it would draw into the log
        except ImportError as error:
            raise EmbedderError(f"the model in {folder} needs sentence-transformers ({error}): "
                                "pip install 'atmosphere-p2p[sentence-transformers]'") from error
        try:
            importlib.import_module("torch").set_num_threads(1)  # two on a busy machine take five times as long
            model = library.SentenceTransformer(str(folder), local_files_only=True)
        except Exception as error:  # torch, transformers and safetensors raise whatever they like
            raise EmbedderError(f"cannot load {folder}: {error}. It must hold a whole sentence-transformers model."
                                ) from error
        return cls(model, folder.resolve().name)

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = np.empty((len(texts), self.space.dimensions), np.float32)
        for row, text in enumerate(texts):  # one by one: padding to batch mates changes the last bits
            with self._lock:
                vectors[row] = self._model.encode(valid(text), normalize_embeddings=True, show_progress_bar=False)
        return vectors

    def count_tokens(self, text: str) -> int:
        with self._lock:
            marked = self._model.tokenizer(valid(text), add_special_tokens=False, truncation=False, verbose=False)
        return len(marked["input_ids"])
