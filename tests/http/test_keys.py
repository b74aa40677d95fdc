"""API keys over real sockets: on an address that others can reach, and on loopback. Then the owner's routes of trust.

0.0.0.0 stands for such an address; the tests reach it through 127.0.0.1, and the server cannot tell the difference.
"""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import replace
from typing import Any

import httpx2
import openai
import pytest
import trio

from atmosphere.http.access import permitted
from atmosphere.http.errors import HttpError
from atmosphere.http.gate import LOOPBACK_NAMES, Gate, Head
from atmosphere.identity.api_keys import ApiKey
from atmosphere.identity.revocation import Target
from atmosphere.routing.intent import Constraints, Intent
from protocols.call.errors import CallError, Code
from tests.http.conftest import LIMITS, Served, Serving
from tests.http.fake_node import KEPT, PEER, Emit, FakeNode, echo, fails

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


class Opened:
    """A node served on all addresses, with one key in force."""

    def __init__(self, served: Served, key: str) -> None:
        self.served, self.node, self.key = served, served.node, key

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.served.port}"

    def client(self, key: str | None, **headers: str) -> httpx2.AsyncClient:
        bearer = {} if key is None else {"authorization": f"Bearer {key}"}
        return httpx2.AsyncClient(base_url=self.url, headers=bearer | headers)

    def owner(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=str(self.served.bound.control)),
                                  base_url="http://node")


def open_to_all(serving: Serving, *scopes: str, **more: Any) -> AbstractAsyncContextManager[Opened]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Opened]:
        keys: list[str] = []

        def prepare(node: FakeNode) -> None:
            keys.append(node.api_keys.create("laptop", scopes or ("call:*",)))

        async with serving(public="0.0.0.0:0", prepare=prepare, **more) as served:
            yield Opened(served, keys[0])

    return opened()


REQUESTS = [("GET", "/v1/models"), ("GET", "/v1/mesh/nodes"), ("GET", "/v1/mesh/capabilities"), ("GET", "/nothing"),
            ("POST", "/v1/mesh/route"), ("POST", "/v1/chat/completions"), ("POST", "/v1/completions"),
            ("POST", "/v1/embeddings"), ("POST", "/v1/tools/call"), ("GET", "/v1/admin/status"),
            ("POST", "/v1/health/x"), ("GET", "/v1/models/v1/health")]


async def test_without_a_key_only_health(serving: Serving) -> None:
    """Every other request gets 401 before it costs anything, whatever stands in the place of a key."""
    async with open_to_all(serving) as opened:
        wrong = opened.key[:-1] + ("a" if opened.key[-1] != "a" else "b")
        for bad in (None, "sk-123", "atm_", wrong, opened.key.upper(), f"{opened.key} {opened.key}"):
            async with opened.client(bad) as client:
                for method, path in REQUESTS:
                    answer = await client.request(method, path, json=CHAT if method == "POST" else None)
                    assert answer.status_code == 401, (bad, path)
                    assert answer.headers["www-authenticate"] == "Bearer"
                    assert "keys add" in answer.json()["error"]["message"]
                assert (await client.get("/v1/health")).json()["status"] == "ok"
        for header in (f"Basic {opened.key}", "Bearer", opened.key):
            async with opened.client(None, authorization=header) as client:
                assert (await client.get("/v1/models")).status_code == 401
        assert opened.node.seen == []
        async with opened.client(opened.key) as client:
            assert (await client.get("/v1/models")).status_code == 200
            assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
        async with opened.owner() as control:
            assert (await control.get("/v1/admin/status")).status_code == 200


async def test_one_address_leaves_room(serving: Serving) -> None:
    """Who opens connection after connection gets a few; they count again once they are closed."""
    limits = replace(LIMITS, connections_per_address=3, keep_alive_s=5.0)
    async with open_to_all(serving, limits=limits) as opened:
        streams = [await trio.open_tcp_stream("127.0.0.1", opened.served.port) for _ in range(4)]
        with trio.fail_after(2):
            assert await ended(streams[3])
        async with opened.owner() as control:
            assert (await control.get("/v1/health")).status_code == 200
        for stream in streams:
            await stream.aclose()
        for _ in range(8):
            async with opened.client(opened.key) as client:
                assert (await client.get("/v1/models")).status_code == 200


