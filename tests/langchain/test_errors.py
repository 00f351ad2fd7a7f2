"""Errors are instances of our classes and of langchain-core's."""

import pickle
import traceback
from collections.abc import Callable
from typing import Any, TypedDict

import pytest
from langchain_core import exceptions as core
from langgraph.graph import START, StateGraph
from langgraph.types import RetryPolicy

from lmstudio_integrations import errors
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.langchain._errors import (
    LangChainStructuredOutputError,
    as_langchain_error,
    translating_errors,
)
from tests.langchain.conftest import Invoke, Server
from tests.support.pauses import replace_pauses


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        (errors.LMStudioContextOverflowError("x", used=9, limit=4), core.ContextOverflowError, False),
        (errors.LMStudioModelNotFoundError("x"), core.ModelNotFoundError, False),
        (errors.LMStudioAuthenticationError("x"), core.ModelAuthenticationError, False),
        (errors.LMStudioUnreachableError("x", tried=("a",)), core.ModelConnectionError, True),
        (errors.LMStudioConnectionLostError("x"), core.ModelConnectionError, True),
        (errors.LMStudioTimeoutError("x", timeout_name="total_timeout", elapsed=1.0), core.ModelTimeoutError, True),
        (errors.LMStudioValueError("x"), core.ModelInvalidRequestError, False),
        (errors.LMStudioWrongModelKindError("x"), core.ModelInvalidRequestError, False),
        (errors.LMStudioModelUnloadedError("x"), core.ModelAPIError, True),
        (errors.LMStudioServerError("x", cause="c"), core.ModelAPIError, True),
        (errors.LMStudioChannelClosedError("x"), core.ModelAPIError, True),
        (errors.LMStudioToolCallError("x", raw_content="r"), core.ModelError, False),
        (errors.LMStudioInsufficientResourcesError("x"), core.ModelError, False),
        (errors.LMStudioInsufficientResourcesError("x", retryable=True), core.ModelError, True),
        (errors.LMStudioRuntimeError("x"), core.ModelError, False),
        (errors.LMStudioClientClosedError("x"), core.ModelError, False),
        (errors.LMStudioError("x"), core.ModelError, False),
    ],
)
def test_an_error_has_both_bases_its_attributes_and_knows_whether_a_retry_helps(
    error: errors.LMStudioError, kind: type[core.ModelError], retryable: bool
) -> None:
    translation = as_langchain_error(error)
    assert isinstance(translation, kind)
    assert isinstance(translation, errors.LMStudioError)
    assert any(base in type(translation).__mro__ for base in type(error).__mro__[:2])
    assert translation.is_retryable is retryable
    assert str(translation) == "x"
    assert vars(translation) == vars(error)
    again = pickle.loads(pickle.dumps(translation))
    assert type(again) is type(translation)
    assert vars(again) == vars(error)


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.LMStudioError) and not issubclass(kind, Warning)
    ],
)
def test_no_error_loses_its_class(kind: type[errors.LMStudioError]) -> None:
    assert isinstance(as_langchain_error(kind("x")), kind)


def test_the_block_translates_once_and_the_traceback_shows_the_message_once() -> None:
    original = errors.LMStudioUnreachableError("nobody there")
    with pytest.raises(core.ModelConnectionError) as caught, translating_errors(), translating_errors():
        raise original
    shown = "".join(traceback.format_exception(caught.value))
    assert (shown.count("nobody there"), shown.count("Traceback")) == (1, 1)
    assert shown.index("raise original") > 0


def _raise_with_cause() -> None:
    raise errors.LMStudioUnreachableError("nobody there") from OSError("no listener")


def _fail() -> None:
    raise OSError("no listener")


def _raise_while_handling() -> None:
    try:
        _fail()
    except OSError:
        raise errors.LMStudioUnreachableError("nobody there")  # noqa: B904 - the point


@pytest.mark.parametrize("fail", [_raise_with_cause, _raise_while_handling])
def test_a_translation_has_the_cause_and_the_context_of_the_original(fail: Callable[[], None]) -> None:
    with pytest.raises(errors.LMStudioUnreachableError) as original:
        fail()
    with pytest.raises(core.ModelConnectionError) as caught, translating_errors():
        fail()
    assert [repr(caught.value.__cause__), repr(caught.value.__context__), caught.value.__suppress_context__] == [
        repr(original.value.__cause__),
        repr(original.value.__context__),
        original.value.__suppress_context__,
    ]


def test_a_structured_output_error_is_an_output_parser_exception_with_the_response() -> None:
    error = LangChainStructuredOutputError("not JSON", text="{")
    assert isinstance(error, core.OutputParserException)
    assert isinstance(error, ValueError)
    assert error.llm_output == error.text == "{"
    again = pickle.loads(pickle.dumps(error))
    assert again.llm_output == "{"


# Calls ----------------------------------------------------------------------------------------------------------------


def test_only_a_failed_connection_is_retried(server: Server, generate: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    replace_pauses(monkeypatch, pauses.append)
    with pytest.raises(errors.LMStudioUnreachableError):
        generate(ChatLMStudio(model="m", host="127.0.0.1:1", max_retries=6), "Hello")
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    with pytest.raises(core.ModelError, match="gave up"):
        generate(server.chat(max_retries=6), "break")
    assert len(pauses) == 6
    assert len(server.predictions) == 1


def test_a_schema_that_the_engine_rejects_is_one_typed_error(server: Server, generate: Invoke) -> None:
    rejected = {"type": "object", "properties": {"a": {"type": "nonsense"}}, "required": ["a"]}
    with pytest.raises(errors.LMStudioUnsupportedError, match="schema") as caught:
        generate(server.chat(), "Hello", response_format=rejected)
    assert isinstance(caught.value, core.ModelInvalidRequestError)


class _State(TypedDict):
    question: str


@pytest.mark.parametrize(
    ("settings", "question"),
    [
        ({"timeouts": {"total_timeout": 0.02}}, "stall"),
        ({"timeouts": {"idle_timeout": 0.02}}, "stall"),
        ({"timeouts": {"first_token_timeout": 0.02}}, "freeze"),
    ],
)
async def test_langgraph_retries_a_timeout_by_default(server: Server, settings: dict[str, Any], question: str) -> None:
    model, attempts = server.chat(**settings), list[str]()

    def ask(state: _State) -> dict[str, Any]:
        attempts.append("sync")
        return {"question": model.invoke(state["question"]).text}

    async def aask(state: _State) -> dict[str, Any]:
        attempts.append("async")
        return {"question": (await model.ainvoke(state["question"])).text}

    graphs: list[Any] = []
    for node in (ask, aask):
        builder: Any = StateGraph(_State)
        builder.add_node("ask", node, retry_policy=RetryPolicy(initial_interval=0, max_attempts=2))
        graphs.append(builder.add_edge(START, "ask").compile())
    with pytest.raises(TimeoutError, match="timeout"):
        graphs[0].invoke({"question": question})
    with pytest.raises(errors.LMStudioTimeoutError):
        await graphs[1].ainvoke({"question": question})
    assert attempts == ["sync", "sync", "async", "async"]
