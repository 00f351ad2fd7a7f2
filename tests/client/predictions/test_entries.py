"""The middlewares of predictions: which ones a call has, and that each is one file."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.predictions import entries, prediction
from lmstudio_integrations.client.predictions.entries import ENTRIES
from lmstudio_integrations.client.predictions.middleware import Middleware
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioLLM
from lmstudio_integrations.llama_index import LMStudio

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "look", "parameters": PARAMETERS}}
OFFERED: dict[str, Any] = {"rawTools": {"type": "toolArray", "tools": [TOOL]}}
ON: dict[str, Any] = {"tools_first": True, "rescue_tool_calls": True, "required_tool_fallback": True}
REQUIRED: dict[str, Any] = {**OFFERED, "toolChoice": {"type": "generic", "mode": "required"}}
FORMAT: dict[str, Any] = {"structured": {"type": "json", "jsonSchema": PARAMETERS}}
MARKUP = f"<tool_call>{json.dumps({'name': 'look', 'arguments': {'city': 'Oslo'}})}</tool_call>"
RULES: list[dict[str, Any]] = [
    {"when": {"last": "^markup$"}, "then": [{"text": MARKUP}]},
    {"when": {"last": "^misspell$"}, "then": [{"tool": "look", "arguments": {"City": "Oslo"}}]},
    {"when": {"last": "^cut"}, "then": [{"fault": "truncate"}, {"text": "Yes."}]},
    {"when": {"last": "^say$", "structured": False}, "then": [{"text": "It rains."}]},
    {"when": {"last": "^think$", "structured": False}, "then": [{"reasoning": "Rain?"}, {"text": "It rains."}]},
    {"when": {"last": "^loop$"}, "then": [{"text": "I think about it once more. " * 80}, {"wait": 0.5}]},
    {"when": {"last": "^ponder$"}, "then": [{"text": f"<think>{'Hm ' * 300}</think>No."}]},
    {"when": {"last": "^Say"}, "then": [{"text": "I would rather talk about the weather, and for a long time."}]},
]


@pytest.fixture
def server() -> Iterator[Emulator]:
    with Emulator([ModelEntry(key="m", rules=tuple(RULES), context_length=512)]) as running:
        yield running


@pytest.fixture
def lists(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The names of the middlewares of each prediction."""
    found: list[list[str]] = []

    def record(plan: Any) -> list[Middleware]:
        made = entries.middlewares_of(plan)
        found.append([type(each).__name__ for each in made])
        return made

    monkeypatch.setattr(prediction, "middlewares_of", record)
    return found


def weather(city: str) -> str:
    """Return the weather of a city."""
    return f"Rain in {city}."