async def ended(stream: trio.SocketStream) -> bool:
    try:
        return await stream.receive_some() == b""
    except trio.BrokenResourceError:
        return True


async def test_the_sdk_with_a_key(serving: Serving) -> None:
    """``OpenAI(api_key="atm_...")`` works; with another key it is an AuthenticationError."""
    async with open_to_all(serving) as opened:
        def ask(key: str) -> str:
            with openai.OpenAI(base_url=f"{opened.url}/v1", api_key=key, max_retries=0) as client:
                answer = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hi"}])
            return answer.choices[0].message.content or ""

        assert await trio.to_thread.run_sync(ask, opened.key) == "hello"
        with pytest.raises(openai.AuthenticationError, match="unknown or revoked"):
            await trio.to_thread.run_sync(ask, "atm_aaaaaaaa_" + "a" * 32)


async def test_a_stranger_costs_no_body(serving: Serving) -> None:
    """Refused before its body is taken in, and at /v1/health too no body is held."""
    async with open_to_all(serving) as opened:
        for path in (b"/v1/chat/completions", b"/v1/health"):
            async with await trio.open_tcp_stream("127.0.0.1", opened.served.port) as stream:
                await stream.send_all(b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\n"
                                      b"Content-Type: application/json\r\nContent-Length: 200000\r\n\r\n")
                with trio.fail_after(2):
                    answer = await stream.receive_some()
                assert answer.split(b" ")[1] == (b"401" if b"chat" in path else b"405")


async def test_revoked_is_refused_at_the_next_request(serving: Serving) -> None:
    """On the connection that is open already, by the owner's route; the last key gone, nobody gets in."""
    async with open_to_all(serving) as opened, opened.owner() as control, opened.client(opened.key) as client:
        assert (await client.get("/v1/models")).status_code == 200
        key_id = opened.key.split("_")[1]
        assert (await control.request("DELETE", "/v1/admin/keys", json={"id": key_id})).status_code == 200
        answer = await client.get("/v1/models")
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        assert (await client.get("/v1/health")).status_code == 200


async def test_loopback_takes_any_text_but_a_dead_key(serving: Serving) -> None:
    """No key is needed and an SDK's dummy is no offence; a key of ours that is revoked or unknown is refused."""
    async with serving() as served:
        live, dead = served.node.api_keys.create("a", ["call:llm/embed"]), served.node.api_keys.create("b")
        served.node.api_keys.revoke(dead.split("_")[1])
        async with httpx2.AsyncClient(base_url=served.bound.url) as client:
            for value in (None, "Bearer x", "Bearer", "Basic abc", "Bearer sk-atm_"):
                headers = {} if value is None else {"authorization": value}
                assert (await client.post("/v1/chat/completions", json=CHAT, headers=headers)).status_code == 200
            for key in (dead, "atm_", "atm_aaaaaaaa_" + "a" * 32):
                headers = {"authorization": f"bearer {key}"}
                assert (await client.get("/v1/models", headers=headers)).status_code == 401
            narrow = {"authorization": f"Bearer {live}"}
            assert (await client.post("/v1/chat/completions", json=CHAT, headers=narrow)).status_code == 403


