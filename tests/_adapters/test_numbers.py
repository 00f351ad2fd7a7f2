"""Numbers stay numbers: a table of ways to give a setting, of settings and of values.

Only the boolean `False` switches a setting off; 0 is a number, and `True` is none.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from itertools import cycle, product
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from lmstudio_integrations.types.config import LlmPredictionConfig
from tests.langchain.conftest import CHAT, Server
from tests.support.adapters import ADAPTERS, LANGUAGE_MODELS, Adapter, classes
from tests.support.served import served

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

OUT_OF_BOUNDS: dict[str, Any] = {
    "temperature": -0.1, "max_tokens": -2, "top_k": 501, "top_p": 1.1, "min_p": -0.1, "repeat_penalty": float("nan"),
    "presence_penalty": float("inf"), "seed": 0.5, "reasoning_budget": -1,
}  # fmt: skip
KINDS = (0, 0.0, False, True, OUT_OF_BOUNDS)
"""The values of a setting; the last stands for its own that is out of bounds."""

server = served(make=Server)


def assigned(model: Any, given: dict[str, Any]) -> Any:
    for name, value in given.items():
        setattr(model, name, value)
    return model


def native(given: dict[str, Any]) -> Any:
    return {NATIVE.get(name, name): value for name, value in given.items()}


def native_dict(server: dict[str, str], given: dict[str, Any]) -> None:
    with lms.Client(server["host"]) as client:
        client.llm.model(CHAT).respond("count", config=native(given))


async def native_config(server: dict[str, str], given: dict[str, Any]) -> None:
    config = LlmPredictionConfig(**native(given))
    async with lms.AsyncClient(server["host"]) as client:
        await (await client.llm.model(CHAT)).respond("count", config=config)


def sync(adapter: Adapter, model: Any, **given: Any) -> None:
    adapter.call(model, "count", **given)


def awaited(adapter: Adapter, model: Any, **given: Any) -> None:
    asyncio.run(adapter.acall(model, "count", **given))


Way = Callable[..., Any]
OF_ADAPTERS: dict[str, Way] = {
    "field": lambda each, server, given: sync(each, each.make(**server, **given)),
    "assigned field": lambda each, server, given: sync(each, assigned(each.make(**server), given)),
    "copied field": lambda each, server, given: awaited(each, each.make(**server).model_copy(update=given)),
    "call": lambda each, server, given: sync(each, each.make(**server), **given),
    "awaited call": lambda each, server, given: awaited(each, each.make(**server), **given),
}
BOUND: dict[str, Way] = {"bind": lambda each, server, given: sync(each, each.make(**server).bind(**given))}
SURFACES: dict[str, Way] = {
    f"{name}-{what}": partial(way, adapter)
    for name, adapter in LANGUAGE_MODELS.items()
    for what, way in (OF_ADAPTERS | (BOUND if adapter.framework == "LangChain" else {})).items()
}
SURFACES |= {"native dict": native_dict, "native config": lambda *given: asyncio.run(native_config(*given))}


@pytest.mark.parametrize(
    ("surface", "kind", "name"),
    [(surface, kind, name) for (surface, kind), name in zip(product(SURFACES, KINDS), cycle(SETTINGS), strict=False)],
)
def test_a_number_is_a_number_and_only_false_is_off(server: Server, surface: str, kind: Any, name: str) -> None:
    """Every surface gets all five kinds of values, and so does each of the nine settings, on one surface or another."""
    before = len(server.predictions)
    value = OUT_OF_BOUNDS[name] if kind is OUT_OF_BOUNDS else kind
    expected = ERROR if value is True or kind is OUT_OF_BOUNDS else SETTINGS[name][value is False]
    call = partial(SURFACES[surface], {"model": CHAT, "host": server.address}, {name: value})
    if expected is not ERROR:
        call()
        sent = getattr(server.last_request.config, NATIVE.get(name, name))
        assert (sent, sent is False) == (expected, expected is False)
        return
    with pytest.raises(lms.LMStudioValueError) as caught:
        call()
    assert len(server.predictions) == before
    assert str(caught.value).count(f"={value!r}: ") == 1
    assert name in str(caught.value)


NUMBERS = {
    *("context_length", "ttl", "timeout", "idle_timeout", "max_retries", "top_logprobs", "dimensions"),
    *("context_window", "embed_batch_size"),
}


@pytest.mark.parametrize("make", classes())
def test_no_boolean_and_no_number_that_cannot_be_sent_is_a_number_in_any_other_field(make: Any) -> None:
    for name in NUMBERS & make.model_fields.keys():
        for value, text in ((True, "must be a number, not a boolean"), (10**400, name), (10**5000, name)):
            with pytest.raises(lms.LMStudioValueError, match=text) as caught:
                make(model="m", **{name: value})
            assert str(caught.value).startswith(f"{name}=")


LOG_PROBS: list[tuple[dict[str, Any], int | None]] = [
    ({}, None),
    ({"top_logprobs": 3}, 3),
    ({"top_logprobs": 0}, 0),
    ({"top_logprobs": False}, None),
    ({"logprobs": True}, 0),
    ({"logprobs": True, "top_logprobs": False}, 0),
]


@pytest.mark.parametrize("name", [name for name, adapter in ADAPTERS.items() if adapter.kind == "chat"])
@pytest.mark.parametrize(("given", "requested"), LOG_PROBS, ids=str)
def test_no_alternatives_are_a_number_of_alternatives(server: Server, name: str, given: Any, requested: Any) -> None:
    """LangChain's adapter asks for one where the caller wants none, because 0 might mean no log-probabilities."""
    if requested == 0 and name == "ChatLMStudio":
        requested = 1
    for way in (OF_ADAPTERS["field"], OF_ADAPTERS["call"]):
        way(ADAPTERS[name], {"model": CHAT, "host": server.address}, given)
        assert server.last_request.config.log_probs == requested


def test_an_error_explains_that_false_switches_a_setting_off() -> None:
    for make in (LlmPredictionConfig, ChatLMStudio, LMStudio):
        with pytest.raises(lms.LMStudioValueError) as caught:
            make(max_tokens=0)
        text = "max_tokens=0: Input should be greater than or equal to 1, or False to switch it off"
        assert str(caught.value) == text


@pytest.mark.parametrize("surface", ["ChatLMStudio-field", "LMStudioLLM-call", "LMStudio-call", "native dict"])
def test_a_limit_of_minus_one_is_none_as_in_the_http_api(server: Server, surface: str) -> None:
    SURFACES[surface]({"model": CHAT, "host": server.address}, {"max_tokens": -1})
    assert server.last_request.config.max_tokens is False
