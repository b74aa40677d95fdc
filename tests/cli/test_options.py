"""Parameter types: what is accepted, and what is said about the rest."""

from __future__ import annotations

import click
import pytest

from atmosphere.cli.backend import backend_url
from atmosphere.cli.options import duration, json_object, scopes
from atmosphere.cli.ports import split_host_port
from atmosphere.cli.run import host_port, multiaddr, peer_multiaddr

PEER = "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X"


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1h", 3600), ("7d", 604_800),
                                               ("1h30m", 5400), ("0.5h", 1800)])
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "1y", "-1h", "1h 30", "0s"])
def test_wrong_durations_show_how_to_write_one(text: str) -> None:
    with pytest.raises(click.BadParameter, match="1h30m"):
        duration(text)


@pytest.mark.parametrize(("text", "words"), [("{", "not JSON"), ("[1]", "expected an object")])
def test_json_arguments_must_be_an_object(text: str, words: str) -> None:
    with pytest.raises(click.BadParameter, match=words):
        json_object(text)


@pytest.mark.parametrize("text", ["127.0.0.1", "ftp://host/", "http://", "/v1"])
def test_backend_urls_must_be_http(text: str) -> None:
    with pytest.raises(click.BadParameter, match="base URL like"):
        backend_url(text)


def test_a_key_in_a_backend_url_is_refused() -> None:
    with pytest.raises(click.BadParameter, match="--key-env"):
        backend_url("http://user:key@host/v1")


@pytest.mark.parametrize(("text", "expected"), [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:8080", ("::1", 8080))])
def test_host_and_port(text: str, expected: tuple[str, int]) -> None:
    assert split_host_port(text) == expected


@pytest.mark.parametrize("text", ["80", "host:", ":80", "host:99999", "host:x"])
def test_wrong_host_and_port(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        split_host_port(text)


def test_http_may_be_any_interface_the_node_decides() -> None:
    assert host_port("0.0.0.0:11451") == "0.0.0.0:11451"
    with pytest.raises(click.BadParameter, match="HOST:PORT"):
        host_port("0.0.0.0")


@pytest.mark.parametrize(("text", "expected"), [("call:*,serve", ("call:*", "serve")), ("call:llm/*", ("call:llm/*",)),
                                                ("call, serve", ("call", "serve"))])
def test_scopes(text: str, expected: tuple[str, ...]) -> None:
    assert scopes(text) == expected


@pytest.mark.parametrize("text", ["", ",", "Call", "call:", ",".join(["call"] * 17)])
def test_wrong_scopes(text: str) -> None:
    with pytest.raises(click.BadParameter, match="scope"):
        scopes(text)


def test_a_bootstrap_address_must_say_whose_it_is() -> None:
    assert peer_multiaddr(f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}").endswith(PEER)
    with pytest.raises(click.BadParameter, match="/p2p/"):
        peer_multiaddr("/ip4/127.0.0.1/tcp/1")


def test_listen_addresses_are_checked() -> None:
    assert multiaddr("/ip4/0.0.0.0/tcp/4001") == "/ip4/0.0.0.0/tcp/4001"
    with pytest.raises(click.BadParameter, match="udp"):
        multiaddr("/ip4/0.0.0.0/udp/4001/quic-v1")
