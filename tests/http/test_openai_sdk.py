"""The official SDK against the shim: what it gets, and which exception each failure becomes."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import openai
import pytest
import trio
from openai.types.chat import ChatCompletion

from atmosphere.routing.intent import Intent
from protocols.call.errors import CallError, Code
from tests.http.conftest import Served, Serving
from tests.http.fake_node import CARD_ID, PEER, Emit, Work, chunk, completion, echo, fails

# the SDK leaves its own generators to the garbage collector when a stream has ended; ours must not do that
pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(openai|httpx2|httpcore2):ResourceWarning")

USER: Any = [{"role": "user", "content": "hi"}]


def sdk(served: Served, **options: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{served.bound.url}/v1", api_key="none", max_retries=0, timeout=5, **options)


async def test_models(serving: Serving) -> None:
    """The list has what is routable, its aliases and auto; one model can be asked for by name."""
    async with serving() as served, sdk(served) as client:
        names = [model.id async for model in client.models.list()]
        assert names == ["small", "tiny", "auto"]
        assert (await client.models.retrieve("tiny")).owned_by == "atmosphere"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("gone")


async def test_chat(serving: Serving) -> None:
    """A chat answer comes with the headers that say where it was made."""
    async with serving() as served, sdk(served) as client:
        raw = await client.chat.completions.with_raw_response.create(model="tiny", messages=USER)
        answer = raw.parse()
        assert isinstance(answer, ChatCompletion)
        assert answer.choices[0].message.content == "hello"
        assert raw.headers["x-atmosphere-node"] == str(PEER)
        assert raw.headers["x-atmosphere-capability"] == f"{CARD_ID.hex()} llm/chat"
        assert raw.headers["x-atmosphere-path"] == "local"
        assert float(raw.headers["x-atmosphere-route-ms"]) == 0.25
        assert 0.25 < float(raw.headers["x-atmosphere-overhead-ms"]) < 1000
        assert len(bytes.fromhex(raw.headers["x-atmosphere-request-id"])) == 16


async def test_overhead_leaves_the_wait_out(serving: Serving) -> None:
    """The overhead header does not count the time that the backend took."""

    async def slow(intent: Intent, args: bytes, emit: Emit) -> bytes:
        await trio.sleep(0.3)
        return await echo(intent, args, emit)

    async with serving(slow) as served, sdk(served) as client:
        raw = await client.chat.completions.with_raw_response.create(model="tiny", messages=USER)
        assert float(raw.headers["x-atmosphere-overhead-ms"]) < 200


async def test_chat_streamed(serving: Serving) -> None:
    """Chunks arrive as they are produced: the first one before the second exists."""
    first_read = trio.Event()

    async def two(intent: Intent, args: bytes, emit: Emit) -> bytes:
        await emit(chunk("hel"))
        await first_read.wait()
        await emit(chunk("lo"))
        usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
        await emit(json.dumps({**json.loads(chunk("")), "choices": [], "usage": usage}).encode())
        return b""

    async with serving(two) as served, sdk(served) as client:
        stream = await client.chat.completions.create(model="auto", messages=USER, stream=True,
                                                      stream_options={"include_usage": True})
        words, total = [], 0
        with trio.fail_after(3):
            async for part in stream:
                first_read.set()
                words += [choice.delta.content for choice in part.choices]
                total = part.usage.total_tokens if part.usage else total
        assert words == ["hel", "lo"]
        assert total == 3
        assert json.loads(served.node.seen[0][1])["stream_options"] == {"include_usage": True}


async def test_body_passes_unchanged(serving: Serving) -> None:
    """What the client wrote goes on byte for byte; only our own field is taken out. An alias is the dispatcher's."""
    body = b'{ "messages":[{"role":"user","content":"\\u00e4"}], "temperature":1.0, "x_unknown":{"a":[1e2,null]} }'
    async with serving() as served, sdk(served) as client:
        headers = {"content-type": "application/json"}
        await client._client.post("/chat/completions", content=body, headers=headers)
        assert served.node.seen[-1][1] == body
        extra = {"atmosphere": {"constraints": {"local_only": True, "labels": ["gpu"]}, "deadline_ms": 1500}}
        await client.chat.completions.create(model="small", messages=USER, tools=[], extra_body={**extra, "top_k": 5})
        intent, args, deadline_s = served.node.seen[-1]
        assert json.loads(args) == {"messages": USER, "model": "small", "tools": [], "top_k": 5}
        assert intent.model == "small"
        assert (intent.constraints.local_only, intent.constraints.labels) == (True, frozenset({"gpu"}))
        assert deadline_s == 1.5


