"""The joiner's side of an invite: ask the inviter or another issuer, check what comes back, keep it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import click
import trio

from atmosphere.cli.home import Failure
from atmosphere.cli.logs import configure
from atmosphere.cli.plain import one_line
from atmosphere.env import Env, SystemEnv
from atmosphere.identity import HomeError, Identity, IdentityError, Invite, Keyring, accept_enrolment, enrol_offline
from protocols.join.client import ask
from protocols.join.messages import PROTOCOL, Enrol, Enrolled, JoinError, Pending, Refused, Reply
from transports.addresses import split_peer
from transports.config import HostConfig
from transports.errors import PeerUnreachable
from transports.host import open_host
from transports.peer_id import PeerId

CONNECT_S = 15.0
"""All addresses of one node, tried side by side, over a satellite link."""
LEAST_WAIT_S, USUAL_WAIT_S, MOST_WAIT_S = 1.0, 5.0, 60.0
"""Between two questions to an issuer that says "later": whatever it says, and if it does not say when."""
CHECK = ("check that the node there runs, that both are in one network, and that no firewall blocks its port; "
         "`--via` names another issuer of the mesh")

Ask = Callable[[Enrol], Awaitable[Reply]]


class Silent(Failure):
    """Nobody who could answer was reached."""


def enrol(home: Path, invite: Invite, name: str, env: Env | None = None, via: Sequence[str] = ()) -> Identity:
    """Make the node of *home* a member by *invite*; waits as long as the owner has to approve it.

    *via*: multiaddrs of other issuers, asked when the inviter is not reached. Raises :class:`Failure`; nothing is kept
    then but the node key, so that the next attempt comes from the same peer and costs no second use.
    """
    env = env or SystemEnv()
    keyring = Keyring(home)
    try:
        seed = keyring.node_seed(env.token_bytes)
        peer = keyring.node_peer_id(env.token_bytes)
        if invite.offline:
            mesh_name = invite.mesh_name
            chain = enrol_offline(invite, peer, name, env.now(), env.token_bytes)
        else:
            configure("error")  # what the transports would log is in the errors below
            question = partial(_ask_one_of, issuers(invite, via), seed)
            reply = _run(partial(decision, question, Enrol(invite.envelope, name), partial(_say, invite, peer)))
            mesh_name, chain = granted(invite, keyring, reply, env)
        return keyring.join(invite.mesh, mesh_name, chain, env.now())
    except (HomeError, IdentityError) as error:
        raise Failure(str(error)) from error


def issuers(invite: Invite, via: Sequence[str]) -> dict[PeerId, list[str]]:
    """Who can be asked and where, the inviter first."""
    found: dict[PeerId, list[str]] = {invite.inviter: []}
    for address in (*invite.addresses, *via):
        peer, plain = split_peer(address)
        found.setdefault(peer, []).append(plain)
    return found


async def decision(ask: Ask, request: Enrol, say: Callable[[Pending | Refused], None]) -> Reply:
    """The first answer that is more than "ask again later"; *say* is called for the first one of each kind of those.

    Silence before any answer is a :class:`Failure`, later it is waited out: the owner's approval is worth more than an
    issuer that is off for a moment.
    """
    said: set[type[Pending | Refused]] = set()
    reply = await ask(request)
    while (outcome := _later(reply)) is not None:
        if type(outcome) not in said:
            said.add(type(outcome))
            say(outcome)
        wait = outcome.retry_after_ms / 1000 or USUAL_WAIT_S
        await trio.sleep(min(max(wait, LEAST_WAIT_S), MOST_WAIT_S))
        try:
            reply = await ask(request)
        except Silent:
            continue
    return reply


def _later(reply: Reply) -> Pending | Refused | None:
    """The outcome, if it may become another one by itself."""
    outcome = reply.outcome
    if isinstance(outcome, Pending) or (
        isinstance(outcome, Refused) and (outcome.retry_after_ms or outcome.code == "rate_limited")
    ):
        return outcome
    return None


def granted(invite: Invite, keyring: Keyring, reply: Reply, env: Env) -> tuple[str, bytes]:
    """Mesh name and membership from the decision *reply*. Raises :class:`Failure`, IdentityError."""
    outcome, now = reply.outcome, env.now()
    if isinstance(outcome, Refused):
        raise Failure(f"{invite.mesh_name} refuses: {outcome.message or outcome.code}")
    assert isinstance(outcome, Enrolled)  # decision() waits for one
    peer = keyring.node_peer_id(env.token_bytes)
    accept_enrolment(invite, peer, outcome.chain, outcome.inviter_chain, now, reply.time_ms / 1000)
    return outcome.mesh_name or invite.mesh_name, outcome.chain


def _say(invite: Invite, peer: PeerId, outcome: Pending | Refused) -> None:
    if isinstance(outcome, Refused):
        words = one_line(outcome.message or outcome.code)
        click.echo(f"{invite.mesh_name}: {words}. Trying again by itself.", err=True)
    else:
        click.echo(f"This node is {peer}.\nWaiting for the owner's approval; Ctrl-C is safe: the same command "
                   "continues later.", err=True)


def _run(conversation: Callable[[], Awaitable[Reply]]) -> Reply:
    """Run it. Ctrl-C is one KeyboardInterrupt, in whichever task it arrived."""
    try:
        return trio.run(conversation)
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        raise KeyboardInterrupt from group


async def _ask_one_of(known: dict[PeerId, list[str]], seed: bytes, request: Enrol) -> Reply:
    """The answer of the first who gives one, with a host that lives for this question only."""
    reasons: list[str] = []
    async with open_host(HostConfig(), seed) as host:
        for peer, addresses in known.items():
            try:
                with trio.fail_after(CONNECT_S):
                    await host.connect(peer, addresses)
                    stream = await host.open_stream(peer, PROTOCOL)
                return await ask(stream, request)
            except (PeerUnreachable, trio.TooSlowError) as error:
                reason = str(error).replace(f"/p2p/{peer}", "") or f"no answer within {CONNECT_S:.0f} s"
                reasons.append(f"cannot reach {'the inviter' if not reasons else peer.short}: {reason}")
            except JoinError as error:
                reasons.append(f"{'the inviter' if not reasons else peer.short} did not answer: {error}")
    raise Silent("\n".join(reasons), CHECK)
