"""The extra: what is asked of it, and what an owner reads when a part is missing.

torch is no part of the tests, so a twin stands in for sentence-transformers 6.2: the calls that we make, with the
answers and errors that the real one gave for all-mpnet-base-v2.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from atmosphere.config import Config
from atmosphere.embedding import EmbedderError, MiniLM, SentenceTransformerEmbedder, load_embedder
from atmosphere.node import open_node
from tests.meshes import Meshes


class Twin:
    max_seq_length = 384

    def __init__(self, folder: str, *, local_files_only: bool) -> None:
        assert local_files_only, "a name would be downloaded"
        if not Path(folder, "modules.json").exists():
            raise ValueError(f"Unrecognized model in {folder}. Should have a `model_type` key in its config.json.")

    def get_embedding_dimension(self) -> int:
        return 768

    def encode(self, text: str, *, normalize_embeddings: bool, show_progress_bar: bool) -> Any:
        assert normalize_embeddings
        assert not show_progress_bar
        vector = np.zeros(768, np.float32)
        vector[len(text.encode()) % 768] = 1
        return vector

    def tokenizer(self, text: str, **options: bool) -> dict[str, list[int]]:
        assert options == {"add_special_tokens": False, "truncation": False, "verbose": False}
        return {"input_ids": [1 for _ in text.encode().split()]}


@pytest.fixture
def extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is installed."""
    quiet = SimpleNamespace(utils=SimpleNamespace(logging=SimpleNamespace(disable_progress_bar=lambda: None)))
    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=Twin))
    monkeypatch.setitem(sys.modules, "transformers", quiet)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(set_num_threads=lambda count: None))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "All-MPNet-base-v2"
    folder.mkdir()
    (folder / "modules.json").write_text("[]")
    return folder


def test_without_a_folder_it_is_the_one_in_the_wheel() -> None:
    assert isinstance(load_embedder(), MiniLM)


@pytest.mark.skipif(importlib.util.find_spec("sentence_transformers") is not None, reason="the extra is installed")
def test_without_the_extra_the_error_names_it(model: Path) -> None:
    with pytest.raises(EmbedderError, match=r"pip install 'atmosphere-p2p\[sentence-transformers\]'"):
        load_embedder(str(model))


def test_a_name_is_not_downloaded() -> None:
    with pytest.raises(EmbedderError, match=r"no folder all-mpnet-base-v2: .* nobody downloads"):
        load_embedder("all-mpnet-base-v2")


def test_a_folder_without_a_model(extra: None, tmp_path: Path) -> None:
    with pytest.raises(EmbedderError, match=r"cannot load .*Unrecognized model"):
        load_embedder(str(tmp_path))


def test_its_space_is_the_folders(extra: None, model: Path) -> None:
    embedder = load_embedder(str(model))
    assert isinstance(embedder, SentenceTransformerEmbedder)
    assert (embedder.space.name, embedder.max_tokens) == ("all-mpnet-base-v2:768", 384)
    assert embedder.embed([]).shape == (0, 768)
    assert embedder.embed(["a", "\ud800"]).argmax(axis=1).tolist() == [1, 1], "a lone surrogate is one question mark"
    assert embedder.count_tokens("two words \ud800") == 3


async def test_a_node_uses_what_its_config_names(extra: None, model: Path, tmp_path: Path) -> None:
    home = Meshes(tmp_path).found()
    config = Config(listen=("/ip4/127.0.0.1/tcp/0",), mdns=False, probe=False, embedder=str(model))
    async with open_node(home, config) as node:
        assert node.embedder.space.model == "all-mpnet-base-v2"
        assert "all-mpnet-base-v2" in [card.model for card in node.table.cards.values()]
