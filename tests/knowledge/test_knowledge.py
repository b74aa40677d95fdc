"""Indexing is incremental, survives a restart, and forgets what is gone."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from atmosphere.embedding import HashEmbedder, Vectors
from atmosphere.env import FixedEnv
from atmosphere.knowledge import Knowledge, KnowledgeError, Skipped, knowledge, list_folders
from atmosphere.store import Store

T = TypeVar("T")


class CountingEmbedder(HashEmbedder):
    """Remembers what it was asked to embed."""

    def __init__(self, dimensions: int = 64) -> None:
        super().__init__(dimensions)
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.texts += texts
        return super().embed(texts)


@pytest.fixture
def embedder() -> CountingEmbedder:
    return CountingEmbedder()


@pytest.fixture
def store() -> Store:
    return Store.memory(FixedEnv())


@pytest.fixture
def known(store: Store, embedder: CountingEmbedder) -> Knowledge:
    return Knowledge(store, embedder, FixedEnv())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "handbook"
    (root / "sub").mkdir(parents=True)
    text = "# Heating\n\nThe pump is in the cellar.\n\n## Fuses\n\nFuse seven is for the pump.\n"
    (root / "heating.md").write_text(text)
    (root / "sub" / "garden.txt").write_text("Roses are pruned in late winter.\n")
    (root / "photo.png").write_bytes(b"\x89PNG")
    return root


def test_a_folder_is_indexed_and_found(known: Knowledge, folder: Path) -> None:
    report = known.add(folder)
    assert (report.added, report.updated, report.unchanged, report.removed, report.passages) == (2, 0, 0, 0, 3)
    assert report.skipped == (Skipped("photo.png", "neither text, Markdown nor PDF by its name"),)
    best = known.search("which fuse is for the pump", 1)[0].entry
    assert (best.folder, best.source, best.locator) == ("handbook", "handbook/heating.md", "heating.md#Fuses")
    assert best.text == "Fuse seven is for the pump."


def test_a_passage_is_embedded_with_its_document_and_headings(
    known: Knowledge, folder: Path, embedder: CountingEmbedder
) -> None:
    known.add(folder)
    assert "heating > Heating > Fuses\nFuse seven is for the pump." in embedder.texts


def test_only_what_changed_is_embedded_again(known: Knowledge, folder: Path, embedder: CountingEmbedder) -> None:
    known.add(folder)
    embedder.texts.clear()
    assert known.add(folder).unchanged == 2
    assert embedder.texts == []
    (folder / "sub" / "garden.txt").write_text("Roses are pruned in spring.\n")
    (folder / "new.md").write_text("Something new.")
    report = known.add(folder)
    assert (report.added, report.updated, report.unchanged, report.removed) == (1, 1, 1, 0)
    assert len(embedder.texts) == 2
    assert "late winter" not in str(known.snapshot().entries)


def test_removed_and_no_longer_readable_files_vanish(known: Knowledge, folder: Path) -> None:
    known.add(folder)
    (folder / "heating.md").unlink()
    (folder / "sub" / "garden.txt").write_bytes(b"\0\0")
    report = known.refresh()[0]
    assert (report.removed, report.passages) == (2, 0)
    assert report.skipped[-1] == Skipped("sub/garden.txt", "binary")
    assert len(known.snapshot()) == 0
    assert known.list() == []


def test_a_missing_folder_keeps_its_passages(known: Knowledge, folder: Path) -> None:
    """A disk that is not mounted must not cost the index."""
    known.add(folder)
    folder.rename(folder.with_name("elsewhere"))
    assert known.refresh() == []
    assert [(info.missing, info.passages) for info in known.list()] == [(True, 3)]
    with pytest.raises(KnowledgeError, match="is not there"):
        known.add(folder)


def test_it_survives_a_restart(tmp_path: Path, folder: Path) -> None:
    store = Store(tmp_path / "node.db", FixedEnv())
    Knowledge(store, HashEmbedder(), FixedEnv()).add(folder)
    store.close()
    store = Store(tmp_path / "node.db", FixedEnv())
    after = Knowledge(store, HashEmbedder(), FixedEnv())
    assert after.search("roses winter", 1)[0].entry.source == "handbook/sub/garden.txt"
    assert [(info.name, info.files, info.passages) for info in list_folders(store)] == [("handbook", 2, 3)]
    store.close()


def test_another_embedder_means_other_vectors(store: Store, known: Knowledge, folder: Path) -> None:
    """Spaces are never mixed: nothing is found until the folder is embedded in the new one."""
    known.add(folder)
    other = Knowledge(store, HashEmbedder(32), FixedEnv())
    assert len(other.snapshot()) == 0
    assert other.refresh()[0].updated == 2
    assert len(other.snapshot()) == 3


def test_a_single_file_may_be_indexed(known: Knowledge, tmp_path: Path) -> None:
    (tmp_path / "notes.log").write_text("The code of the door is not written here.")
    assert known.add(tmp_path / "notes.log").added == 1
    assert known.search("door code")[0].entry.source == "notes.log"


def test_part_of_an_indexed_folder_is_refused_and_a_parent_takes_over(
    known: Knowledge, folder: Path, embedder: CountingEmbedder
) -> None:
    known.add(folder / "sub")
    report = known.add(folder)
    assert (report.added, report.unchanged) == (1, 1)
    assert [info.path for info in known.list()] == [str(folder)]
    assert sum("Roses" in text for text in embedder.texts) == 1
    with pytest.raises(KnowledgeError, match=f"is part of {folder} already"):
        known.add(folder / "sub")


def test_a_removed_folder_is_forgotten(known: Knowledge, folder: Path, store: Store) -> None:
    known.add(folder)
    assert known.remove(folder) == 2
    assert len(known.snapshot()) == 0
    assert store.read_now(lambda c: c.execute("SELECT COUNT(*) FROM passages").fetchone()) == (0,)
    with pytest.raises(KnowledgeError, match="not an indexed folder"):
        known.remove(folder)


def test_the_index_is_bounded(known: Knowledge, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knowledge, "MAX_PASSAGES", 2)
    report = known.add(folder)
    assert report.passages == 2
    assert report.skipped[-1].path == "sub/garden.txt"
    assert "index is full (2 passages" in report.skipped[-1].reason


def test_the_report_is_bounded(known: Knowledge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knowledge, "MAX_REPORTED_SKIPS", 3)
    for i in range(5):
        (tmp_path / f"{i}.bin").touch()
    report = known.add(tmp_path)
    assert (len(report.skipped), report.skipped_count) == (3, 5)


def test_a_path_that_is_no_text_is_refused(known: Knowledge, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9")
    path.mkdir()
    with pytest.raises(KnowledgeError, match="not valid UTF-8"):
        known.add(path)


def test_a_search_keeps_the_snapshot_that_it_began_with(known: Knowledge, folder: Path) -> None:
    known.add(folder)
    before = known.snapshot()
    (folder / "new.md").write_text("Something new.")
    known.add(folder)
    assert (len(before), len(known.snapshot())) == (3, 4)


class CancellingEnv(FixedEnv):
    """Cancels *scope* while the work number *at* runs."""

    def __init__(self, at: int, scope: trio.CancelScope) -> None:
        super().__init__()
        self.left = at
        self.scope = scope

    async def run_blocking(self, function: Callable[[], T]) -> T:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()
        await trio.lowlevel.checkpoint()
        return function()


async def test_a_cancelled_indexing_keeps_what_is_done(store: Store, folder: Path) -> None:
    with trio.CancelScope() as scope:
        # begin; embed the first file; store it; embed the second file, and cancelled before it is stored
        await Knowledge(store, HashEmbedder(), CancellingEnv(4, scope)).index(folder)
    assert scope.cancelled_caught
    assert [(info.files, info.passages) for info in list_folders(store)] == [(1, 2)]
    report = await Knowledge(store, HashEmbedder(), FixedEnv()).index(folder)
    assert (report.added, report.unchanged, report.passages) == (1, 1, 3)


def test_the_real_model_finds_by_meaning(store: Store, folder: Path) -> None:
    """No shared word is needed."""
    from atmosphere.embedding import MiniLM

    known = Knowledge(store, MiniLM.load(), FixedEnv())
    known.add(folder)
    assert known.search("When should I cut back my flowers?")[0].entry.source == "handbook/sub/garden.txt"
    assert known.search("Where do I find the device that warms the house?")[0].entry.source == "handbook/heating.md"