@pytest.mark.parametrize(("scopes", "status"), [
    (["call:*"], 200), (["*"], 200), (["call:llm/*"], 200), (["call:llm/chat"], 200), (["call:llm/chat/chat"], 200),
    (["call:llm/embed", "call:llm/chat"], 200), (["call:llm/embed"], 403), (["call:llm/chat/complete"], 403),
    (["call:knowledge"], 403),
])
async def test_scopes(serving: Serving, scopes: list[str], status: int) -> None:
    """A key runs what its scopes cover and nothing else; the refusal names what would be needed."""
    async with open_to_all(serving, *scopes) as opened, opened.client(opened.key) as client:
        answer = await client.post("/v1/chat/completions", json=CHAT)
        assert answer.status_code == status
        assert len(opened.node.seen) == (status == 200)
        if status == 403:
            assert "call:llm/chat/chat" in answer.json()["error"]["message"]
            assert answer.json()["error"]["code"] == "forbidden"
        tool = await client.post("/v1/tools/call", json={"type": "llm/chat", "tool": "chat"})
        assert tool.status_code == status
        assert (await client.post("/v1/chat/completions", json={**CHAT, "stream": True})).status_code == status


LLM = ApiKey("id", "k", ("call:llm/chat", "call:llm/embed/embed", "call:knowledge/*"), 0.0)


@pytest.mark.parametrize(("types", "tool", "asked", "tied"), [
    (("llm/chat",), "chat", None, "llm/chat"),
    (("math/chat", "llm/chat"), "chat", None, "llm/chat"),
    (("math/chat", "knowledge/answer", "llm/chat"), "chat", None, "knowledge/answer"),
    (("math/chat",) * KEPT + ("llm/chat",), "chat", None, "llm/chat"),
    (("math/chat",) * KEPT + ("knowledge/answer",), "search", None, "knowledge/*"),
    (("math/chat", "llm/chat"), "chat", "llm/chat", "llm/chat"),
    (("llm/embed", "llm/chat"), "chat", "llm/*", "llm/chat"),
    (("llm/embed",), "embed", None, "llm/embed"),
    (("knowledge/answer",), "x", "knowledge/*", "knowledge/*"),
    (("math/chat",), "chat", None, Code.FORBIDDEN),
    (("math/chat", "llm/chat"), "chat", "math/chat", Code.FORBIDDEN),
    (("llm/embed",), "chat", "llm/*", Code.FORBIDDEN),
    ((), "chat", None, Code.NOT_FOUND),
])
async def test_an_intent_is_tied_to_what_the_key_covers(types: tuple[str, ...], tool: str, asked: str | None,
                                                        tied: str) -> None:
    """The best type that is covered, however many better ones are not; what runs, a failover too, is of that type."""
    async with trio.open_nursery() as nursery:
        with closing(FakeNode(nursery, echo)) as node:
            node.types = types
            intent = Intent(tool=tool, constraints=Constraints(type=asked, local_only=True))
            outcome: Intent | Code
            try:
                outcome = await permitted(node, intent, LLM)
            except CallError as error:
                outcome = error.code
            if isinstance(outcome, Intent):
                assert outcome == replace(intent, constraints=Constraints(type=tied, local_only=True))
            else:
                assert outcome is tied
            assert await permitted(node, intent, None) is intent


async def test_use_is_audited(serving: Serving) -> None:
    """Who, what, outcome: for what ran, what failed, what was refused; never what was said, never the secret."""

    async def works(intent: Intent, args: bytes, emit: Emit) -> bytes:
        if b"fail" in args:
            return await fails(Code.OVERLOADED)(intent, args, emit)
        return await echo(intent, args, emit)

    async with open_to_all(serving, "call:llm/chat", work=works) as opened:
        who = f"key:{opened.key.split('_')[1]}"
        async with opened.client(opened.key) as client, opened.client("atm_wrong") as stranger:
            await client.post("/v1/chat/completions", json=CHAT)
            failing = {"messages": [{"role": "user", "content": "fail"}]}
            assert (await client.post("/v1/chat/completions", json=failing)).status_code == 503
            assert (await client.post("/v1/tools/call", json={"type": "math/add", "tool": "add"})).status_code == 403
            for path in ("a", "b", "c"):
                await stranger.get(f"/v1/{path}")
        async with opened.owner() as control:
            entries = (await control.get("/v1/admin/audit?limit=5")).json()["entries"]
        seen = [(entry["kind"], entry["peer"], entry["subject"], entry["outcome"]) for entry in entries]
        assert seen == [
            ("refused_call", "http:127.0.0.1", "http", "invalid_api_key"),
            ("refused_call", who, "math/add/add", "forbidden"),
            ("served", who, "*/chat", "overloaded"),
            ("served", who, "llm/chat/chat", "ok"),
            ("key_added", "", f"{who} laptop", "call:llm/chat"),
        ]
        assert entries[0]["detail"] == "(and 2 more)"
        assert entries[3]["detail"].endswith(" ms")
        assert "hi" not in json.dumps(entries).replace("this", "")
        assert opened.key.split("_")[2] not in json.dumps(entries)


