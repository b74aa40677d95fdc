"""README: any OpenAI client that talks to any one node reaches the models of the others.

Real processes: A has no model; B and C serve the same one from a stand-in of an OpenAI-compatible server each.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from openai import APIError, OpenAI

from tests.e2e.backends import Backend, openai_server
from tests.processes import Node, Nodes, command, eventually, invite, nodes, strained, wait_for_capability

pytestmark = pytest.mark.e2e

MODEL = "tiny-chat"
TOKENS = 40
TOKEN_DELAY_MS = 50.0
MESSAGES = [{"role": "user", "content": "count"}]


@dataclass
class World:
    """A mesh of three."""

    a: Node
    serving: dict[str, tuple[Node, Backend]]
    """By peer id."""
    client: OpenAI

    def who(self, headers: object) -> str:
        return str(headers["x-atmosphere-node"])  # type: ignore[index]

    def any_serving(self) -> str:
        """A serving node that still runs."""
        return next(peer for peer, (node, _) in self.serving.items() if node.process.poll() is None)


def serving(group: Nodes, name: str, invitation: str, backend: Backend) -> Node:
    home = group.folder / name
    command(home, "join", invitation, "--name", name)
    command(home, "backend", "add", backend.url)
    return group.run(home, options=("--no-probe",))


@pytest.fixture
def world() -> Iterator[World]:
    with (
        nodes() as group,
        openai_server(MODEL, tokens=TOKENS, token_delay_ms=TOKEN_DELAY_MS) as first,
        openai_server(MODEL, tokens=TOKENS, token_delay_ms=TOKEN_DELAY_MS) as second,
    ):
        a = group.start("A", options=("--no-probe",))
        invitation = invite(a, uses=2)
        pairs = [(serving(group, "B", invitation, first), first), (serving(group, "C", invitation, second), second)]
        wait_for_capability(a, "llm/chat", {"B", "C"})
        peers = {node["name"]: node["peer_id"] for node in a.get("/v1/mesh/nodes")["nodes"]}
        client = OpenAI(base_url=a.base_url, api_key="unused", max_retries=0, timeout=30)
        yield World(a, {peers[node.name]: (node, backend) for node, backend in pairs}, client)
        client.close()


def test_tokens_stream_as_they_are_produced_and_a_kill_moves_the_next_request(world: World) -> None:
    raw = world.client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES, stream=True)
    peer = world.who(raw.headers)
    backend = world.serving[peer][1]
    generated_at_first = None
    words = []
    for chunk in raw.parse():
        if chunk.choices and chunk.choices[0].delta.content:
            if generated_at_first is None:
                generated_at_first = backend.log()["generated"]
            words.append(chunk.choices[0].delta.content)
    assert len(words) == TOKENS
    assert generated_at_first is not None
    assert generated_at_first < TOKENS, "the first token came only after the last was generated"

    node = world.serving[peer][0]
    node.kill()
    began = time.perf_counter()
    again = world.client.chat.completions.with_raw_response.create(
        model=MODEL, messages=MESSAGES, stream=True
    )
    first = next(iter(again.parse()))
    elapsed = time.perf_counter() - began
    assert first.object == "chat.completion.chunk"
    assert world.who(again.headers) in world.serving
    assert world.who(again.headers) != peer
    print(f"\n{node.name} killed; the next request was answered by another node after {elapsed * 1000:.0f} ms")
    assert elapsed < strained(2.0)


def test_a_client_that_leaves_stops_the_generation(world: World) -> None:
    raw = world.client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES, stream=True)
    backend = world.serving[world.who(raw.headers)][1]
    stream = raw.parse()
    next(iter(stream))
    stream.close()
    left = time.perf_counter()
    eventually("the backend sees its client leave", 5, lambda: True if backend.log()["disconnects"] == 1 else None)
    elapsed = time.perf_counter() - left
    generated = backend.log()["generated"]
    print(f"\nthe generation stopped {elapsed * 1000:.0f} ms after the client left, at {generated} of {TOKENS} tokens")
    assert elapsed < strained(0.5)
    assert generated < TOKENS
    time.sleep(3 * TOKEN_DELAY_MS / 1000)
    assert backend.log()["generated"] == generated


def test_a_node_killed_midway_is_an_error_not_a_short_answer(world: World) -> None:
    raw = world.client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES, stream=True)
    node = world.serving[world.who(raw.headers)][0]
    received = 0

    def read_on() -> None:
        nonlocal received
        for chunk in raw.parse():
            received += len(chunk.choices)
            if received == 3:
                node.kill()

    with pytest.raises(APIError) as raised:
        read_on()
    assert 3 <= received < TOKENS
    print(f"\nthe SDK raised after {received} chunks: {raised.value}")


def test_models_are_those_that_can_be_routed_to_now(world: World) -> None:
    assert MODEL in {model.id for model in world.client.models.list()}
    for node, _ in world.serving.values():
        node.kill()

    def gone() -> bool | None:
        return None if MODEL in {model.id for model in world.client.models.list()} else True

    eventually("the model is not listed any more", 10, gone)
    with pytest.raises(APIError) as raised:
        world.client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert raised.value.code in ("not_found", "model_not_found")
