"""A host: streams, connections and their events, containment, and who gets no connection."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from cryptography.x509 import load_pem_x509_certificate
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.identity.identify.identify import parse_identify_response
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.security.tls.certificate import LIBP2P_EXTENSION_OID
from libp2p.security.tls.transport import PROTOCOL_ID as TLS
from libp2p.security.tls.transport import TLSTransport
from multiaddr import Multiaddr

from tests.transports.support import CONFIG, connect, echo, eventually, hosts, seed
from transports.errors import AddressError, ListenError, PeerUnreachable
from transports.host import IDENTIFY, Host, open_host
from transports.libp2p.tls import make_tls
from transports.peer_id import PeerId
from transports.ping import PING
from transports.stream import Stream, StreamClosed

WS = replace(CONFIG, listen=("/ip4/127.0.0.1/tcp/0/ws",))


async def exchange(client: Host, server: Host, data: bytes) -> bytes:
    """Send *data*, close, and read the answer to its end."""
    stream = await client.open_stream(server.peer_id, "/echo")
    answer = b""
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            await stream.write(data)
            await stream.close()

        nursery.start_soon(send)
        while part := await stream.read(65536):
            answer += part
    return answer


@pytest.mark.parametrize("config", [CONFIG, WS], ids=["tcp", "websocket"])
@pytest.mark.parametrize("size", [1, 200, 300_000, 3_000_000], ids=str)
async def test_bytes_go_there_and_back(config, size: int) -> None:  # type: ignore[no-untyped-def]
    """Small ones, more than the first window, more than the largest window; and both ends see the end."""
    async with hosts(2, config) as (client, server):
        server.handle("/echo", echo)
        await connect(client, server)
        data = bytes(range(256)) * (size // 256 + 1)
        assert await exchange(client, server, data[:size]) == data[:size]
        await eventually(lambda: not client.statistics().streams)
        await eventually(lambda: not server.statistics().streams)


async def test_addresses_are_dialable_and_real() -> None:
    async with hosts(1, replace(CONFIG, listen=("/ip4/0.0.0.0/tcp/0",))) as (host,):
        assert host.addresses
        assert all("/0.0.0.0/" not in address and "/tcp/0/" not in address for address in host.addresses)
        assert all(address.endswith(f"/p2p/{host.peer_id}") for address in host.addresses)
        assert any("/127.0.0.1/" in address for address in host.addresses)


async def test_the_identity_is_the_keys() -> None:
    async with open_host(CONFIG, seed(1)) as first:
        peer = first.peer_id
    async with open_host(CONFIG, seed(1)) as again:
        assert again.peer_id == peer


@pytest.mark.logs_errors  # of the listener that fails
async def test_events_come_once_for_the_first_and_the_last_connection() -> None:
    events: list[tuple[str, PeerId]] = []
    async with hosts(2) as (a, b):
        b.add_listener(lambda peer: events.append(("up", peer)), lambda peer: events.append(("down", peer)))
        b.add_listener(lambda peer: 1 / 0, lambda peer: 1 / 0)  # type: ignore[arg-type]
        async with trio.open_nursery() as nursery:  # both sides dial at once: two connections, one event
            nursery.start_soon(a.connect, b.peer_id, a.addresses and b.addresses)
            nursery.start_soon(b.connect, a.peer_id, a.addresses)
        await eventually(lambda: b.statistics().connections == a.statistics().connections)
        assert events == [("up", a.peer_id)]
        await a.disconnect(b.peer_id)
        await eventually(lambda: not b.connections())
        assert events == [("up", a.peer_id), ("down", a.peer_id)]
        await connect(a, b)
        assert events[2:] == [("up", a.peer_id)]
        info = b.connections()[a.peer_id]
        assert (info.peer, info.inbound, info.path) == (a.peer_id, True, "lan")
        assert info.remote_address.startswith("/ip4/127.0.0.1/tcp/")


async def test_streams_end_when_the_peer_goes_away() -> None:
    async with hosts(2) as (client, server):
        server.handle("/echo", echo)
        await connect(client, server)
        stream = await client.open_stream(server.peer_id, "/echo")
        await server.disconnect(client.peer_id)
        with pytest.raises(StreamClosed, match="the connection has ended"):
            await stream.read(1)
        with pytest.raises(StreamClosed):
            await stream.write(b"x")
        await stream.close()
        await stream.reset()


async def test_a_reset_reaches_the_other_side() -> None:
    ended = trio.Event()

    async def handler(stream: Stream) -> None:
        with pytest.raises(StreamClosed, match="reset"):
            await stream.read(1)
        ended.set()

    async with hosts(2) as (client, server):
        server.handle("/wait", handler)
        await connect(client, server)
        stream = await client.open_stream(server.peer_id, "/wait")
        await stream.reset()
        with trio.fail_after(5):
            await ended.wait()
        with pytest.raises(StreamClosed, match="on this side"):
            await stream.read(1)


async def test_a_writer_waits_for_a_slow_reader_and_memory_is_bounded() -> None:
    go = trio.Event()

    async def handler(stream: Stream) -> None:
        await go.wait()
        while await stream.read(65536):
            pass

    async with hosts(2) as (client, server):
        server.handle("/slow", handler)
        await connect(client, server)
        stream = await client.open_stream(server.peer_id, "/slow")
        with trio.move_on_after(0.3) as scope:
            await stream.write(bytes(1_000_000))
        assert scope.cancelled_caught, "the window is 256 KiB and nobody reads"
        go.set()
        server.handle("/echo", echo)
        assert await exchange(client, server, b"still usable") == b"still usable"


async def test_two_hundred_cancelled_calls_leave_the_connection_usable() -> None:
    async with hosts(2) as (client, server):
        server.handle("/echo", echo)
        await connect(client, server)
        for number in range(200):
            with trio.move_on_after(0.0002 * (number % 10)):
                stream = await client.open_stream(server.peer_id, "/echo")
                try:
                    await stream.write(bytes(5000))
                    await stream.read(10)
                finally:
                    await stream.reset()
        assert await exchange(client, server, b"x" * 10_000) == b"x" * 10_000
        assert client.statistics().connections == 1
        await eventually(lambda: not server.statistics().streams)


async def test_ping() -> None:
    async with hosts(2, admitted=False) as (a, b):
        await connect(a, b)
        assert 0 < await a.ping(b.peer_id) < 5
        assert 0 < await a.ping(b.peer_id) < 5
        await b.disconnect(a.peer_id)
        await eventually(lambda: not a.connections())
        with pytest.raises(PeerUnreachable):
            await a.ping(PeerId.from_public_key(bytes(32)))


async def test_a_ping_outlives_the_stream_of_the_one_before() -> None:
    """js-libp2p resets the idle stream after ten seconds."""
    async with hosts(2, admitted=False) as (a, b):
        await connect(a, b)
        await a.ping(b.peer_id)
        (connection,) = b._connections_to(a.peer_id)
        for stream in list(connection.muxed_conn.streams.values()):
            await stream.reset()
        assert 0 < await a.ping(b.peer_id) < 5


async def test_identify_lists_what_is_served() -> None:
    async with hosts(2, admitted=False) as (a, b):
        b.handle("/mine", echo)
        await connect(a, b)
        stream = await a.open_stream(b.peer_id, IDENTIFY)
        answer = b""
        while data := await stream.read(4096):
            answer += data
        protocols = set(parse_identify_response(answer).protocols)
        assert {"/mine", PING, IDENTIFY, "/meshsub/1.2.0"} <= protocols


async def test_the_tls_certificate_has_libp2ps_extension_alone() -> None:
    """js-libp2p looks at the first extension only, and the library puts two others before it."""
    pem = make_tls(create_new_key_pair(seed(1)))._cert_pem
    (extension,) = load_pem_x509_certificate(pem.encode()).extensions
    assert extension.oid == LIBP2P_EXTENSION_OID


async def test_a_dialled_websocket_gives_its_socket_back_when_the_peer_says_goodbye() -> None:
    async with hosts(2, WS) as (client, server):
        await connect(client, server)
        (connection,) = client._connections_to(server.peer_id)
        websocket = connection.muxed_conn.secured_conn._raw.stream  # type: ignore[attr-defined]
        (accepted,) = server._connections_to(client.peer_id)
        await accepted.muxed_conn.secured_conn._raw.stream.close()  # type: ignore[attr-defined]
        await eventually(lambda: websocket._ws_connection._stream.socket.fileno() == -1)


async def test_open_stream_dials_what_is_known_and_says_why_it_cannot() -> None:
    async with hosts(2) as (client, server):
        server.handle("/echo", echo)
        with pytest.raises(PeerUnreachable, match="no address is known"):
            await client.open_stream(server.peer_id, "/echo")
        await connect(client, server)
        await client.disconnect(server.peer_id)
        assert await exchange(client, server, b"redialled") == b"redialled"
        with pytest.raises(PeerUnreachable, match="speaks none of /nothing"):
            await client.open_stream(server.peer_id, "/nothing")


async def test_two_tasks_that_connect_at_once_share_one_connection() -> None:
    async with hosts(2) as (client, server):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(client.connect, server.peer_id, server.addresses)
        assert client.statistics().connections == 1


async def test_a_wrong_peer_id_gets_no_connection() -> None:
    async with hosts(2) as (client, server):
        wrong = PeerId.from_public_key(bytes(32))
        address = server.addresses[0].rpartition("/p2p/")[0]
        with pytest.raises(PeerUnreachable, match="peer"):
            await client.connect(wrong, (address,))
        await eventually(lambda: not server.connections())
        assert not client.connections()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("protocol", "accepted"), [(PLAINTEXT_PROTOCOL_ID, False), (TLS, True)])
async def test_plaintext_is_refused_and_tls_is_spoken(protocol: str, accepted: bool) -> None:
    async with hosts(1) as (host,):
        host.handle("/echo", echo, public=True)
        key_pair = create_new_key_pair(seed(99))
        transport = TLSTransport(key_pair) if accepted else InsecureTransport(key_pair)
        other = new_host(key_pair=key_pair, sec_opt={protocol: transport})  # type: ignore[dict-item]
        async with other.run([]):
            address = Multiaddr(host.addresses[0].rpartition("/p2p/")[0])
            try:
                await other.connect(PeerInfo(ID(host.peer_id.raw), [address]))
                stream = await other.new_stream(ID(host.peer_id.raw), ["/echo"])  # type: ignore[list-item]
                await stream.write(b"hello")
                answer = await stream.read(5)
            except Exception:
                answer = b""
            assert (answer == b"hello") is accepted
            assert bool(host.connections()) is accepted


@pytest.mark.parametrize(
    ("listen", "error"),
    [
        (("/ip4/127.0.0.1/udp/1/quic-v1",), AddressError),
        (("/dns4/localhost/tcp/0",), ListenError),
        (("/ip4/203.0.113.9/tcp/0",), ListenError),
        (("/ip4/127.0.0.1/tcp/4001", "/ip4/127.0.0.1/tcp/4001/ws"), ListenError),
    ],
)
async def test_what_cannot_be_listened_on_is_said_at_once(listen: tuple[str, ...], error: type[Exception]) -> None:
    with pytest.raises(error, match=listen[-1]):
        async with open_host(replace(CONFIG, listen=listen), seed(1)):
            pass


async def test_an_exception_of_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with open_host(CONFIG, seed(1)):
            raise KeyError("mine")


async def test_stopping_is_quick_and_complete() -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    async with hosts(2) as (client, server):
        server.handle("/echo", echo)
        await connect(client, server)
        await client.open_stream(server.peer_id, "/echo")
        started = trio.current_time()
    assert trio.current_time() - started < 3
    assert trio.lowlevel.current_statistics().tasks_living <= before