async def test_a_client_that_leaves_is_audited(serving: Serving) -> None:
    async def endless(intent: Intent, args: bytes, emit: Emit) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    async with open_to_all(serving, work=endless) as opened:
        async with opened.client(opened.key) as client:
            with trio.move_on_after(0.2):
                await client.post("/v1/chat/completions", json=CHAT)
        with trio.fail_after(2):
            await opened.node.cancelled.wait()
            while len(served := await opened.node.audit.query()) < 2:
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert (served[0].kind, served[0].outcome) == ("served", "cancelled")


async def test_hosts_of_an_open_address(serving: Serving) -> None:
    """Any address and this machine's names are fine; a name of somebody else, which can be rebound, is not."""
    async with open_to_all(serving) as opened:
        own = [f"127.0.0.1:{opened.served.port}", "localhost", "192.168.7.7:80", "[fd00::7]:1", socket.gethostname()]
        for host in own:
            async with opened.client(opened.key, host=host) as client:
                assert (await client.get("/v1/models")).status_code == 200, host
        for host in ("evil.example", "127.0.0.1.evil.example", "[evil]", "999.1.1.1"):
            async with opened.client(opened.key, host=host) as client:
                answer = await client.get("/v1/models")
                assert (answer.status_code, answer.json()["error"]["code"]) == (403, "bad_host")


@pytest.mark.parametrize(("host", "origin", "fine"), [
    (b"192.168.7.7:11451", b"http://192.168.7.7:11451", True), (b"192.168.7.7:11451", b"http://localhost:3000", True),
    (b"192.168.7.7:11451", b"http://6.6.6.6", False), (b"192.168.7.7:11451", b"https://evil.example", False),
    (b"192.168.7.7:11451", b"null", False), (b"localhost", b"http://192.168.7.7", False),
])
def test_origins_of_an_open_address(host: bytes, origin: bytes, fine: bool) -> None:
    """Only a page of the very address that was asked, or of this machine, may send."""
    gate = Gate(LIMITS, LOOPBACK_NAMES, any_address=True)
    try:
        gate.check("POST", Head(host=host, origin=origin))
        passed = True
    except HttpError as error:
        passed = error.code != "foreign_origin"
    assert passed is fine


def test_on_loopback_an_address_is_no_host() -> None:
    with pytest.raises(HttpError, match="not this node"):
        Gate(LIMITS, LOOPBACK_NAMES).check("GET", Head(host=b"192.168.7.7"))


async def test_owner_of_keys(serving: Serving) -> None:
    """Made, listed without the secret, revoked: on the control socket only."""
    async with open_to_all(serving) as opened, opened.owner() as control, opened.client(opened.key) as public:
        made = (await control.post("/v1/admin/keys", json={"name": "phone", "scopes": ["call:llm/*"]})).json()
        assert made["key"].startswith(f"atm_{made['id']}_")
        listed = await control.get("/v1/admin/keys")
        assert [(key["name"], key["scopes"], key["revoked_at"]) for key in listed.json()["keys"]] == [
            ("laptop", ["call:*"], None), ("phone", ["call:llm/*"], None)]
        assert made["key"].split("_")[2] not in listed.text
        assert "hash" not in listed.text
        for body in ({}, {"name": ""}, {"name": "a", "scopes": "call:*"}, {"name": "a", "scopes": ["serve"]},
                     {"name": "a", "scope": []}):
            assert (await control.post("/v1/admin/keys", json=body)).status_code == 400
        gone = await control.request("DELETE", "/v1/admin/keys", json={"id": "nobody"})
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "key_not_found")
        for method, path in (("GET", "keys"), ("POST", "keys"), ("DELETE", "keys"), ("GET", "audit"),
                             ("POST", "revoke"), ("GET", "issuers"), ("POST", "join-requests")):
            assert (await public.request(method, f"/v1/admin/{path}", json={})).status_code == 404


