"""The embedder in the wheel: all-MiniLM-L6-v2, int8, on onnxruntime."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atmosphere.embedding.embedder import Embedder, EmbedderError, Space, Vectors, valid

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MODEL_FOLDER = Path(__file__).parent / "model"
SPACE = Space.of("all-MiniLM-L6-v2", 384)
MAX_TOKENS = 256  # max_seq_length of the original; it was trained on shorter texts still


class MiniLM(Embedder):
    """All-MiniLM-L6-v2 with int8 weights: about 2 ms and one thread per text, 50 MB of memory, no torch.

    Against sentence-transformers with the original weights: mean cosine .992 over 200 varied texts, the worst .971
    (single symbols, and scripts that the model does not know); ``tests/embedding`` holds it to that.

    Texts run one by one: dynamic int8 results depend on batch mates, so the graph takes a single text. Results are
    equal bits on one machine, but not between machines of different CPU families: never derive exact-match keys
    from them.
    """

    space = SPACE
    max_tokens = MAX_TOKENS

    def __init__(self, tokenizer: Tokenizer, session: Any) -> None:
        """Use :meth:`load`."""
        self._tokenizer = tokenizer
        self._session = session
        self._end = tokenizer.encode("").ids[-1]

    @classmethod
    def load(cls, folder: Path = MODEL_FOLDER) -> MiniLM:
        """Read model and tokenizer: some 0.2 s, blocking. Raises :class:`EmbedderError`.

        onnxruntime is imported here and not with the package: a command that only lists something starts without it.
        """
        import onnxruntime
        from tokenizers import Tokenizer

        for name in ("model.onnx", "tokenizer.json"):
            if not (folder / name).is_file():
                raise EmbedderError(f"{folder / name} is missing: reinstall, or run scripts/export_embedder.py")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a second thread on a busy machine makes the slowest calls ten times slower
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle must cost nothing
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors only: there is nothing that an owner could do about its warnings
        if _saturates():
            options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            session = onnxruntime.InferenceSession(
                str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # both libraries raise bare or private exception types
            raise EmbedderError(f"cannot load the model in {folder}: {error}. Reinstall the package.") from error
        _trim()
        tokenizer.no_padding()
        tokenizer.no_truncation()  # embed() cuts, so that count_tokens() does not
        return cls(tokenizer, session)

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = np.empty((len(texts), self.space.dimensions), np.float32)
        for row, text in enumerate(texts):
            ids = self._tokenizer.encode(valid(text)).ids
            if len(ids) > MAX_TOKENS:
                ids = [*ids[: MAX_TOKENS - 1], self._end]
            vectors[row] = self._session.run(None, {"ids": np.array([ids], np.int64)})[0][0]
        return vectors

    def count_tokens(self, text: str) -> int:
        return len(self._tokenizer.encode(valid(text), add_special_tokens=False).ids)


def _trim() -> None:
    """Give back what parsing the model left free in the C heap: 9 MB, where the C library is glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _saturates() -> bool:
    """Whether this CPU multiplies uint8 by int8 in a way that may overflow 16 bits: x86-64 without VNNI.

    onnxruntime then has an exact kernel, half as fast; it is not the default.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        return "vnni" not in Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:  # no such file here: rather slow than wrong
        return True
