"""Decision models: found and loaded over the native API, asked over HTTP."""

import asyncio
import json
import math
import re
import ssl
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.predictions.decisions.systemone import PATH, post
from lmstudio_integrations.client.support.arguments import TIMEOUTS
from lmstudio_integrations.client.transport.connect.addresses import Address, Target, context_trusting
from lmstudio_integrations.emulator import Emulator
from tests.client.both import make_client
from tests.support.certificates import LOCALHOST
from tests.support.ports import free_port
from tests.support.web import Request, Web, web_server

__all__ = ["make_client"]

RULES: list[dict[str, Any]] = [
    {"when": {"last": "for ever"}, "then": [{"wait": 600}]},
    {"when": {"last": "fail"}, "then": [{"error": "It is not in the mood"}]},
    {"then": [{"answers": {"a": 0.9, "b": {"billing": 0.7, "sales": 0.2, "support": 0.1}, "c": {"1": 1.0}}}]},
]
MODELS: list[dict[str, Any]] = [
    {"key": "judge", "kind": "decision", "rule": RULES},
    {"key": "chat"},
    {"key": "v", "kind": "embedding"},
]
QUESTIONS: dict[str, Any] = {
    "c": lms.Score(instructions="How angry?", criteria=("calm", "angry")),
    "a": lms.Noul(instructions="Is it a refund?"),
    "b": {"type": "choice", "instructions": "Who?", "criteria": {"billing": None, "sales": "things", "support": None}},
}
TOKEN = "sk-lm-abcdefgh:abcdefghijklmnopqrst"


@pytest.fixture
def server() -> Iterator[Emulator]:
    with Emulator(MODELS) as running:
        yield running


async def test_a_decision_model_is_listed_loaded_asked_and_unloaded(client: Any) -> None:
    assert {each.info.type for each in await client.list_downloaded_models()} == {"decision", "llm", "embedding"}
    (downloaded,) = await client.decision.list_downloaded()
    assert isinstance(downloaded.info, lms.DecisionModelInfo)
    model = await client.decision.model("judge", config={"context_length": 2048, "max_parallel_predictions": 2})
    decision = await model.decide([{"role": "user", "content": "My money!"}], QUESTIONS)
    assert (decision.model, decision.output_tokens) == ("judge", 3)
    assert decision.input_tokens > 0
    assert list(decision.answers) == list(QUESTIONS)
    score, refund, team = decision.answers.values()
    assert (refund.type, refund.noul) == ("noul", 0.9)
    assert (team.choice, team.confidence, team.probabilities["sales"]) == ("billing", 0.7, 0.2)
    assert (score.score, score.legend) == (1, {"0": "calm", "1": "angry"})
    assert await model.get_context_length() == 2048
    assert (await model.get_load_config()).max_parallel_predictions == 2
    info = await model.get_info()
    assert (type(info), info.ttl_ms, info.has_vision_adapter) == (lms.DecisionModelInstanceInfo, 3_600_000, False)
    assert (await model.get_processing_state()).status == "idle"
    loaded = await client.list_loaded_models()
    assert [type(getattr(each, "sync", each)).__name__.removeprefix("Async") for each in loaded] == ["DecisionModel"]
    await model.unload()
    assert await client.list_loaded_models("decision") == []


async def test_an_unloaded_model_is_loaded_again(client: Any) -> None:
    model = await client.decision.model("judge")
    await client.decision.unload("judge")
    assert (await model.decide("money", QUESTIONS)).answers["a"].noul == 0.9


async def test_memory_of_decision_models_is_planned(client: Any) -> None:
    await client.decision.model("judge")
    plan = await client.plan(["chat", "judge:1024@2"])
    assert [(each.kind, each.fit, each.slots) for each in plan.models] == [
        ("llm", "fits", 4),
        ("decision", "loaded", 4),
    ]


async def test_errors_name_the_kind_that_a_model_is_of(client: Any) -> None:
    kinds = {"judge": "decision", "chat": "llm", "v": "embedding"}
    for key, asked in (("judge", "llm"), ("judge", "embedding"), ("chat", "decision"), ("v", "decision")):
        with pytest.raises(lms.LMStudioWrongModelKindError) as caught:
            await getattr(client, asked).model(key)
        assert f'use client.{kinds[key]}.model("{key}")' in str(caught.value)


