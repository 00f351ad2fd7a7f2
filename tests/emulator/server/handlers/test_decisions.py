"""The questions of decision models, over HTTP."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.server.context import MIB
from lmstudio_integrations.emulator.server.posts import RequestReader
from lmstudio_integrations.errors import LMStudioValueError
from tests.emulator.bare_client import STACK, named, wire
from tests.emulator.server.hostile import connected, measured, process
from tests.emulator.server.test_server import get

pytestmark = pytest.mark.leaf

REFUND: dict[str, Any] = {"type": "noul", "instructions": "Does the customer want a refund?"}
TEAM: dict[str, Any] = {
    "type": "choice",
    "instructions": "Which team?",
    "criteria": {"billing": "refund, invoice, money", "support": "crash, error", "__proto__": None},
}
ANGER: dict[str, Any] = {"type": "score", "instructions": "How angry?", "criteria": ["calm", "annoyed", "angry"]}
STATE = "I am angry, give me a refund of my money"
TOKEN = "sk-lm-abcdefgh:abcdefghijklmnopqrst"


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    catalog = {"model": [{"key": "judge", "kind": "decision", "preload": True}, {"key": "chat", "preload": True}]}
    with Emulator(catalog=catalog) as running:
        yield running


def ask(server: Emulator, path: str = "/v1/systemone", *, token: str = "", **body: Any) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    status, kind, text = get(server, path, json.dumps(body).encode(), **headers)
    assert kind == "application/json"
    return status, json.loads(text)


def test_each_question_gets_the_answer_of_its_type(server: Emulator) -> None:
    questions = {"refund": REFUND, "team": TEAM, "__proto__": ANGER}
    for state in (STATE, [{"role": "user", "content": STATE}], {"text": STATE}):
        status, body = ask(server, model="judge", state=state, questions=questions)
        assert (status, body["model"]) == (200, "judge")
        assert body["usage"]["output_tokens"] == 3
        answers = body["answers"]
        assert answers.keys() == questions.keys()
        assert 0.2 < answers["refund"]["noul"] < 1
        assert answers["team"]["choice"] == "billing"
        assert answers["team"]["probabilities"].keys() == TEAM["criteria"].keys()
        assert answers["__proto__"]["legend"] == {"0": "calm", "1": "annoyed", "2": "angry"}
        assert 1 < answers["__proto__"]["score"] <= 2
        for answer in (answers["team"], answers["__proto__"]):
            assert sum(answer["probabilities"].values()) == pytest.approx(1)
            assert answer["confidence"] == max(answer["probabilities"].values())


def test_a_test_sees_what_was_asked_and_answered() -> None:
    rules = [{"when": {"last": "gone"}, "then": [{"error": "It is not in the mood"}]}]
    with Emulator([{"key": "judge", "kind": "decision", "preload": True, "rule": rules}]) as server:
        _, body = ask(server, model="judge", state=[STATE], questions={"a": REFUND})
        ask(server, model="judge", state="gone", questions={"a": REFUND})
        ask(server, model="nobody", state=STATE, questions={"a": REFUND})
        answered, failed = server.decisions
    assert (answered.model, answered.state, answered.questions) == ("judge", [STATE], {"a": REFUND})
    assert answered.answers == body["answers"]
    assert (failed.state, failed.answers) == ("gone", {})


def test_openai_has_another_form_for_the_same(server: Emulator) -> None:
    choices = [{"value": True, "description": "refund"}, {"value": "true"}]
    asked = [
        {"type": "predicate", "name": "refund", "instructions": REFUND["instructions"]},
        {"type": "choice", "instructions": "Which?", "choices": choices[:1]},
        {
            "type": "score",
            "instructions": "How?",
            "levels": [{"label": "calm"}, {"label": "high", "description": "angry"}],
        },
    ]
    status, body = ask(server, "/v1/decisions", model="judge", input=STATE, questions=asked)
    assert status == 200
    first, second, third = body["answers"]
    assert (first["type"], first["name"]) == ("predicate", "refund")
    assert second["choice"] is True
    assert second["probabilities"] == [{"value": True, "probability": 1}]
    assert [each["label"] for each in third["probabilities"]] == ["calm", "high"]
    assert body["usage"]["total_tokens"] == body["usage"]["input_tokens"] + body["usage"]["output_tokens"]


@pytest.mark.parametrize(
    ("changes", "status", "kind", "text"),
    [
        ({"model": None}, 400, "invalid_request_error", "model must be"),
        ({"model": "nobody"}, 404, "not_found_error", "No loaded model matches"),
        ({"model": "chat"}, 400, "invalid_request_error", "is not a decision model"),
        ({"state": None}, 400, "invalid_request_error", "state must be"),
        ({"images": 5}, 400, "invalid_request_error", "images must be"),
        ({"questions": {}}, 400, "invalid_request_error", "questions must be"),
        (
            {"questions": {"quality": {**ANGER, "criteria": ["one"]}}},
            400,
            "invalid_request_error",
            "questions.quality: criteria must be an array of 2 to 10 levels",
        ),
        ({"questions": {"a": {**TEAM, "criteria": {}}}}, 400, "invalid_request_error", "questions.a: criteria must be"),
        ({"questions": {"a": {"type": "box"}}}, 400, "invalid_request_error", "questions.a: "),
    ],
)
def test_what_is_wrong_in_a_request_is_named(
    server: Emulator, changes: dict[str, Any], status: int, kind: str, text: str
) -> None:
    found, body = ask(server, **{"model": "judge", "state": STATE, "questions": {"a": REFUND}, **changes})
    assert found == status
    assert (body["error"]["code"], body["error"]["type"]) == (status, kind)
    assert text in body["error"]["message"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "model must be"),
        ({"model": "judge", "questions": []}, "questions must be"),
        (
            {"questions": [{"type": "choice", "instructions": "?", "choices": [{"value": 1}, {"value": "1"}]}]},
            "questions.0: two of its choices have the same value",
        ),
    ],
)
def test_what_is_wrong_in_openais_form_is_named_as_well(server: Emulator, changes: dict[str, Any], text: str) -> None:
    questions = [{"type": "predicate", "instructions": "?"}]
    status, body = ask(server, "/v1/decisions", **{"input": STATE, "questions": questions, **changes})
    assert (status, body["error"]["type"]) == (400, "invalid_request_error")
    assert text in body["error"]["message"]


def test_images_are_in_the_request_and_for_models_that_see_them(server: Emulator) -> None:
    url = "data:image/png;base64,AAAA"
    part = {"type": "image_url", "image_url": {"url": url}}
    requests: list[dict[str, Any]] = [{"state": [{"role": "user", "content": [part]}]}, {"state": "x", "images": [url]}]
    away = [{"type": "image_url", "image_url": {"url": "https://localhost/a.png"}}]
    for request in requests:
        status, body = ask(server, model="judge", questions={"a": REFUND}, **request)
        assert (status, body["error"]["type"]) == (501, "not_supported_error")
        assert "does not support image input for decisions" in body["error"]["message"]
    assert ask(server, model="judge", questions={"a": REFUND}, state=away)[0] == 400
    with Emulator([{"key": "judge", "kind": "decision", "preload": True, "vision": True}]) as seeing:
        assert [ask(seeing, model="judge", questions={"a": REFUND}, **each)[0] for each in requests] == [200, 200]


def test_a_body_that_is_not_json_is_an_error(server: Emulator) -> None:
    status, _, body = get(server, "/v1/systemone", b"[" * 100_000)
    assert (status, json.loads(body)["error"]["type"]) == (400, "invalid_request_error")


def test_a_body_in_many_pieces_takes_time_in_proportion_to_its_size() -> None:
    piece, pieces = b"x" * 256, 100_000  # in quadratic time, it would not end
    reader = RequestReader(max_bytes=len(piece) * pieces)
    assert reader.feed(b"POST /a?b HTTP/1.1\r\nA: b\r\nContent-Length: %d\r\n" % (len(piece) * pieces)) is None
    assert reader.feed(b"\r\n") is None
    *earlier, last = (reader.feed(piece) for _ in range(pieces))
    assert not any(earlier)
    assert last is not None
    assert (last.path, last.headers["a"], last.body == piece * pieces) == ("/a", "b", True)


def test_a_server_with_tokens_wants_one_of_them() -> None:
    with Emulator([{"key": "judge", "kind": "decision", "preload": True}], tokens=[TOKEN]) as server:
        request: dict[str, Any] = {"model": "judge", "state": STATE, "questions": {"a": REFUND}}
        texts = {
            "": "An LM Studio API token is required to make requests to this server, but none was provided",
            "not-needed-here": "Malformed LM Studio API token provided: not-needed… Ensure you are using",
            TOKEN[:-1] + "x": "An LM Studio API token that this server accepts is required",
        }
        for wrong, text in texts.items():
            status, body = ask(server, token=wrong, **request)
            error = body["error"]
            assert (status, error["type"], error["code"]) == (401, "invalid_request", "invalid_api_key")
            assert error["message"].startswith(text)
            assert TOKEN not in str(body)
        assert ask(server, token=TOKEN, **request)[0] == 200


@pytest.mark.parametrize("header", [{"Origin": "http://bad.example"}, {"Host": "bad.example"}], ids=str)
def test_a_page_in_a_browser_may_not_ask(server: Emulator, header: dict[str, str]) -> None:
    status, _, body = get(server, "/v1/systemone", b"{}", **header)
    assert (status, json.loads(body)["error"]["type"]) == (403, "invalid_request_error")


def head(path: str, *headers: str, size: int = 1 << 20) -> bytes:
    """Return the beginning of a request; its body follows."""
    return "\r\n".join((f"POST {path} HTTP/1.1", f"Content-Length: {size}", *headers, "", "")).encode()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (head("/v1/systemone"), 401),
        (head("/v1/systemone", "Authorization: Bearer wrong"), 401),
        (head("/v1/systemone", f"Authorization: Bearer {TOKEN}", "Origin: http://bad.example"), 403),
        (head("/v1/systemone", f"Authorization: Bearer {TOKEN}", "Authorization: Bearer wrong"), 400),
        (head("/v1/systemone", f"Authorization: Bearer {TOKEN}", size=1 << 40), 413),
        (head("/api/v1/nothing"), 404),
    ],
)
def test_a_request_that_gets_no_answer_is_told_before_its_body_is_read(sent: bytes, status: int) -> None:
    judge = {"key": "judge", "kind": "decision", "preload": True}
    with (
        Emulator([judge], tokens=[TOKEN]) as server,
        connected(server) as opened,
    ):
        opened.sendall(sent)
        response = opened.makefile("rb")
        assert response.readline().startswith(b"HTTP/1.1 %d " % status)
        opened.sendall(b"x" * (1 << 20))  # it may still be sent, and no reset hides the rest of the response
        assert b'"error"' in response.read()


@measured
@pytest.mark.parametrize("sent", [20 * MIB, 20 * MIB - 1], ids=["while it waits for its answer", "in the middle"])
def test_a_body_that_was_given_up_is_gone_at_once(sent: int) -> None:
    with process() as server:
        get(server, "/lms-status")
        before = server.memory()
        for _ in range(5):
            with contextlib.ExitStack() as stack:
                for _ in range(4):
                    opened = stack.enter_context(connected(server))
                    opened.sendall(head("/v1/systemone", size=20 * MIB) + b" " * sent)
                get(server, "/lms-status")
        assert server.has_at_most(before + 60 * MIB)


@measured
def test_a_body_without_a_token_takes_no_memory() -> None:
    with process(TOKEN) as server:
        get(server, "/lms-status")
        before = server.memory(peak=True)
        for path in ("/v1/systemone", "/nothing"):
            with connected(server) as opened:
                opened.sendall(head(path, size=100 * MIB) + b"x" * (50 * MIB))
                get(server, "/lms-status")
        assert server.memory(peak=True) - before < 20 * MIB


def test_decision_models_have_a_namespace_for_all_but_questions(server: Emulator) -> None:
    with wire(server, "decision") as me:
        (info,) = me.result("listLoaded")
        assert (info["type"], info["modelKey"], info["hasVisionAdapter"]) == ("decision", "judge", False)
        fields = {"decision.load.contextLength": 2048, "decision.load.numParallelSessions": 2}
        layers = {
            "layers": [
                {
                    "layerName": "instance",
                    "config": {"fields": [{"key": key, "value": value} for key, value in fields.items()]},
                }
            ]
        }
        second = me.load("judge", loadConfigStack=layers)
        assert (second["identifier"], second["contextLength"]) == ("judge:2", 2048)
        config = me.result("getLoadConfig", {"specifier": named("judge:2")})
        assert fields.items() <= {field["key"]: field["value"] for field in config["fields"]}.items()
        me.result("unloadModel", {"identifier": "judge:2"})
        error: Any = me.stream("loadModel", {"modelKey": "chat", "loadConfigStack": STACK})[-1]["error"]
        assert error["displayData"]["expectedDomain"] == "decision"


@pytest.mark.leaf("devices")
def test_the_memory_of_a_decision_model_is_estimated(server: Emulator) -> None:
    with wire(server, "decision") as me:
        assert me.result("estimateModelUsage", {"modelKey": "judge", "loadConfigStack": STACK})["passesGuardrails"]


def test_rules_decide() -> None:
    rules = [
        {"when": {"last": "gone"}, "then": [{"error": "It is not in the mood"}]},
        {"then": [{"answers": {"a": 0.9, "b": {"billing": 0.7}, "c": {"2": 1.0}}}]},
    ]
    questions = {"a": REFUND, "b": TEAM, "c": ANGER}
    with Emulator([{"key": "judge", "kind": "decision", "preload": True, "rule": rules}]) as server:
        _, body = ask(server, model="judge", state=STATE, questions=questions)
        assert body["answers"]["a"] == {"type": "noul", "noul": 0.9}
        teams = {"billing": 0.7, "support": 0.15, "__proto__": 0.15}
        assert body["answers"]["b"]["probabilities"] == pytest.approx(teams)
        assert body["answers"]["c"]["score"] == 2
        status, body = ask(server, model="judge", state="gone", questions=questions)
        assert (status, body["error"]["message"]) == (500, "It is not in the mood")
        status, body = ask(server, model="judge", state=STATE, questions={"b": {**TEAM, "criteria": {"other": None}}})
        assert (status, "do not fit the question 'b'" in body["error"]["message"]) == (500, True)
    wrong: Any = (("llm", {"answers": {}}, "only a decision model"), ("decision", {"text": "a"}, "can wait, fail"))
    for kind, step, text in wrong:
        with pytest.raises(LMStudioValueError, match=text):
            Emulator([{"key": "judge", "kind": kind, "rule": [{"then": [step]}]}])


def test_a_rule_plays_a_server_that_answers_no_questions() -> None:
    words = "Unexpected endpoint or method. (POST /v1/systemone)"
    bodies: dict[int, Any] = {200: words, 404: {"code": 404, "type": "server_error", "message": words}}
    for wanted, error in bodies.items():
        rule = {"then": [{"error": words, "status": wanted}]}
        with Emulator([{"key": "judge", "kind": "decision", "preload": True, "rule": [rule]}]) as server:
            assert ask(server, model="judge", state=STATE, questions={"a": REFUND}) == (wanted, {"error": error})
            asked = [{"type": "predicate", "instructions": "?"}]
            found = ask(server, "/v1/decisions", model="judge", input=STATE, questions=asked)
            assert found == (wanted, {"error": error})
    for kind in ("llm", "embedding"):
        with pytest.raises(LMStudioValueError, match="only a decision model is asked over HTTP; leave out status"):
            Emulator([{"key": "judge", "kind": kind, "rule": [{"then": [{"error": "no", "status": 404}]}]}])


def test_downloaded_decision_models_are_listed(server: Emulator) -> None:
    with wire(server, "system") as me:
        found: list[dict[str, Any]] = me.result("listDownloadedModels")
    assert {info["modelKey"]: info["type"] for info in found} == {"judge": "decision", "chat": "llm"}
