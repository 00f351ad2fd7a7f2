"""Tools in both frameworks: which are rejected, and which calls leave a log record, on every path."""

import asyncio
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core.llms import ChatMessage

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LlamaIndexToolCallError, LMStudio
from tests.support.adapters import covering
from tests.support.requested import Requested

LOOK: dict[str, Any] = {"tool": "look", "arguments": {"city": "Oslo", "country": "Norway"}}
NAMES = ("查询天气", "发送邮件", "поиск", "मौसम", "größe")
RULES: tuple[dict[str, Any], ...] = (
    {"when": {"last": "^invent"}, "then": [LOOK, {"tool": "invented"}, {"tool": "imagined"}]},
    {"when": {"last": "^malformed"}, "then": [{**LOOK, "malformed": '{"city": "Os'}]},
    {"when": {"last": "^look"}, "then": [LOOK]},
    *({"when": {"last": f"^{name}", "tools": [name]}, "then": [{"tool": name}]} for name in NAMES),
)


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}


# Call paths -----------------------------------------------------------------------------------------------------------

Path = Callable[..., list[str]]
"""Makes a call with tools; returns the names of the tools that the response calls."""


def _langchain(call: Callable[[Any, str], Any]) -> Path:
    def path(host: str, prompt: str, tools: list[dict[str, Any]], **settings: Any) -> list[str]:
        model = ChatLMStudio(model="m", host=host)
        message = call(model.bind_tools(tools, **settings) if tools else model.bind(**settings), prompt)
        return [each["name"] for each in message.tool_calls]

    return path


def _llama_index(call: Callable[..., Any]) -> Path:
    def path(host: str, prompt: str, tools: list[dict[str, Any]], **settings: Any) -> list[str]:
        llm, given = LMStudio(model="m", host=host), {**settings, **({"tools": tools} if tools else {})}
        try:
            response = call(llm, [ChatMessage(prompt)], **given)
        except LlamaIndexToolCallError:
            return []
        return [each.tool_name for each in llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)]

    return path


def _sum(chunks: Iterator[Any]) -> Any:
    first, *rest = chunks
    return sum(rest, start=first)


async def _asum(chunks: Any) -> Any:
    return _sum(iter([chunk async for chunk in chunks]))


async def _alast(stream: Any) -> Any:
    return [chunk async for chunk in await stream][-1]


PATHS: dict[str, Path] = {
    "langchain invoke": _langchain(lambda model, prompt: model.invoke(prompt)),
    "langchain ainvoke": _langchain(lambda model, prompt: asyncio.run(model.ainvoke(prompt))),
    "langchain stream": _langchain(lambda model, prompt: _sum(model.stream(prompt))),
    "langchain astream": _langchain(lambda model, prompt: asyncio.run(_asum(model.astream(prompt)))),
    "llama_index chat": _llama_index(lambda llm, *given, **more: llm.chat(*given, **more)),
    "llama_index achat": _llama_index(lambda llm, *given, **more: asyncio.run(llm.achat(*given, **more))),
    "llama_index stream_chat": _llama_index(lambda llm, *given, **more: [*llm.stream_chat(*given, **more)][-1]),
    "llama_index astream_chat": _llama_index(
        lambda llm, *given, **more: asyncio.run(_alast(llm.astream_chat(*given, **more)))
    ),
}
on_every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
on_two_paths = pytest.mark.parametrize("path", [PATHS["langchain astream"], PATHS["llama_index chat"]])


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with Emulator([ModelEntry(key="m", rules=RULES)]) as running:
        yield running.address


# Tools ----------------------------------------------------------------------------------------------------------------