@pytest.mark.parametrize(
    ("state", "questions", "text"),
    [
        (7, QUESTIONS, "must be text, an object or a list"),
        ("money", {}, "questions must be"),
        ("money", {"a": {"type": "score", "instructions": "?", "criteria": ["one"]}}, "questions.a: criteria"),
    ],
)
async def test_what_is_invalid_is_not_sent(client: Any, state: Any, questions: Any, text: str) -> None:
    model = client.decision.lazy_model("judge")
    with pytest.raises(lms.LMStudioValueError, match=text):
        await model.decide(state, questions)
    assert await client.list_loaded_models() == []


async def test_errors_of_the_server_are_passed_on(client: Any) -> None:
    model = await client.decision.model("judge")
    with pytest.raises(lms.LMStudioServerError, match="Decision: It is not in the mood"):
        await model.decide("fail", QUESTIONS)
    for name, other in (("queue_timeout", {}), ("total_timeout", {"queue_timeout": None})):
        with pytest.raises(lms.LMStudioTimeoutError, match=f"{name} expired after 0.05 s") as caught:
            await model.with_timeouts(**{name: 0.05, **other}).decide("for ever", QUESTIONS)
        assert caught.value.timeout_name == name


async def test_a_cancelled_call_ends_its_request(server: Emulator) -> None:
    async with lms.AsyncClient(server.address) as client:
        model = await client.decision.model("judge")
        call = asyncio.ensure_future(model.decide("for ever", QUESTIONS))
        await until(model, "processingPrompt")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(model, "idle")


async def until(model: lms.AsyncDecisionModel, status: str) -> None:
    while (await model.get_processing_state()).status != status:
        pass


async def test_a_server_with_tokens_gets_the_one_of_the_client(make_client: Any) -> None:
    with Emulator(MODELS, tokens=[TOKEN]) as server:
        async with make_client(server.address, TOKEN) as client:
            assert (await (await client.decision.model("judge")).decide("money", QUESTIONS)).answers["a"].noul == 0.9


