"""A node's doors, and what is behind them: the facts that no hostile input may change.

Every door takes what an attacker sends and gives (code, text): the product's own reason code and the words for people.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Coroutine
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import trio

from atmosphere.capabilities.card import Card
from atmosphere.capabilities.offer import Offer, OfferEntry
from atmosphere.env import FixedEnv
from atmosphere.identity import (
    Enrolment,
    Identity,
    IdentityError,
    InviteBook,
    Target,
    accept_enrolment,
    parse_invite,
    revoke,
)
from atmosphere.identity.invite import Invite
from atmosphere.mesh.intake import Hooks, Intake, Taken
from atmosphere.mesh.library import Library
from atmosphere.mesh.members import Members
from atmosphere.mesh.table import GradientTable
from atmosphere.mesh.trust import Heard as Verdict
from atmosphere.mesh.trust import Trust
from atmosphere.store import Store
from protocols.beacons import Beacon, Leave
from protocols.call import call_pb2
from protocols.call.messages import IncomingCall
from protocols.call.server import CallServer, Emit
from protocols.framing import FrameReader, encode_frame
from protocols.join import join_pb2
from protocols.join.server import serve_join
from protocols.records import domains, sign
from protocols.sync import sync_pb2
from protocols.sync.messages import Hello, Key, Kind, Record, Refused, SyncError
from protocols.sync.session import serve_session
from tests.identity.keys import DAY, MESH, NOW, chain, issuer, key, link, member, peer, public
from tests.identity.test_invite import ADDRESSES, node, tokens
from transports.peer_id import PeerId
from transports.stream import MemoryStream, Stream, StreamClosed, memory_stream_pair

Answer = tuple[str, str]

CARD = Card("llm/chat", "A chat model", model="m")
CARD_ID = hashlib.sha256(CARD.encode()).digest()
PEOPLE = ("alice", "bob", "fallen", "under fallen", "mallory", "thief", "guest", "member")
FALLEN = chain(issuer("owner", "fallen"))
SECOND = chain(issuer("owner", "second"))
UNDER_FALLEN = chain(issuer("owner", "fallen"), link("fallen", "under fallen", name="under fallen"))


def chain_of(name: str) -> bytes:
    """The membership of one who belongs to the mesh, as the mesh knows it."""
    return UNDER_FALLEN if name == "under fallen" else member(name)


def signed(name: str, domain: bytes, payload: bytes) -> bytes:
    return sign(domain, payload, key(name))


def offer_of(name: str, *cards: bytes, **fields: Any) -> bytes:
    offer = Offer(peer(name), 3, 1, name, tuple(OfferEntry(card) for card in cards), float(NOW))
    return signed(name, domains.OFFER, replace(offer, **fields).encode())


ALICES_OFFER = offer_of("alice", CARD_ID)
ALICE = Beacon(
    membership=hashlib.sha256(chain_of("alice")).digest(), epoch=3, sequence=10, period_ms=15_000,
    offer=hashlib.sha256(ALICES_OFFER).digest(), issued_at_ms=NOW * 1000, addresses=("/ip4/10.0.0.2/tcp/4001",),
)
"""The beacon that this node has of alice."""


def beacon_by(name: str, domain: bytes = domains.BEACON, **fields: Any) -> bytes:
    """A beacon of *name* that would be news, with *fields* changed and signed as if all was well."""
    fields = dict[str, Any](membership=hashlib.sha256(chain_of(name)).digest(), sequence=11) | fields
    return signed(name, domain, replace(ALICE, **fields).encode())


def leave_by(name: str, **fields: Any) -> bytes:
    return signed(name, domains.LEAVE, replace(Leave(3, 11, NOW * 1000), **fields).encode())


class Heard(logging.Handler):
    """The reasons that the doors without an error wrote to the log."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def heard(name: str):  # type: ignore[no-untyped-def]
    logger, handler = logging.getLogger(name), Heard()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class House:
    """The node "issuer". Knows alice (beacon, offer, card), bob, the issuer "second"; bob and "fallen" are revoked."""

    def __init__(self) -> None:
        self.env = FixedEnv(7, start=float(NOW))
        self.identity = node()
        self.library = Library()
        self.store = Store.memory(self.env)
        self.told: list[object] = []
        self.trust = Trust(MESH, self.store, self.env, lambda record, _: self.told.append(record), kept_s=7 * DAY)
        self.members = Members(MESH, self.trust, self.library, self.env)
        self.table = GradientTable(self.identity.peer_id)
        hooks = Hooks(lambda card, _: self.told.append(card), self.told.append, self.told.append)
        self.intake = Intake(self.table, self.library, self.members, self.env, hooks)
        self.calls: list[IncomingCall] = []
        self.enrolment = self.office(self.identity)
        for name in ("alice", "bob", "under fallen", "member", "other"):
            self.members.learn(chain_of(name))
        assert self.intake.beacon(signed("alice", domains.BEACON, ALICE.encode()), peer("alice"), None) is Taken.NEW
        assert self.intake.offer(ALICES_OFFER, None) is Taken.NEW
        assert self.intake.card(CARD.encode(), None) is Taken.NEW
        for kind, target in ((Target.PEER, "bob"), (Target.ISSUER, "fallen")):
            self.hear(Kind.REVOCATION, revoke(kind, public(target), key("owner"), MESH, NOW))
        self.hear(Kind.ISSUER, SECOND)
        self.hear(Kind.ISSUER, self.identity.issuer_chain)
        self.begin()

    def begin(self) -> None:
        """All until now was honest."""
        self.before = self.state()

    def hear(self, kind: Kind, record: bytes) -> None:
        """A good trust record."""
        assert self.trust.hear(Record(kind, record)) is Verdict.NEW

    def office(self, identity: Identity, issuer_chain: bytes | None = None) -> Enrolment:
        """The desk of an issuer with this node's knowledge, and *issuer_chain* for whoever made the invite."""

        def chain_of_issuer(who: PeerId) -> bytes:
            return self.trust.issuers.chain_of(who) if issuer_chain is None else issuer_chain

        async def keep(record: bytes) -> None:
            self.hear(Kind.REDEMPTION, record)

        return Enrolment(
            lambda: identity, InviteBook(Store.memory(self.env)), self.trust.revocations, self.env.now,
            self.env.token_bytes, chain_of_issuer,
            used_elsewhere=self.trust.redemptions.uses_of, lost=self.trust.redemptions.lost, on_redeemed=keep,
        )

    def state(self) -> object:
        """All that this node believes and would act on; what it still wants to fetch is not belief."""
        return (
            {p: (n.state, n.path, n.beacon, n.membership, n.offer) for p, n in self.table.nodes.items()},
            dict(self.table.cards),
            {kind: frozenset(self.library.keys(kind)) for kind in Kind},
            self.trust.digest,
            self.store.read_now(lambda c: c.execute("SELECT kind, digest FROM trust ORDER BY digest").fetchall()),
            [self.members.of(peer(name)) for name in PEOPLE],
            repr(self.members),
            tuple(self.told),
            tuple(self.calls),
        )

    # -- the doors of facts -----------------------------------------------------------------------------------------

    def greeting(self, who: str, membership: bytes, mesh: bytes = MESH, now: float = NOW) -> Answer:
        try:
            self.members.judge(peer(who), Hello(mesh, membership, bytes(32), "test", int(now * 1000)))
        except Refused as refusal:
            return refusal.code, refusal.message
        return "let in", ""

    def record(self, take: Callable[[Intake], Taken]) -> Answer:
        """What the intake says of a record, with the reason it logged."""
        with heard("atmosphere.mesh.intake") as lines:
            taken = take(self.intake)
        return taken.value, lines[-1] if lines else ""

    def fetched(self, key_: Key, body: bytes, kind: Kind | None = None) -> Answer:
        """*body* came in answer to a request for *key_*."""
        return self.record(lambda intake: intake.take(key_, Record(kind or key_.kind, body), peer("mallory")))

    def statement(self, kind: Kind, record: bytes) -> Answer:
        """A trust record, as gossip and sync bring it."""
        verdict = self.trust.hear(Record(kind, record))
        parts = {
            Kind.REVOCATION: self.trust.revocations, Kind.REDEMPTION: self.trust.redemptions,
            Kind.ISSUER: self.trust.issuers,
        }
        code, text = said(lambda: parts[kind].add(record, NOW))  # the same once more, for its code
        # Early is nobody's fault, as far as this clock can tell; it is not taken in either.
        expected = {"taken": Verdict.NEW, "old": Verdict.KNOWN, "not_yet_valid": Verdict.EARLY}
        assert verdict is Verdict.NEW or verdict is expected.get(code, Verdict.BAD), (verdict, code)
        return ("taken", text) if verdict is Verdict.NEW else (code, text)

    def acceptance(self, invite: Invite, answer: bytes, inviter_chain: bytes = b"", issuer_time: float = 0) -> Answer:
        """The joiner's side: what an issuer (or who says that it is one) answered to "guest"."""
        return said(lambda: accept_enrolment(invite, peer("guest"), answer, inviter_chain, NOW, issuer_time))

    def pasted(self, text: str) -> Answer:
        return said(lambda: parse_invite(text))

    # -- the doors of streams ---------------------------------------------------------------------------------------

    async def join(self, who: str, request: bytes, enrolment: Enrolment | None = None) -> Answer:
        """A stranger's one request, as bytes of a frame's payload."""
        judge = (enrolment or self.enrolment).judge
        sent = await conversation(who, encode_frame(request), lambda s: serve_join(s, judge, self.env.now))
        if not sent:
            return "reset", ""
        reply = join_pb2.Reply.FromString(sent[0])
        return (reply.refused.code, reply.refused.message) if reply.HasField("refused") else ("enrolled", "")

    async def sync(self, who: str, *frames: sync_pb2.Frame | bytes) -> Answer:
        """The frames of a peer that opened a session, and how it ended for it."""
        ended: Answer = ("served", "")

        async def serve(stream: Stream) -> None:
            nonlocal ended
            try:
                await serve_session(stream, self._hello, self._judge, self.told.append, self)
            except Refused as refusal:
                ended = refusal.code, refusal.message
            except SyncError as error:
                ended = "broken", str(error)
                await stream.reset()

        data = b"".join(encode_frame(f if isinstance(f, bytes) else f.SerializeToString()) for f in frames)
        await conversation(who, data, serve)
        return ended

    def _hello(self) -> Hello:
        return Hello(MESH, self.identity.chain, bytes(32), "test", NOW * 1000)

    def _judge(self, who: PeerId, hello: Hello) -> None:
        self.members.judge(who, hello)

    def overview(self, who: PeerId, ask: Any) -> Any:
        raise AssertionError("a stranger was told what this node knows")

    def records(self, keys: Any) -> Any:
        raise AssertionError("a stranger was given records")

    async def call(self, who: str, *frames: bytes) -> Answer:
        """The frames of a caller, and the first answer it got."""

        async def handler(call: IncomingCall, emit: Emit) -> bytes:
            self.calls.append(call)
            return b"{}"

        server = CallServer(handler)
        theirs, ours = memory_stream_pair(peer(who), peer("issuer"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve, ours)
            await theirs.write(b"".join(map(encode_frame, frames)))
            payload = await FrameReader(theirs, 1 << 20).read()
            await theirs.close()
        assert payload is not None
        frame = call_pb2.Frame.FromString(payload)
        return (frame.error.code, frame.error.message) if frame.HasField("error") else ("served", "")


def said(door: Callable[[], object]) -> Answer:
    """The answer of a door that raises IdentityError."""
    try:
        taken = door()
    except IdentityError as error:
        return str(error.reason), str(error)
    return ("old", "") if taken is None else ("taken", repr(taken))


async def conversation(
    who: str, data: bytes, serve: Callable[[MemoryStream], Coroutine[Any, Any, None]]
) -> list[bytes]:
    """*who* sends all of *data*, ends its side, and reads: the payloads that came back before the end."""
    theirs, ours = memory_stream_pair(peer(who), peer("issuer"), capacity=8 << 20)
    payloads: list[bytes] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, ours)
        try:
            await theirs.write(data)
            await theirs.close()
            reader = FrameReader(theirs, 1 << 20)
            while (payload := await reader.read()) is not None:
                payloads.append(payload)
        except StreamClosed:
            return payloads
    return payloads


SECOND_NODE = Identity.load(
    key("second").encode(), MESH, "home", chain(issuer("owner", "second"), link("second", "second")), SECOND)
INVITE = node().create_invite(ADDRESSES, NOW, tokens)
OFFLINE = node().create_offline_invite(ADDRESSES[:1], NOW, tokens, lifetime=DAY)
