"""``knowledge``: into the files without a node, to the node with one."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import FakeNode, Invoke

REPORT = {"path": "/documents", "added": 2, "updated": 0, "unchanged": 1, "removed": 0, "passages": 9,
          "skipped": [{"path": "photo.jpg", "reason": "neither text, Markdown nor PDF by its name"}],
          "skipped_count": 3}


def test_a_folder_is_indexed_into_the_files_and_listed(tmp_path: Path, cli: Invoke) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "note.md").write_text("# Lock\n\nThe key of the shed hangs behind the clock.\n")
    added = cli("knowledge", "add", str(folder), "--json")
    assert added.exit_code == 0, added.output
    assert json.loads(added.stdout)["added"] == 1
    (listed,) = json.loads(cli("knowledge", "list", "--json").stdout)["folders"]
    assert (listed["path"], listed["files"]) == (str(folder), 1)
    assert str(folder) in cli("knowledge", "list").stdout


def test_nothing_indexed_says_how(cli: Invoke) -> None:
    assert "knowledge add PATH" in cli("knowledge", "list").stdout
    assert json.loads(cli("knowledge", "list", "--json").stdout) == {"folders": []}


def test_what_cannot_be_indexed_is_a_failure(tmp_path: Path, cli: Invoke) -> None:
    folder = tmp_path / "documents"
    (folder / "inner").mkdir(parents=True)
    (folder / "note.txt").write_text("one two three")
    (folder / "inner" / "note.txt").write_text("four five six")
    assert cli("knowledge", "add", str(folder)).exit_code == 0
    result = cli("knowledge", "add", str(folder / "inner"))
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert str(folder) in result.stderr


def test_a_path_that_is_not_there_is_a_usage_error(cli: Invoke) -> None:
    assert cli("knowledge", "add", "/no/such/folder").exit_code == 2


def test_a_running_node_indexes_and_what_it_left_out_is_said(
    tmp_path: Path, node: FakeNode, running: Invoke
) -> None:
    node.answer("POST", "/v1/admin/knowledge", REPORT)
    result = running("knowledge", "add", str(tmp_path))
    assert node.requests == [("POST", "/v1/admin/knowledge", {"path": str(tmp_path.resolve())})]
    assert "9 passages" in result.stdout
    assert "photo.jpg" in result.stderr
    assert "2 more" in result.stderr
