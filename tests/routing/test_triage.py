"""Which requests need the large model, and which of the models is large."""

from __future__ import annotations

import pytest

from atmosphere.capabilities.card import Card
from atmosphere.embedding import HashEmbedder, MiniLM
from atmosphere.routing.triage import SURE, WEIGHT, Sizes, Triage, size_of
from atmosphere.routing.triage_examples import EASY, HARD
from tests.routing.triage_texts import FRESH


@pytest.fixture(scope="module")
def embedder() -> MiniLM:
    return MiniLM.load()


@pytest.fixture(scope="module")
def triage(embedder: MiniLM) -> Triage:
    triage = Triage(embedder)
    triage.learn()
    return triage


def test_the_founding_scenario(triage: Triage, embedder: MiniLM) -> None:
    assert triage.need(embedder.embed(["What's 2 + 2?"])[0]) < 0.3
    assert triage.need(embedder.embed(["Analyze the security implications of our topology"])[0]) > 0.7


def test_it_holds_on_requests_that_it_was_not_made_of(triage: Triage, embedder: MiniLM) -> None:
    """The figures of the module's docstring, with a little room: int8 results differ between processors."""
    assert not {text for _, text in FRESH} & {*EASY, *HARD}
    guessed = [(large, triage.need(embedder.embed([text])[0])) for large, text in FRESH]
    hard = [need for large, need in guessed if large]
    easy = [need for large, need in guessed if not large]
    auroc = sum((a > b) + (a == b) / 2 for a in hard for b in easy) / len(hard) / len(easy)
    assert auroc >= 0.95
    assert sum((need > 0.5) == large for large, need in guessed) >= 35
    assert all(1 - SURE <= need <= SURE for _, need in guessed)


def test_any_space_will_do() -> None:
    embedder = HashEmbedder(48)
    triage = Triage(embedder)
    assert triage.need(embedder.embed(["anything"])[0]) == 0.5
    triage.learn()
    assert triage.need(embedder.embed([HARD[0]])[0]) > triage.need(embedder.embed([EASY[0]])[0])


@pytest.mark.parametrize(("model", "description", "size"), [
    ("llama3.3:70b-instruct-q4_K_M", "", 70.0),
    ("Qwen/Qwen3-30B-A3B", "", 30.0),
    ("mixtral:8x7b", "", 56.0),
    ("gemma3:270m", "", 0.27),
    ("phi-3.5-mini", "phi-3.5-mini (phi, 3.8B, Q4_0): a language model", 3.8),
    ("llama3.2:latest", "llama3.2:latest (llama, 3.2B, Q4_K_M): chats", 3.2),
    ("gpt-4o", "a language model", None),
    ("model-2024b5", "", None),
    ("zero:0b", "", None),
])
def test_sizes_are_read_from_names_and_descriptions(model: str, description: str, size: float | None) -> None:
    assert size_of(Card("llm/chat", description, model=model)) == size


def test_the_size_that_fits_counts_most() -> None:
    sizes = Sizes({b"7": 7.0, b"20": 20.0, b"70": 70.0, b"?": None})
    assert sizes
    factors = {need: list(sizes.factors(need).values())[:3] for need in (0.15, 0.85)}
    assert factors[0.15] == sorted(factors[0.15], reverse=True)
    assert factors[0.85] == sorted(factors[0.85])
    assert [max(values) for values in factors.values()] == [1.0, 1.0]
    assert all(value >= 1 - WEIGHT for values in factors.values() for value in values)
    assert factors[0.85][0] < sizes.factors(0.85)[b"?"] < 1.0
    assert sizes.factors(1.0)[b"7"] == pytest.approx(1 - WEIGHT)


def test_who_does_not_know_changes_nothing_between_two() -> None:
    assert Sizes({b"7": 7.0, b"70": 70.0}).factors(0.5) == {b"7": 1.0, b"70": 1.0}


@pytest.mark.parametrize("known", [(), (None,), (7.0,), (7.0, 8.0), (7.0, None)])
def test_where_there_is_nothing_to_choose_it_changes_nothing(known: tuple[float | None, ...]) -> None:
    sizes = Sizes({bytes([number]): size for number, size in enumerate(known)})
    assert not sizes
    assert sizes.factors(0.9) == {}
