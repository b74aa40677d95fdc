"""The running node, spoken to through ``HOME/control.sock``: the same HTTP app plus the admin routes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atmosphere.cli.home import Failure

if TYPE_CHECKING:
    import httpx2

CONNECT_S = 3.0
"""The socket is local: a node that does not accept within this time is stuck or gone."""
ANSWER_S = 600.0
"""A model may think for minutes; the node itself ends work that takes longer than its own deadline."""


class Unreachable(Exception):
    """Nobody answers on the control socket."""


class Refused(Failure):
    """The node answered with an error; *status* and *code* are the node's."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Route:
    """Where a request went, from the response headers."""

    peer_id: str
    capability: str
    path: str
    overhead_ms: str
    """What the node added to the work itself, up to the first byte."""
    request_id: str = ""

    @classmethod
    def of(cls, response: httpx2.Response) -> Route:
        headers = response.headers
        names = ("node", "capability", "path", "overhead-ms", "request-id")
        return cls(*(headers.get(f"x-atmosphere-{name}", "") for name in names))


class Control:
    """Requests to the running node. Every error of the node becomes a :class:`Refused` with its own words."""

    def __init__(self, transport: httpx2.BaseTransport) -> None:
        import httpx2

        timeout = httpx2.Timeout(ANSWER_S, connect=CONNECT_S)
        self._client = httpx2.Client(transport=transport, base_url="http://node", timeout=timeout)

    @classmethod
    def connect(cls, socket: Path) -> Control:
        """A control of the node behind *socket*; raises :class:`Unreachable` unless it answers."""
        import httpx2

        if not socket.exists():
            raise Unreachable("its control socket is not there")
        control = cls(httpx2.HTTPTransport(uds=str(socket)))
        try:
            control._client.get("/v1/health", timeout=CONNECT_S)
        except httpx2.TransportError as error:
            control.close()
            raise Unreachable(str(error) or type(error).__name__) from error
        return control

    def close(self) -> None:
        self._client.close()

    def get(self, path: str) -> Any:
        return self._json("GET", path, None)

    def post(self, path: str, body: object = None) -> Any:
        return self._json("POST", path, {} if body is None else body)

    def delete(self, path: str, body: object) -> Any:
        return self._json("DELETE", path, body)

    def _json(self, method: str, path: str, body: object) -> Any:
        with self.stream(method, path, body) as response:
            response.read()
            return response.json()

    def send(self, path: str, body: object) -> tuple[Any, Route]:
        """POST *body*; the answer and where it came from."""
        with self.stream("POST", path, body) as response:
            response.read()
            return response.json(), Route.of(response)

    @contextmanager
    def stream(self, method: str, path: str, body: object) -> Iterator[httpx2.Response]:
        """The response as it arrives. Leaving early closes the connection, which cancels the work."""
        import httpx2

        try:
            request = self._client.build_request(method, path, json=body)
        except (ValueError, httpx2.InvalidURL) as error:  # bytes of the command line that are no text; far too long
            raise Failure(f"this cannot be sent to the node: {error}", "write it in UTF-8, and shorter") from error
        try:
            response = self._client.send(request, stream=True)
            try:
                if response.is_error:
                    response.read()
                    raise _refusal(response)
                yield response
            finally:
                response.close()
        except httpx2.TimeoutException as error:
            raise Failure(f"the node did not answer {path} in time", "look at its log for what it is doing") from error
        except httpx2.TransportError as error:
            raise Failure(f"the connection to the node broke: {error or type(error).__name__}",
                          "see `atmosphere-p2p status` whether it still runs") from error


def events(response: httpx2.Response) -> Iterator[Any]:
    """The JSON objects of a server-sent event stream, up to ``[DONE]``.

    Raises :class:`Refused` for an error event, :class:`Failure` for a stream that ends without its end mark.
    """
    for line in response.iter_lines():
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            return
        event = json.loads(data)
        if "error" in event:
            raise Refused(response.status_code, *_words(event, "the answer broke off"))
        yield event
    raise Failure("the answer broke off without its end mark", "ask again; what is above is incomplete")


def _refusal(response: httpx2.Response) -> Refused:
    try:
        body = response.json()
    except ValueError:
        body = None
    return Refused(response.status_code, *_words(body, f"the node answered with status {response.status_code}"))


def _words(body: Any, default: str) -> tuple[str, str]:
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return "", default
    return str(error.get("code") or ""), str(error.get("message") or default)