async def test_tools_pass_through(serving: Serving) -> None:
    """Tools make the intent require a model that can use them; tool calls come back whole."""

    async def calls(intent: Intent, args: bytes, emit: Emit) -> bytes:
        name = json.loads(args)["tools"][0]["function"]["name"]
        answer = completion("")
        answer["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": [
            {"id": "t1", "type": "function", "function": {"name": name, "arguments": "{}"}}]}
        return json.dumps(answer).encode()

    tool: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    async with serving(calls) as served, sdk(served) as client:
        answer = await client.chat.completions.create(model="auto", messages=USER, tools=[tool],
                                                      response_format={"type": "json_object"})
        made = answer.choices[0].message.tool_calls
        assert made is not None
        assert made[0].function.name == "look"  # type: ignore[union-attr]
        assert served.node.seen[0][0].features == {"tools", "json_object"}


async def test_explain(serving: Serving) -> None:
    """Asked for, the reasons come with the answer, streamed or not."""
    extra = {"atmosphere": {"explain": True}}
    async with serving() as served, sdk(served) as client:
        answer = await client.chat.completions.create(model="auto", messages=USER, extra_body=extra)
        reasons: Any = answer.model_extra
        assert reasons["atmosphere"]["decision"]["chosen"]["peer_id"] == str(PEER)
        stream = await client.chat.completions.create(model="auto", messages=USER, stream=True, extra_body=extra)
        parts: list[Any] = [part async for part in stream]
        assert parts[0].atmosphere["decision"]["filtered"] == {"type": 2}
        assert [part.choices[0].delta.content for part in parts[1:]] == ["hel", "lo"]


FAILURES: list[tuple[Work, type[openai.APIStatusError], int, str | None]] = [
    (fails(Code.INVALID), openai.BadRequestError, 400, "invalid"),
    (fails(Code.FORBIDDEN), openai.PermissionDeniedError, 403, "forbidden"),
    (fails(Code.NOT_FOUND), openai.NotFoundError, 404, "not_found"),
    (fails(Code.TOO_LARGE), openai.APIStatusError, 413, "too_large"),
    (fails(Code.RATE_LIMITED, retry_after_ms=1500), openai.RateLimitError, 429, "rate_limited"),
    (fails(Code.OVERLOADED, retry_after_ms=100), openai.InternalServerError, 503, "overloaded"),
    (fails(Code.UNAVAILABLE), openai.InternalServerError, 503, "unavailable"),
    (fails(Code.DEADLINE), openai.InternalServerError, 504, "deadline"),
    (fails(Code.UNKNOWN_OUTCOME), openai.InternalServerError, 502, "unknown_outcome"),
    (fails(Code.INTERNAL), openai.InternalServerError, 500, "internal"),
    (fails(Code.BACKEND), openai.InternalServerError, 502, "backend"),
    (fails(Code.BACKEND, details=b'{"status": 200, "body": {}}'), openai.InternalServerError, 502, "backend"),
    (fails(Code.BACKEND, details=b'{"status": 422, "body": {"error": {"message": "ctx", "code": "ctx_full"}}}'),
     openai.UnprocessableEntityError, 422, "ctx_full"),
    (fails(Code.BACKEND, details=b'{"status": 429, "body": {"error": {"code": "slow_down"}}}', retry_after_ms=2000),
     openai.RateLimitError, 429, "slow_down"),
    (fails(Code.BACKEND, details=b"[" * 16_000), openai.InternalServerError, 502, "backend"),
    (fails(Code.BACKEND, details=b'{"status": 500, "body": "oops"}'), openai.InternalServerError, 500, "backend"),
]


