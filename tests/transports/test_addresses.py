"""Multiaddrs: what is read, what is refused and why, and which network an address belongs to."""

import pytest

from transports.addresses import classify, parse, split_peer
from transports.errors import AddressError
from transports.peer_id import PeerId

PEER = PeerId.from_public_key(bytes(32))


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/127.0.0.1/tcp/4001",
        "/ip6/::1/tcp/0",
        "/ip4/10.0.0.1/tcp/443/ws",
        f"/dns4/node.example/tcp/4001/ws/p2p/{PEER}",
        f"/ip4/1.2.3.4/tcp/65535/p2p/{PEER}",
    ],
)
def test_a_good_address_comes_back_as_it_was(text: str) -> None:
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a multiaddr"),
        ("127.0.0.1:4001", "not a multiaddr"),
        ("/ip4/127.0.0.1", "not a multiaddr"),
        ("/ip4/300.0.0.1/tcp/1", "Octet 300"),
        ("/ip6/1.2.3.4/tcp/1", "At least 3 parts"),
        ("/ip4/1.2.3.4/udp/1/quic-v1", "uses /udp"),
        ("/ip4/1.2.3.4/tcp/70000", "not a TCP port"),
        ("/ip4/1.2.3.4/tcp/١", "not a TCP port"),
        ("/ip4/1.2.3.4/tcp/1/wss", "does not understand /wss"),
        ("/ip4/1.2.3.4/tcp/1/p2p/xyz", "not a peer id"),
        (f"/ip4/1.2.3.4/tcp/1/p2p/{PEER}/p2p-circuit", "p2p-circuit"),
        ("/unix/socket/x/y/z", "begins with /unix"),
        ("/ip4/" + "1" * 600, "too long"),
    ],
)
def test_a_bad_address_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(AddressError, match=reason):
        parse(text)


def test_splitting_needs_a_peer_id() -> None:
    assert split_peer(f"/ip4/1.2.3.4/tcp/1/p2p/{PEER}") == (PEER, "/ip4/1.2.3.4/tcp/1")
    with pytest.raises(AddressError, match="add /p2p/"):
        split_peer("/ip4/1.2.3.4/tcp/1")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/ip4/127.0.0.1/tcp/1", "lan"),
        ("/ip4/192.168.7.7/tcp/1", "lan"),
        ("/ip4/169.254.1.1/tcp/1", "lan"),
        ("/ip6/fe80::1/tcp/1", "lan"),
        ("/ip6/::ffff:10.0.0.1/tcp/1", "lan"),
        ("/ip4/8.8.8.8/tcp/1", "direct"),
        ("/ip6/2606:4700::1/tcp/1", "direct"),
        ("/dns4/node.example/tcp/1", "direct"),
        (f"/ip4/10.0.0.1/tcp/1/p2p/{PEER}/p2p-circuit", "relay"),
    ],
)
def test_the_path_of_an_address(text: str, path: str) -> None:
    assert classify(text) == path
