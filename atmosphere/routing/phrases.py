"""What is said of a card, as texts: its subject, and the phrases that people use when they want it. Pure.

The subject is the description, and the description with its topics. Phrases are the card's examples, and those that
its tools propose: ``name: description`` of every tool that says what it does. Measured in docs/routing.md.
"""

from __future__ import annotations

import re

from atmosphere.capabilities.card import Card

MAX_TOOL_PHRASES = 16
"""A server with hundreds of tools says what it is with the first ones; each text costs 2 ms to embed."""

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")  # not within ABCmouse, whose words nobody can tell
_WORDS = re.compile(r"\w+")
_START = 5


def humanise(name: str) -> str:
    """A name of a program as people would say it: ``getWeatherAlerts`` and ``get_weather_alerts`` give the same."""
    return " ".join(_CAMEL.sub(" ", name).replace("_", " ").replace("-", " ").split())


def subject(card: Card) -> list[str]:
    """What the card says that it is: one or two texts, never none."""
    said = card.description.strip()
    if not card.topics:
        return [said or humanise(card.type.replace("/", " "))]
    topics = ", ".join(card.topics)
    return [said, f"{said} ({topics})"] if said else [topics]


def phrases(card: Card) -> list[str]:
    """What people say when they want the card, and what its tools say of themselves."""
    told = [tool for tool in card.tools if tool.description and tool.description != card.description]
    tools = [f"{humanise(tool.name)}: {tool.description}" for tool in told[:MAX_TOOL_PHRASES]]
    return [*(text for text in card.examples if text.strip()), *tools]


def words(text: str) -> list[str]:
    """The words of *text* in lower case, and the beginnings of the longer ones, so that ``books`` finds ``booking``.

    Beginnings and not stems: that needs no dictionary and knows no language.
    """
    found = _WORDS.findall(text.lower())
    return found + [word[:_START] + "-" for word in found if len(word) > _START]
