"""Cutting documents: nothing lost, nothing too long, every piece under its heading."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from atmosphere.knowledge.passages import MAX_PASSAGE_CHARS, split_markdown, split_pages, split_text

MARKDOWN = """\
Before any heading.

# Guide

## Quick start ##

Install it.

Run it.

```
# not a heading

still code
```

Setext title
============

Text with a rule below.

---

### [A *link*](http://example.org/x)

Deep.
"""


def test_markdown_is_cut_at_headings_and_nowhere_else() -> None:
    passages = split_markdown(MARKDOWN, "a.md")
    assert [(p.locator, p.headings, p.text) for p in passages] == [
        ("a.md", (), "Before any heading."),
        (
            "a.md#Quick start",
            ("Guide", "Quick start"),
            "Install it.\n\nRun it.\n\n```\n# not a heading\n\nstill code\n```",
        ),
        ("a.md#Setext title", ("Setext title",), "Text with a rule below.\n\n---"),
        ("a.md#A link", ("Setext title", "A link"), "Deep."),
    ]


def test_a_rule_below_a_paragraph_and_a_table_are_no_headings() -> None:
    text = "One line\nand another\n---\n\n| a |\n---\n"
    assert [p.headings for p in split_markdown(text, "a.md")] == [()]


def test_an_unclosed_fence_keeps_its_text() -> None:
    assert split_markdown("```\n# x\n\ny", "a.md")[0].text == "```\n# x\n\ny"


def test_plain_text_is_located_by_line() -> None:
    text = "first\nline\n\n\n" + "a sentence. " * 66 + "\n\nlast"
    assert [p.locator for p in split_text(text, "n.txt")] == ["n.txt:1", "n.txt:5"]


def test_pages_are_located_by_number_and_empty_ones_give_nothing() -> None:
    assert [(p.locator, p.text) for p in split_pages(["one", "  ", "three"])] == [("p. 1", "one"), ("p. 3", "three")]


def test_long_text_is_cut_after_a_sentence_and_lists_before_an_item() -> None:
    sentences = split_text("This is a sentence of some length. " * 60, "n.txt")
    assert all(p.text.endswith(".") for p in sentences)
    items = split_markdown("\n".join(f"- item {i} about a thing. It has two sentences" for i in range(60)), "a.md")
    assert len(items) > 2
    assert all(p.text.startswith("- item") for p in items)


def test_text_without_any_gap_is_still_cut() -> None:
    assert [len(p.text) for p in split_text("x" * 2000, "n.txt")] == [800, 800, 400]


LINES = st.lists(
    st.one_of(
        st.text(max_size=60),
        st.sampled_from(["# h", "## h", "```", "~~~", "===", "---", "- item", "", "   ", "word " * 300, "y" * 900]),
    ),
    max_size=30,
).map("\n".join)


@given(LINES)
def test_passages_are_short_and_not_empty(text: str) -> None:
    for passage in [*split_markdown(text, "a.md"), *split_text(text, "a"), *split_pages([text])]:
        assert 1 <= len(passage.text) <= MAX_PASSAGE_CHARS
        assert passage.text == passage.text.strip()


@given(LINES.filter(lambda text: "\0" not in text))
def test_plain_text_is_kept_whole(text: str) -> None:
    """No character but white space is lost, changed or reordered."""
    assert "".join("".join(p.text for p in split_text(text, "a")).split()) == "".join(text.split())
