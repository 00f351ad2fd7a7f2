"""Tools in both frameworks: which are rejected, and which calls leave a log record, on every path."""

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioConfigWarning, LMStudioValueError
from lmstudio_integrations.llama_index import LlamaIndexToolCallError
from tests._adapters import ways
from tests._adapters.ways import METHODS, messages_of, seen_of
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
SOME = ("astream", "chat")
on_every_path = pytest.mark.parametrize("path", METHODS)
on_two_paths = pytest.mark.parametrize("path", SOME)


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}


def called(path: str, host: str, prompt: str, tools: list[dict[str, Any]], **settings: Any) -> list[str]:
    """Make a call with tools; return the names of the tools that the response calls."""
    make, method = METHODS[path]
    given = {**settings, **({"tools": tools} if tools else {})}
    try:
        chunks = method(make(model="m", host=host), messages_of(make, [("user", prompt)]), **given)
    except LlamaIndexToolCallError:
        return []
    return [name for name, _ in seen_of(chunks)["calls"]]


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with Emulator([ModelEntry(key="m", rules=RULES)]) as running:
        yield running.address


# Tools ----------------------------------------------------------------------------------------------------------------

BUILT_IN: dict[str, dict[str, Any]] = {
    "web_search_preview": {"type": "web_search_preview"},
    "mcp": {"type": "mcp", "server_label": "docs", "server_url": "https://example.com"},
    "web_search_20250305": {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
    # Google's have no type.
    **{name: {name: {}} for name in ("google_search", "url_context", "computer_use", "enterprise_web_search")},
}


@pytest.mark.parametrize(("path", "name"), covering(METHODS, BUILT_IN))
def test_a_built_in_tool_of_another_provider_is_an_error(host: str, path: str, name: str) -> None:
    with pytest.raises(
        LMStudioValueError, match=f"'{name}' .* LM Studio's server has no built-in tools; pass a func"
    ) as caught:
        called(path, host, "look", [tool("look"), BUILT_IN[name] | {"authorization": "hush"}])
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(("path", "name"), covering(METHODS, NAMES))
def test_a_tool_may_have_a_name_in_any_script(host: str, path: str, name: str) -> None:
    decomposed = unicodedata.normalize("NFD", name)
    others = [each for each in NAMES if each != name]
    assert called(path, host, name, [tool(each) for each in (*others, decomposed)]) == [decomposed]


@on_two_paths
def test_a_pattern_that_the_engine_rejects_is_not_sent(path: str) -> None:
    words = {"type": "string", "pattern": r"\S"}
    properties = {"pattern": words, "list": {"type": "array", "items": {"anyOf": [words, {"pattern": "^a$"}]}}}
    given = {"type": "function", "function": {"name": "look", "parameters": {"properties": properties}}}
    with Emulator([ModelEntry(key="m", rules=RULES)]) as server:
        assert called(path, server.address, "look", [given]) == ["look"]
        (sent,) = Requested.of(server.predictions[-1]).tools
    assert sent.function.parameters is not None
    assert sent.function.parameters["properties"] == {
        "pattern": {"type": "string"},
        "list": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"pattern": "^a$"}]}},
    }


@on_two_paths
def test_two_tools_of_one_name_are_an_error(host: str, path: str) -> None:
    with pytest.raises(LMStudioValueError, match="two of the tools have the name 'look'; rename or remove one"):
        called(path, host, "look", [tool("look"), tool("other"), tool("look")])


@on_every_path
def test_tools_for_a_model_that_was_not_trained_for_them_are_one_warning_at_the_line_of_the_call(path: str) -> None:
    make, method = METHODS[path]
    with Emulator([ModelEntry(key="m", rules=RULES, tools=False)]) as server:
        model, given = make(model="m", host=server.address), {"tools": [tool("look")]}
        messages = messages_of(make, [("user", "look")])
        with pytest.warns(LMStudioConfigWarning, match="m was not trained for tool use.*; `lmsi ls` shows") as caught:
            method(model, messages, **given)
        assert [each.filename for each in caught] == [ways.__file__]
        seen = seen_of(method(model, messages, **given))  # another warning would be an error
        assert seen["calls"] == [("look", LOOK["arguments"])]


# Calls ----------------------------------------------------------------------------------------------------------------


@on_two_paths
@pytest.mark.parametrize(("tools", "offered"), [(["look", "other"], "look, other"), ([], "none")])
def test_calls_of_tools_that_were_not_offered_are_kept_and_logged(
    host: str, path: str, tools: list[str], offered: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert called(path, host, "invent", [tool(name) for name in tools]) == ["look", "invented", "imagined"]
    unknown = "'invented', 'imagined'" if tools else "'look', 'invented', 'imagined'"
    assert caplog.messages == [f"'m' called {unknown}; the tools of the request are: {offered}"]
    assert caplog.records[0].levelname == "WARNING"


@on_every_path
def test_a_tool_that_was_not_sent_because_another_was_chosen_was_not_offered(
    host: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    called(path, host, "look", [tool("look"), tool("other")], tool_choice="other")
    assert caplog.messages == ["'m' called 'look'; the tools of the request are: other"]


@on_two_paths
@pytest.mark.parametrize(
    "settings",
    [{}, {"prediction_config": {"raw": {"llm.prediction.tools": {"type": "toolArray", "tools": [tool("look")]}}}}],
)
def test_a_call_of_a_tool_of_the_request_is_not_logged(
    host: str, path: str, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert called(path, host, "look", [] if settings else [tool("look")], **settings) == ["look"]
    assert not caplog.records


CANNOT_BE_MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "look: Failed to parse tool call[^;]*": ("malformed", {"repair_tool_calls": False}),
    "look: .*; the response was cut off: raise max_tokens": ("look", {"max_tokens": 4}),
}


@pytest.mark.parametrize(("path", "reason"), [*covering(METHODS, CANNOT_BE_MADE), ("chat", [*CANNOT_BE_MADE][1])])
def test_a_call_that_cannot_be_made_is_logged_with_the_reason(
    host: str, path: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    prompt, settings = CANNOT_BE_MADE[reason]
    assert called(path, host, prompt, [tool("look")], **settings) == []
    (message,) = caplog.messages
    assert re.fullmatch(f"'m': a tool call failed: {reason}", message)
