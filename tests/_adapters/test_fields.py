"""What editors show of the adapters: a description of every field, and every field in the signature of its class."""

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Annotated, Any, Literal, cast

import pytest
from llama_index.core.workflow import StartEvent
from pydantic import BaseModel, Field

import lmstudio_integrations as lms
from lmstudio_integrations._adapters.field_types import plain_type
from lmstudio_integrations.client.support.arguments import TIMEOUTS
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from lmstudio_integrations.types._numbers import Count, OrOff, Seconds
from tests.support.adapters import TOOLKITS, classes
from tools.public_fields import PATH, public_fields
from tools.stub import NAME

FEWEST_WORDS = 5
SECONDS = {*TIMEOUTS, "ttl"}
STATES = ("default", "unset", "`None`")
"""A description says with one of these what holds if the field is not set."""


class Described(ChatLMStudio):
    """A chat model with a field of its own."""

    mood: Annotated[str, Field(min_length=1)] = Field(default="calm", description="How the\n model feels." + " so" * 40)


class Undescribed(LMStudio):
    mood: str


class Deferred(ChatLMStudio, defer_build=True):
    mood: str = "calm"


class Constructed(ChatLMStudio):
    def __init__(self, mood: str, *, temperature: float = 0.5, **others: Any) -> None:
        super().__init__(temperature=temperature, name=mood, **others)


class Closed(ChatLMStudio):
    def __init__(self, mood: str, *others: str) -> None:
        super().__init__(name=mood, tags=[*others])


PINNED = {
    name: [line.strip() for line in lines]
    for name, *lines in map(str.splitlines, PATH.read_text(encoding="utf-8").split("\n\n"))
}
"""What users may pass to each class, and the default."""


def fields_in(make: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(make).parameters)


# What is public -------------------------------------------------------------------------------------------------------


def test_the_fields_of_each_class_are_pinned_with_type_and_default() -> None:
    found = public_fields()
    assert "langchain.ChatLMStudio" in found
    for name, fields in found.items():
        assert fields == PINNED.get(name), f"{name}: if users may rely on this, run python -m tools.public_fields"
    for name in PINNED:
        package, _, public = name.rpartition(".")
        assert public in import_module(f"{NAME}.{package}").__all__, (
            f"{name} is gone: run python -m tools.public_fields"
        )


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


def test_a_class_of_a_user_is_described_with_its_own_fields() -> None:
    assert Described.__doc__ is not None
    head, _, settings = Described.__doc__.partition("\n\nSettings:\n")
    assert head == "A chat model with a field of its own."
    assert "    mood: How the model feels. so" in settings
    assert max(map(len, settings.splitlines())) <= 100
    assert Undescribed.__doc__ is None
    assert inspect.getdoc(Undescribed) == LMStudio.__doc__


# Signatures -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", classes())
def test_a_class_shows_every_field_before_and_after_its_first_object(base: Any) -> None:
    class Mine(base):  # type: ignore[misc]  # a class that is chosen by a parameter
        mood: str = "calm"

    parameters = inspect.signature(Mine).parameters
    assert parameters.keys() == Mine.model_fields.keys()
    assert parameters["timeout"].default is None
    assert parameters["timeout"].annotation == float | None
    made = Mine()
    assert inspect.signature(Mine).parameters == parameters
    assert not hasattr(made, "__signature__")


@pytest.mark.parametrize("make", classes())
def test_a_signature_has_the_defaults_and_plain_types_of_the_fields(make: type[BaseModel]) -> None:
    parameters = inspect.signature(make).parameters
    assert all(each.kind is each.KEYWORD_ONLY for each in parameters.values())
    for name, field in make.model_fields.items():
        default = "<factory>" if field.default_factory else repr(field.default)
        assert repr(parameters[name].default) == default
    assert "Annotated" not in str(inspect.signature(make))
    assert next(iter(parameters)) == "model"


@pytest.mark.parametrize("make", [Described, Undescribed, Deferred])
def test_the_signature_of_a_class_of_a_user_has_its_own_fields(make: type[BaseModel]) -> None:
    assert fields_in(make) == {*make.model_fields}
    mood = inspect.signature(make).parameters["mood"]
    assert mood.annotation is str
    assert mood.default == (mood.empty if make is Undescribed else "calm")


def test_a_constructor_of_a_user_keeps_its_parameters() -> None:
    parameters = inspect.signature(Constructed).parameters
    assert [*parameters][:2] == ["mood", "temperature"]
    assert parameters["temperature"].default == 0.5
    assert fields_in(Constructed) == {"mood", *ChatLMStudio.model_fields}
    assert fields_in(Closed) == {"mood"}


@pytest.mark.parametrize("make", [lms.Client, lms.AsyncClient])
def test_a_client_shows_its_timeouts(make: Callable[..., Any]) -> None:
    parameters = inspect.signature(make).parameters
    assert {*TIMEOUTS} < parameters.keys()
    for name in TIMEOUTS:
        assert parameters[name].default == TIMEOUTS[name]
        assert parameters[name].annotation == float | None
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
    assert not [each for each in parameters.values() if each.kind is each.VAR_KEYWORD]


@pytest.mark.parametrize(
    ("annotation", "plain"),
    [
        (Seconds | None, float | None),
        (cast("Any", OrOff)[Count] | None, int | Literal[False] | None),
        (Callable[[Seconds], Any], Callable[[float], Any]),
        (Mapping[str, Annotated[int, 1] | None], Mapping[str, int | None]),
        (Literal["a", "b"], Literal["a", "b"]),
        (Any, Any),
    ],
)
def test_metadata_is_removed_wherever_it_is_in_a_type(annotation: Any, plain: Any) -> None:
    assert plain_type(annotation) == cast("Any", plain)