@pytest.mark.parametrize(("work", "kind", "status", "code"), FAILURES)
async def test_failures_are_typed(serving: Serving, work: Work, kind: type[openai.APIStatusError], status: int,
                                  code: str | None) -> None:
    """Every code has its status and so its exception, streamed or not: nothing has been sent before the first piece."""
    for stream in (False, True):
        async with serving(work) as served, sdk(served) as client:
            with pytest.raises(kind) as caught:
                await client.chat.completions.create(model="tiny", messages=USER, stream=stream)  # type: ignore[call-overload]
            assert (caught.value.status_code, caught.value.code) == (status, code)
            headers = caught.value.response.headers
            assert headers.get("x-should-retry") == ("false" if code == "unknown_outcome" else None)
            waits = {"rate_limited": "2", "slow_down": "2", "overloaded": "1"}
            assert headers.get("retry-after") == waits.get(code or "")


@pytest.mark.logs_errors
async def test_bug_is_answered(
    serving: Serving, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect becomes a 500 that names the request; the log has it under that name, and the node lives."""
    monkeypatch.setattr("atmosphere.http.work._to_floats", lambda result: 1 / 0)
    async with serving() as served, sdk(served) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.embeddings.create(model="tiny", input="x", encoding_format="float")
        name = caught.value.response.headers["x-atmosphere-request-id"]
        assert name in caught.value.message
        assert name in caplog.text
        await client.models.list()


NO_VECTORS = [b"", b"not json", b"[1]", b'{"data": 5}', b'{"data": [5]}', b'{"data": [{"embedding": "AAAA"}]}',
              b'{"data": [{"embedding": "AADAfw=="}]}', b"[" * 100_000]


@pytest.mark.parametrize("sent", NO_VECTORS)
async def test_nonsense_of_another_node_is_no_bug_of_ours(serving: Serving, sent: bytes) -> None:
    async def nonsense(intent: Intent, args: bytes, emit: Emit) -> bytes:
        return sent

    async with serving(nonsense) as served, sdk(served) as client:
        with pytest.raises(openai.InternalServerError, match="no answer to this") as caught:
            await client.embeddings.create(model="tiny", input="x", encoding_format="float")
        assert (caught.value.status_code, caught.value.code) == (502, "backend")


async def test_a_piece_of_nonsense_with_line_breaks_is_an_error_of_the_stream(serving: Serving) -> None:
    async def nonsense(intent: Intent, args: bytes, emit: Emit) -> bytes:
        await emit(b"data: [DONE]\n\n")
        return b""

    async with serving(nonsense) as served, sdk(served) as client:
        with pytest.raises(openai.APIError, match="no answer to this"):
            _ = [part async for part in await client.chat.completions.create(model="x", messages=USER, stream=True)]


async def test_sdk_retries_once_more_only_where_told(serving: Serving) -> None:
    """The SDK repeats what may be repeated, and not what may have run."""
    for work, requests in ((fails(Code.OVERLOADED), 3), (fails(Code.UNKNOWN_OUTCOME), 1), (fails(Code.INVALID), 1)):
        async with serving(work) as served, sdk(served) as client:
            with pytest.raises(openai.APIStatusError):
                await client.with_options(max_retries=2).chat.completions.create(model="tiny", messages=USER)
            assert len(served.node.seen) == requests


async def test_break_in_the_stream_raises(serving: Serving) -> None:
    """Work that breaks after its first piece ends the stream in an error, not in silence."""

    async def breaks(intent: Intent, args: bytes, emit: Emit) -> bytes:
        await emit(chunk("hel"))
        raise CallError(Code.UNAVAILABLE, "the node is gone")

    async with serving(breaks) as served, sdk(served) as client:
        stream = await client.chat.completions.create(model="tiny", messages=USER, stream=True)
        words: list[str | None] = []

        async def read() -> None:
            async for part in stream:
                words.append(part.choices[0].delta.content)

        with pytest.raises(openai.APIError, match="the node is gone"):
            await read()
        assert words == ["hel"]


async def test_stop_ends_a_stream_in_an_error(serving: Serving) -> None:
    """A node that stops lets requests end within its grace period and tells the others that it stops."""

    async def endless(intent: Intent, args: bytes, emit: Emit) -> bytes:
        while True:
            await emit(chunk("x"))
            await trio.sleep(0.02)

    async with serving(endless) as served, sdk(served) as client:
        stream = await client.chat.completions.create(model="tiny", messages=USER, stream=True)
        served.node.stop_requested.set()
        with trio.fail_after(3), pytest.raises(openai.APIError, match="stopping"):
            async for _ in stream:
                pass
        assert served.node.cancelled.is_set()


async def test_stop_lets_a_request_finish(serving: Serving) -> None:
    """A request that ends within the grace period is answered, and nothing new is accepted meanwhile."""

    async def slow(intent: Intent, args: bytes, emit: Emit) -> bytes:
        served.node.stop_requested.set()
        await trio.sleep(0.15)
        return await echo(intent, args, emit)

    async with serving(slow) as served, sdk(served) as client:
        answer = await client.chat.completions.create(model="tiny", messages=USER)
        assert answer.choices[0].message.content == "hello"
        with pytest.raises(openai.APIConnectionError):
            await client.models.list()


@pytest.mark.parametrize("stream", [False, True])
async def test_disconnect_cancels_the_work(serving: Serving, stream: bool) -> None:
    """A client that goes away stops the work, well within half a second."""

    async def endless(intent: Intent, args: bytes, emit: Emit) -> bytes:
        while True:
            if json.loads(args).get("stream"):
                await emit(chunk("x"))
            await trio.sleep(0.02)

    async with serving(endless) as served, sdk(served) as client:
        with trio.move_on_after(0.3):
            answer: Any = await client.chat.completions.create(model="tiny", messages=USER, stream=stream)
            async for _ in answer:
                break
            await answer.close()
        with trio.fail_after(0.5):
            await served.node.cancelled.wait()


VECTOR = (0.5, -0.25, 1.0)


async def embeds(intent: Intent, args: bytes, emit: Emit) -> bytes:
    packed = base64.b64encode(struct.pack("<3f", *VECTOR)).decode()
    return json.dumps({"object": "list", "model": "tiny", "space": "tiny:3", "usage": {}, "data": [
        {"object": "embedding", "index": 0, "embedding": packed}]}).encode()


async def test_embeddings(serving: Serving) -> None:
    """Floats and base64 are what was asked for; the SDK's default is base64."""
    async with serving(embeds) as served, sdk(served) as client:
        for more in ({}, {"encoding_format": "float"}):
            answer = await client.embeddings.create(model="tiny", input="x", **more)  # type: ignore[arg-type]
            assert tuple(answer.data[0].embedding) == VECTOR
        for wanted, kind in (("base64", str), ("float", list), (None, list)):
            body = {"model": "tiny", "input": ["x"], **({"encoding_format": wanted} if wanted else {})}
            got = (await client._client.post("/embeddings", json=body)).json()
            assert isinstance(got["data"][0]["embedding"], kind)
            assert got["space"] == "tiny:3"


async def test_completions(serving: Serving) -> None:
    """The older endpoint goes to the tool ``complete``."""
    answer = {"id": "1", "object": "text_completion", "created": 1, "model": "tiny",
              "choices": [{"index": 0, "text": "there", "finish_reason": "stop", "logprobs": None}]}

    async def completes(intent: Intent, args: bytes, emit: Emit) -> bytes:
        return json.dumps(answer).encode()

    async with serving(completes) as served, sdk(served) as client:
        assert (await client.completions.create(model="tiny", prompt="hi")).choices[0].text == "there"
        assert (served.node.seen[0][0].tool, served.node.seen[0][0].text) == ("complete", "hi")
