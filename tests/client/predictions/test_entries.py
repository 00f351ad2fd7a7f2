"""The middlewares of predictions: which ones a call has, and that each is one file."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.files.uploads import PendingHistory, PendingImage
from lmstudio_integrations.client.predictions import entries, prediction
from lmstudio_integrations.client.predictions.entries import ENTRIES, middlewares_of
from lmstudio_integrations.client.predictions.plan import Plan, plan_completion, plan_response
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.types.chat import WireHistory
from tests.client.prediction_frames import weather

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "look", "parameters": PARAMETERS}}
OFFERED: dict[str, Any] = {"rawTools": {"type": "toolArray", "tools": [TOOL]}}
REQUIRED: dict[str, Any] = {**OFFERED, "toolChoice": {"type": "generic", "mode": "required"}}
HELPS: dict[str, Any] = dict.fromkeys(("rescue_tool_calls", "repair_tool_calls", "required_tool_fallback"), True)
WATCHES: dict[str, Any] = {"check_context": True, "stop_on_repetition": True}
EFFORT = "ext.virtualModel.customField.acme.deep.reasoningEffort"
IMAGE = PendingHistory([PendingImage(b"image")], lambda _: WireHistory.of_prompt("Where?"))
RETURNED_IMAGE = PendingHistory([PendingImage(b"image", is_optional=True)], lambda _: WireHistory.of_prompt("Where?"))


def response(history: Any = "Where?", **parameters: Any) -> Plan:
    given: Any = parameters
    return plan_response(history, given, is_async=False)


def thinking(history: Any = "Where?", config: Any = None, **parameters: Any) -> Plan:
    """Return the plan of a response in a format, after a thought."""
    config = {"enable_thinking": True} if config is None else config
    return response(history, response_format=PARAMETERS, config=config, **parameters)


def completion(**parameters: Any) -> Plan:
    given: Any = parameters
    return plan_completion("Where?", given, is_async=False)


PLANS: dict[str, tuple[Plan, str]] = {
    "a response": (response(), ""),
    "what is watched": (response(**WATCHES), "ContextCheck StopOnRepetition"),
    "tools without help": (response(config=OFFERED), ""),
    "a required call": (response(config=REQUIRED), "MissingCall"),
    "one that the caller checks": (response(config=REQUIRED, check_response=False), ""),
    "tools with help": (
        response(config=OFFERED, **HELPS),
        "RequiredToolFallback RepairCalls ReadCalls",
    ),
    "log probabilities": (response(config={**OFFERED, "logProbs": 3}), "Confidence"),
    "a preset": (response(config=OFFERED, preset="p"), "Confidence"),
    "raw settings": (response(config={**OFFERED, "raw": {EFFORT: "low"}}), "Confidence"),
    "tools and a format": (
        response(config=OFFERED, response_format=PARAMETERS, **HELPS),
        "RequiredToolFallback RepairCalls JsonInReasoning",
    ),
    "one after the other": (
        response(config=REQUIRED, response_format=PARAMETERS, tools_first=True, **HELPS, **WATCHES),
        (
            "MissingCall ToolsFirst RequiredToolFallback RepairCalls ReadCalls ContextCheck "
            "JsonInReasoning StopOnRepetition"
        ),
    ),
    "a bias": (response(config={"logit_bias": {" 3": 1.0}}), "LogitBias"),
    "a budget": (response(config={"reasoning_budget": 0}), "ReasoningBudget"),
    "no budget": (response(config={"reasoning_budget": False}), ""),
    "a request to keep thoughts": (response(keep_reasoning=True), "SentReasoning"),
    "a thought and a format": (thinking(), "ThinkFirst JsonInReasoning"),
    "an effort": (thinking(config={"raw": {EFFORT: "low"}}), "ThinkFirst JsonInReasoning"),
    "nothing about reasoning": (thinking(config={}), "JsonInReasoning"),
    "no reasoning": (thinking(config={"enable_thinking": False}), "JsonInReasoning"),
    "no format": (response(config={"enable_thinking": True}), ""),
    "think_first=False": (thinking(think_first=False), "JsonInReasoning"),
    "a thought, a format and tools": (
        thinking(config={"enable_thinking": True, **OFFERED}),
        "JsonInReasoning",
    ),
    "a thought and a preset": (thinking(preset="p"), "JsonInReasoning"),
    "a thought and an image": (thinking(IMAGE), "JsonInReasoning"),
    "an image that a tool has returned": (response(RETURNED_IMAGE), "ReturnedImages"),
    "a text to continue": (completion(config={**REQUIRED, "enable_thinking": True}, **HELPS, keep_reasoning=True), ""),
    "one in a format": (
        completion(response_format=PARAMETERS, **WATCHES),
        "ContextCheck JsonInReasoning StopOnRepetition",
    ),
}


@pytest.mark.parametrize(("plan", "expected"), PLANS.values(), ids=PLANS)
def test_a_call_has_the_middlewares_that_have_something_to_do(plan: Plan, expected: str) -> None:
    assert [type(each).__name__ for each in middlewares_of(plan)] == expected.split()


@pytest.fixture
def server() -> Iterator[Emulator]:
    rule = {
        "when": {"role": "user", "tools": ["weather"]},
        "then": [{"tool": "weather", "arguments": {"city": "Oslo"}}],
    }
    with Emulator([ModelEntry(key="m", rules=(rule,))]) as running:
        yield running


@pytest.mark.leaf
def test_act_and_adapters_ask_for_help(server: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []

    def record(plan: Plan) -> Any:
        made = middlewares_of(plan)
        found.append(" ".join(type(each).__name__ for each in made))
        return made

    monkeypatch.setattr(prediction, "middlewares_of", record)
    with lms.Client(server.address) as client:
        client.llm.model("m").act("hi", [weather])
    ChatLMStudio(model="m", host=server.address).bind_tools([TOOL]).invoke("hi")
    helps = "RepairCalls ReadCalls"
    assert found == [
        f"RequiredToolFallback {helps} StopOnRepetition",
        f"{helps} StopOnRepetition",  # until the model has called a tool
        f"RequiredToolFallback {helps} ContextCheck StopOnRepetition",
    ]


def test_a_plain_call_enters_no_file_of_them_before_its_request_is_sent(server: Emulator) -> None:
    entered: list[Path] = []

    def record(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            entered.append(Path(frame.f_code.co_filename))
            if frame.f_code is Operation.start.__code__:
                sys.setprofile(None)

    with lms.Client(server.address) as client:
        llm, chat = client.llm.model("m"), ChatLMStudio(model="m", host=server.address)
        calls: list[Callable[[], object]] = [lambda: list(chat.stream("hi")), lambda: llm.respond("hi")]
        for call in calls:
            call()
            sys.setprofile(record)
            try:
                call()
            finally:
                sys.setprofile(None)
    folder = Path(entries.__file__).parent
    assert {path.name for path in entered if path.parent == folder} == {"__init__.py"}
    assert not [path for path in entered if path.parent.name == "telemetry"]


@pytest.mark.leaf
def test_each_of_them_is_one_file_that_nothing_imports() -> None:
    folder = Path(entries.__file__).parent
    named = [place.split(".") for place, _ in ENTRIES]
    assert sorted(file for room, file, _ in named if room == "entries") == sorted(
        each.stem for each in folder.glob("[!_]*.py")
    )
    importing = [f"from {entries.__name__.rpartition('.')[0]}.{room}.{file} " for room, file, _ in named]
    texts = [path.read_text("utf-8") for path in Path(lms.__file__).parent.rglob("*.py")]
    assert not [each for each in importing if any(each in text for text in texts)]


@pytest.mark.leaf
def test_without_its_file_one_is_left_out_and_the_log_says_so_once(
    server: Emulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    deleted = "calls_in_text.read_calls.ReadCalls"
    without = ((place.replace(deleted, "gone.ReadCalls"), applies) for place, applies in ENTRIES)
    monkeypatch.setattr(entries, "ENTRIES", tuple(without))
    with lms.Client(server.address) as client:
        for _ in range(2):
            client.llm.model("m").act("hi", [weather])
    (text,) = caplog.messages
    assert "is without the middleware ReadCalls: it has no module lmstudio_integrations.client.predictions.gone" in text
