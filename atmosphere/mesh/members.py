"""Who is a member: chains verified once, checked again for time and revocation at every use. Pure."""

from __future__ import annotations

from collections import OrderedDict

from atmosphere.env import Env
from atmosphere.identity import ChainCache, Identity, IdentityError, Membership, Reason, RevocationSet
from atmosphere.identity.chain import CLOCK_SKEW_S
from atmosphere.mesh.library import Library
from protocols.sync.messages import Hello, Key, Kind, Refused
from transports.peer_id import PeerId

MAX_ADMITTED = 10_000


class Members:
    """Judges chains for one node's mesh."""

    def __init__(self, identity: Identity, library: Library, env: Env) -> None:
        self._identity = identity
        self._library = library
        self._env = env
        self._cache = ChainCache(identity.mesh)
        self._admitted: OrderedDict[PeerId, bytes] = OrderedDict()
        self.revocations = RevocationSet(identity.mesh)

    def __repr__(self) -> str:
        return f"<Members {len(self._admitted)} admitted>"

    def judge(self, peer: PeerId, hello: Hello) -> Membership:
        """Check the greeting of *peer*. Raises Refused with a reason that *peer* is told, too."""
        if hello.mesh != self._identity.mesh:
            raise Refused("foreign_mesh", "this node belongs to another mesh; join it with an invite of its owner")
        if not hello.membership:
            raise Refused("no_membership", "no membership was shown; join this mesh with an invite first")
        try:
            membership = self.learn(hello.membership)
        except IdentityError as error:
            raise Refused(str(error.reason), self._explain(error, hello)) from error
        if membership.peer != peer:
            raise Refused(str(Reason.WRONG_AUDIENCE), "the membership belongs to another peer id")
        self._admitted.pop(peer, None)
        self._admitted[peer] = membership.digest
        if len(self._admitted) > MAX_ADMITTED:
            self._admitted.popitem(last=False)
        return membership

    def _explain(self, error: IdentityError, hello: Hello) -> str:
        apart = hello.now_ms / 1000 - self._env.now()
        if abs(apart) > CLOCK_SKEW_S:
            side = "ahead of" if apart > 0 else "behind"
            return f"{error} (your clock is {abs(apart):.0f} s {side} this node's: set it, then try again)"
        return str(error)

    def learn(self, chain: bytes) -> Membership:
        """Verify *chain* and keep it, so that it can be given to others. Raises IdentityError."""
        membership = self._cache.verify(chain, self._env.now(), self.revocations)
        self._library.put(Key(Kind.MEMBERSHIP, membership.digest), chain)
        return membership

    def verified(self, digest: bytes) -> Membership | None:
        """The membership of that digest, if it is known and holds now."""
        chain = self._library.get(Key(Kind.MEMBERSHIP, digest))
        if chain is None:
            return None
        try:
            return self._cache.verify(chain, self._env.now(), self.revocations)
        except IdentityError:
            return None

    def of(self, peer: PeerId) -> Membership | None:
        """What *peer* showed at its last greeting, if it holds now: asked at every call."""
        digest = self._admitted.get(peer)
        return None if digest is None else self.verified(digest)
