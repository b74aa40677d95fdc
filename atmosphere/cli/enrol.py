"""The joiner's side of an invite: ask the inviter, check what comes back, keep it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from atmosphere.cli.home import Failure
from atmosphere.cli.logs import configure
from atmosphere.env import Env, SystemEnv
from atmosphere.identity import HomeError, Identity, IdentityError, Invite, Keyring, accept_enrolment, enrol_offline
from protocols.join.client import ask
from protocols.join.messages import PROTOCOL, Enrol, JoinError, Pending, Refused, Reply
from transports.config import HostConfig
from transports.errors import PeerUnreachable
from transports.host import open_host

CONNECT_S = 15.0
"""All addresses of the invite, tried side by side, over a satellite link."""
CHECK = "check that the node there runs, that both are in one network, and that no firewall blocks its port"

Ask = Callable[[Enrol], Awaitable[Reply]]


def enrol(home: Path, invite: Invite, name: str, env: Env | None = None) -> Identity:
    """Make the node of *home* a member by *invite*. Raises :class:`Failure`; nothing is kept then but the node key."""
    env = env or SystemEnv()
    keyring = Keyring(home)
    try:
        seed = keyring.node_seed(env.token_bytes)
        peer = keyring.node_peer_id(env.token_bytes)
        if invite.offline:
            mesh_name = invite.mesh_name
            chain = enrol_offline(invite, peer, name, env.now(), env.token_bytes)
        else:
            reply = trio.run(_ask_inviter, invite, seed, Enrol(invite.envelope, name))
            mesh_name, chain = granted(invite, keyring, reply, env)
        return keyring.join(invite.mesh, mesh_name, chain, env.now())
    except (HomeError, IdentityError) as error:
        raise Failure(str(error)) from error


def granted(invite: Invite, keyring: Keyring, reply: Reply, env: Env) -> tuple[str, bytes]:
    """Mesh name and membership from the inviter's *reply*. Raises :class:`Failure`, IdentityError."""
    outcome, now = reply.outcome, env.now()
    if isinstance(outcome, Refused):
        raise Failure(f"{invite.mesh_name} refuses: {outcome.message or outcome.code}")
    if isinstance(outcome, Pending):
        raise Failure(f"somebody in {invite.mesh_name} has to approve this node first", "join again when that is done")
    peer = keyring.node_peer_id(env.token_bytes)
    accept_enrolment(invite, peer, outcome.chain, outcome.inviter_chain, now, reply.time_ms / 1000)
    return outcome.mesh_name or invite.mesh_name, outcome.chain


async def _ask_inviter(invite: Invite, seed: bytes, request: Enrol) -> Reply:
    """Connect with a host that lives for this question only."""
    configure("error")  # what the transports would log is in the errors below
    async with open_host(HostConfig(), seed) as host:
        try:
            with trio.fail_after(CONNECT_S):
                await host.connect(invite.inviter, invite.addresses)
                stream = await host.open_stream(invite.inviter, PROTOCOL)
        except (PeerUnreachable, trio.TooSlowError) as error:
            reason = str(error).replace(f"/p2p/{invite.inviter}", "") or f"no answer within {CONNECT_S:.0f} s"
            raise Failure(f"cannot reach the inviter: {reason}", CHECK) from error
        try:
            return await ask(stream, request)
        except JoinError as error:
            raise Failure(f"the inviter did not answer: {error}") from error
