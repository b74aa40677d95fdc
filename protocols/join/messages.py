"""The requests and replies of join as values and bytes; chains and invites are opaque here. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from protocols.join import join_pb2 as pb

PROTOCOL: Final = "/atmosphere/join/1"
VERSION: Final = 1
MAX_FRAME: Final = 4096   # an invite of 600 or two chains of 700 bytes, with room
MAX_MESSAGE_BYTES: Final = 512
MAX_NAME_BYTES: Final = 64


class JoinError(Exception):
    """The exchange failed before there was an answer, or the other side spoke something else; the text says what."""


@dataclass(frozen=True, slots=True)
class Enrol:
    """Make me a member."""

    invite: bytes
    name: str


@dataclass(frozen=True, slots=True)
class Renew:
    """Give me a membership like this one with a later end."""

    chain: bytes


@dataclass(frozen=True, slots=True)
class Enrolled:
    """The new membership; *inviter_chain* makes the invite's signer an issuer, when another issuer answered."""

    chain: bytes
    mesh_name: str
    inviter_chain: bytes = b""


@dataclass(frozen=True, slots=True)
class Pending:
    """Somebody has to approve it: ask again after *retry_after_ms*."""

    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class Refused:
    """No, and why. *retry_after_ms*: when asking again makes sense, as with ``rate_limited``; 0 when it does not."""

    code: str
    message: str
    retry_after_ms: int = 0


Request = Enrol | Renew
Outcome = Enrolled | Pending | Refused


@dataclass(frozen=True, slots=True)
class Reply:
    """An outcome and the issuer's wall clock, Unix milliseconds."""

    outcome: Outcome
    time_ms: int


def encode_request(request: Request) -> bytes:
    """The payload of the request's frame."""
    if isinstance(request, Enrol):
        wire = pb.Request(version=VERSION, enrol=pb.Enrol(invite=request.invite, name=request.name))
    else:
        wire = pb.Request(version=VERSION, renew=pb.Renew(chain=request.chain))
    return wire.SerializeToString()


def decode_request(payload: bytes) -> Request:
    """Raises JoinError for anything but one request of a known version."""
    wire = pb.Request()
    _parse(wire, payload, "request")
    if wire.HasField("enrol"):
        if len(wire.enrol.name.encode()) > MAX_NAME_BYTES:
            raise JoinError(f"a name of more than {MAX_NAME_BYTES} bytes; choose a shorter one")
        return Enrol(wire.enrol.invite, wire.enrol.name)
    if wire.HasField("renew"):
        return Renew(wire.renew.chain)
    raise JoinError("a request that asks for nothing this node knows; update the older side")


def encode_reply(reply: Reply) -> bytes:
    """The payload of the reply's frame. A long message to people is cut."""
    wire = pb.Reply(version=VERSION, time_ms=reply.time_ms)
    outcome = reply.outcome
    if isinstance(outcome, Enrolled):
        wire.enrolled.chain, wire.enrolled.mesh_name = outcome.chain, outcome.mesh_name
        wire.enrolled.inviter_chain = outcome.inviter_chain
    elif isinstance(outcome, Pending):
        wire.pending.retry_after_ms = outcome.retry_after_ms
    else:
        wire.refused.code, wire.refused.retry_after_ms = outcome.code, outcome.retry_after_ms
        wire.refused.message = outcome.message.encode()[:MAX_MESSAGE_BYTES].decode(errors="ignore")
    return wire.SerializeToString()


def decode_reply(payload: bytes) -> Reply:
    """Raises JoinError for anything but one reply of a known version."""
    wire = pb.Reply()
    _parse(wire, payload, "reply")
    outcome: Outcome
    if wire.HasField("enrolled"):
        outcome = Enrolled(wire.enrolled.chain, wire.enrolled.mesh_name, wire.enrolled.inviter_chain)
    elif wire.HasField("pending"):
        outcome = Pending(wire.pending.retry_after_ms)
    elif wire.HasField("refused"):
        outcome = Refused(wire.refused.code or "refused", wire.refused.message, wire.refused.retry_after_ms)
    else:
        raise JoinError("a reply that says nothing this node knows; update the older side")
    return Reply(outcome, wire.time_ms)


def _parse(wire: pb.Request | pb.Reply, payload: bytes, what: str) -> None:
    if len(payload) > MAX_FRAME:
        raise JoinError(f"a {what} of {len(payload)} bytes, {MAX_FRAME} is the maximum")
    try:
        wire.ParseFromString(payload)
    except DecodeError as error:
        raise JoinError(f"not a {what}: the bytes are damaged") from error
    if wire.version != VERSION:
        raise JoinError(f"a {what} of version {wire.version}; this side knows {VERSION}: update the older one")
