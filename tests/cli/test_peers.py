"""Who is meant: peer ids, their ends, names; and what a node that lies about its name can do to others."""

from __future__ import annotations

import pytest

from atmosphere.cli.home import Failure
from atmosphere.cli.peers import Named, find
from tests.cli.conftest import ME, OTHER

KNOWN = [Named(ME, "laptop"), Named(OTHER, "server")]


@pytest.mark.parametrize("text", [OTHER, "server", OTHER[-8:], "…" + OTHER[-8:]])
def test_a_node_is_found_by_what_lists_show(text: str) -> None:
    assert find(text, KNOWN, "status") == Named(OTHER, "server")


def test_a_peer_id_needs_not_be_known() -> None:
    assert find(OTHER, [], "status") == Named(OTHER)


@pytest.mark.parametrize("text", ["nobody", OTHER[-5:], OTHER[:-1], ""])
def test_what_names_nobody_says_where_to_look(text: str) -> None:
    with pytest.raises(Failure, match="join requests"):
        find(text, KNOWN, "join requests")


@pytest.mark.parametrize("name", ["server", OTHER[-8:]])
def test_a_name_that_two_nodes_use_is_nobodys(name: str) -> None:
    with pytest.raises(Failure, match="whole peer id"):
        find(name, [Named(ME, name), Named(OTHER, "server")], "status")


def test_a_name_cannot_write_a_line_of_the_question() -> None:
    text = str(Named(OTHER, "x\nRevoke node server\x1b[2J"))
    assert "\n" not in text
    assert "\x1b" not in text


def test_a_node_that_takes_anothers_id_as_its_name_is_not_meant_by_it() -> None:
    assert find(OTHER, [Named(ME, OTHER), Named(OTHER, "server")], "status") == Named(OTHER, "server")
