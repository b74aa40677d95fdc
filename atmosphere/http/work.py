"""The routes that run work: chat, completions, embeddings, decisions, tool calls. Plain ASGI: they are the hot path.

Each becomes an intent and the bytes of its arguments; the dispatcher does the rest. While the work runs a second task
waits for the client to go away; that cancels the work, wherever it runs.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any
from urllib.parse import quote

import numpy
import trio

from atmosphere.audit import AuditKind
from atmosphere.http import decisions, intents
from atmosphere.http.access import permitted
from atmosphere.http.errors import Answer, HttpError, event, failure, invalid
from atmosphere.http.gate import Receive, Send, send_answer
from atmosphere.http.port import HttpNode
from atmosphere.http.requests import FIELD, Body, Extension, dump_body, flag, only, parse_body, required, take_extension
from atmosphere.http.views import decision_view
from atmosphere.identity.api_keys import ApiKey
from atmosphere.routing.intent import Intent
from atmosphere.work.execution import Execution
from protocols.call.errors import CallError, Code
from protocols.call.messages import TRACE_BYTES

log = logging.getLogger(__name__)

LAST_WORDS_S = 1.0
"""How long a stream that this node ends (it is stopping) may take to say so."""

_NO_ANSWER = "the node or its backend sent something that is no answer to this"

_SSE = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"))


@dataclass(frozen=True, slots=True)
class Job:
    """A request, understood."""

    intent: Intent
    args: bytes
    stream: bool
    extension: Extension
    finish: Callable[[bytes], bytes] | None = None
    """Turns the result into what this client asked for; None: as it is."""
    names_result: bool = False
    """A streamed answer may end with a result of its own, sent as ``event: result``."""
    failed: Callable[[CallError], Answer] = failure
    """The answer for work that failed before its first byte, in the form that this route's clients know."""


def chat_job(data: bytes) -> Job:
    """POST /v1/chat/completions."""
    return _openai_job(data, intents.chat)


def completion_job(data: bytes) -> Job:
    """POST /v1/completions."""
    return _openai_job(data, intents.completion)


def embedding_job(data: bytes) -> Job:
    """POST /v1/embeddings. The mesh speaks base64; floats are made here for who wants them."""
    return _openai_job(data, intents.embedding)


def systemone_job(data: bytes) -> Job:
    """POST /v1/systemone: typed questions, answered with probabilities."""
    body = parse_body(data)
    rewrite = FIELD in body
    extension = take_extension(body)
    decisions.checked(body)
    intent = intents.decision(body, extension)
    return Job(intent, dump_body(body) if rewrite else data, False, extension, failed=decisions.systemone_failure)


def decisions_job(data: bytes) -> Job:
    """POST /v1/decisions: the same in OpenAI's terms."""
    body = parse_body(data)
    extension = take_extension(body)
    translation = decisions.translate(body)
    intent = intents.decision(translation.body, extension)
    return Job(intent, dump_body(translation.body), False, extension, translation.answer,
               failed=decisions.decisions_failure)


def tool_job(data: bytes) -> Job:
    """POST /v1/tools/call: ``{capability | type, tool, args, stream, atmosphere}``."""
    body = parse_body(data)
    extension = take_extension(body)
    only(body, "capability", "type", "tool", "args", "stream")
    intent = intents.tool_call(body, required(body, "tool"), extension)
    args = body.get("args")
    if args is not None and not isinstance(args, dict):
        raise invalid("'args' must be an object with the tool's arguments", "args")
    args = args or {}
    return Job(intent, dump_body(args), flag(body, "stream") or args.get("stream") is True, extension,
               names_result=True)


JOBS: dict[str, Callable[[bytes], Job]] = {
    "/v1/chat/completions": chat_job,
    "/v1/completions": completion_job,
    "/v1/embeddings": embedding_job,
    decisions.SYSTEMONE: systemone_job,
    decisions.DECISIONS: decisions_job,
    "/v1/tools/call": tool_job,
}


