"""``revoke``: what is asked, what is sent, what is refused before anything is sent."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner, Result

from atmosphere.cli import main
from atmosphere.cli.home import Home
from tests.cli.conftest import ME, OTHER, FakeNode, Invoke

ROUTE = "/v1/admin/revoke"
SERIAL = "ab" * 16


@pytest.fixture(autouse=True)
def route(node: FakeNode) -> None:
    node.answer("POST", ROUTE, {"revoked": "done"})


def sent(node: FakeNode) -> list[object]:
    return [body for method, path, body in node.requests if (method, path) == ("POST", ROUTE)]


@pytest.mark.parametrize(("words", "body"), [
    ((OTHER,), {"peer": OTHER}),
    (("server",), {"peer": OTHER}),
    ((OTHER[-8:], "--reason", "stolen on a train"), {"peer": OTHER, "reason": "stolen on a train"}),
    ((OTHER, "--issuer"), {"issuer": OTHER}),
    (("--membership", SERIAL.upper()), {"membership": SERIAL}),
])
def test_what_is_named_is_revoked(node: FakeNode, running: Invoke, words: tuple[str, ...], body: object) -> None:
    result = running("revoke", *words, "--yes")
    assert result.exit_code == 0, result.output
    assert sent(node) == [body]
    assert "revoked" in result.stdout


@pytest.mark.parametrize("words", [
    (), (OTHER, "--membership", SERIAL), ("--membership", SERIAL, "--issuer"), ("--membership", "abc"),
    (OTHER, "--reason", "x" * 65), (OTHER, "--reason", "two\nlines"),
])
def test_what_names_no_one_thing_is_a_usage_error(node: FakeNode, running: Invoke, words: tuple[str, ...]) -> None:
    assert running("revoke", *words, "--yes").exit_code == 2
    assert sent(node) == []


def ask(home: Path, node: FakeNode, answer: str, *words: str) -> Result:
    return CliRunner().invoke(main, ["revoke", *words], input=answer,
                              obj=Home(home, httpx2.MockTransport(node.handle)))


def test_it_asks_first_and_shows_who_it_is(home: Path, node: FakeNode) -> None:
    no = ask(home, node, "n\n", "server")
    assert no.exit_code == 1
    assert sent(node) == []
    for words in ("server", OTHER, "Home", "for good"):
        assert words in no.output
    assert ask(home, node, "y\n", "server").exit_code == 0
    assert sent(node) == [{"peer": OTHER}]


def test_to_revoke_oneself_is_pointed_out(home: Path, node: FakeNode) -> None:
    assert "this node itself" in ask(home, node, "n\n", ME).output
    assert "this node itself" not in ask(home, node, "n\n", OTHER).output


def test_an_issuer_that_is_revoked_as_a_node_only_is_pointed_out(node: FakeNode, running: Invoke) -> None:
    assert "--issuer" not in running("revoke", OTHER, "--yes").output
    node.answer("GET", "/v1/admin/issuers", {"issuers": [{"peer_id": OTHER}]})
    assert "--issuer" in running("revoke", OTHER, "--yes").stderr
    assert "--issuer" not in running("revoke", OTHER, "--issuer", "--yes").output


def test_a_node_that_may_not_says_why(node: FakeNode, running: Invoke) -> None:
    node.routes["POST", ROUTE] = lambda _: httpx2.Response(
        403, json={"error": {"message": "the revoker's scopes do not cover 'revoke'", "code": "forbidden"}})
    result = running("revoke", OTHER, "--yes")
    assert result.exit_code == 1
    assert "'revoke'" in result.stderr


def test_without_a_node_it_says_how_to_start_one(cli: Invoke) -> None:
    cli("init")
    result = cli("revoke", OTHER, "--yes")
    assert result.exit_code == 1
    assert "atmosphere-p2p run" in result.stderr
