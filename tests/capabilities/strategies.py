"""Hypothesis strategies for cards, offers and vectors within their limits."""

from __future__ import annotations

from hypothesis import strategies as st

from atmosphere.capabilities.card import Card, Effects, Tool, Trigger
from atmosphere.capabilities.offer import MAX_PACE_MS, Offer, OfferEntry
from atmosphere.capabilities.vector import CardVector
from transports.peer_id import PeerId

words = st.text(max_size=20)
names = st.text(min_size=1, max_size=12)
word_lists = st.lists(words, max_size=4).map(tuple)
peers = st.binary(min_size=32, max_size=32).map(PeerId.from_public_key)
card_ids = st.binary(min_size=32, max_size=32)

tools = st.builds(Tool, names, words, st.just("{}") | words, st.sampled_from(Effects))
triggers = st.builds(Trigger, names, words, words)

cards = st.builds(
    Card,
    type=st.from_regex(r"[a-z0-9_-]{1,8}/[a-z0-9_.-]{1,8}", fullmatch=True),
    description=words,
    model=words,
    examples=word_lists,
    topics=word_lists,
    inputs=word_lists,
    outputs=word_lists,
    features=word_lists,
    context_tokens=st.integers(0, 2**31 - 1),
    space=words,
    tools=st.lists(tools, max_size=4, unique_by=lambda tool: tool.name).map(tuple),
    triggers=st.lists(triggers, max_size=3, unique_by=lambda trigger: trigger.name).map(tuple),
)

entries = st.builds(
    OfferEntry, card_ids, st.integers(1, 2**32 - 1), st.integers(0, 2**64 - 1), st.lists(words, max_size=3).map(tuple),
    st.integers(0, MAX_PACE_MS),
)

offers = st.builds(
    Offer,
    peer=peers,
    epoch=st.integers(0, 2**64 - 1),
    sequence=st.integers(0, 2**64 - 1),
    name=words.filter(lambda name: len(name.encode()) <= 64),
    entries=st.lists(entries, max_size=5, unique_by=lambda entry: entry.card).map(tuple),
    issued_at=st.integers(0, 4_000_000_000_000).map(lambda ms: ms / 1000),
)

vectors = st.builds(
    CardVector.from_floats,
    card_ids,
    names,
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=64).filter(lambda values: max(map(abs, values)) > 1e-30),
)
