"""Who is a member: chains verified once, checked again for time and revocation at every use. Pure."""

from __future__ import annotations

from collections import OrderedDict

from atmosphere.env import Env
from atmosphere.identity import ChainCache, IdentityError, Membership, Reason
from atmosphere.identity.chain import CLOCK_SKEW_S, check_use
from atmosphere.mesh.library import Library
from atmosphere.mesh.trust import Trust
from protocols.sync.messages import Hello, Key, Kind, Refused
from transports.peer_id import PeerId

MAX_ADMITTED = 10_000


class Members:
    """Judges chains for one node's mesh."""

    def __init__(self, mesh: bytes, trust: Trust, library: Library, env: Env) -> None:
        self._mesh = mesh
        self._trust = trust
        self._library = library
        self._env = env
        self._cache = ChainCache(mesh)
        self._admitted: OrderedDict[PeerId, bytes] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Members {len(self._admitted)} admitted>"

    def judge(self, peer: PeerId, hello: Hello) -> Membership:
        """Check the greeting of *peer*. Raises Refused with a reason that *peer* is told, too."""
        if hello.mesh != self._mesh:
            raise Refused("foreign_mesh", "this node belongs to another mesh; join it with an invite of its owner")
        if not hello.membership:
            raise Refused("no_membership", "no membership was shown; join this mesh with an invite first")
        try:
            membership = self.learn(hello.membership)
        except IdentityError as error:
            raise Refused(str(error.reason), self._explain(error, hello)) from error
        if membership.peer != peer:
            raise Refused(str(Reason.WRONG_AUDIENCE), "the membership belongs to another peer id")
        self._admit(peer, membership.digest)
        return membership

    def _admit(self, peer: PeerId, digest: bytes) -> None:
        self._admitted.pop(peer, None)
        self._admitted[peer] = digest
        if len(self._admitted) > MAX_ADMITTED:
            self._admitted.popitem(last=False)

    def _explain(self, error: IdentityError, hello: Hello) -> str:
        apart = hello.now_ms / 1000 - self._env.now()
        if abs(apart) > CLOCK_SKEW_S:
            side = "ahead of" if apart > 0 else "behind"
            return f"{error} (your clock is {abs(apart):.0f} s {side} this node's: set it, then try again)"
        return str(error)

    def learn(self, chain: bytes) -> Membership:
        """Verify *chain* and keep it, so that it can be given to others. Raises IdentityError."""
        membership = self._check(chain)
        self._library.put(Key(Kind.MEMBERSHIP, membership.digest), chain)
        return membership

    def _check(self, chain: bytes) -> Membership:
        membership = self._cache.verify(chain, self._env.now())
        self._trust.check(membership)
        return membership

    def verified(self, digest: bytes, known: Membership | None = None) -> Membership | None:
        """The membership of that digest; None if it is not known. Raises IdentityError if it does not hold now.

        *known*: one that was verified here before; if it is the one, only time and revocation are looked at.
        """
        chain = self._library.get(Key(Kind.MEMBERSHIP, digest))
        if chain is None:
            return None
        if known is None or known.digest != digest:
            return self._check(chain)
        check_use(known, None, self._env.now())
        self._trust.check(known)
        return known

    def renewed(self, membership: Membership) -> None:
        """An admitted peer has said in its beacon that this is its membership now."""
        if membership.peer in self._admitted:
            self._admitted[membership.peer] = membership.digest

    def of(self, peer: PeerId) -> Membership | None:
        """What *peer* showed at its last greeting, if it holds now: asked at every call."""
        digest = self._admitted.get(peer)
        if digest is None:
            return None
        try:
            return self.verified(digest)
        except IdentityError:
            return None

    def fallen(self) -> list[PeerId]:
        """Admitted peers whose membership does not hold any more; they are forgotten here."""
        gone = [peer for peer in self._admitted if self.of(peer) is None]
        for peer in gone:
            del self._admitted[peer]
        return gone
