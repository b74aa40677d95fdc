"""What thieves get: of an invite that was photographed, of a home that was copied, of a clock that was turned.

The honest "can"s of docs/attacks.md are tests, too: when one of them no longer holds, the page has to change.
"""

from __future__ import annotations

from contextlib import suppress

import trio
from nacl.signing import SigningKey

from atmosphere.identity import Target, enrol_offline, revoke
from protocols.framing import FrameReader
from protocols.join.messages import Enrol, Enrolled, Renew, encode_request
from protocols.sync import sync_pb2
from protocols.sync.messages import Hello, Kind, Record, Refused, SyncError
from protocols.sync.session import open_session
from tests.hostile.house import INVITE, OFFLINE, House, chain_of
from tests.identity.keys import DAY, MESH, NOW, key, member, peer, public
from tests.identity.test_invite import tokens
from transports.stream import memory_stream_pair


async def test_the_first_to_show_an_invite_is_in_and_the_other_notices(autojump_clock: trio.abc.Clock) -> None:
    """It can: whoever is first is in. The one it was meant for is told that it is used up, and the owner can revoke."""
    house = House()
    assert await house.join("thief", encode_request(Enrol(INVITE.envelope, ""))) == ("enrolled", "")
    assert (await house.join("guest", encode_request(Enrol(INVITE.envelope, ""))))[0] == "used_up"
    house.hear(Kind.REVOCATION, revoke(Target.PEER, public("thief"), key("owner"), MESH, NOW))
    assert (await house.join("thief", encode_request(Enrol(INVITE.envelope, ""))))[0] == "revoked"


def test_an_offline_invite_lets_in_all_who_copy_it_until_its_key_is_struck() -> None:
    """It can: nobody counts. Striking the key in the invite puts out all that it let in."""
    house = House()
    copies = {name: enrol_offline(OFFLINE, peer(name), name, NOW, tokens) for name in ("guest", "thief", "mallory")}
    for name, membership in copies.items():
        assert house.greeting(name, membership)[0] == "let in"
    invite_key = SigningKey(OFFLINE.key_seed).verify_key.encode()
    house.hear(Kind.REVOCATION, revoke(Target.ISSUER, invite_key, key("owner"), MESH, NOW))
    for name, membership in copies.items():
        assert house.greeting(name, membership)[0] == "revoked"
    late = enrol_offline(OFFLINE, peer("x"), "x", NOW, tokens)
    assert house.greeting("x", late)[0] == "revoked"


async def test_a_copied_home_renews_itself_until_it_is_revoked(autojump_clock: trio.abc.Clock) -> None:
    """It can: the copy is the node, for every node. Only a revocation ends it, and then for good."""
    house = House()
    chain = chain_of("alice")
    for _ in range(4):
        house.env.advance(6 * DAY)
        reply = await house.enrolment.judge(peer("alice"), Renew(chain))
        assert isinstance(reply.outcome, Enrolled)
        chain = reply.outcome.chain
    assert house.greeting("alice", chain)[0] == "let in"
    house.hear(Kind.REVOCATION, revoke(Target.PEER, public("alice"), key("owner"), MESH, house.env.now()))
    assert house.greeting("alice", chain)[0] == "revoked"
    assert (await house.join("alice", encode_request(Renew(chain))))[0] == "revoked"


def test_a_copied_home_does_not_help_without_the_key() -> None:
    assert House().greeting("thief", chain_of("alice"))[0] == "wrong_audience"


def test_a_clock_turned_back_keeps_news_out_until_it_is_right() -> None:
    """It can: who sets a node's clock back makes it refuse what was said since."""
    house = House()
    struck = Record(Kind.REVOCATION, revoke(Target.PEER, public("member"), key("owner"), MESH, NOW))
    house.env.advance(-DAY)
    assert house.trust.hear(struck).value == "early"
    house.env.advance(DAY)
    assert house.trust.hear(struck).value == "new"
    assert house.greeting("member", member())[0] == "revoked"


async def test_who_is_dialled_reads_the_membership_of_who_dials(autojump_clock: trio.abc.Clock) -> None:
    """It can: a stranger announced with the mesh's tag is greeted, and learns a name, scopes and issuers."""
    near, far = memory_stream_pair(peer("alice"), peer("mallory"))
    shown: list[bytes] = []

    async def stranger() -> None:
        payload = await FrameReader(far, 4096).read()
        assert payload is not None
        shown.append(sync_pb2.Frame.FromString(payload).hello.membership)
        await far.reset()

    def judge(_: object, hello: Hello) -> None:
        raise Refused("no_membership", "")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stranger)
        with suppress(SyncError):
            await open_session(near, Hello(MESH, chain_of("alice"), bytes(32), "", NOW * 1000), judge)
    assert shown == [chain_of("alice")]
    assert House().greeting("mallory", shown[0])[0] == "wrong_audience", "and it is of no use to anybody else"