async def run_job(node: HttpNode, job: Job, key: ApiKey | None, receive: Receive, send: Send, began: float,
                  leave_s: float) -> None:
    """Run *job* and send its answer. *began*: when the last byte of the request had arrived, on the Env's clock.

    With *key* only what the key covers runs, and the audit log gets a row.

    Returns when the answer is sent or the client is gone; its work is then cancelled, within *leave_s*. A failure
    before the first byte has its status; later it is the last event of the stream.
    """
    reply = _Reply(node, job, send, began)
    outcome = "ok"
    async with trio.open_nursery() as nursery:
        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            reply.gone = True
            nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        try:
            intent = await permitted(node.router, job.intent, key)
            started = node.env.monotonic()
            run = node.dispatcher.run(intent, job.args, deadline_s=job.extension.deadline_s,
                                      trace_id=reply.trace)
            async with _Bounded(run, leave_s) as execution:
                await reply.answer(execution, started)
        except CallError as error:
            outcome = error.code
            await reply.fail(error)
        except trio.Cancelled:
            outcome = Code.CANCELLED
            if not reply.gone:
                with trio.move_on_after(LAST_WORDS_S, shield=True):
                    await reply.fail(CallError(Code.CANCELLED, "this node is stopping; ask again"))
            raise
        except Exception:
            outcome = Code.INTERNAL
            log.exception("request %s failed", reply.trace.hex())
            await reply.fail(CallError(Code.INTERNAL, f"a bug in this node; its log has request {reply.trace.hex()}"))
        finally:
            if key is not None:
                _note(node, key, job.intent, reply.card_type, outcome, began)
        nursery.cancel_scope.cancel()


def _note(node: HttpNode, key: ApiKey, intent: Intent, card_type: str, outcome: str, began: float) -> None:
    """Write down what a key was used for."""
    kind = card_type or intent.constraints.type or "*"
    if outcome == Code.FORBIDDEN:
        node.audit.record(AuditKind.REFUSED_CALL, f"key:{key.id}", f"{kind}/{intent.tool}", outcome)
    else:
        node.audit.served(f"key:{key.id}", kind, intent.tool or "", outcome, node.env.monotonic() - began)


class _Bounded:
    """Enters an execution; leaves it shielded from the caller's cancellation, but not longer than *leave_s*."""

    def __init__(self, run: Any, leave_s: float) -> None:
        self._run = run
        self._leave_s = leave_s

    async def __aenter__(self) -> Execution:
        execution: Execution = await self._run.__aenter__()
        return execution

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        traceback: TracebackType | None) -> None:
        with trio.move_on_after(self._leave_s, shield=True) as patience:
            await self._run.__aexit__(kind, error, traceback)
        if patience.cancelled_caught:
            log.warning("work was not given up within %g s", self._leave_s)


class _Reply:
    """The answer to one request, from its first byte to its last."""

    def __init__(self, node: HttpNode, job: Job, send: Send, began: float) -> None:
        self._node = node
        self._job = job
        self._send = send
        self._began = began
        self._begun = False
        self._streaming = False
        self.trace = node.env.token_bytes(TRACE_BYTES)
        self.gone = False
        self.card_type = ""
        """Of the capability that does the work, once there is one."""

    async def answer(self, execution: Execution, started: float) -> None:
        """Send the answer of *execution*, which was asked for at *started*."""
        self.card_type = execution.candidate.card.type
        clock = self._node.env.monotonic
        if self._job.stream:
            await self._stream(execution, clock() - started)
            return
        result = await execution.result()
        waited_s = clock() - started
        if self._job.finish is not None:
            result = self._job.finish(result)
        if self._job.extension.explain:
            result = _explained(result, execution)
        self._begun = True
        await send_answer(self._send, Answer(200, result), self._headers(execution, waited_s))

    async def fail(self, error: CallError) -> None:
        """Say that the work failed: with a status, or as the last event of a stream that had begun."""
        if self._streaming:
            self._streaming = False
            await self._send({"type": "http.response.body", "body": event(error)})
        elif not self._begun:
            self._begun = True
            headers = ((b"x-atmosphere-request-id", self.trace.hex().encode()),)
            await send_answer(self._send, self._job.failed(error), headers)

    async def _stream(self, execution: Execution, waited_s: float) -> None:
        send = self._send
        self._begun = True
        await send({"type": "http.response.start", "status": 200,
                    "headers": [*_SSE, *self._headers(execution, waited_s)]})
        self._streaming = True
        if self._job.extension.explain:
            await send({"type": "http.response.body", "body": _explaining_chunk(execution), "more_body": True})
        while (piece := await execution.next_piece()) is not None:
            await send({"type": "http.response.body", "body": b"data: " + _one_line(piece) + b"\n\n",
                        "more_body": True})
        result = await execution.result()
        tail = b"data: [DONE]\n\n"
        if result and self._job.names_result:
            tail = b"event: result\ndata: " + _one_line(result) + b"\n\n" + tail
        self._streaming = False
        await send({"type": "http.response.body", "body": tail})

    def _headers(self, execution: Execution, waited_s: float) -> tuple[tuple[bytes, bytes], ...]:
        """Where the work ran and what it cost to get there.

        The overhead runs from the last byte of the request to the first of the answer, without the wait for the work
        to begin, in which dispatch, transport and backend cannot be told apart; of that wait only the routing counts.
        """
        chosen = execution.candidate
        route_ms = execution.decision.elapsed_ms
        overhead_ms = (self._node.env.monotonic() - self._began - waited_s) * 1000 + route_ms
        return (
            (b"x-atmosphere-node", chosen.peer.text.encode()),
            (b"x-atmosphere-capability", _capability(chosen.card_id, chosen.card.type)),
            (b"x-atmosphere-path", chosen.path.encode()),
            (b"x-atmosphere-route-ms", b"%.2f" % route_ms),
            (b"x-atmosphere-overhead-ms", b"%.2f" % overhead_ms),
            (b"x-atmosphere-request-id", self.trace.hex().encode()),
        )


