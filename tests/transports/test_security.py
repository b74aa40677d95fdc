"""Who proves no identity gets no connection, whoever dials: no plaintext, no secio, no other peer than the one meant.

The other side is the bare library, which speaks them all. With Noise alone it gets its connection in the same way:
so a refusal here is about the protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import Ed25519PrivateKey, create_new_key_pair
from libp2p.crypto.keys import KeyPair, PublicKey
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as LibraryNoise
from libp2p.security.secio import transport as secio
from libp2p.security.tls.transport import PROTOCOL_ID as TLS
from multiaddr import Multiaddr

from tests.transports.support import eventually, hosts, seed
from transports.errors import PeerUnreachable
from transports.host import Host
from transports.libp2p.tls import make_tls
from transports.peer_id import PeerId

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

PROTOCOLS: dict[str, tuple[str, Callable[[KeyPair], Any], bool]] = {
    "plaintext": (PLAINTEXT_PROTOCOL_ID, InsecureTransport, False),
    "secio": (secio.ID, secio.Transport, False),
    "noise": (NOISE, lambda pair: LibraryNoise(pair, create_noise_key_pair().private_key), True),
    "tls": (TLS, make_tls, True),
}
each = pytest.mark.parametrize("name", PROTOCOLS)


def bare(name: str, key_pair: KeyPair | None = None) -> tuple[Any, PeerId, bool]:
    """A library host that offers *name* alone, its id, and whether it should get a connection."""
    protocol, make, accepted = PROTOCOLS[name]
    key_pair = key_pair or create_new_key_pair(seed(99))
    host = new_host(key_pair=key_pair, sec_opt={protocol: make(key_pair)})  # type: ignore[dict-item]
    return host, PeerId(host.get_id().to_bytes()), accepted


async def dial(other: Any, host: Host) -> bool:
    """Whether *other* gets a connection to *host*, in the eyes of *host*."""
    address = Multiaddr(host.addresses[0].rpartition("/p2p/")[0])
    try:
        with trio.fail_after(5):
            await other.connect(PeerInfo(ID(host.peer_id.raw), [address]))
        await eventually(host.connections, 1)
    except Exception:  # the library raises what the failed layer raises
        await trio.sleep(0.1)
    return bool(host.connections())


@each
async def test_a_peer_that_dials_us(name: str) -> None:
    async with hosts(1) as (host,):
        other, peer, accepted = bare(name)
        async with other.run([]):
            assert await dial(other, host) is accepted
            assert set(host.connections()) == ({peer} if accepted else set())
            assert accepted or host.statistics().refused["failed handshake"] >= 1


@each
async def test_a_peer_that_we_dial(name: str) -> None:
    async with hosts(1) as (host,):
        other, peer, accepted = bare(name)
        async with other.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
            addresses = [str(address).partition("/p2p/")[0] for address in other.get_addrs()]
            if accepted:
                await host.connect(peer, addresses)
            else:
                with pytest.raises(PeerUnreachable):
                    await host.connect(peer, addresses)
            assert set(host.connections()) == ({peer} if accepted else set())


@pytest.mark.parametrize("name", ["noise", "tls"])
async def test_another_peer_than_the_one_we_dial(name: str) -> None:
    async with hosts(1) as (host,):
        other, _, _ = bare(name)
        meant = PeerId(ID.from_pubkey(create_new_key_pair(seed(98)).public_key).to_bytes())
        async with other.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
            address = str(other.get_addrs()[0]).partition("/p2p/")[0]
            with pytest.raises(PeerUnreachable):
                await host.connect(meant, [address])
            assert host.connections() == {}
            await eventually(lambda: not other.get_network().connections)


class Impostor(Ed25519PrivateKey):
    """Signs with one key and says it has another's."""

    claimed: PublicKey

    def get_public_key(self) -> PublicKey:
        return self.claimed


def impostor() -> tuple[KeyPair, PeerId]:
    own, victim = create_new_key_pair(seed(97)), create_new_key_pair(seed(96))
    assert isinstance(own.private_key, Ed25519PrivateKey)
    key = Impostor(own.private_key.impl)
    key.claimed = victim.public_key
    return KeyPair(key, victim.public_key), PeerId(ID.from_pubkey(victim.public_key).to_bytes())


async def test_a_peer_that_claims_to_be_another_when_it_dials_us() -> None:
    async with hosts(1) as (host,):
        key_pair, victim = impostor()
        host.admit(victim)
        other, peer, _ = bare("noise", key_pair)
        assert peer == victim
        async with other.run([]):
            assert not await dial(other, host)
            assert host.statistics().refused["failed handshake"] >= 1


async def test_a_peer_that_claims_to_be_the_one_we_dial() -> None:
    async with hosts(1) as (host,):
        key_pair, victim = impostor()
        other, _, _ = bare("noise", key_pair)
        async with other.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
            address = str(other.get_addrs()[0]).partition("/p2p/")[0]
            with pytest.raises(PeerUnreachable, match="InvalidSignature"):
                await host.connect(victim, [address])
            assert host.connections() == {}
