"""What an owner sees of the node's inside: on the control socket, nowhere else."""

from __future__ import annotations

import httpx2
import pytest

from atmosphere.cli.logs import OnlyOurs
from atmosphere.env import SystemEnv
from atmosphere.store import Store
from tests.http.conftest import Served, Serving


def owner(served: Served) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=str(served.bound.control)), base_url="http://node")


async def test_the_change_log_goes_on_where_it_was_left(serving: Serving) -> None:
    async with serving() as served, owner(served) as control:
        assert [change["number"] for change in (await control.get("/v1/admin/changes")).json()["changes"]] == [1, 2]
        later = (await control.get("/v1/admin/changes", params={"since": "1"})).json()["changes"]
        assert [(change["name"], change["what"]) for change in later] == [("here", "online")]
        assert (await control.get("/v1/admin/statistics")).json()["mesh"] == {"running": "0"}


@pytest.mark.parametrize("since", ["-1", "x", "1.5"])
async def test_a_place_in_the_log_is_a_number(serving: Serving, since: str) -> None:
    async with serving() as served, owner(served) as control:
        refused = await control.get("/v1/admin/changes", params={"since": since})
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "since"


@pytest.mark.parametrize("path", ["changes", "statistics"])
async def test_not_on_the_public_interface(serving: Serving, path: str) -> None:
    async with serving() as served, httpx2.AsyncClient() as public:
        assert (await public.get(f"{served.bound.url}/v1/admin/{path}")).status_code == 404


async def test_a_full_disk_is_no_bug(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.memory(SystemEnv())
    store.write_now(lambda connection: connection.execute("PRAGMA max_page_count = 1"))  # as if no page were left

    def full() -> None:
        store.write_now(lambda connection: connection.execute("CREATE TABLE more (x TEXT) STRICT"))

    async with serving() as served, owner(served) as control:
        monkeypatch.setattr(served.node, "statistics", full)
        answer = await control.get("/v1/admin/statistics")
        assert answer.status_code == 507
        assert "disk is full" in answer.json()["error"]["message"]
    store.close()


@pytest.mark.logs_errors
async def test_a_bug_in_a_route_is_told_in_the_log(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise LookupError("the table is upside down")

    async with serving() as served, owner(served) as control:
        monkeypatch.setattr(served.node, "statistics", broken)
        answer = await control.get("/v1/admin/statistics")
        assert answer.status_code == 500
        assert "its log has the details" in answer.json()["error"]["message"]
    shown = [record for record in caplog.records if OnlyOurs().filter(record)]
    assert "the table is upside down" in "".join(str(record.exc_info) for record in shown)
