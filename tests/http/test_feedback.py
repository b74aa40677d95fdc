"""What was decided, what people say of it, what work costs: the routes."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from atmosphere.cost import Readings
from atmosphere.routing.decision import Decision
from atmosphere.routing.intent import Intent
from protocols.call.errors import CallError, Code
from tests.http.conftest import Served, Serving
from tests.http.fake_node import CARD_ID, PEER, Emit
from tests.http.test_inspection import owner

CHAT = {"model": "fast", "messages": [{"role": "user", "content": "hello"}]}


async def asked(served: Served) -> str:
    """The id of a request that was answered."""
    async with httpx2.AsyncClient() as client:
        answer = await client.post(f"{served.bound.url}/v1/chat/completions", json=CHAT)
        assert answer.status_code == 200
        return answer.headers["x-atmosphere-request-id"]


async def say(served: Served, **body: Any) -> httpx2.Response:
    async with httpx2.AsyncClient() as client:
        return await client.post(f"{served.bound.url}/v1/mesh/feedback", json=body)


async def test_feedback_goes_to_who_answered_and_counts_once(serving: Serving) -> None:
    async with serving() as served:
        request = await asked(served)
        said = (await say(served, request_id=request, good=True)).json()
        assert said == {"request_id": request, "feedback": "good", "counted": True, "peer_id": str(PEER),
                        "name": "here", "capability": CARD_ID.hex()[:10], "model": "tiny", "opinion": 0.25,
                        "taught": True}
        assert served.node.judged == [(PEER, CARD_ID, True)]
        again = (await say(served, request_id=request[:8], good=True)).json()
        assert (again["request_id"], again["counted"]) == (request, False)
        other = (await say(served, request_id=request, good=False)).json()
        assert (other["counted"], other["opinion"]) == (True, -0.25)
        assert [good for _, _, good in served.node.judged] == [True, False]


@pytest.mark.parametrize(("body", "status", "words"), [
    ({"good": True}, 400, "'request_id' is missing"),
    ({"request_id": "ab", "good": True}, 400, "or its first 8"),
    ({"request_id": "ab" * 16}, 400, "'good' is missing"),
    ({"request_id": "ab" * 16, "good": "yes"}, 400, "'good' is missing"),
    ({"request_id": "ab" * 16, "good": 1}, 400, "'good' is missing"),
    ({"request_id": "ab" * 16, "good": True, "node": "x"}, 400, "unknown field node"),
    ({"request_id": "ANSWERED", "good": True, "instead": CARD_ID.hex()}, 400, "goes with a bad answer"),
    ({"request_id": "ANSWERED", "good": False, "instead": 7}, 400, "'instead' must be a string"),
    ({"request_id": "ANSWERED", "good": False, "instead": "llm/chat"}, 400, "instead must be a card id in hex"),
    ({"request_id": "ANSWERED", "good": False, "instead": "00" * 32}, 404, "no card now begins with 0000"),
    ({"request_id": "ab" * 16, "good": True}, 404, "x-atmosphere-request-id names it"),
    ({"request_id": "cd" * 16, "good": True}, 409, "was not answered by anybody (overloaded)"),
])
async def test_refusals_say_what_is_wrong(serving: Serving, body: dict[str, Any], status: int, words: str) -> None:
    async with serving() as served:
        served.node.decisions.add("cd" * 16, Decision(Intent("chat"), ()), 0.0).ended(None, "overloaded", 2)
        if body.get("request_id") == "ANSWERED":
            body = {**body, "request_id": await asked(served)}
        refused = await say(served, **body)
        assert refused.status_code == status
        assert words in refused.json()["error"]["message"]
        assert served.node.judged == served.node.taught == []


async def test_a_bad_answer_teaches_against_its_card_and_for_the_one_that_is_named(serving: Serving) -> None:
    async with serving() as served:
        request = await asked(served)
        await say(served, request_id=request, good=False, instead=CARD_ID.hex()[:8])
        assert served.node.taught == [(PEER, CARD_ID, False), (PEER, CARD_ID, True)]
        await say(served, request_id=await asked(served), good=True)
        assert served.node.taught[2:] == [(PEER, CARD_ID, True)]


@pytest.mark.parametrize(("scopes", "teaches"), [(("call:*",), True), (("call:llm/chat",), False)])
async def test_a_key_for_some_types_does_not_decide_where_the_owners_intents_go(
    serving: Serving, scopes: tuple[str, ...], teaches: bool
) -> None:
    async with serving() as served:
        request = await asked(served)
        bearer = {"authorization": f"Bearer {served.node.api_keys.create('phone', scopes)}"}
        async with httpx2.AsyncClient(headers=bearer) as client:
            said = await client.post(f"{served.bound.url}/v1/mesh/feedback",
                                     json={"request_id": request, "good": False})
        assert (said.json()["counted"], said.json()["taught"]) == (True, teaches)
        assert bool(served.node.taught) is teaches


async def test_the_last_decisions_newest_first(serving: Serving) -> None:
    async with serving() as served, owner(served) as control:
        requests = [await asked(served) for _ in range(3)]
        await say(served, request_id=requests[0], good=False)
        listed = (await control.get("/v1/admin/decisions")).json()
        assert listed["kept"] == 3
        assert [one["request_id"] for one in listed["decisions"]] == requests[::-1]
        oldest = listed["decisions"][-1]
        assert (oldest["tool"], oldest["model"], oldest["text"]) == ("chat", "fast", "hello")
        assert (oldest["outcome"], oldest["name"], oldest["feedback"]) == ("ok", "here", "bad")
        one = (await control.get("/v1/admin/decisions", params={"limit": "1"})).json()["decisions"]
        assert [entry["request_id"] for entry in one] == requests[-1:]


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1001"])
async def test_a_limit_is_a_number_that_is_kept(serving: Serving, limit: str) -> None:
    async with serving() as served, owner(served) as control:
        refused = await control.get("/v1/admin/decisions", params={"limit": limit})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "limit")


async def test_one_decision_with_its_factors_and_as_it_would_be_now(serving: Serving) -> None:
    async with serving() as served, owner(served) as control:
        request = await asked(served)
        kept = (await control.get(f"/v1/admin/decisions/{request}")).json()
        assert kept["decision"]["candidates"][0]["factors"] == {"semantic": 0.9}
        assert kept["decision"]["filtered"] == {"type": 2}
        assert "now" not in kept
        now = (await control.get(f"/v1/admin/decisions/{request[:8]}", params={"recompute": "yes"})).json()["now"]
        assert [(one["model"], one["filter"]) for one in now["refused"]] == [("e", "type")]
        assert (await control.get("/v1/admin/decisions/" + "00" * 16)).status_code == 404


async def test_a_dry_run_lists_what_was_filtered_out_when_asked(serving: Serving) -> None:
    async with serving() as served, httpx2.AsyncClient() as client:
        body = {"intent": "a poem", "all": True}
        route = (await client.post(f"{served.bound.url}/v1/mesh/route", json=body)).json()
        assert [one["filter"] for one in route["refused"]] == ["type"]
        body["all"] = False
        assert "refused" not in (await client.post(f"{served.bound.url}/v1/mesh/route", json=body)).json()
        assert served.node.seen == [], "nothing runs"


async def test_what_failed_is_in_no_log_as_answered(serving: Serving) -> None:
    async def busy(intent: Intent, args: bytes, emit: Emit) -> bytes:
        raise CallError(Code.OVERLOADED, "busy", retryable=True)

    async with serving(busy) as served, httpx2.AsyncClient() as client:
        answer = await client.post(f"{served.bound.url}/v1/chat/completions", json=CHAT)
        request = answer.headers["x-atmosphere-request-id"]
        assert (await say(served, request_id=request, good=True)).status_code == 404


async def test_the_cost_with_its_factors_and_prices(serving: Serving) -> None:
    async with serving() as served, owner(served) as control:
        served.node.meter.read(Readings(cpu=1.0, unknown={"metered": "nobody says"}), 0.0, 0)
        cost = (await control.get("/v1/admin/cost")).json()
        assert (cost["cost_milli"], cost["told_milli"]) == (2000, 2000)
        factors = {factor["name"]: factor for factor in cost["factors"]}
        assert factors["compute"]["multiplier"] == 2.0
        assert (factors["metered"]["known"], factors["metered"]["why"]) == (False, "nobody says")
        assert cost["prices"] == [{"capability": "ab", "type": "llm/chat", "model": "tiny", "micros": 30_000}]


async def test_capability_names_are_listed_and_an_alias_hides_one(serving: Serving) -> None:
    async with serving() as served, httpx2.AsyncClient() as client:
        served.node.capability_names = {"fast": frozenset({"llm/chat"}), "small": frozenset({"hidden"})}
        models = (await client.get(f"{served.bound.url}/v1/models")).json()["data"]
        types = {model["id"]: model["atmosphere"]["types"] for model in models}
        assert list(types.items()) == [("small", ["llm/chat"]), ("tiny", ["llm/chat"]), ("fast", ["llm/chat"]),
                                       ("auto", [])]


@pytest.mark.parametrize("path", ["decisions", "decisions/abcdef12", "cost"])
async def test_not_on_the_public_interface(serving: Serving, path: str) -> None:
    async with serving() as served, httpx2.AsyncClient() as public:
        assert (await public.get(f"{served.bound.url}/v1/admin/{path}")).status_code == 404
