"""Scores: pure, and with real hosts, where a forwarder that misbehaves loses its place in the mesh and gets it back."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.score import PeerScorer, ScoreParams, TopicScoreParams

from tests.transports.support import CONFIG, TOPIC, connect, eventually, hosts
from transports.gossip import GossipMessage, Verdict
from transports.host import Host
from transports.score import CAPACITY, HALF_LIFE, LIMIT, MUTE_AT, PRUNE_AT, Fault, Scores, Standing
from transports.stream import StreamClosed
from transports.varint import encode_varint


@given(st.lists(st.tuples(st.sampled_from(Fault), st.floats(0, 300)), max_size=60))
def test_points_are_bounded_halve_and_come_back_to_nothing(faults: list[tuple[Fault, float]]) -> None:
    scores: Scores[str] = Scores()
    now = 0.0
    for fault, step in faults:
        now += step
        before = scores.of("peer", now)
        scores.add("peer", fault, now)
        assert scores.of("peer", now) == pytest.approx(min(before + fault.value, LIMIT))
    points = scores.of("peer", now)
    assert scores.of("peer", now + HALF_LIFE) == pytest.approx(points / 2)
    assert not scores.muted("peer", now + 2 * HALF_LIFE + 1e-6)
    assert not scores.shunned("peer", now + 3 * HALF_LIFE + 1e-6)
    assert scores.of("another", now) == 0
    assert scores.standing("another", now) is Standing.GOOD


def test_who_is_put_out_stays_out_for_a_minute_at_least() -> None:
    """What it does reaches nobody meanwhile: by its points alone it would be back after seconds."""
    scores: Scores[str] = Scores()
    for number in range(11):
        scores.add("peer", Fault.REJECTED, float(number))
    assert scores.standing("peer", 10.0) is Standing.SHUNNED
    assert scores.of("peer", 30.0) < PRUNE_AT
    assert scores.standing("peer", 10.0 + HALF_LIFE - 1) is Standing.SHUNNED
    assert scores.standing("peer", 10.0 + HALF_LIFE + 10) is Standing.GOOD
    scores.add("peer", Fault.REJECTED, 10.0 + HALF_LIFE + 10)
    assert scores.standing("peer", 10.0 + HALF_LIFE + 10) is Standing.GOOD
    for _ in range(20):
        scores.add("peer", Fault.REJECTED, 100.0)
    assert scores.standing("peer", 100.0 + HALF_LIFE - 1) is Standing.MUTED
    assert scores.standing("peer", 100.0 + 2 * HALF_LIFE - 1) is Standing.SHUNNED


@pytest.mark.parametrize(("fault", "shuns", "mutes"), [
    (Fault.REJECTED, 10, 20), (Fault.MALFORMED, 2, 4), (Fault.OVER_RATE, 250, 500),
])
def test_what_a_weight_means(fault: Fault, shuns: int, mutes: int) -> None:
    scores: Scores[str] = Scores()
    for number in range(1, mutes + 2):
        scores.add("peer", fault, 0.0)
        if number not in (shuns, mutes):  # sums of 0.2 are not exact at the bound itself
            assert scores.shunned("peer", 0.0) == (number > shuns)
            assert scores.muted("peer", 0.0) == (number > mutes)
    assert scores.count(0.0) == (1, 1)
    assert (shuns, mutes) == (round(PRUNE_AT / fault.value), round(MUTE_AT / fault.value))


def test_memory_is_bounded() -> None:
    scores: Scores[int] = Scores()
    for peer in range(CAPACITY + 10):
        scores.add(peer, Fault.REJECTED, 0.0)
    assert len(scores) == CAPACITY
    assert scores.of(0, 0.0) == 0


def test_why_not_the_librarys_scorer() -> None:
    params = ScoreParams(p4_invalid_messages=TopicScoreParams(weight=1, cap=100), graylist_threshold=-10)
    scorer, peer = PeerScorer(params), ID(b"peer")
    for _ in range(50):
        scorer.on_invalid_message(peer, TOPIC)
    assert scorer.is_graylisted(peer, [TOPIC]), "a positive weight punishes, contrary to go-libp2p's"
    scorer.remove_peer(peer)  # what the router calls when the connection ends
    assert not scorer.is_graylisted(peer, [TOPIC]), "a reconnect is an amnesty"
    for number in range(1000):
        scorer.is_graylisted(peer, [f"made up {number}"])
    assert len(scorer.invalid_messages[peer]) >= 1000, "asking grows it"


async def gossiping(a: Host, b: Host) -> list[bytes]:
    """Both on the topic, meshed; what *b* receives. It rejects what begins with "bad"."""
    received: list[bytes] = []

    def judge(message: GossipMessage) -> Verdict:
        received.append(message.data)
        return Verdict.REJECT if message.data.startswith(b"bad") else Verdict.ACCEPT

    await a.gossip.subscribe(TOPIC, lambda message: Verdict.ACCEPT)
    await b.gossip.subscribe(TOPIC, judge)
    await connect(a, b)
    await a.gossip.add_peer(b.peer_id)
    await b.gossip.add_peer(a.peer_id)
    await eventually(lambda: mesh(a) == 1 and mesh(b) == 1)
    return received


def mesh(host: Host) -> int:
    return host.gossip.statistics().topics[TOPIC]


async def test_a_forwarder_of_bad_messages_is_pruned_muted_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transports.score.HALF_LIFE", 1.5)
    async with hosts(2) as (bad, good):
        received = await gossiping(bad, good)
        for number in range(40):
            await bad.gossip.publish(TOPIC, b"bad %d" % number)
        await eventually(lambda: good.gossip.statistics().muted == 1)
        judged = len(received)
        assert 20 <= judged < 40, "what comes after the twentieth is not even verified"
        await eventually(lambda: mesh(good) == 0 and mesh(bad) == 0)
        assert good.gossip.standing(bad.peer_id) is Standing.MUTED
        stream = await bad.open_stream(good.peer_id, "/meshsub/1.1.0")
        await stream.write(frame(rpc_pb2.Message(data=b"listen to me")))
        with pytest.raises(StreamClosed):  # what a muted peer says is not even read
            await stream.read(1)
        pubsub = good.gossip._pubsub
        await pubsub._gossipsub.handle_graft(rpc_pb2.ControlGraft(topicID=TOPIC), ID(bad.peer_id.raw))
        assert mesh(good) == 0, "no GRAFT while shunned"
        await bad.disconnect(good.peer_id)
        await eventually(lambda: not good.connections())
        await connect(bad, good)
        await bad.gossip.add_peer(good.peer_id)
        await good.gossip.add_peer(bad.peer_id)
        assert good.gossip.standing(bad.peer_id) is not Standing.GOOD, "a reconnect is no amnesty"
        await eventually(lambda: (good.gossip.statistics().shunned, good.gossip.statistics().muted) == (0, 0), 10)
        for host in (bad, good):  # ten seconds after a PRUNE, by the specification; not worth waiting for
            host.gossip._pubsub._gossipsub.back_off.clear()
            host.gossip._pubsub._gossipsub.graft_flood_tracking.clear()
        await eventually(lambda: mesh(good) == 1, 10)
        await bad.gossip.publish(TOPIC, b"and then a good one")
        await eventually(lambda: b"and then a good one" in received)


def frame(*messages: rpc_pb2.Message) -> bytes:
    data = rpc_pb2.RPC(publish=messages).SerializeToString()
    return encode_varint(len(data)) + data


async def test_messages_that_are_not_what_they_seem_charge_the_forwarder() -> None:
    """Unsigned, signed by another, changed after signing; a frame too large; a good one repeated without end."""
    async with hosts(2, replace(CONFIG, gossip_rate=50.0)) as (bad, good):
        received = await gossiping(bad, good)
        scores, peer = good.gossip._pubsub.scores, ID(bad.peer_id.raw)

        def points() -> float:
            return scores.of(peer, trio.current_time())

        await bad.gossip.publish(TOPIC, b"a good one")
        await eventually(lambda: received == [b"a good one"])
        assert points() == 0
        genuine = next(iter(bad.gossip._pubsub._gossipsub.mcache.msgs.values()))
        stream = await bad.open_stream(good.peer_id, "/meshsub/1.1.0")
        changes: list[dict[str, bytes]] = [{"signature": b""}, {"signature": bytes(64)}, {"data": b"changed"}]
        for number, change in enumerate(changes):
            before = points()
            message = rpc_pb2.Message()
            message.CopyFrom(genuine)
            message.seqno = bytes([number]) * 8
            for name, value in change.items():
                setattr(message, name, value)
            await stream.write(frame(message))
            await eventually(lambda before=before: points() > before + 4)  # type: ignore[misc]
        await trio.sleep(1)
        before = points()
        await stream.write(frame(genuine) * 200)
        await eventually(lambda: points() > before + 20)
        assert received == [b"a good one"]
        before = points()
        await stream.write(encode_varint(CONFIG.gossip_max_message + 1))
        await eventually(lambda: points() > before + 20)


async def test_an_author_has_a_rate_whoever_forwards_him() -> None:
    async with hosts(2, replace(CONFIG, gossip_author_rate=0.001, gossip_author_burst=5.0)) as (author, host):
        received = await gossiping(author, host)
        for number in range(20):
            await author.gossip.publish(TOPIC, b"%d" % number)
        await eventually(lambda: host.gossip.statistics().dropped == 15)
        assert len(received) == 5
        points = host.gossip._pubsub.scores.of(ID(author.peer_id.raw), trio.current_time())
        assert points == pytest.approx(15 * Fault.OVER_RATE.value, rel=0.05)  # he sent them himself
        assert host.gossip.statistics().shunned == 0


@pytest.mark.parametrize("many", [False, True])
async def test_a_message_that_is_not_decided_counts_against_who_repeats_it_and_not_against_its_author(
    many: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transports.libp2p.pubsub.IGNORED_BURST", 10.0 if many else 1000.0)
    async with hosts(3, replace(CONFIG, gossip_author_rate=0.001, gossip_author_burst=5.0)) as (author, bad, host):
        received: list[bytes] = []

        def judge(message: GossipMessage) -> Verdict:
            received.append(message.data)
            return Verdict.IGNORE if message.data == b"old" else Verdict.ACCEPT

        await host.gossip.subscribe(TOPIC, judge)
        for other in (author, bad):
            await other.gossip.subscribe(TOPIC, lambda message: Verdict.ACCEPT)
            await connect(other, host)
            await other.gossip.add_peer(host.peer_id)
            await host.gossip.add_peer(other.peer_id)
        await eventually(lambda: mesh(host) == 2 and mesh(author) == 1)
        await author.gossip.publish(TOPIC, b"old")
        await eventually(lambda: received == [b"old"])
        (message,) = author.gossip._pubsub._gossipsub.mcache.msgs.values()
        stream = await bad.open_stream(host.peer_id, "/meshsub/1.1.0")
        await stream.write(frame(message) * 60)
        await eventually(lambda: len(received) == 61)
        points = host.gossip._pubsub.scores.of(ID(bad.peer_id.raw), trio.current_time())
        assert points == pytest.approx(50 * Fault.OVER_RATE.value if many else 0, abs=0.5)
        await author.gossip.publish(TOPIC, b"new")
        await eventually(lambda: received[-1] == b"new")
        assert host.gossip._pubsub.scores.of(ID(author.peer_id.raw), trio.current_time()) == 0


async def test_forging_the_next_message_of_somebody_does_not_silence_him() -> None:
    """The id is author and sequence number, and both can be guessed."""
    async with hosts(2) as (author, host):
        received = await gossiping(author, host)
        stream = await author.open_stream(host.peer_id, "/meshsub/1.1.0")
        seqno = (author.gossip._pubsub.counter + 1).to_bytes(8, "big")
        forged = rpc_pb2.Message(
            from_id=author.peer_id.raw, seqno=seqno, data=b"forged", topicIDs=[TOPIC], signature=bytes(64)
        )
        await stream.write(frame(forged))
        await eventually(lambda: host.gossip._pubsub.scores.of(ID(author.peer_id.raw), trio.current_time()) > 0)
        await author.gossip.publish(TOPIC, b"genuine")
        (message,) = author.gossip._pubsub._gossipsub.mcache.msgs.values()
        assert message.seqno == seqno
        await eventually(lambda: received == [b"genuine"])