ADAPTER_WITH_TOOLS = [
    "Confidence",
    "RequiredToolFallback",
    "CacheWarning",
    "RepairCalls",
    "ReadCalls",
    "ContextCheck",
    "StopOnRepetition",
]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (
            lambda host: list(ChatLMStudio(model="m", host=host).stream("hi")),
            ["CacheWarning", "ContextCheck", "StopOnRepetition"],
        ),
        (
            lambda host: list(LMStudio(model="m", host=host).stream_complete("hi")),
            ["CacheWarning", "ContextCheck", "StopOnRepetition"],
        ),
        (lambda host: LMStudioLLM(model="m", host=host).invoke("hi"), ["ContextCheck", "StopOnRepetition"]),
        (
            lambda host: ChatLMStudio(model="m", host=host).bind_tools([TOOL]).invoke("hi"),
            ["RequiredToolFallback", "CacheWarning", "RepairCalls", "ReadCalls", "ContextCheck", "StopOnRepetition"],
        ),
        (
            lambda host: ChatLMStudio(model="m", host=host).bind_tools([TOOL], include_confidence=True).invoke("hi"),
            ADAPTER_WITH_TOOLS,
        ),
        (
            lambda host: (
                ChatLMStudio(model="m", host=host).bind_tools([TOOL], response_format=FORMAT["structured"]).invoke("hi")
            ),
            [
                "ToolsFirst",
                "RequiredToolFallback",
                "CacheWarning",
                "RepairCalls",
                "ReadCalls",
                "ContextCheck",
                "JsonInReasoning",
                "StopOnRepetition",
            ],
        ),
        (lambda host: native(host, lambda llm: llm.respond("hi")), ["CacheWarning"]),
        (
            lambda host: native(host, lambda llm: llm.respond("hi", config={**FORMAT, "enableThinking": True})),
            ["CacheWarning", "ThinkFirst", "JsonInReasoning"],
        ),
        (lambda host: native(host, lambda llm: llm.complete("hi")), []),
        (lambda host: native(host, lambda llm: llm.complete("hi", stop_on_repetition=500)), ["StopOnRepetition"]),
        (
            lambda host: native(host, lambda llm: llm.respond("hi", config={"reasoning_budget": 0})),
            ["CacheWarning", "ReasoningBudget"],
        ),
        (
            lambda host: native(host, lambda llm: llm.respond("hi", config={"reasoning_budget": False})),
            ["CacheWarning"],
        ),
        (lambda host: native(host, lambda llm: llm.complete("hi", keep_reasoning=True)), []),
        (
            lambda host: LMStudio(model="m", host=host, keep_reasoning=True).complete("hi", formatted=True),
            ["ContextCheck", "StopOnRepetition"],
        ),
        (lambda host: native(host, lambda llm: llm.complete("hi", config=REQUIRED, **ON)), []),
        (lambda host: native(host, lambda llm: llm.respond("hi", config=REQUIRED)), ["MissingCall", "CacheWarning"]),
        (
            lambda host: native(host, lambda llm: llm.respond("hi", config={"logit_bias": {" 3": 1.0}})),
            ["CacheWarning", "LogitBias"],
        ),
        (
            lambda host: native(host, lambda llm: llm.act("hi", [weather], on_round_start=print)),
            ["RequiredToolFallback", "CacheWarning", "RepairCalls", "ReadCalls", "StopOnRepetition"],
        ),
    ],
)
def test_a_call_has_the_middlewares_that_have_something_to_do(
    server: Emulator, lists: list[list[str]], call: Callable[[str], Any], expected: list[str]
) -> None:
    call(server.address)
    assert lists[0] == expected


def native(host: str, call: Callable[[Any], Any]) -> Any:
    with lms.Client(host) as client:
        return call(client.llm.model("m"))


@pytest.mark.parametrize("call", ["adapter", "native"])
def test_a_plain_call_enters_no_file_of_them_before_its_request_is_sent(server: Emulator, call: str) -> None:
    entered: list[Path] = []

    def record(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            entered.append(Path(frame.f_code.co_filename))
            if frame.f_code is Operation.start_all.__code__:
                sys.setprofile(None)

    with lms.Client(server.address) as client:
        llm, chat = client.llm.model("m"), ChatLMStudio(model="m", host=server.address)
        calls: dict[str, Callable[[], object]] = {
            "adapter": lambda: list(chat.stream("hi")),
            "native": lambda: llm.respond("hi"),
        }
        calls[call]()
        sys.setprofile(record)
        try:
            calls[call]()
        finally:
            sys.setprofile(None)
    folder = Path(entries.__file__).parent
    assert {path.name for path in entered if path.parent == folder} == {"__init__.py"}
    assert not [path for path in entered if path.parent.name == "telemetry"]


def test_each_of_them_is_one_file_that_only_the_list_imports() -> None:
    modules = sorted(middleware.__module__ for middleware, _ in ENTRIES)
    folder = Path(entries.__file__).parent
    assert modules == sorted(f"{entries.__name__}.{each.stem}" for each in folder.glob("[!_]*.py"))
    importing = f"from {entries.__name__}."
    importers = [path for path in Path(lms.__file__).parent.rglob("*.py") if importing in path.read_text("utf-8")]
    assert importers == [Path(entries.__file__)]
