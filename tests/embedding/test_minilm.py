"""The model in the wheel against sentence-transformers with the original weights, and the promises of an embedder."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atmosphere.embedding import EmbedderError, MiniLM
from atmosphere.embedding.minilm import MODEL_FOLDER

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    return MiniLM.load()


def test_vectors_are_those_of_sentence_transformers(minilm: MiniLM) -> None:
    """Mean cosine >= .99 over 200 varied texts; none below .97 (the worst are an emoji and an unknown script)."""
    texts = json.loads((HERE / "reference_texts.json").read_text("utf-8"))
    references = np.load(HERE / "reference_vectors.npy").astype(np.float32)
    assert len(texts) == len(references) == 200
    references /= np.linalg.norm(references, axis=1, keepdims=True)
    cosines = np.sum(minilm.embed(texts) * references, axis=1)
    assert cosines.mean() >= 0.99
    assert cosines.min() >= 0.97


def test_neighbours_are_those_of_sentence_transformers(minilm: MiniLM) -> None:
    """What matters in the end: the nearest other text of the original is among our nearest three."""
    texts = json.loads((HERE / "reference_texts.json").read_text("utf-8"))
    references = np.load(HERE / "reference_vectors.npy").astype(np.float32)
    ours, theirs = (np.argsort(2 * np.eye(200) - v @ v.T, axis=1) for v in (minilm.embed(texts), references))
    assert np.mean(ours[:, 0] == theirs[:, 0]) >= 0.85
    assert np.mean([theirs[i, 0] in ours[i, :3] for i in range(200)]) >= 0.97


def test_the_shipped_files_are_those_of_the_notice() -> None:
    notice = (MODEL_FOLDER / "NOTICE.md").read_text("utf-8")
    for name in ("model.onnx", "tokenizer.json"):
        digest = hashlib.sha256((MODEL_FOLDER / name).read_bytes()).hexdigest()
        assert re.search(rf"`{name}`.*`{digest}`", notice), f"{name} is not the file that NOTICE.md describes"
    assert "Apache License" in (MODEL_FOLDER / "LICENSE").read_text("utf-8")


def test_a_text_has_one_vector_whatever_it_comes_with(minilm: MiniLM) -> None:
    texts = ["turn on the light", "", "a much longer text " * 50]
    together = minilm.embed(texts)
    assert together.dtype == np.float32
    assert together.shape == (3, 384)
    for text, row in zip(texts, together, strict=True):
        assert np.array_equal(minilm.embed([text])[0], row)


def test_threads_do_not_disturb_each_other(minilm: MiniLM) -> None:
    texts = [f"text number {i} " * (1 + i % 9) for i in range(40)]
    expected = minilm.embed(texts)
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda text: minilm.embed([text])[0], texts))
    assert np.array_equal(np.stack(rows), expected)


def test_no_text_is_an_empty_matrix(minilm: MiniLM) -> None:
    assert minilm.embed([]).shape == (0, 384)


def test_text_beyond_256_word_pieces_has_no_influence(minilm: MiniLM) -> None:
    base = "node " * 254  # with the two marks: 256
    same, longer, shorter = minilm.embed([base, base + "zebra " * 1000, "node " * 253 + "zebra"])
    assert np.array_equal(same, longer)
    assert not np.array_equal(same, shorter)


def test_counted_tokens_are_not_truncated(minilm: MiniLM) -> None:
    assert minilm.count_tokens("") == 0
    assert minilm.count_tokens("hello world") == 2
    assert minilm.count_tokens("hello world " * 500) == 1000


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(), max_size=200))
def test_any_string_has_a_unit_vector(minilm: MiniLM, text: str) -> None:
    vector = minilm.embed([text])[0]
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_a_lone_surrogate_is_no_crash(minilm: MiniLM) -> None:
    assert np.isfinite(minilm.embed(["\ud800"])).all()
    assert minilm.count_tokens("\ud800") == 1


def test_a_missing_model_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EmbedderError, match=r"model\.onnx is missing: reinstall"):
        MiniLM.load(tmp_path)


def test_a_broken_model_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    (tmp_path / "tokenizer.json").write_bytes((MODEL_FOLDER / "tokenizer.json").read_bytes())
    with pytest.raises(EmbedderError, match="Reinstall"):
        MiniLM.load(tmp_path)


def test_importing_the_room_loads_no_engine() -> None:
    code = (
        "import sys, atmosphere.embedding;"
        "sys.exit(str([m for m in ('trio', 'libp2p', 'onnxruntime', 'tokenizers', 'torch') if m in sys.modules] or ''))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.strip() == ""


def test_the_whole_process_stays_small() -> None:
    """Interpreter, numpy, engine and model, after the longest text: at most 110 MB (measured 96)."""
    code = (
        "from atmosphere.embedding import MiniLM; m = MiniLM.load(); m.embed(['word ' * 300] * 3);"
        "print([l.split()[1] for l in open('/proc/self/status') if l.startswith('VmRSS')][0])"
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) / 1024 <= 110
