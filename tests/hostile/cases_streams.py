"""Attacks on the streams of sync and call."""

from __future__ import annotations

from protocols.call import call_pb2
from protocols.sync import sync_pb2
from protocols.sync.messages import MAX_HELLO_BYTES
from tests.hostile.attack import case
from tests.hostile.house import (
    CARD_ID,
    UNDER_FALLEN,
)
from tests.identity.keys import MESH, NOW, member, public


def hello(membership: bytes, mesh: bytes = MESH, version: int = 1) -> sync_pb2.Frame:
    return sync_pb2.Frame(hello=sync_pb2.Hello(version=version, mesh=mesh, membership=membership, now_ms=NOW * 1000))


ASK = sync_pb2.Frame(ask=sync_pb2.Ask())
READY = sync_pb2.Frame(ready=sync_pb2.Ready())
for _name, _code, _words, _who, _frames in (
    ("no membership", "no_membership", "invite", "mallory", (hello(b""), READY, ASK)),
    ("a stolen membership", "wrong_audience", "another peer id", "thief", (hello(member("alice")), READY, ASK)),
    ("a revoked peer", "revoked", "", "bob", (hello(member("bob")), READY, ASK)),
    ("a child of a revoked issuer", "revoked", "", "under fallen", (hello(UNDER_FALLEN), READY, ASK)),
    ("another mesh", "foreign_mesh", "", "mallory", (hello(b"", public("other owner")), READY, ASK)),
    ("a version that is not spoken", "version", "update", "member", (hello(member("member"), version=9),)),
    ("a question before the greeting", "broken", "hello was due", "mallory", (ASK,)),
    ("ready before the greeting", "broken", "hello was due", "mallory", (READY, ASK)),
    ("a frame that is not protobuf", "broken", "not protobuf", "mallory", (b"\xff" * 9,)),
    ("an empty frame", "broken", "unknown message", "mallory", (b"",)),
    ("a greeting of more than 4 KiB", "broken", "maximum", "mallory", (bytes(MAX_HELLO_BYTES + 1),)),
    ("an end where the greeting was due", "broken", "ended the session", "mallory", ()),
):
    case("sync", _name, _code, _words, lambda h, w=_who, f=_frames: h.sync(w, *f))  # type: ignore[misc]


def opening(number: int = 1, **fields: object) -> bytes:
    values = {"card": CARD_ID, "tool": "x", "args": b"{}"} | fields
    return call_pb2.Frame(call=number, open=call_pb2.Open(**values)).SerializeToString()  # type: ignore[arg-type]


for _name, _code, _words, _calls in (
    ("not protobuf", "invalid", "not a protobuf", (b"\xff" * 5,)),
    ("call 0", "invalid", "call id 0", (opening(0),)),
    ("a card id of 31 bytes", "invalid", "32 bytes", (opening(card=bytes(31)),)),
    ("no tool", "invalid", "tool or trigger name", (opening(tool=""),)),
    ("a tool's name of a kilobyte", "invalid", "128 bytes", (opening(tool="x" * 1000),)),
    ("a trace id of 3 bytes", "invalid", "trace id", (opening(trace_id=b"abc"),)),
    ("an idempotency key of a kilobyte", "invalid", "idempotency key", (opening(idempotency_key=bytes(1000)),)),
    ("a result from the caller", "invalid", "only the callee", (
        call_pb2.Frame(call=1, result=call_pb2.Result()).SerializeToString(),)),
    ("a frame of a kind that is none", "invalid", "not known here", (
        call_pb2.Frame(call=1).SerializeToString() + b"\xfa\x06\x00",)),
    ("a trigger that is not there", "not_found", "no such trigger", (
        call_pb2.Frame(call=1, subscribe=call_pb2.Subscribe(card=CARD_ID, trigger="x")).SerializeToString(),)),
):
    case("call", _name, _code, _words, lambda h, calls=_calls: h.call("mallory", *calls))  # type: ignore[misc]
