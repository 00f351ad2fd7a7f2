"""What pydantic rejects is an error of this package in plain words, wherever users see it."""

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

import lmstudio_integrations as lms
from lmstudio_integrations import emulator, langchain, llama_index
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioError, LMStudioStructuredOutputError, LMStudioValueError
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from tests.support.leaks import error_of

PYDANTICS = ("[type=", "input_value", "input_type", "pydantic.dev", "validation error")


def public_classes() -> Iterator[Any]:
    modules: tuple[ModuleType, ...] = (lms, langchain, llama_index, emulator)
    for module in modules:
        for name in module.__all__:
            kind = getattr(module, name)
            if isinstance(kind, type) and issubclass(kind, BaseModel) and kind.model_fields:
                yield pytest.param(kind, id=f"{module.__name__}.{name}".partition(".")[2])


def in_plain_words(error: BaseException | None) -> bool:
    assert isinstance(error, LMStudioError)
    assert error.__cause__ is None
    assert error.__context__ is None
    return not any(part in str(error) for part in PYDANTICS)


class Strange:
    """A value that no field takes."""

    def __repr__(self) -> str:
        return "<strange>"


@pytest.mark.parametrize("kind", [*public_classes()])
def test_a_constructor_names_what_it_rejects_in_plain_words(kind: Any) -> None:
    for name in kind.model_fields:
        error = rejection(kind, name)
        assert error is None or (in_plain_words(error) and name in str(error))


def rejection(kind: Any, name: str) -> LMStudioValueError | None:
    required = {"plugin": "a/b"} if "plugin" in kind.model_fields else {}  # without it, Python itself complains
    try:
        kind(**{**required, name: Strange()})
    except LMStudioValueError as error:
        return error
    except TypeError as error:
        assert name == "embeddings_cache", error  # noqa: PT017 - core's own check
    return None


def test_a_constructor_names_all_that_is_wrong_and_what_to_write() -> None:
    for make in (ChatLMStudio, LMStudio):
        error = error_of(lambda make=make: make(temperature="hot", max_tokens=0, ttl="5m"))  # type: ignore[misc]
        assert in_plain_words(error)
        for text in ("temperature='hot': ", "max_tokens=0: ", "ttl='5m': ", "write ttl=300"):
            assert text in str(error)


@pytest.mark.parametrize("make", [ChatLMStudio, LMStudio])
def test_a_dump_that_cannot_be_read_is_explained_as_well(make: Any) -> None:
    for read in (make.model_validate, lambda values: make.model_validate_json('{"temperature": "hot"}')):
        error = error_of(lambda read=read: read({"temperature": "hot"}))  # type: ignore[misc]
        assert in_plain_words(error)
        assert "temperature='hot': " in str(error)


# Schemas and responses ------------------------------------------------------------------------------------------------


class WithFunction(BaseModel):
    name: str
    check: Callable[[int], int]


def with_callback(check: Callable[[int], int]) -> str:
    """Do something."""
    return str(check)


NOWHERE = "127.0.0.1:9"
SCHEMAS: dict[str, Callable[[], object]] = {
    "with_structured_output": lambda: ChatLMStudio().with_structured_output(WithFunction),
    "by call": lambda: ChatLMStudio().with_structured_output(WithFunction, method="function_calling"),
    "bind_tools": lambda: ChatLMStudio().bind_tools([WithFunction]),
    "bind_tools, a function": lambda: ChatLMStudio().bind_tools([with_callback]),
    "structured_predict": lambda: LMStudio(host=NOWHERE).structured_predict(WithFunction, PromptTemplate("Hello")),
    "response_format": lambda: LMStudio(host=NOWHERE).chat([], response_format=WithFunction),
    "chat_with_tools": lambda: LMStudio(host=NOWHERE).chat_with_tools([FunctionTool.from_defaults(with_callback)], ""),
    "native tool": lambda: lms.ToolFunctionDef.from_callable(with_callback),
}


@pytest.mark.parametrize("way", SCHEMAS)
def test_a_type_that_json_does_not_have_is_named_by_its_field(way: str) -> None:
    error = error_of(SCHEMAS[way])
    assert isinstance(error, LMStudioValueError)
    assert "JSON does not have the type of 'check'" in str(error)
    assert not any(part in str(error) for part in PYDANTICS)


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    rules = (
        {"when": {"tools": ["Person"]}, "then": [{"tool": "Person", "arguments": {"name": 5}}]},
        {"then": [{"text": '{"name": 5}'}]},
    )
    with Emulator([ModelEntry(key="m", rules=rules)]) as running:
        yield running


RESPONSES: dict[str, Callable[[str], object]] = {
    "json_schema": lambda host: ChatLMStudio(model="m", host=host).with_structured_output(Person).invoke("Hello"),
    "function_calling": lambda host: (
        ChatLMStudio(model="m", host=host).with_structured_output(Person, method="function_calling").invoke("Hello")
    ),
    "structured_predict": lambda host: LMStudio(model="m", host=host).structured_predict(
        Person, PromptTemplate("Hello")
    ),
}


@pytest.mark.parametrize("way", RESPONSES)
def test_a_response_that_does_not_fit_names_its_fields_in_plain_words(server: Emulator, way: str) -> None:
    error = error_of(lambda: RESPONSES[way](server.address))
    assert isinstance(error, LMStudioStructuredOutputError)
    assert "age: Field required" in str(error)
    assert not any(part in str(error) for part in PYDANTICS)
