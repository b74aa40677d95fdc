"""``knowledge/answer``: an honest card, quotations with sources, and the OpenAI shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from atmosphere.capabilities.backend import ToolCall
from atmosphere.capabilities.card import Card, Effects
from atmosphere.embedding import HashEmbedder, MiniLM
from atmosphere.env import FixedEnv
from atmosphere.knowledge import Entry, Knowledge, KnowledgeBackend
from atmosphere.knowledge.backend import NOTHING
from atmosphere.knowledge.card import make_card
from atmosphere.store import Store
from protocols.call import CallError, Code

QUESTION = "which fuse is for the pump"


def make_folder(where: Path) -> Path:
    root = where / "handbook"
    root.mkdir(parents=True)
    text = "# Heating\n\nThe pump is in the cellar.\n\n## Fuses\n\nFuse seven is for the pump.\n"
    (root / "heating.md").write_text(text)
    (root / "garden-care.txt").write_text("Roses are pruned in late winter. Lilies are not.\n")
    return root


def make_backend() -> tuple[Knowledge, KnowledgeBackend]:
    env, embedder = FixedEnv(), HashEmbedder()
    known = Knowledge(Store.memory(env), embedder, env)
    return known, KnowledgeBackend(known, embedder, env)


async def card_of(backend: KnowledgeBackend) -> Card:
    (provision,) = await backend.discover()
    return provision.card


async def call(backend: KnowledgeBackend, tool: str, args: object) -> tuple[Any, list[Any]]:
    """(result, emitted pieces), both parsed."""
    pieces: list[Any] = []

    async def emit(piece: bytes) -> None:
        pieces.append(json.loads(piece))

    data = args if isinstance(args, bytes) else json.dumps(args).encode()
    result = await backend.invoke(Card("knowledge/answer", ""), ToolCall(tool, data), emit)
    return (json.loads(result) if result else None), pieces


@pytest.fixture
def backend(tmp_path: Path) -> KnowledgeBackend:
    known, backend = make_backend()
    known.add(make_folder(tmp_path))
    return backend


async def test_there_is_a_card_while_something_is_indexed(tmp_path: Path) -> None:
    known, backend = make_backend()
    assert await backend.discover() == ()
    folder = make_folder(tmp_path)
    known.add(folder)
    first = await card_of(backend)
    assert first is await card_of(backend)  # asked every few seconds: made once
    (folder / "roof.md").write_text("# Gutters\n\nThey are cleaned in November.")
    known.add(folder)
    assert "Gutters" in (await card_of(backend)).description
    known.remove(folder)
    assert await backend.discover() == ()


async def test_the_card_tells_what_is_inside(backend: KnowledgeBackend) -> None:
    card = await card_of(backend)
    assert card.type == "knowledge/answer"
    assert [(tool.name, tool.effects) for tool in card.tools] == [
        ("search", Effects.NONE), ("answer", Effects.NONE), ("chat", Effects.NONE),
    ]
    assert card.topics == ("garden care", "handbook", "heating")
    assert card.examples == (
        "Roses are pruned in late winter.",
        "Heating. The pump is in the cellar.",
        "Fuses. Fuse seven is for the pump.",
    )
    assert all(json.loads(tool.input_schema)["type"] == "object" for tool in card.tools)


async def test_equal_content_is_an_equal_card_on_every_node(tmp_path: Path) -> None:
    """No path of the machine, no time, no count of this node's history shows in it."""
    cards = []
    for name in ("one", "two"):
        known, backend = make_backend()
        folder = make_folder(tmp_path / name)
        if name == "two":  # got there on another way
            (folder / "heating.md").rename(folder / "later.md")
            known.add(folder)
            (folder / "later.md").rename(folder / "heating.md")
        known.add(folder)
        cards.append((await card_of(backend)).encode())
    assert cards[0] == cards[1]
    assert str(tmp_path).encode() not in cards[0]


def test_a_card_of_many_strange_documents_stays_within_its_limits() -> None:
    entries = [
        Entry(f"f{i}", f"f{i}/{i}{'名' * 80}.md", f"a.md#{i}-{j}{'標' * 100}", "😀" * 800)
        for i in range(100) for j in range(5)
    ]
    card = make_card(entries)
    assert card.encode()
    assert len(card.examples) == 24
    assert make_card(entries[::5]).encode() == make_card(entries[::5][::-1]).encode()


async def test_search_returns_passages_with_their_place(backend: KnowledgeBackend) -> None:
    result, pieces = await call(backend, "search", {"query": QUESTION, "k": 2})
    assert pieces == []
    assert len(result["passages"]) == 2
    best = result["passages"][0]
    assert best.pop("score") > 0.5
    assert best == {
        "text": "Fuse seven is for the pump.", "source": "handbook/heating.md", "locator": "heating.md#Fuses",
    }


async def test_an_answer_quotes_and_names_its_source(backend: KnowledgeBackend) -> None:
    result, _ = await call(backend, "answer", {"question": QUESTION, "k": 1})
    assert result["answer"] == (
        "From the indexed documents:\n\nFuse seven is for the pump.\n[1] handbook/heating.md, heating.md#Fuses"
    )
    assert [passage["text"] for passage in result["passages"]] == ["Fuse seven is for the pump."]


