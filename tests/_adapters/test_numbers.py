"""Numbers stay numbers: a table of ways to give a setting, of settings and of values.

Only the boolean `False` switches a setting off; 0 is a number, and `True` is none.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core.llms import ChatMessage
from pydantic import ValidationError

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding
from lmstudio_integrations.types.config import EmbeddingLoadModelConfig, LlmLoadModelConfig, LlmPredictionConfig
from tests.langchain.conftest import CHAT, Server
from tests.support.adapters import LANGUAGE_MODELS, classes

ERROR = "error"

NATIVE = {"top_k": "top_k_sampling", "top_p": "top_p_sampling", "min_p": "min_p_sampling"}
"""Names that native settings have for those of the adapters, where they differ."""

SETTINGS: dict[str, tuple[object, object]] = {
    "temperature": (0, ERROR),
    "max_tokens": (ERROR, False),
    "top_k": (0, ERROR),
    "top_p": (0, False),
    "min_p": (0, False),
    "repeat_penalty": (0, False),
    "presence_penalty": (0, False),
    "seed": (0, False),
    "reasoning_budget": (0, False),
}
"""What comes of 0, and what comes of `False`."""

ROWS = [
    pytest.param(name, value, ERROR if value is True else off if value is False else zero, id=f"{name}={value}")
    for name, (zero, off) in SETTINGS.items()
    for value in (0, 0.0, False, True)
]
OUT_OF_BOUNDS: dict[str, Any] = {
    "temperature": -0.1, "max_tokens": -1, "top_k": 501, "top_p": 1.1, "min_p": -0.1, "repeat_penalty": float("nan"),
    "presence_penalty": float("inf"), "seed": 0.5, "reasoning_budget": -1,
}  # fmt: skip
ROWS += [pytest.param(name, value, ERROR, id=f"{name}={value}") for name, value in OUT_OF_BOUNDS.items()]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


def run(adapter: Any, **given: Any) -> None:
    """Make a call in the calling thread."""
    if isinstance(adapter, LMStudio):
        adapter.chat([ChatMessage("count")], **given)
    else:
        adapter.invoke("count", **given)


def arun(adapter: Any, **given: Any) -> None:
    """Make a call in an event loop."""
    if isinstance(adapter, LMStudio):
        asyncio.run(adapter.achat([ChatMessage("count")], **given))
    else:
        asyncio.run(adapter.ainvoke("count", **given))


def assigned(adapter: Any, **given: Any) -> Any:
    for name, value in given.items():
        setattr(adapter, name, value)
    return adapter


def native_dict(host: str, **given: Any) -> None:
    with lms.Client(host) as client:
        client.llm.model(CHAT).respond("count", config=native(given))


async def native_config(host: str, **given: Any) -> None:
    config = LlmPredictionConfig(**native(given))
    async with lms.AsyncClient(host) as client:
        await (await client.llm.model(CHAT)).respond("count", config=config)


def native(given: dict[str, Any]) -> Any:
    return {NATIVE.get(name, name): value for name, value in given.items()}


Way = Callable[..., Any]
OF_ADAPTERS: dict[str, Way] = {
    "field": lambda make, host, **given: run(make(model=CHAT, host=host, **given)),
    "model_validate": lambda make, host, **given: run(make.model_validate({"model": CHAT, "host": host, **given})),
    "assigned field": lambda make, host, **given: run(assigned(make(model=CHAT, host=host), **given)),
    "copied field": lambda make, host, **given: arun(make(model=CHAT, host=host).model_copy(update=given)),
    "call": lambda make, host, **given: run(make(model=CHAT, host=host), **given),
    "awaited call": lambda make, host, **given: arun(make(model=CHAT, host=host), **given),
}
BOUND: dict[str, Way] = {
    "bind": lambda make, host, **given: run(make(model=CHAT, host=host).bind(**given)),
    "awaited bind": lambda make, host, **given: arun(make(model=CHAT, host=host).bind(**given)),
}
SURFACES = [
    pytest.param(lambda host, way=way, make=make, **given: way(make, host, **given), id=f"{make.__name__}-{name}")
    for make in (adapter.make for adapter in LANGUAGE_MODELS.values())
    for name, way in (OF_ADAPTERS | (BOUND if hasattr(make, "bind") else {})).items()
]
SURFACES += [
    pytest.param(native_dict, id="native dict"),
    pytest.param(lambda host, **given: asyncio.run(native_config(host, **given)), id="native config"),
]


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize(("name", "value", "expected"), ROWS)
def test_a_number_is_a_number_and_only_false_is_off(
    server: Server, surface: Way, name: str, value: Any, expected: object
) -> None:
    before = len(server.predictions)
    if expected is not ERROR:
        surface(server.address, **{name: value})
        sent = getattr(server.last_request.config, NATIVE.get(name, name))
        assert (sent, sent is False) == (expected, expected is False)
        return
    with pytest.raises((lms.LMStudioValueError, ValidationError)) as caught:
        surface(server.address, **{name: value})
    assert len(server.predictions) == before
    assert name in str(caught.value)
    assert str(value) in str(caught.value)
    if isinstance(caught.value, ValidationError):
        assert caught.value.error_count() == 1


FIELDS = {
    ChatLMStudio: ("context_length", "ttl", "timeout", "idle_timeout", "max_retries", "top_logprobs"),
    LMStudioEmbeddings: ("context_length", "ttl", "timeout", "max_retries", "dimensions"),
    LMStudio: ("context_length", "ttl", "timeout", "max_retries", "top_logprobs", "context_window"),
    LMStudioEmbedding: ("context_length", "ttl", "timeout", "max_retries", "embed_batch_size"),
}


@pytest.mark.parametrize(("make", "name"), [(make, name) for make, names in FIELDS.items() for name in names])
def test_no_boolean_is_taken_for_a_number_in_any_other_field(make: Any, name: str) -> None:
    with pytest.raises(ValidationError, match="must be a number, not a boolean") as caught:
        make(model="m", **{name: True})
    assert caught.value.error_count() == 1


@pytest.mark.parametrize("make", [LlmLoadModelConfig, EmbeddingLoadModelConfig])
@pytest.mark.parametrize(("value", "kept"), [(0, 0), (0.0, 0), (False, False)])
def test_a_load_setting_of_nought_is_not_off_either(make: Any, value: Any, kept: object) -> None:
    config = make(rope_frequency_base=value)
    assert config.rope_frequency_base is kept or config.rope_frequency_base == kept
    assert (config.rope_frequency_base is False) is (value is False)
    with pytest.raises(lms.LMStudioValueError, match="must be a number"):
        make(rope_frequency_base=True)


LOG_PROBS: list[tuple[dict[str, Any], int | None]] = [
    ({}, None),
    ({"top_logprobs": 3}, 3),
    ({"top_logprobs": 0}, 0),
    ({"top_logprobs": False}, None),
    ({"logprobs": True}, 0),
    ({"logprobs": True, "top_logprobs": False}, 0),
]


@pytest.mark.parametrize("make", classes(kind="chat"))
@pytest.mark.parametrize(("given", "requested"), LOG_PROBS, ids=str)
def test_no_alternatives_are_a_number_of_alternatives(server: Server, make: Any, given: Any, requested: Any) -> None:
    """LangChain's adapter asks for one where the caller wants none, because 0 might mean no log-probabilities."""
    if requested == 0 and make is ChatLMStudio:
        requested = 1
    run(make(model=CHAT, host=server.address, **given))
    assert server.last_request.config.log_probs == requested
    run(make(model=CHAT, host=server.address), **given)
    assert server.last_request.config.log_probs == requested


def test_an_error_explains_that_false_switches_a_setting_off() -> None:
    with pytest.raises(lms.LMStudioValueError) as caught:
        LlmPredictionConfig(max_tokens=0)
    assert str(caught.value) == ("max_tokens=0: Input should be greater than or equal to 1, or False to switch it off")
    with pytest.raises(ValidationError, match=r"max_tokens.value or False\n"):
        ChatLMStudio(max_tokens=0)


def test_a_setting_that_is_off_is_dumped_and_read_again() -> None:
    made = ChatLMStudio(model="m", max_tokens=False, top_p=0, seed=3)
    again = ChatLMStudio.model_validate_json(made.model_dump_json())
    assert (again.max_tokens, again.top_p, again.seed) == (False, 0, 3)
    assert again.max_tokens is False
    assert again.top_p is not False


def test_the_schema_of_a_setting_that_can_be_off_allows_both() -> None:
    field, _ = LlmPredictionConfig.model_json_schema()["properties"]["maxTokens"]["anyOf"]
    assert [choice["type"] for choice in field["oneOf"]] == ["integer", "boolean"]
    assert field["oneOf"][1]["const"] is False
