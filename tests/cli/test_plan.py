"""``plan run``, ``show``, ``list``, ``cancel`` and ``delete`` against a node's answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner, Result

from atmosphere.cli.home import Home
from atmosphere.cli.plan import plan
from tests.cli.conftest import FakeNode

ENTRY = {"id": "ab12", "name": "two", "state": "ok", "reason": "", "units": 2, "created_at": 1_800_000_000.0,
         "ended_at": 1_800_000_001.0}
CHAT = {"choices": [{"message": {"role": "assistant", "content": "All \x1b[2Jis well."}}]}


def record(name: str, began: float | None, took: float, **more: Any) -> dict[str, Any]:
    return {"id": name, "state": "ok", "node": "server", "began_ms": began, "ms": took if began is not None else None,
            "attempts": 0, "error": None, **more}


VIEW: dict[str, Any] = {**ENTRY, "version": 3, "counts": {"ok": 2}, "results": {"b": CHAT},
                        "records": [record("a", 0.0, 500.0), record("b", 500.0, 500.0)]}


@pytest.fixture
def node() -> FakeNode:
    fake = FakeNode()
    fake.answer("GET", "/v1/health", {"status": "ok"})
    fake.answer("POST", "/v1/plans", {"id": "ab12", "state": "running", "units": 2}, status=202)
    fake.answer("GET", "/v1/plans/ab12", VIEW)
    fake.answer("GET", "/v1/plans", {"plans": [ENTRY]})
    fake.answer("DELETE", "/v1/plans/ab12", {**ENTRY, "state": "cancelled"})
    return fake


def run(node: FakeNode, tmp_path: Path, *words: str, stdin: str | None = None) -> Result:
    home = Home(tmp_path / "home", httpx2.MockTransport(node.handle))
    return CliRunner().invoke(plan, list(words), obj=home, input=stdin)


def test_run_shows_the_timeline_and_the_answer(node: FakeNode, tmp_path: Path) -> None:
    document = {"units": [{"id": "a", "tool": "x"}]}
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(document))
    for words, stdin in ((("run", str(file)), None), (("run", "-"), json.dumps(document))):
        result = run(node, tmp_path, *words, stdin=stdin)
        assert result.exit_code == 0, result.output
        assert ("POST", "/v1/plans", document) in node.requests
        lines = result.stdout.splitlines()
        first, second = (next(line for line in lines if line.lstrip().startswith(name)) for name in "ab")
        assert first.rstrip().endswith("█" * 20)
        assert first.index("█") + 20 == second.index("█")
        assert "plan ab12 is ok: 2 ok; 1000 ms, units together 1000 ms" in result.stdout
        assert result.stdout.rstrip().endswith("b:\nAll �[2Jis well.")
    assert any("wait_ms" in query for query in node.queries)


def test_run_waits_until_it_is_over(node: FakeNode, tmp_path: Path) -> None:
    views = iter([{**VIEW, "state": "running", "version": 1}, {**VIEW, "state": "running", "version": 2}, VIEW, VIEW])
    node.routes["GET", "/v1/plans/ab12"] = lambda _: httpx2.Response(200, json=next(views))
    assert run(node, tmp_path, "run", "-", stdin="{}").exit_code == 0
    asked = [query for query in node.queries if "version" in query]
    assert [query.rpartition("=")[2] for query in asked] == ["0", "1", "2"]


def test_run_without_waiting(node: FakeNode, tmp_path: Path) -> None:
    assert run(node, tmp_path, "run", "-", "--no-wait", stdin="{}").stdout == "ab12\n"
    assert json.loads(run(node, tmp_path, "run", "-", "--no-wait", "--json", stdin="{}").stdout) == {"id": "ab12"}


def test_a_plan_that_fails_is_a_failure_with_reasons(node: FakeNode, tmp_path: Path) -> None:
    failed = record("a", 0.0, 5.0, state="failed", error={"code": "not_found", "message": "unit 'a': nobody can"})
    skipped = record("b", None, 0.0, state="skipped", node="",
                     error={"code": "skipped", "message": "unit 'b': not started"})
    view = {**VIEW, "state": "failed", "counts": {"failed": 1, "skipped": 1}, "records": [failed, skipped],
            "results": {"b": None}}
    node.answer("GET", "/v1/plans/ab12", view)
    result = run(node, tmp_path, "run", "-", stdin="{}")
    assert result.exit_code == 1
    assert "unit 'a': nobody can" in result.stderr
    assert "not started" not in result.stderr
    assert "not every unit succeeded" in result.stderr


def test_the_nodes_words_about_a_wrong_plan(node: FakeNode, tmp_path: Path) -> None:
    node.answer("POST", "/v1/plans", {"error": {"message": "unit 'a': 'tool' is missing", "code": "x"}}, status=400)
    result = run(node, tmp_path, "run", "-", stdin='{"units": []}')
    assert result.exit_code == 1
    assert "unit 'a': 'tool' is missing" in result.stderr


@pytest.mark.parametrize(("content", "words"), [("{", "is not JSON"), (None, "cannot be read")])
def test_a_file_that_is_no_plan(node: FakeNode, tmp_path: Path, content: str | None, words: str) -> None:
    file = tmp_path / "plan.json"
    if content is not None:
        file.write_text(content)
    result = run(node, tmp_path, "run", str(file))
    assert result.exit_code == 1
    assert words in result.stderr
    assert not node.requests or node.requests[-1][1] != "/v1/plans"


def test_show_list_cancel_delete(node: FakeNode, tmp_path: Path) -> None:
    assert "plan ab12 is ok" in run(node, tmp_path, "show", "ab12").stdout
    assert json.loads(run(node, tmp_path, "show", "ab12", "--json").stdout) == VIEW
    node.answer("GET", "/v1/plans/ab12/units/e[1]", {"id": "e[1]", "result": 1})
    assert json.loads(run(node, tmp_path, "show", "ab12", "--unit", "e[1]").stdout)["result"] == 1
    assert "ab12" in run(node, tmp_path, "list").stdout
    assert json.loads(run(node, tmp_path, "list", "--json").stdout) == {"plans": [ENTRY]}
    assert run(node, tmp_path, "cancel", "ab12").stdout == "plan ab12 is cancelled\n"
    assert run(node, tmp_path, "delete", "ab12").stdout == "plan ab12 is removed\n"
    assert node.queries[-1] == "forget=yes"
    node.answer("GET", "/v1/plans", {"plans": []})
    assert "plan run FILE" in run(node, tmp_path, "list").stdout
