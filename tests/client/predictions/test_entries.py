"""The middlewares of predictions: which ones a call has, and that each can be taken out by its file and its line."""

import ast
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.predictions import entries, prediction
from lmstudio_integrations.client.predictions.entries import ENTRIES
from lmstudio_integrations.client.predictions.middleware import Middleware
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.scripted import words
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioLLM
from lmstudio_integrations.llama_index import LMStudio
from tests.support.requested import chosen

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
                "StopOnRepetition",
            ],
        ),
        (lambda host: native(host, lambda llm: llm.respond("hi")), ["CacheWarning"]),
        (
            lambda host: native(host, lambda llm: llm.respond("hi", config={**FORMAT, "enableThinking": True})),
            ["CacheWarning", "ThinkFirst"],
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


# Without one of them --------------------------------------------------------------------------------------------------


def logged(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    return any(text in record.getMessage() for record in caplog.records)


def calls(result: Any) -> list[str]:
    return [call.name for call in result.tool_call_requests]


def arguments(result: Any) -> list[dict[str, Any]]:
    return [call.arguments for call in result.tool_call_requests]


def warned(call: Callable[[], object]) -> list[type[Warning]]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    return [warning.category for warning in found]


def clock(llm: Any) -> None:
    turns: list[Any] = []
    for second in "12":
        turns.append({"role": "user", "content": "Say something. " * 5})
        system = {"role": "system", "content": f"It is {second} o'clock. " * 20}
        turns.append({"role": "assistant", "content": str(llm.respond({"messages": [system, *turns]}))})


def confidence_of_call(llm: Any) -> bool:
    config = {**OFFERED, "logProbs": 5}
    (call,) = llm.respond("markup", config=config, rescue_tool_calls=True).tool_calls or [None]
    return call is not None and call.end.confidence is not None


def bias(llm: Any, server: Emulator) -> object:
    llm.respond("say", config={"logit_bias": {" 3": 2.5}})
    return chosen(server.predictions[-1])["logitBias"]


def sent_thought(llm: Any, server: Emulator) -> object:
    chat = lms.Chat("Be brief.")
    chat.append({"role": "assistant", "content": [{"type": "reasoning", "text": "Hm."}, "It rains."]})
    chat.add_user_message("say")
    llm.respond(chat, send_reasoning=True)
    return server.predictions[-1].messages[1]["content"]


def thought_before_format(llm: Any) -> str:
    for _ in range(2):
        result = llm.respond("think", config={**FORMAT, "enableThinking": True})
    return str(result.reasoning_content)


UNUSED = object()
"""Marks a feature that is not used without its file: the server would reject the request."""

FEATURES: dict[str, tuple[Callable[..., object], object, object]] = {
    "MissingCall": (
        lambda llm, caplog, _: (llm.respond("say", config=REQUIRED), logged(caplog, "a tool call was required"))[1],
        True,
        False,
    ),
    "ToolsFirst": (
        lambda llm, *_: llm.respond("say", config={**OFFERED, **FORMAT}, tools_first=True).stats.predictions_count,
        2,
        None,
    ),
    "Confidence": (lambda llm, *_: confidence_of_call(llm), True, False),
    "RequiredToolFallback": (
        lambda llm, *_: calls(llm.respond("say", config=REQUIRED, required_tool_fallback=True)),
        ["look"],
        [],
    ),
    "CacheWarning": (lambda llm, *_: warned(lambda: clock(llm)), [lms.LMStudioPromptCacheWarning], []),
    "ReadCalls": (
        lambda llm, *_: calls(llm.respond("markup", config=OFFERED, rescue_tool_calls=True)),
        ["look"],
        [],
    ),
    "RepairCalls": (
        lambda llm, *_: arguments(llm.respond("misspell", config=OFFERED, repair_tool_calls=True)),
        [{"city": "Oslo"}],
        [{"City": "Oslo"}],
    ),
    "ContextCheck": (
        lambda llm, *_: warned(lambda: llm.respond("cut " * 2000, check_context=True)),
        [lms.LMStudioTruncationWarning],
        [],
    ),
    "SentReasoning": (lambda llm, _, server: sent_thought(llm, server), "<think>Hm.</think>It rains.", UNUSED),
    "ThinkFirst": (lambda llm, *_: thought_before_format(llm), "Rain?", ""),
    "ReasoningBudget": (
        lambda llm, *_: warned(lambda: llm.respond("ponder", config={"reasoning_budget": 3})),
        [lms.LMStudioConfigWarning],
        [],
    ),
    "StopOnRepetition": (
        lambda llm, *_: llm.respond("loop", stop_on_repetition=True).stats.stop_reason,
        "repetition",
        "eosFound",
    ),
    "LogitBias": (lambda llm, _, server: bias(llm, server), [[words.token_id(" 3"), 2.5]], UNUSED),
}
"""What each of them does: how it shows, and what shows without it."""

BUILDS_ON = {"Confidence": "ReadCalls"}


def module_of(name: str) -> str:
    return next(middleware.__module__ for middleware, _ in ENTRIES if middleware.__name__ == name)


def without(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return `entries` without a file, its import and its line."""
    path = Path(entries.__file__)
    lines = ast.parse(path.read_text(encoding="utf-8"))
    table = next(each for each in lines.body if isinstance(each, ast.AnnAssign))
    assert isinstance(table.value, ast.Tuple)
    count = len(table.value.elts)
    table.value.elts = [each for each in table.value.elts if name not in {*map(_name, ast.walk(each))}]
    assert len(table.value.elts) == count - 1
    module_name = module_of(name)
    lines.body = [each for each in lines.body if not (isinstance(each, ast.ImportFrom) and each.module == module_name)]
    monkeypatch.setitem(sys.modules, module_name, None)  # so that it cannot be imported
    module = ModuleType("entries_without")
    exec(compile(ast.unparse(lines), str(path), "exec"), vars(module))
    return module


def _name(node: ast.AST) -> str | None:
    return node.id if isinstance(node, ast.Name) else None


def test_each_of_them_is_one_file_that_only_the_list_imports() -> None:
    modules = [middleware.__module__ for middleware, _ in ENTRIES]
    folder = Path(entries.__file__).parent
    assert sorted(modules) == sorted(f"{entries.__name__}.{each.stem}" for each in folder.glob("[!_]*.py"))
    package = Path(lms.__file__).parent
    for path in package.rglob("*.py"):
        imported = [each.module for each in ast.walk(ast.parse(path.read_bytes())) if isinstance(each, ast.ImportFrom)]
        assert path == Path(entries.__file__) or not {*modules} & {*imported}, path
    assert FEATURES.keys() == {middleware.__name__ for middleware, _ in ENTRIES}


@pytest.mark.parametrize("taken_out", [None, *FEATURES])
def test_without_its_file_and_its_line_only_its_feature_is_gone(
    server: Emulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, taken_out: str | None
) -> None:
    caplog.set_level(logging.WARNING)
    if taken_out is not None:
        monkeypatch.setattr(prediction, "middlewares_of", without(taken_out, monkeypatch).middlewares_of)
    with lms.Client(server.address) as client:
        llm = client.llm.model("m")
        assert str(llm.respond("say")) == "It rains."
        for name, (use, expected, otherwise) in FEATURES.items():
            is_gone = taken_out in {name, BUILDS_ON.get(name)} and taken_out is not None
            if not (is_gone and otherwise is UNUSED):
                assert use(llm, caplog, server) == (otherwise if is_gone else expected), name
            caplog.clear()
