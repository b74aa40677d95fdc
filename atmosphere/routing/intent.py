"""What somebody wants done, before anybody decided where."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from transports.peer_id import PeerId

AUTO = "auto"
"""The model name that means: choose for me. An absent model means the same."""


class Prefer(StrEnum):
    """What counts for more than usual among those who can do it. It never outranks a filter."""

    BALANCED = ""
    FAST = "fast"
    CHEAP = "cheap"
    NEAR = "near"


@dataclass(frozen=True, slots=True)
class Constraints:
    """Hard conditions: a candidate that breaks one is filtered out, never merely ranked lower."""

    type: str | None = None
    """Capability type, exact (``llm/chat``) or a family (``llm/*``)."""
    node: PeerId | None = None
    card: str | None = None
    """A card id in hex, or an unambiguous beginning of at least 8 digits."""
    labels: frozenset[str] = frozenset()
    """Every one of them must be on the offer (``gpu``, ``site:home``)."""
    local_only: bool = False
    max_latency_ms: float | None = None
    """Measured round trip to the node; a node without a measurement is filtered out."""
    space: str | None = None
    """Vector space that embeddings must be in."""
    min_context_tokens: int = 0
    exclude: frozenset[PeerId] = frozenset()
    avoid_labels: frozenset[str] = frozenset()
    """None of them may be on the offer (``cloud``, ``site:office``): what must not see the request."""
    gpu_required: bool = False
    """The node must say that it has a GPU (label ``gpu``)."""


@dataclass(frozen=True, slots=True)
class Intent:
    """A request for work."""

    tool: str | None
    """The tool that must be there (``chat``, ``embed``, ``complete``, ``search`` ...); None: any (a dry run)."""
    text: str = ""
    """What is meant, for the semantic match. Empty: no semantic match is made."""
    model: str | None = None
    """A model's name or an alias, as the caller wrote it; None or ``auto``: choose."""
    equivalents: tuple[str, ...] = ()
    """The models that *model*, an alias, stands for, best first; put there by the router. Empty: it is no alias."""
    inputs: frozenset[str] = frozenset()
    """Modalities that the request holds: an image never goes to a text-only model. Empty: a tool's plain arguments."""
    features: frozenset[str] = frozenset()
    """What the request uses: ``tools``, ``json_schema``, ``json_object``."""
    tokens: int = 0
    """Length of the request, counted (tokens.py); a model with a shorter context is filtered out. 0: not counted."""
    prefixes: tuple[bytes, ...] = ()
    """Keys of what the request begins with, the most specific first (affinity.py): who has it cached is preferred."""
    prefer: Prefer = Prefer.BALANCED
    level: str = ""
    """The capability name (``vision``, ``best-code``) that *model* was; put there by the router."""
    constraints: Constraints = field(default_factory=Constraints)

    @property
    def names_model(self) -> bool:
        """Whether the caller asked for a model by name or alias (which is then never replaced by another)."""
        return bool(self.equivalents) or (self.model is not None and self.model != AUTO and not self.level)

    @property
    def models(self) -> tuple[str, ...]:
        """The models that may do it, best first; empty: any."""
        if self.equivalents:
            return self.equivalents
        return (self.model,) if self.model is not None and self.names_model else ()
