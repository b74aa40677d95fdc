"""The scanner: what comes and goes is noticed in time, and a node is never taken for a backend."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest
import trio

from atmosphere.capabilities.adapters import AdapterKind, adapter_kinds
from atmosphere.capabilities.backend import Backend, BackendGone, BackendSilent, Emit, Provision, ToolCall
from atmosphere.capabilities.card import Card, Tool, card_id
from atmosphere.capabilities.registry import LocalRegistry
from atmosphere.capabilities.scanner import Scanner, Target, is_node, plan_targets
from atmosphere.config import BackendConfig, ConfigError
from protocols.call import CallError, Code
from tests.backends.ollama_server import OllamaServer
from tests.backends.openai_server import OpenAIServer
from tests.backends.running import running

CARD = Card(type="test/thing", description="a thing", tools=(Tool("use"),))


class Moody(Backend):
    """A backend whose mood the test sets: up, refused, silent, or a bug."""

    name = "moody"

    def __init__(self) -> None:
        self.mood = "up"
        self.looks: list[float] = []

    async def discover(self) -> Sequence[Provision]:
        self.looks.append(trio.current_time())
        match self.mood:
            case "refused":
                raise BackendGone("connection refused")
            case "silent":
                await trio.sleep(2)
                raise BackendSilent("no answer within 2 s")
            case "bug":
                raise ZeroDivisionError
        await trio.lowlevel.checkpoint()
        return [Provision(CARD)]

    async def invoke(self, card: Card, call: ToolCall, emit: Emit) -> bytes:
        if self.mood != "up" and self.mood != "silent":
            raise CallError(Code.UNAVAILABLE, "connection refused", retryable=True)
        for _ in range(100):
            await emit(b"{}")
            await trio.sleep(1)
        return b"{}"


async def no_node(_url: str) -> bool:
    await trio.lowlevel.checkpoint()
    return False


async def ignore(_piece: bytes) -> None:
    await trio.lowlevel.checkpoint()


class World:
    """A scanner over one moody backend, in virtual time."""

    def __init__(self) -> None:
        self.backend = Moody()
        self.registry = LocalRegistry(trio.current_time)
        kind = AdapterKind("moody", (), lambda _url, _key, _concurrency: self.backend)
        self.scanner = Scanner(self.registry, [Target("http://moody", kind)], is_node=no_node)

    async def seconds_until(self, there: bool) -> float:
        began = trio.current_time()
        with trio.fail_after(60):
            while bool(self.registry.cards()) != there:  # noqa: ASYNC110 - virtual time
                await trio.sleep(0.1)
        return trio.current_time() - began


@pytest.mark.parametrize("mood", ["refused", "silent", pytest.param("bug", marks=pytest.mark.logs_errors)])
async def test_what_vanishes_and_returns_is_noticed_within_ten_seconds(
    mood: str, autojump_clock: trio.testing.MockClock
) -> None:
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.scanner.run)
        await world.scanner.settled()
        assert world.registry.cards()
        await trio.sleep(5.1)  # the worst moment: just after a look
        world.backend.mood = mood
        assert await world.seconds_until(there=False) < 10
        (status,) = world.scanner._watches
        assert status.reason
        world.backend.mood = "up"
        assert await world.seconds_until(there=True) < 10
        nursery.cancel_scope.cancel()
    assert world.registry.cards() == {}, "a stopped scanner offers nothing"


async def test_one_silence_is_not_the_end(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.scanner.run)
        await world.scanner.settled()
        world.backend.mood = "silent"
        await trio.sleep(6)
        world.backend.mood = "up"
        await trio.sleep(20)
        assert world.registry.version == 1, "it was there all the time"
        nursery.cancel_scope.cancel()


async def test_silence_does_not_count_while_a_call_makes_progress(autojump_clock: trio.testing.MockClock) -> None:
    """A server that generates may be too busy to list its models."""
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.scanner.run)
        await world.scanner.settled()
        nursery.start_soon(world.registry.serve, card_id(CARD.encode()), ToolCall("use", b"{}"), ignore)
        world.backend.mood = "silent"
        await trio.sleep(60)
        assert world.registry.version == 1
        assert len(world.backend.looks) < 15, "and it is not asked more often for that"
        nursery.cancel_scope.cancel()


async def test_a_failed_call_makes_it_look_at_once(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.scanner.run)
        await world.scanner.settled()
        await trio.sleep(1)
        world.backend.mood = "refused"
        with pytest.raises(CallError):
            await world.registry.serve(card_id(CARD.encode()), ToolCall("use", b"{}"), ignore)
        assert await world.seconds_until(there=False) < 0.2
        nursery.cancel_scope.cancel()


async def test_real_servers_are_found_lost_and_found_again() -> None:
    kinds = adapter_kinds()
    async with running(OllamaServer()) as ollama:
        registry = LocalRegistry(trio.current_time)
        async with running(OpenAIServer()) as openai:
            targets = [Target(ollama.url, kinds["ollama"]), Target(openai.url, kinds["openai"])]
            scanner = Scanner(registry, targets, poll_s=0.05)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(scanner.run)
                with trio.fail_after(5):
                    await scanner.settled()
                    assert {card.model for card in registry.cards().values()} == {
                        "llama3.2:latest", "llava:7b", "nomic-embed-text:latest", "tiny",
                    }
                    assert repr(scanner) == "<Scanner 2 of 2 targets are up>"
                    await _stop_and_restart(registry, openai.port)
                nursery.cancel_scope.cancel()


async def _stop_and_restart(registry: LocalRegistry, port: int) -> None:
    """A second server of the same kind on another port, gone and back."""
    kinds = adapter_kinds()
    other = LocalRegistry(trio.current_time)
    async with running(OpenAIServer()) as server:
        scanner = Scanner(other, [Target(server.url, kinds["openai"], configured=True)], poll_s=0.05)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scanner.run)
        await scanner.settled()
        (status,) = scanner.statistics()
        assert not status.up
        assert "cannot be reached" in status.reason
        async with running(OpenAIServer(), port=server.port):
            while not other.cards():  # noqa: ASYNC110 - real time
                await trio.sleep(0.01)
        while other.cards():  # noqa: ASYNC110 - real time
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("marker", ["header", "body"])
async def test_an_atmosphere_node_is_recognised(marker: str) -> None:
    async with running(_node_with(marker)) as run:
        assert await is_node(run.url + "/v1")
        registry = LocalRegistry(trio.current_time)
        scanner = Scanner(registry, [Target(run.url, adapter_kinds()["openai"], configured=True)], poll_s=10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scanner.run)
            await scanner.settled()
            assert registry.cards() == {}
            assert "Atmosphere node" in scanner.statistics()[0].reason
            nursery.cancel_scope.cancel()
    with pytest.raises(BackendGone):
        await is_node(run.url)
    async with running(OpenAIServer()) as run:
        assert not await is_node(run.url)


def _node_with(marker: str) -> OpenAIServer:
    class Node(OpenAIServer):
        async def __call__(self, request, reply, log) -> None:  # type: ignore[no-untyped-def]
            if request.path == "/v1/health":
                body = {"atmosphere": "0.1.0"} if marker == "body" else {"status": "ok"}
                await reply.json(body, headers={"x-atmosphere-node": "12D3"} if marker == "header" else None)
            else:
                await super().__call__(request, reply, log)

    return Node()


def test_configured_backends_come_first_and_take_their_port() -> None:
    kinds = adapter_kinds()
    assert set(kinds) == {"openai", "ollama"}
    probed = plan_targets((), environ={})
    assert {(target.kind.name, target.url) for target in probed} >= {
        ("ollama", "http://127.0.0.1:11434"), ("openai", "http://127.0.0.1:8080"), ("openai", "http://127.0.0.1:1234"),
    }
    assert all(target.url.startswith("http://127.0.0.1:") for target in probed)
    configured = (BackendConfig("http://localhost:11434/v1", "openai", "KEY"), BackendConfig("https://api.example/v1"))
    targets = plan_targets(configured, environ={"KEY": "sesame"})
    assert [target.configured for target in targets[:3]] == [True, True, False]
    assert targets[0].key == "sesame"
    assert "sesame" not in repr(targets)
    assert not [target for target in targets[2:] if target.url.endswith(":11434")]
    assert plan_targets((), probe=False, environ={}) == ()


@pytest.mark.parametrize(
    ("backend", "says"),
    [
        (BackendConfig("http://x", "magic"), "known are ollama, openai"),
        (BackendConfig("http://x", "openai", "NO_SUCH_KEY"), r"\$NO_SUCH_KEY"),
        (BackendConfig("x:80"), "expected http"),
    ],
    ids=["kind", "key", "url"],
)
def test_a_wrong_backend_setting_is_explained(backend: BackendConfig, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        plan_targets((backend,), environ={})


async def test_the_owners_word_that_a_backend_continues_is_on_its_cards() -> None:
    """On those that stream text; without that word on none."""
    async with running(OllamaServer()) as server:
        for continuation in (False, True):
            registry = LocalRegistry(trio.current_time)
            config = BackendConfig(server.url, "ollama", continuation=continuation)
            scanner = Scanner(registry, plan_targets([config], probe=False, environ={}))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(scanner.run)
                with trio.fail_after(5):
                    await scanner.settled()
                features = {card.model: "continue" in card.features for card in registry.cards().values()}
                nursery.cancel_scope.cancel()
            assert features == {"llama3.2:latest": continuation, "llava:7b": continuation,
                                "nomic-embed-text:latest": False}


def test_listing_the_kinds_starts_nothing_heavy() -> None:
    program = (
        "import sys; from atmosphere.capabilities.adapters import adapter_kinds; adapter_kinds(); "
        "print([m for m in ('libp2p', 'onnxruntime', 'httpx2') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
