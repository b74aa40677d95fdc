"""Plans over real sockets: given, watched, ended; what a key sees of them and what its scopes let run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
import trio

from tests.http.conftest import Served, Serving
from tests.http.fake_node import FakeNode


def unit(name: str, args: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"id": name, "tool": "chat", "type": "llm/chat", "args": args or {}, **more}


@asynccontextmanager
async def plans_of(
    serving: Serving, *, public: str = "127.0.0.1:0", **keys: str
) -> AsyncIterator[tuple[Served, dict[str, str]]]:
    """A served node whose plans run, with one API key per name and scope."""
    made: dict[str, str] = {}

    def prepare(node: FakeNode) -> None:
        made.update({name: node.api_keys.create(name, (scope,)) for name, scope in keys.items()})

    async with serving(public=public, prepare=prepare) as served:
        await served.nursery.start(served.node.plans.run)
        yield served, made


def client(served: Served, key: str | None = None) -> httpx2.AsyncClient:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return httpx2.AsyncClient(base_url=f"http://127.0.0.1:{served.port}", headers=headers)


def owner(served: Served) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=str(served.bound.control)), base_url="http://n")


async def done(http: httpx2.AsyncClient, plan: str) -> dict[str, Any]:
    version = 0
    with trio.fail_after(5):
        while True:
            view: dict[str, Any] = (await http.get(f"/v1/plans/{plan}?wait_ms=2000&version={version}")).json()
            if view["state"] != "running":
                return view
            version = view["version"]


async def test_a_plan_from_start_to_end(serving: Serving) -> None:
    async with plans_of(serving) as (served, _), client(served) as http:
        given = await http.post("/v1/plans", json={"name": "two", "units": [
            unit("e", {"n": {"$item": True}}, for_each=[1, 2]),
            unit("all", {"x": {"$from": "e", "path": "did.n"}}),
        ]})
        assert given.status_code == 202
        assert (given.json()["state"], given.json()["units"]) == ("running", 3)
        plan = given.json()["id"]
        view = await done(http, plan)
        assert (view["state"], view["name"], view["counts"]) == ("ok", "two", {"ok": 3})
        assert view["results"] == {"all": {"did": {"x": [1, 2]}}}
        assert [record["id"] for record in view["records"]] == ["e[0]", "e[1]", "all"]
        assert all(record["node"] == "here" and record["error"] is None for record in view["records"])
        assert view["records"][2]["began_ms"] >= view["records"][0]["began_ms"] >= 0
        one = (await http.get(f"/v1/plans/{plan}/units/e[1]")).json()
        assert (one["state"], one["result"]) == ("ok", {"did": {"n": 2}})
        assert (await http.get(f"/v1/plans/{plan}/units/nothing")).json()["error"]["code"] == "unit_not_found"
        brief = (await http.get(f"/v1/plans/{plan}?records=no")).json()
        assert "records" not in brief
        assert [entry["id"] for entry in (await http.get("/v1/plans")).json()["plans"]] == [plan]
        assert (await http.request("DELETE", f"/v1/plans/{plan}")).json()["state"] == "ok"
        assert (await http.request("DELETE", f"/v1/plans/{plan}?forget=yes")).json() == {"id": plan, "forgotten": True}
        gone = await http.get(f"/v1/plans/{plan}")
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not_found")


async def test_delete_cancels(serving: Serving) -> None:
    async with plans_of(serving) as (served, _), client(served) as http:
        plan = (await http.post("/v1/plans", json={"units": [unit("a", {"wait": True}), unit("b", after=["a"])]})
                ).json()["id"]
        view = (await http.get(f"/v1/plans/{plan}?wait_ms=50")).json()
        assert view["counts"] == {"running": 1, "waiting": 1}
        assert "results" not in view
        ended = (await http.request("DELETE", f"/v1/plans/{plan}")).json()
        assert (ended["state"], ended["reason"]) == ("cancelled", "the plan was cancelled")
        view = (await http.get(f"/v1/plans/{plan}")).json()
        assert view["counts"] == {"unknown": 1, "cancelled": 1}, "the fake's card does not say that it may run twice"


@pytest.mark.parametrize(("body", "words"), [
    ({"units": []}, "at least one unit"),
    ({"units": [{"id": "a"}]}, "unit 'a': 'tool' is missing"),
    ({"units": [unit("a", {"x": {"$from": "b"}})]}, "unit 'a': waits for 'b'"),
    ({"unit": 1}, "unknown field unit"),
])
async def test_a_wrong_plan_is_refused_with_the_unit_and_the_fix(serving: Serving, body: Any, words: str) -> None:
    async with plans_of(serving) as (served, _), client(served) as http:
        told = await http.post("/v1/plans", json=body)
        assert told.status_code == 400
        assert words in told.json()["error"]["message"]
        for query in ("wait_ms=x", "wait_ms=999999", "nothing=1"):
            assert (await http.get(f"/v1/plans/ab?{query}")).status_code == 400
        assert served.node.ran == []


async def test_plans_of_one_key_are_not_seen_by_another(serving: Serving) -> None:
    async with plans_of(serving, ann="call:*", bob="call:*") as (served, keys):
        body = {"units": [unit("a", {"wait": True})]}
        async with (client(served, keys["ann"]) as ann, client(served, keys["bob"]) as bob,
                    client(served) as nobody, owner(served) as control):
                plan = (await ann.post("/v1/plans", json=body)).json()["id"]
                for other in (bob, nobody):
                    assert (await other.get("/v1/plans")).json() == {"plans": []}
                    for method, path in (("GET", ""), ("GET", "/units/a"), ("DELETE", ""), ("DELETE", "?forget=yes")):
                        told = await other.request(method, f"/v1/plans/{plan}{path}")
                        assert told.status_code == 404, (method, path)
                assert (await ann.get(f"/v1/plans/{plan}")).json()["state"] == "running"
                assert [entry["id"] for entry in (await control.get("/v1/plans")).json()["plans"]] == [plan]
                assert (await control.request("DELETE", f"/v1/plans/{plan}")).json()["state"] == "cancelled"
        async with client(served, "atm_aaaaaaaa_" + "a" * 32) as wrong:
            assert (await wrong.post("/v1/plans", json=body)).status_code == 401


async def test_without_a_key_nothing_where_keys_are_needed(serving: Serving) -> None:
    wanted = (("POST", "/v1/plans"), ("GET", "/v1/plans"), ("GET", "/v1/plans/x"), ("DELETE", "/v1/plans/x"))
    async with (plans_of(serving, public="0.0.0.0:0", ann="call:*") as (served, keys),
                client(served) as nobody, client(served, keys["ann"]) as ann):
        for method, path in wanted:
            assert (await nobody.request(method, path)).status_code == 401
        assert (await ann.get("/v1/plans")).status_code == 200


async def test_the_scopes_of_the_key_apply_to_every_unit(serving: Serving) -> None:
    async with plans_of(serving, ann="call:llm/chat") as (served, keys), client(served, keys["ann"]) as ann:
        served.node.types = ("llm/chat", "llm/embed", "knowledge/answer")  # type: ignore[assignment]
        plan = (await ann.post("/v1/plans", json={"units": [
            unit("open"), unit("closed", type="llm/embed"), unit("tied", type=None), unit("after", after=["closed"]),
        ]})).json()["id"]
        view = await done(ann, plan)
        assert view["state"] == "failed"
        assert {record["id"]: record["state"] for record in view["records"]} == {
            "open": "ok", "closed": "failed", "tied": "ok", "after": "skipped"}
        error = next(record["error"] for record in view["records"] if record["id"] == "closed")
        assert error["code"] == "forbidden"
        assert error["message"].startswith("unit 'closed': the API key 'ann' is for call:llm/chat")
        assert {ran.intent.constraints.type for ran in served.node.ran} == {"llm/chat"}


async def test_a_key_that_is_revoked_ends_what_its_plans_may(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with plans_of(serving, ann="call:*") as (served, keys), client(served, keys["ann"]) as ann:
        sent, release = trio.Event(), trio.Event()
        run_unit = served.node.run_unit

        async def held(given: Any) -> Any:
            sent.set()
            await release.wait()
            return await run_unit(given)

        monkeypatch.setattr(served.node.plans, "_run_unit", held)
        plan = (await ann.post("/v1/plans", json={"units": [unit("a"), unit("b", {"x": 1}, after=["a"])]})).json()["id"]
        with trio.fail_after(5):
            await sent.wait()
        served.node.api_keys.revoke(keys["ann"].split("_")[1])
        release.set()
        async with owner(served) as control:
            view = await done(control, plan)
        assert [record["state"] for record in view["records"]] == ["ok", "failed"]
        assert "is revoked" in view["records"][1]["error"]["message"]