BUILT_IN: dict[str, dict[str, Any]] = {
    "web_search_preview": {"type": "web_search_preview"},
    "code_interpreter": {"type": "code_interpreter", "container": {"type": "auto"}},
    "mcp": {"type": "mcp", "server_label": "docs", "server_url": "https://example.com"},
    "web_search_20250305": {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
    "bash_20250124": {"type": "bash_20250124", "name": "bash"},
    "google_search": {"google_search": {}},  # Google's have no type
}


@pytest.mark.parametrize(("path", "name"), covering(PATHS, BUILT_IN))
def test_a_built_in_tool_of_another_provider_is_an_error(host: str, path: str, name: str) -> None:
    with pytest.raises(
        LMStudioValueError, match=f"'{name}' .* LM Studio's server has no built-in tools; pass a func"
    ) as caught:
        PATHS[path](host, "look", [tool("look"), BUILT_IN[name] | {"authorization": "hush"}])
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(("path", "name"), covering(PATHS, NAMES))
def test_a_tool_may_have_a_name_in_any_script(host: str, path: str, name: str) -> None:
    decomposed = unicodedata.normalize("NFD", name)
    others = [each for each in NAMES if each != name]
    assert PATHS[path](host, name, [tool(each) for each in (*others, decomposed)]) == [decomposed]


@on_every_path
def test_a_pattern_that_the_engine_rejects_is_not_sent(path: Path) -> None:
    words = {"type": "string", "pattern": r"\S"}
    properties = {"pattern": words, "list": {"type": "array", "items": {"anyOf": [words, {"pattern": "^a$"}]}}}
    given = {"type": "function", "function": {"name": "look", "parameters": {"properties": properties}}}
    with Emulator([ModelEntry(key="m", rules=RULES)]) as server:
        assert path(server.address, "look", [given]) == ["look"]
        (sent,) = Requested.of(server.predictions[-1]).tools
    assert sent.function.parameters is not None
    assert sent.function.parameters["properties"] == {
        "pattern": {"type": "string"},
        "list": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"pattern": "^a$"}]}},
    }


@on_two_paths
def test_two_tools_of_one_name_are_an_error(host: str, path: Path) -> None:
    with pytest.raises(LMStudioValueError, match="two of the tools have the name 'look'; rename or remove one"):
        path(host, "look", [tool("look"), tool("other"), tool("look")])


# Calls ----------------------------------------------------------------------------------------------------------------


@on_two_paths
@pytest.mark.parametrize(("tools", "offered"), [(["look", "other"], "look, other"), ([], "none")])
def test_calls_of_tools_that_were_not_offered_are_kept_and_logged(
    host: str, path: Path, tools: list[str], offered: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert path(host, "invent", [tool(name) for name in tools]) == ["look", "invented", "imagined"]
    unknown = "'invented', 'imagined'" if tools else "'look', 'invented', 'imagined'"
    assert caplog.messages == [f"'m' called {unknown}; the tools of the request are: {offered}"]
    assert caplog.records[0].levelname == "WARNING"


@on_every_path
def test_a_tool_that_was_not_sent_because_another_was_chosen_was_not_offered(
    host: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path(host, "look", [tool("look"), tool("other")], tool_choice="other")
    assert caplog.messages == ["'m' called 'look'; the tools of the request are: other"]


@on_two_paths
@pytest.mark.parametrize(
    "settings", [{}, {"extra": {"llm.prediction.tools": {"type": "toolArray", "tools": [tool("look")]}}}]
)
def test_a_call_of_a_tool_of_the_request_is_not_logged(
    host: str, path: Path, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert path(host, "look", [] if settings else [tool("look")], **settings) == ["look"]
    assert not caplog.records


@on_every_path
@pytest.mark.parametrize(
    ("prompt", "settings", "reason"),
    [
        ("malformed", {"repair_tool_calls": False}, "look: Failed to parse tool call[^;]*"),
        ("look", {"max_tokens": 4}, "look: .*; the response was cut off: raise max_tokens"),
    ],
)
def test_a_call_that_cannot_be_made_is_logged_with_the_reason(
    host: str, path: Path, prompt: str, settings: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert path(host, prompt, [tool("look")], **settings) == []
    (message,) = caplog.messages
    assert re.fullmatch(f"'m': a tool call failed: {reason}", message)