async def test_without_httpx_one_sentence_says_what_is_missing(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = await client.decision.model("judge")
    monkeypatch.setitem(sys.modules, post.__module__, None)
    with pytest.raises(lms.LMStudioUnsupportedError, match=r"over HTTP, which needs .*install"):
        await model.decide("money", QUESTIONS)


# The request, against pages of other servers --------------------------------------------------------------------------


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as running:
        yield running


def answer(status: int, body: object) -> Any:
    def page(request: Request) -> None:
        request.head(status)
        request.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

    return page


async def ask(web: Web, token: str | None = None, **headers: str) -> Any:
    return await post(Target.of(f"127.0.0.1:{web.port}/lm", token, headers), TIMEOUTS, None, {"model": "judge"})


@pytest.mark.parametrize(
    ("status", "body", "kind", "text"),
    [
        (400, {"error": {"message": "questions.a: no"}}, lms.LMStudioServerError, "Decision: questions.a: no"),
        (400, {"error": "no"}, lms.LMStudioServerError, "Decision: no"),
        (401, {"error": {"message": "no token"}}, lms.LMStudioAuthenticationError, "no token; no API token was sent"),
        (403, b"forbidden", lms.LMStudioAuthenticationError, "status 403"),
        (404, {"error": {"message": "No model"}}, lms.LMStudioModelNotFoundError, "Decision: No model"),
        (404, b"<html>", lms.LMStudioUnsupportedError, "has no /v1/systemone"),
        (
            405,
            b"",
            lms.LMStudioUnsupportedError,
            "update LM Studio to 0.4.26 or later (Bionic presumably to 1.1.7), or let the proxy",
        ),
        (200, b"Unexpected endpoint", lms.LMStudioUnsupportedError, "has no /v1/systemone"),
        (501, {"error": {"message": "no images"}}, lms.LMStudioUnsupportedError, "Decision: no images"),
        (502, b"", lms.LMStudioServerError, "status 502, ''"),
        (
            200,
            {"error": "Unexpected endpoint"},
            lms.LMStudioUnsupportedError,
            "/v1/systemone (Unexpected endpoint); update",
        ),
        (
            200,
            {"error": {"message": "No such path"}},
            lms.LMStudioUnsupportedError,
            "/v1/systemone (No such path); update",
        ),
        (404, {"detail": "Not Found"}, lms.LMStudioUnsupportedError, "status 404, '{"),
    ],
)
async def test_each_status_has_its_error(web: Web, status: int, body: object, kind: type, text: str) -> None:
    web.pages["/lm" + PATH] = answer(status, body)
    with pytest.raises(kind) as caught:
        await ask(web)
    assert type(caught.value) is kind
    assert text in str(caught.value)


async def test_headers_and_the_token_are_sent(web: Web) -> None:
    web.pages["/lm" + PATH] = answer(200, {})
    assert await ask(web, TOKEN, X_Team="a") == {}
    assert await ask(web, TOKEN, authorization="Basic proxy") == {}
    first, second = web.requests
    assert json.loads(first.body) == {"model": "judge"}
    assert (first.headers["Authorization"], first.headers["X_Team"]) == (f"Bearer {TOKEN}", "a")
    assert first.headers.get_all("User-Agent") == [f"lmstudio-integrations/{lms.__version__}"]
    assert second.headers["Authorization"] == "Basic proxy", "that of the user's own proxy stays"


async def test_a_server_that_is_gone_or_goes_away(web: Web) -> None:
    def hang_up(request: Request) -> None:
        request.connection.close()

    web.pages["/lm" + PATH] = hang_up
    with pytest.raises(lms.LMStudioConnectionLostError, match="was lost"):
        await ask(web)
    with pytest.raises(lms.LMStudioUnreachableError, match="not reachable at ws://"):
        await post(Target.of(f"127.0.0.1:{free_port()}", None), TIMEOUTS, None, {})


@pytest.mark.parametrize(("proxy", "problem"), [("127.0.0.1:9", "connection"), ("socks4://127.0.0.1:9", "scheme")])
async def test_a_proxy_that_does_not_lead_to_the_server_is_named(
    server: Emulator, monkeypatch: pytest.MonkeyPatch, proxy: str, problem: str
) -> None:
    monkeypatch.setattr(Address, "is_loopback", False)
    for name in ("http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(lms.LMStudioUnreachableError) as caught:
        await post(Target.of(server.address, None), TIMEOUTS, None, {})
    assert f"the proxy HTTP_PROXY={proxy} does not lead to it: " in str(caught.value)
    assert problem in str(caught.value)
    assert "it responds without the proxy: set NO_PROXY=127.0.0.1" in str(caught.value)


async def test_certificates_are_checked() -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(LOCALHOST)
    with web_server(tls) as web:
        web.pages[PATH] = answer(200, {"answers": {}})
        host = f"https://localhost:{web.port}"
        trusting = context_trusting(str(LOCALHOST))
        assert await post(Target.of(host, None, ssl_context=trusting), TIMEOUTS, None, {}) == {"answers": {}}
        with pytest.raises(lms.LMStudioUnreachableError, match="CERTIFICATE_VERIFY_FAILED"):
            await post(Target.of(host, None), TIMEOUTS, None, {})


class Judge:
    """A decision model whose server responds what a test says."""

    def __init__(self, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self._model = model
        self._patch = monkeypatch

    async def decide(self, response: Any, **questions: Any) -> Any:
        async def respond(*_: object) -> Any:
            return response

        self._patch.setattr("lmstudio_integrations.client.predictions.decisions.systemone.post", respond)
        return await self._model.decide("money", questions)


@pytest.fixture
async def judge(client: Any, monkeypatch: pytest.MonkeyPatch) -> Judge:
    return Judge(await client.decision.model("judge"), monkeypatch)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"answers": {}}, "it has no 'a'"),
        ({"answers": {"a": {"type": "noul"}}}, "noul"),
        ({"answers": {"a": {"type": "box"}}}, "box"),
        ({}, "it has no 'answers'"),
    ],
)
async def test_a_response_of_another_form_is_an_error(judge: Judge, changes: Any, text: str) -> None:
    with pytest.raises(lms.LMStudioProtocolError, match=f"cannot be read.*{text}"):
        await judge.decide(changes, a=QUESTIONS["a"])


SCORE = QUESTIONS["c"]
TEAM: Any = QUESTIONS["b"]
NAN = float("nan")


def chosen(**changes: Any) -> dict[str, Any]:
    probabilities = {"billing": 0.7, "sales": 0.2, "support": 0.1}
    return {"type": "choice", "choice": "billing", "probabilities": probabilities, "confidence": 0.7, **changes}


def scored(**changes: Any) -> dict[str, Any]:
    return {"type": "score", "score": 0.8, "probabilities": {"0": 0.2, "1": 0.8}, "confidence": 0.8, **changes}


