"""Cutting a document into passages: small enough to embed whole, large enough to answer, and quotable by a place.

Pure. A passage never crosses a heading or a page, and paragraphs stay whole where they fit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MAX_PASSAGE_CHARS = 800  # about 200 word pieces of English: with its headings it stays within the model's 256
MAX_HEADING_CHARS = 100
VERSION = 1
"""Part of every document's digest: raised when the rules below change, so that documents are cut again."""

_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_BLANK_CODE = "\0"  # stands for a blank line inside a code block, which does not end the paragraph
_ITEM = re.compile(r"\n(?=[ \t]*(?:[-*+]|\d+[.)])[ \t])")
_SENTENCE_END = re.compile(r"[.!?。！？][\"')\]»”]?\s|\n")


@dataclass(frozen=True, slots=True)
class Passage:
    """One quotable piece of a document."""

    locator: str
    """Where it is, for people: ``README.md#Quick start``, ``notes.txt:12`` (a line), ``p. 3``."""
    headings: tuple[str, ...]
    """From the outermost inwards; embedded with the text, because a paragraph rarely repeats what it is about."""
    text: str
    """1 to MAX_PASSAGE_CHARS characters."""


def split_markdown(text: str, name: str) -> list[Passage]:
    """Passages of the Markdown document *name*: by headings (not inside code), then paragraphs."""
    passages: list[Passage] = []
    headings: list[tuple[int, str]] = []
    body: list[str] = []

    def flush() -> None:
        titles = tuple(title for _, title in headings if title)
        locator = f"{name}#{titles[-1]}" if titles else name
        passages.extend(Passage(locator, titles, piece) for _, piece in _pack(_paragraphs(body)))
        body.clear()

    def open_section(level: int, title: str) -> None:
        flush()
        while headings and headings[-1][0] >= level:
            headings.pop()
        headings.append((level, _plain(title)))

    fence = ""
    for line in text.splitlines():
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not line.strip(" \t`~"):
                fence = ""
            body.append(line if line.strip() else _BLANK_CODE)
        elif mark:
            fence = mark[1]
            body.append(line)
        elif atx := _ATX.match(line):
            open_section(len(atx[1]), atx[2] or "")
        elif (setext := _SETEXT.match(line)) and body and body[-1].strip() and _is_title(body):
            title = body.pop()
            open_section(1 if setext[1][0] == "=" else 2, title)
        else:
            body.append(line)
    flush()
    return passages


def split_text(text: str, name: str) -> list[Passage]:
    """Passages of plain text: by paragraphs; the locator is the line of the first one."""
    return [Passage(f"{name}:{line}", (), piece) for line, piece in _pack(_paragraphs(text.splitlines()))]


def split_pages(pages: Iterable[str]) -> list[Passage]:
    """Passages of a paged document (PDF)."""
    return [
        Passage(f"p. {number}", (), piece)
        for number, page in enumerate(pages, 1)
        for _, piece in _pack(_paragraphs(page.splitlines()))
    ]


def _plain(title: str) -> str:
    """A heading as people read it: links and marks removed."""
    title = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", title)
    return re.sub(r"[*`]|\s+", lambda m: " " if m[0].isspace() else "", title).strip()[:MAX_HEADING_CHARS].rstrip()


def _is_title(body: Sequence[str]) -> bool:
    """Whether the last line of *body* stands alone, as a setext title does; a rule under a paragraph is none."""
    return (len(body) == 1 or not body[-2].strip()) and not body[-1].lstrip().startswith(("|", "-", "*", ">"))


def _paragraphs(lines: Sequence[str]) -> list[tuple[int, str]]:
    """(line number from 1, text) of each run of lines that are not empty."""
    found: list[tuple[int, str]] = []
    start: int | None = None
    for number, line in enumerate([*lines, ""]):
        blank = not line.strip() and line != _BLANK_CODE
        if blank and start is not None:
            found.append((start + 1, "\n".join(lines[start:number]).replace(_BLANK_CODE, "").strip()))
            start = None
        elif not blank and start is None:
            start = number
    return [(line, text) for line, text in found if text]


def _pack(paragraphs: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """Join neighbours while they fit, cut what is too long."""
    packed: list[tuple[int, str]] = []
    for line, paragraph in paragraphs:
        for piece in _cut(paragraph):
            if packed and len(packed[-1][1]) + 2 + len(piece) <= MAX_PASSAGE_CHARS:
                packed[-1] = (packed[-1][0], f"{packed[-1][1]}\n\n{piece}")
            else:
                packed.append((line, piece))
    return packed


def _cut(text: str) -> list[str]:
    """Pieces of at most MAX_PASSAGE_CHARS: before a list item, else after a sentence, between words, anywhere."""
    pieces = []
    while len(text) > MAX_PASSAGE_CHARS:
        window = text[:MAX_PASSAGE_CHARS]
        ends = [
            match.end() for rule in (_SENTENCE_END, _ITEM) for match in rule.finditer(window, MAX_PASSAGE_CHARS // 3)
        ]
        at = ends[-1] if ends else max(window.rfind(" "), window.rfind("\t")) + 1
        if at <= 0:
            at = MAX_PASSAGE_CHARS
        pieces.append(text[:at].strip())
        text = text[at:].strip()
    return [piece for piece in [*pieces, text] if piece]
