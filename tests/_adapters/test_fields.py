"""What editors show of the adapters: a description of every field, and every field in the signature of its class."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.workflow import StartEvent
from pydantic import BaseModel

import lmstudio_integrations as lms
from lmstudio_integrations.client.support.arguments import TIMEOUTS
from tests.support.adapters import TOOLKITS, classes
from tools.public import plain_type

FEWEST_WORDS = 5
SECONDS = {*TIMEOUTS, "ttl"}
STATES = ("default", "unset", "`None`")
"""A description says with one of these what holds if the field is not set."""


def fields_in(make: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(make).parameters)


# Descriptions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", classes())
def test_every_field_is_described_with_its_unit_and_its_default(make: type[BaseModel]) -> None:
    for name, field in make.model_fields.items():
        description = field.description or ""
        assert len(description.split()) >= FEWEST_WORDS, name
        assert description[0].isupper(), name
        assert description.endswith("."), name
        assert any(word in description for word in STATES), name
        assert name not in SECONDS or "seconds" in description.lower(), name


@pytest.mark.parametrize("make", [*classes(), *TOOLKITS])
def test_a_class_has_a_json_schema_also_as_the_type_of_a_field(make: Any) -> None:
    class Start(StartEvent):
        object_: make

    for mode in ("validation", "serialization"):
        assert make.model_json_schema(mode=mode)["type"] == "object"
        assert Start.model_json_schema(mode=mode)
    properties = make.model_json_schema()["properties"]
    assert [name for name, each in properties.items() if not each.get("description")] in ([], ["class_name"])
    assert {"model", "plugin"} & properties.keys()


# Signatures -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", classes())
def test_a_class_shows_every_field_before_and_after_its_first_object(base: Any) -> None:
    class Mine(base):  # type: ignore[misc]  # a class that is chosen by a parameter
        mood: str = "calm"

    parameters = inspect.signature(Mine).parameters
    assert parameters.keys() == Mine.model_fields.keys()
    assert parameters["timeout"].default is None
    assert plain_type(parameters["timeout"].annotation) == float | None
    assert all(each.kind is each.KEYWORD_ONLY for each in parameters.values())
    Mine()
    assert inspect.signature(Mine).parameters == parameters


@pytest.mark.parametrize("make", [lms.Client, lms.AsyncClient])
def test_a_client_shows_its_timeouts(make: Callable[..., Any]) -> None:
    parameters = inspect.signature(make).parameters
    assert {*TIMEOUTS} < parameters.keys()
    for name in TIMEOUTS:
        assert parameters[name].default == TIMEOUTS[name]
        assert parameters[name].annotation == float | None
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
    assert not [each for each in parameters.values() if each.kind is each.VAR_KEYWORD]