async def test_owner_of_trust(serving: Serving) -> None:
    """Issuers, revocations, approvals: each reaches the node as what it is; each refusal has its reason."""
    serial, other = "ab" * 16, "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X"
    async with serving() as served:
        transport = httpx2.AsyncHTTPTransport(uds=str(served.bound.control))
        async with httpx2.AsyncClient(transport=transport, base_url="http://node/v1/admin") as control:
            async def post(path: str, **body: Any) -> tuple[int, Any]:
                answer = await control.post(path, json=body)
                return answer.status_code, answer.json()["error"]["code"] if "error" in answer.json() else answer.json()

            wanted = ["call:*", "serve", "invite"]
            assert await post("issuers", peer=str(PEER), scopes=wanted, expires_s=60) == (200, {"appointed": str(PEER)})
            assert (await control.get("issuers")).json() == {"issuers": [
                {"peer_id": str(PEER), "name": "there", "scopes": wanted, "not_after": 60.0}]}
            assert await post("issuers", peer=str(PEER), scopes=["*"]) == (403, "widened_scope")
            assert await post("issuers", peer=str(PEER)) == (400, "invalid_request")
            assert await post("issuers", peer="somebody", scopes=wanted) == (400, "invalid_request")

            assert await post("revoke", peer=str(PEER), reason="lost") == (200, {"revoked": str(PEER)})
            assert await post("revoke", issuer=str(PEER)) == (200, {"revoked": str(PEER)})
            assert await post("revoke", membership=serial) == (200, {"revoked": serial})
            assert served.node.revoked == [(Target.PEER, PEER.public_key, "lost"),
                                           (Target.ISSUER, PEER.public_key, ""),
                                           (Target.MEMBERSHIP, bytes.fromhex(serial), "")]
            assert await post("revoke", peer=str(PEER), reason="coup") == (403, "above_revoker")
            assert await post("revoke", membership="abcd") == (409, "malformed")
            assert await post("revoke", membership="xyz") == (400, "invalid_request")
            assert await post("revoke", peer=str(PEER), issuer=str(PEER)) == (400, "invalid_request")
            assert await post("revoke") == (400, "invalid_request")
            assert len(served.node.revoked) == 3

            assert (await control.get("join-requests")).json() == {"requests": [
                {"peer_id": str(PEER), "name": "laptop", "asked_at": 5.0, "invite": "01" * 16, "state": "pending"}]}
            assert await post("join-requests", peer=str(PEER)) == (400, "invalid_request")
            assert await post("join-requests", peer=other, approve=True) == (404, "request_not_found")
            assert await post("join-requests", peer=str(PEER), approve=False) == (
                200, {"peer": str(PEER), "approved": False})
            assert (await control.get("join-requests")).json() == {"requests": []}


@pytest.mark.parametrize(("query", "status"), [
    ("", 200), ("?kind=served", 200), ("?since=5.5&limit=1", 200), ("?limit=0", 200), ("?kind=nothing", 400),
    ("?limit=1001", 400), ("?limit=-1", 400), ("?limit=nan", 400), ("?since=yesterday", 400), ("?page=2", 400),
])
async def test_audit_query(serving: Serving, query: str, status: int) -> None:
    async with serving() as served:
        transport = httpx2.AsyncHTTPTransport(uds=str(served.bound.control))
        async with httpx2.AsyncClient(transport=transport, base_url="http://node") as control:
            answer = await control.get(f"/v1/admin/audit{query}")
            assert answer.status_code == status
            assert status == 400 or answer.json() == {"entries": []}