@pytest.mark.parametrize(
    ("question", "found", "text"),
    [
        *(
            (QUESTIONS["a"], {"type": "noul", "noul": value}, f"noul must be a number from 0 to 1; got {value!r}")
            for value in (7, -1, NAN, math.inf, "0.5", None, True)
        ),
        (QUESTIONS["a"], chosen(), "the type must be 'noul'; got 'choice'"),
        (QUESTIONS["a"], 0.5, "the type must be 'noul'; got 0.5"),
        (QUESTIONS["a"], None, "the type must be 'noul'; got None"),
        (TEAM, {"type": "noul", "noul": 1}, "the type must be 'choice'; got 'noul'"),
        (TEAM, chosen(choice="z"), "choice must be one of billing, sales, support; got 'z'"),
        (TEAM, chosen(choice=None), "choice must be one of billing, sales, support; got None"),
        (TEAM, chosen(choice=["billing"]), "choice must be one of billing, sales, support; got ['billing']"),
        (TEAM, chosen(probabilities={"billing": 1}), "probabilities must be of billing, sales, support; got {"),
        (TEAM, chosen(probabilities=None), "probabilities must be of billing, sales, support; got None"),
        (
            TEAM,
            chosen(probabilities={"billing": 0.7, "sales": NAN, "support": 0.1}),
            "the probability of 'sales' must be a number from 0 to 1; got nan",
        ),
        (
            TEAM,
            chosen(probabilities={"billing": 0.7, "sales": 0.2, "support": 0.1, "z": 0}),
            "probabilities must be of billing, sales, support; got {",
        ),
        (TEAM, chosen(confidence=7), "confidence must be a number from 0 to 1; got 7"),
        (SCORE, scored(score=1.5), "score must be a number from 0 to 1; got 1.5"),
        (SCORE, scored(score=-0.1), "score must be a number from 0 to 1; got -0.1"),
        (SCORE, scored(score=NAN), "score must be a number from 0 to 1; got nan"),
        (SCORE, scored(probabilities={"1": 1.0, "2": 0.0}), "probabilities must be of 0, 1; got {'1'"),
        (SCORE, scored(confidence=None), "confidence must be a number from 0 to 1; got None"),
    ],
)  # fmt: skip
async def test_an_answer_that_does_not_fit_its_question_is_an_error_that_names_it(
    judge: Judge, question: Any, found: Any, text: str
) -> None:
    with pytest.raises(lms.LMStudioProtocolError, match=re.escape(text)) as caught:
        await judge.decide({"answers": {"it": found}}, it=question)
    assert "in the answer to the question 'it'" in str(caught.value)


async def test_labels_have_the_order_in_which_they_were_asked(judge: Judge) -> None:
    """A server may list the most probable first, round, and report what this version does not know."""
    found = chosen(
        choice="sales", probabilities={"sales": 1.0000001, "support": -1e-9, "billing": 0}, spread=5, reason="?"
    )
    usage = {"input_tokens": "many", "output_tokens": 2}
    decision = await judge.decide({"answers": {"it": found, "other": 1}, "usage": usage}, it=TEAM)
    answer = decision.answers["it"]
    assert isinstance(answer, lms.ChoiceAnswer)
    assert list(answer.probabilities.items()) == [("billing", 0), ("sales", 1), ("support", 0)]
    assert (answer.choice, answer.spread, answer.unseen) == ("sales", None, 0)
    assert (decision.input_tokens, decision.output_tokens) == (0, 2)


@pytest.mark.parametrize(
    "given", [{"permutations": 2}, {"max_concurrency": 3}, {"on_progress": print}], ids=lambda given: next(iter(given))
)
async def test_arguments_for_language_models_are_errors(client: Any, given: dict[str, Any]) -> None:
    model = client.decision.lazy_model("judge")
    (name,) = given
    with pytest.raises(lms.LMStudioValueError, match=f"{name} is for language models: .*; leave out {name}="):
        await model.decide("money", QUESTIONS, **given)
    with pytest.raises(lms.LMStudioValueError, match="permutation"):
        await model.decide("money", QUESTIONS, permutation=2)
    assert len((await model.decide("money", QUESTIONS, permutations=1, max_concurrency=None)).answers) == 3


UNEXPECTED = "Unexpected endpoint or method. (POST /v1/systemone)"


@pytest.mark.parametrize(("status", "words"), [(200, UNEXPECTED), (404, "File Not Found"), (405, "Method Not Allowed")])
async def test_a_server_that_answers_no_questions_is_unsupported_in_its_own_words(
    make_client: Any, status: int, words: str
) -> None:
    """The model is loaded, so it was not unloaded, and is not loaded again."""
    model = {"key": "judge", "kind": "decision", "rule": [{"then": [{"error": words, "status": status}]}]}
    with Emulator([model]) as server:
        async with make_client(server.address, None) as client:
            with pytest.raises(lms.LMStudioUnsupportedError, match=re.escape(words)) as caught:
                await (await client.decision.model("judge")).decide("money", QUESTIONS)
        assert "update LM Studio" in str(caught.value)
        assert "TTL" not in str(caught.value)
        assert len(server.loads) == 1
