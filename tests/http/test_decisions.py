"""Typed questions over HTTP: both wires to a node that really routes, and OpenAI's variant there and back."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmosphere.config import BackendConfig
from atmosphere.http.decisions import systemone_refusal, translate
from atmosphere.http.errors import HttpError
from atmosphere.http.work import understand
from protocols.call.errors import CallError
from tests.backends.decision_server import LIES, DecisionServer
from tests.backends.openai_server import OpenAIServer
from tests.backends.running import running
from tests.http.real_work import real_node

pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(openai|httpx2|httpcore2):ResourceWarning")

TICKET = "My payments fail and I need it today"
QUESTIONS: Any = [
    {"type": "choice", "name": "team", "instructions": "Which team?",
     "choices": [{"value": "billing", "description": "payments"}, {"value": "shipping"}, {"value": True},
                 {"value": "true"}]},
    {"type": "predicate", "instructions": "Do the payments fail?"},
    {"type": "score", "name": "urgent", "instructions": "How urgent?",
     "levels": [{"label": "can wait"}, {"label": "now", "description": "today"}]},
]
SYSTEM_ONE: Any = {
    "team": {"type": "choice", "instructions": "Which team?", "criteria": {"billing": "payments", "shipping": None}},
}


async def test_the_sdk_decides_on_a_model_of_another_node() -> None:
    async with (
        running(OpenAIServer()) as chat, running(DecisionServer()) as decider,
        real_node([BackendConfig(chat.url)], [BackendConfig(decider.url)]) as (node, client),
    ):
        assert node.models() == {"tiny", "laya"}
        raw = await client.decisions.with_raw_response.create(model="auto", input=TICKET, questions=QUESTIONS)
        decision = raw.parse()
        assert raw.headers["x-atmosphere-capability"].endswith(" llm/decide")
        assert raw.headers["x-atmosphere-path"] == "lan"
        assert decision.model == "laya"
        team, fail, urgent = decision.answers
        assert (team.type, fail.type, urgent.type) == ("choice", "predicate", "score")
        assert (team.name, team.choice) == ("team", "billing")
        assert [item.value for item in team.probabilities] == ["billing", "shipping", True, "true"]
        assert (fail.name, fail.probability) == (None, pytest.approx(2 / 3))
        assert [(item.label, item.value) for item in urgent.probabilities] == [("can wait", 0), ("now", 1)]
        assert 0.5 < urgent.score <= 1
        assert decision.usage.total_tokens == decision.usage.input_tokens > 0
        wire = decider.log.requests[-1]["body"]
        assert wire["questions"]["team"]["criteria"] == {
            "billing": "payments", "shipping": None, "true": None, "true'": None}
        assert wire["questions"]["urgent"]["criteria"] == ["can wait", "now: today"]
        assert wire["state"] == TICKET
        named = await client.decisions.create(model="laya", input=TICKET, questions=QUESTIONS[:1])
        assert len(named.answers) == 1
        with pytest.raises(openai.NotFoundError, match="gpt-6-luna"):
            await client.decisions.create(model="gpt-6-luna", input=TICKET, questions=QUESTIONS)


async def test_an_alias_stands_for_a_decision_model() -> None:
    async with (
        running(DecisionServer()) as decider,
        real_node([BackendConfig(decider.url)], aliases={"jev-latest": ("laya",)}) as (_, client),
    ):
        answer = await client.decisions.create(model="jev-latest", input=TICKET, questions=QUESTIONS)
        assert answer.model == "laya"


async def test_the_answer_explains_itself_when_asked() -> None:
    async with running(DecisionServer()) as decider, real_node([BackendConfig(decider.url)]) as (_, client):
        answer = await client.decisions.create(model="auto", input=TICKET, questions=QUESTIONS,
                                               extra_body={"atmosphere": {"explain": True}})
        assert answer.to_dict()["atmosphere"]["decision"]["candidates"]  # type: ignore[index]


async def test_system_one_goes_through_as_it_came() -> None:
    async with (
        running(DecisionServer()) as decider,
        real_node([BackendConfig(decider.url)]) as (_, client), httpx2.AsyncClient() as http,
    ):
        url = f"{str(client.base_url).rstrip('/')}/systemone"
        answer = await http.post(url, json={"model": "laya", "state": {"ticket": TICKET}, "questions": SYSTEM_ONE})
        assert answer.status_code == 200
        assert answer.json()["answers"]["team"]["choice"] == "billing"
        assert answer.json()["usage"]["output_tokens"] == 0
        assert decider.log.requests[-1]["body"]["state"] == {"ticket": TICKET}
        bad = await http.post(url, json={"state": "x", "questions": {"q": {"type": "box", "instructions": "?"}}})
        assert bad.status_code == 422
        (detail,) = bad.json()["detail"]
        assert detail["loc"] == ["body", "questions", "q", "type"]
        assert bad.json()["error"]["message"] == detail["msg"]
        broken = await http.post(url, content=b"{", headers={"content-type": "application/json"})
        assert broken.status_code == 400
        assert "not JSON" in broken.json()["detail"]
        missing = await http.post(url, json={"model": "jev", "state": "x", "questions": SYSTEM_ONE})
        assert missing.status_code == 404
        assert "jev" in missing.json()["detail"]
        get = await http.get(url)
        assert get.status_code == 405
        assert get.json()["detail"]


@pytest.mark.parametrize("flavour", ["llamacpp", "transformers"])
async def test_a_servers_refusal_takes_each_routes_form(flavour: str) -> None:
    server = DecisionServer(flavour=flavour, status=422)
    async with running(server) as decider:
        server.status = 0
        async with real_node([BackendConfig(decider.url)]) as (_, client), httpx2.AsyncClient() as http:
            server.status = 422
            with pytest.raises(openai.BadRequestError, match="asked for 422") as caught:
                await client.decisions.create(model="laya", input=TICKET, questions=QUESTIONS)
            assert caught.value.type == "invalid_request_error"
            url = f"{str(client.base_url).rstrip('/')}/systemone"
            answer = await http.post(url, json={"state": "x", "questions": SYSTEM_ONE})
            assert answer.status_code == 422
            assert "asked for 422" in str(answer.json()["detail"])


@pytest.mark.parametrize("lie", list(LIES))
async def test_a_lie_is_a_bad_gateway(lie: str) -> None:
    server = DecisionServer()
    async with running(server) as decider, real_node([BackendConfig(decider.url)]) as (_, client):
        server.lie = lie
        with pytest.raises(openai.InternalServerError, match="cannot be believed"):
            await client.decisions.create(model="laya", input=TICKET, questions=QUESTIONS)


async def test_without_a_decision_model_it_says_so() -> None:
    async with running(OpenAIServer()) as chat, real_node([BackendConfig(chat.url)]) as (_, client):
        with pytest.raises(openai.NotFoundError, match="no node of the mesh offers 'decide'"):
            await client.decisions.create(model="auto", input=TICKET, questions=QUESTIONS)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no input": ({"questions": QUESTIONS}, "input"),
    "an empty list": ({"input": [], "questions": QUESTIONS}, "input"),
    "no questions": ({"input": "x"}, "questions"),
    "401 questions": ({"input": "x", "questions": QUESTIONS[1:2] * 401}, "questions"),
    "an unknown type": ({"input": "x", "questions": [{"type": "noul", "instructions": "?"}]}, "questions[0].type"),
    "one choice": ({"input": "x", "questions": [{**QUESTIONS[0], "choices": [{"value": "a"}]}]},
                   "questions[0].choices"),
    "a choice twice": ({"input": "x", "questions": [{**QUESTIONS[0], "choices": [{"value": "a"}] * 2}]},
                       "questions[0].choices"),
    "a number as choice": ({"input": "x", "questions": [{**QUESTIONS[0], "choices": [{"value": 1}, {"value": "b"}]}]},
                           "questions[0].choices[0]"),
    "eleven levels": ({"input": "x", "questions": [{**QUESTIONS[2], "levels": [
        {"label": str(n)} for n in range(11)]}]}, "questions[0].levels"),
    "no instructions": ({"input": "x", "questions": [{"type": "predicate"}]}, "questions[0].instructions"),
    "an image": ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:"}]}],
                  "questions": QUESTIONS}, "input[0].content[0]"),
    "a stranger": ({"input": [{"type": "reasoning"}], "questions": QUESTIONS}, "input[0]"),
    "a list as name": ({"input": "x", "questions": [{**QUESTIONS[1], "name": []}]}, "questions[0].name"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named_as_the_client_wrote_it(name: str) -> None:
    body, param = BAD[name]
    with pytest.raises(HttpError) as caught:
        understand("/v1/decisions", json.dumps(body).encode())
    assert (caught.value.status, caught.value.param) == (400, param)


def test_conversations_keep_their_order_and_their_tools() -> None:
    translation = translate({"questions": QUESTIONS, "input": [
        {"role": "system", "content": "Be strict"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"},
                                                        {"type": "input_json", "data": {"n": 1}}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
        {"type": "function_call", "call_id": "1", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "c"}]},
    ]})
    assert translation.body["state"] == [
        {"role": "system", "content": "Be strict"},
        {"role": "user", "content": ["a", {"n": 1}]},
        {"role": "assistant", "content": "b"},
        {"type": "function_call", "name": "look", "arguments": "{}", "call_id": "1"},
        {"type": "function_call_output", "output": "c", "call_id": "1"},
    ]


def test_a_single_text_is_asked_about_as_a_text() -> None:
    message = {"role": "user", "content": [{"type": "input_text", "text": "hello"}]}
    assert translate({"input": [message], "questions": QUESTIONS}).body["state"] == "hello"


def test_names_may_be_missing_or_the_same() -> None:
    twice = [{**QUESTIONS[1], "name": "n"}, {**QUESTIONS[1], "name": "n"}, QUESTIONS[1],
             {**QUESTIONS[1], "name": "question 3"}]
    translation = translate({"input": "x", "questions": twice})
    assert len(translation.body["questions"]) == 4
    answers = {key: {"type": "noul", "noul": number / 10} for number, key in enumerate(translation.body["questions"])}
    result = json.loads(translation.answer(json.dumps({"model": "m", "answers": answers}).encode()))
    assert [(item["name"], item["probability"]) for item in result["answers"]] == [
        ("n", 0.0), ("n", 0.1), (None, 0.2), ("question 3", 0.3)]


def test_a_question_that_the_model_left_out_is_a_refusal() -> None:
    translation = translate({"input": "x", "questions": QUESTIONS[1:2]})
    assert json.loads(translation.answer(b'{"answers": {}}'))["answers"] == [{"type": "refusal", "name": None}]
    with pytest.raises(CallError, match="cannot be believed"):
        translation.answer(b'{"answers": {"other": 1}}')


@pytest.mark.parametrize("state", [
    {"state": "x", "images": ["data:image/png;base64,xx"]},
    {"state": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]},
    {"state": {"photo": "img-1"}, "assets": {"img-1": {"data_base64": ""}}},
])
def test_a_picture_goes_only_to_who_sees(state: dict[str, Any]) -> None:
    job = understand("/v1/systemone", json.dumps({**state, "questions": SYSTEM_ONE}).encode())
    assert job.intent.inputs == {"text", "image"}
    assert job.intent.constraints.type == "llm/decide"


def test_a_refusal_before_the_body_has_the_form_too() -> None:
    answer = systemone_refusal(HttpError(413, "too large", "request_too_large"))
    assert answer.status == 413
    assert json.loads(answer.body)["detail"] == "too large"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.sampled_from(
        ["predicate", "choice", "score", "message", "user", "input_text", "input_json", "function_call"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
        ["type", "name", "instructions", "choices", "levels", "value", "label", "description", "role", "content",
         "text", "data", "output"]), inner, max_size=5),
    max_leaves=15,
)


@given(JSON, JSON, JSON)
def test_whatever_comes_is_translated_or_refused(first: Any, second: Any, third: Any) -> None:
    questions: list[Any] = [
        [first], first, [{"type": "predicate", "instructions": first, "name": second}],
        [{"type": "choice", "instructions": "?", "choices": first}],
        [{"type": "choice", "instructions": "?", "choices": [first, second, third]}],
        [{"type": "choice", "instructions": "?", "choices": [{"value": first}, {"value": second}]}],
        [{"type": "score", "instructions": "?", "levels": [{"label": first, "description": second}, {"label": "b"}]}],
    ]
    bodies = [{"input": "x", "questions": item} for item in questions]
    inputs: list[Any] = [first, [first], [{"role": "user", "content": first}]]
    bodies += [{"input": item, "questions": QUESTIONS} for item in inputs]
    for body in bodies:
        try:
            job = understand("/v1/decisions", json.dumps(body).encode())
        except HttpError:
            continue
        understand("/v1/systemone", job.args)  # what comes out is a valid request


def test_a_long_state_needs_a_long_context() -> None:
    body = {"state": "word " * 4000, "questions": SYSTEM_ONE}
    assert 4000 < understand("/v1/systemone", json.dumps(body).encode()).intent.tokens < 8000