async def test_nothing_relevant_is_said_plainly(backend: KnowledgeBackend) -> None:
    result, _ = await call(backend, "answer", {"question": "quantum chromodynamics lattice"})
    assert result == {"answer": NOTHING, "passages": []}


async def test_chat_answers_the_last_user_message(backend: KnowledgeBackend) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "roses"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
    ]
    result, pieces = await call(backend, "chat", {"messages": messages, "temperature": 0.2, "tools": []})
    assert pieces == []
    assert (result["object"], result["model"]) == ("chat.completion", "knowledge/answer")
    assert result["id"].startswith("chatcmpl-")
    assert result["created"] >= 1_800_000_000
    (choice,) = result["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["role"] == "assistant"
    assert "Fuse seven is for the pump." in choice["message"]["content"]
    usage = result["usage"]
    assert usage["prompt_tokens"] == 2 + 1 + 6
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@pytest.mark.parametrize("include_usage", [False, True])
async def test_a_streamed_chat_is_the_same_in_pieces(backend: KnowledgeBackend, include_usage: bool) -> None:
    body = {"messages": [{"role": "user", "content": QUESTION}]}
    whole, _ = await call(backend, "chat", body)
    result, chunks = await call(
        backend, "chat", {**body, "stream": True, "stream_options": {"include_usage": include_usage}}
    )
    assert result is None
    if include_usage:
        last = chunks.pop()
        assert (last["choices"], last["usage"]) == ([], whole["usage"])
        assert all(chunk["usage"] is None for chunk in chunks)
    assert {(chunk["object"], chunk["model"], chunk["id"]) for chunk in chunks} == {
        ("chat.completion.chunk", "knowledge/answer", chunks[0]["id"])
    }
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0]["role"] == "assistant"
    assert "".join(delta.get("content", "") for delta in deltas) == whole["choices"][0]["message"]["content"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert len(chunks) >= 4  # role, opening, a passage, end


USER = {"role": "user", "content": "hello"}


@pytest.mark.parametrize(
    ("tool", "args", "says"),
    [
        ("chat", {"messages": [USER], "tools": [{"type": "function"}]}, "calls no tools"),
        ("chat", {"messages": [USER], "functions": [{}]}, "calls no tools"),
        ("chat", {"messages": [USER], "response_format": {"type": "json_object"}}, "response_format"),
        ("chat", {"messages": [USER], "n": 2}, "one answer"),
        ("chat", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "no images"),
        ("chat", {"messages": [{"role": "system", "content": "x"}]}, "last user message"),
        ("chat", {"messages": [{"role": "user", "content": " "}]}, "last user message"),
        ("chat", {"messages": [{"role": "user", "content": 5}]}, "content must be"),
        ("chat", {"messages": ["hello"]}, "role and a content"),
        ("chat", {"messages": []}, "list of 1 to"),
        ("chat", {}, "list of 1 to"),
        ("search", {"k": 3}, "needs a text `query`"),
        ("answer", {"question": "  "}, "needs a text `question`"),
        ("search", {"query": "x", "k": 0}, "from 1 to 20"),
        ("search", {"query": "x", "k": 21}, "from 1 to 20"),
        ("search", {"query": "x", "k": True}, "from 1 to 20"),
        ("search", {"query": "x", "k": "3"}, "from 1 to 20"),
        ("search", b"{", "not JSON"),
        ("search", b"\xff", "not JSON"),
        ("search", b"[" * 100_000, "nested too deeply"),
        ("search", b"[]", "JSON object"),
    ],
)
async def test_what_cannot_be_served_is_refused_with_a_reason(
    backend: KnowledgeBackend, tool: str, args: object, says: str
) -> None:
    with pytest.raises(CallError, match=says) as caught:
        await call(backend, tool, args)
    assert caught.value.code is Code.INVALID


async def test_plain_text_as_response_format_is_fine(backend: KnowledgeBackend) -> None:
    await call(backend, "chat", {"messages": [USER], "response_format": {"type": "text"}})


async def test_an_unknown_tool_is_not_found(backend: KnowledgeBackend) -> None:
    with pytest.raises(CallError) as caught:
        await call(backend, "write", {})
    assert caught.value.code is Code.NOT_FOUND


async def test_the_threshold_fits_the_real_model(tmp_path: Path) -> None:
    """Related questions get a quotation, unrelated ones the plain statement that there is nothing."""
    env, embedder = FixedEnv(), MiniLM.load()
    known = Knowledge(Store.memory(env), embedder, env)
    known.add(make_folder(tmp_path))
    backend = KnowledgeBackend(known, embedder, env)
    for question in ("Which fuse protects the pump?", "Where do I find the pump?", "When do I prune the roses?"):
        result, _ = await call(backend, "answer", {"question": question, "k": 1})
        assert result["passages"], question
    for question in ("Who won the world cup in 1974?", "Translate good morning into Spanish", "Write a love poem"):
        result, _ = await call(backend, "answer", {"question": question})
        assert result["answer"] == NOTHING, question
