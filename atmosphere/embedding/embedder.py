"""What an embedder is: texts in, unit vectors of one named space out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""Shape (texts, dimensions), every row of length 1."""


class EmbedderError(Exception):
    """An embedder cannot be loaded; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Space:
    """Where vectors live. Only vectors of equal spaces may be compared: every stored or sent vector names its own."""

    name: str
    """``model:dimensions``, as it stands in cards, vectors and requests."""
    model: str
    """The model as clients write it."""
    dimensions: int

    @classmethod
    def of(cls, model: str, dimensions: int) -> Space:
        """The space of *model*: its name in lower case, without the prefix of the usual publisher.

        Quantisation and engine are not part of it: their vectors differ by less than texts do (cosine >= .99).
        """
        model = model.lower().removeprefix("sentence-transformers/")
        return cls(f"{model}:{dimensions}", model, dimensions)


class Embedder(ABC):
    """Turns texts into vectors whose cosine says how close their meanings are.

    Guarantees of every implementation: equal text gives equal bits on one machine, whatever it is embedded together
    with and from whichever thread; rows have length 1, so a dot product is a cosine; text beyond the model's limit
    (:attr:`max_tokens`) has no influence; any string is accepted, the empty one too. Safe to use from several threads.

    It is CPU work of some milliseconds per text and blocks: on the event loop, call it through ``Env.run_blocking``.
    """

    space: Space
    max_tokens: int
    """Tokens of a text that count, the model's own start and end marks among them."""

    @abstractmethod
    def embed(self, texts: Sequence[str]) -> Vectors:
        """One vector per text, in order; shape (0, dimensions) for no text."""

    @abstractmethod
    def count_tokens(self, text: str) -> int:
        """How many tokens *text* has for this model, marks and limit left aside: for usage figures."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.space.name}>"


def valid(text: str) -> str:
    """*text* without lone surrogates, which JSON may carry and tokenizers refuse."""
    return text.encode("utf-8", "replace").decode("utf-8")