def _openai_job(data: bytes, intent_of: Callable[[Body, Extension], Intent]) -> Job:
    """The bytes that came in go on, unless the field ``atmosphere`` was in them."""
    body = parse_body(data)
    rewrite = FIELD in body
    extension = take_extension(body)
    intent = intent_of(body, extension)
    finish = _to_floats if intent.tool == "embed" and body.get("encoding_format") != "base64" else None
    stream = intent.tool != "embed" and flag(body, "stream")
    return Job(intent, dump_body(body) if rewrite else data, stream, extension, finish)


def _to_floats(result: bytes) -> bytes:
    """An embeddings answer with lists of numbers in place of base64."""
    try:
        answer = json.loads(result)
        for item in answer.get("data", ()):
            vector = item.get("embedding")
            if isinstance(vector, str):
                item["embedding"] = numpy.frombuffer(base64.b64decode(vector), dtype="<f4").tolist()
        return json.dumps(answer, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CallError(Code.BACKEND, f"{_NO_ANSWER}: {error}") from error


def _one_line(piece: bytes) -> bytes:
    """A piece may not end its own event: JSON with line breaks is written again without them."""
    if b"\n" in piece or b"\r" in piece:
        return json.dumps(_read(piece)).encode()
    return piece


def _read(result: bytes) -> Any:
    """What another node sent as JSON; it may have sent anything. Raises CallError."""
    try:
        return json.loads(result)
    except (ValueError, RecursionError) as error:
        raise CallError(Code.BACKEND, f"{_NO_ANSWER}: {error}") from error


def _explained(result: bytes, execution: Execution) -> bytes:
    answer = _read(result)
    if not isinstance(answer, dict):
        return result
    answer["atmosphere"] = _explanation(execution)
    return json.dumps(answer, separators=(",", ":")).encode()


def _explaining_chunk(execution: Execution) -> bytes:
    """A chunk without choices, like OpenAI's usage chunk."""
    chunk = {"object": "chat.completion.chunk", "choices": [], "atmosphere": _explanation(execution)}
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def _explanation(execution: Execution) -> dict[str, Any]:
    attempts = [{"peer_id": str(attempt.candidate.peer), "capability": attempt.candidate.card_id.hex(),
                 "reason": str(attempt.error)} for attempt in execution.attempts]
    return {"decision": decision_view(execution.decision), "attempts": attempts}


@lru_cache(maxsize=1024)
def _capability(card_id: bytes, kind: str) -> bytes:
    """Card id and type for a header. The type was written by another node: only plain characters get through."""
    return f"{card_id.hex()} {quote(kind, safe='/-_.*')}".encode()


def understand(path: str, data: bytes) -> Job:
    """The job that the body *data* asks for at *path*. Raises :class:`HttpError` (400)."""
    if not data:
        raise HttpError(400, "the body is empty; send a JSON object", "invalid_request")
    return JOBS[path](data)
