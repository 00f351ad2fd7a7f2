"""The reference shows every field, wherever it is inherited from: type, default and description."""

import inspect
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from itertools import chain
from typing import Annotated, Any, Literal, is_typeddict

import pytest

pytest.importorskip("griffe", reason="needs the docs group: uv sync --inexact --group docs")

pytest.importorskip("mkdocs", reason="needs the docs group: uv sync --inexact --group docs")

import griffe
from pydantic import BaseModel, Tag

from lmstudio_integrations import errors
from lmstudio_integrations.types._numbers import Count, Seconds
from lmstudio_integrations.types.config import LlmPredictionConfig
from tests.docs.snippets import ROOT
from tests.support.adapters import ADAPTERS
from tests.test_package import PUBLIC
from tools.field_types import FieldTypes, groups_of
from tools.public import type_text
from tools.reference_sources import pages, with_sources

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def package() -> griffe.Object | griffe.Alias:
    """The package as the reference shows it."""
    return griffe.load("lmstudio_integrations", extensions=griffe.load_extensions(FieldTypes()))


@pytest.mark.parametrize(
    ("annotation", "shown"),
    [
        (Seconds | None, "float | None"),
        (Annotated[Count, Tag("n")] | Annotated[Literal[False], Tag("off")], "int | Literal[False]"),
        (Literal["a", "b"], "Literal['a', 'b']"),
        (Callable[[float], Any], "Callable[[float], Any]"),
        (Mapping[str, list[Seconds]], "Mapping[str, list[float]]"),
        (list[str | tuple[str, Seconds]], "list[str | tuple[str, float]]"),
        (Callable[..., None], "Callable[..., None]"),
    ],
)
def test_a_type_is_shown_without_its_bounds(annotation: Any, shown: str) -> None:
    assert type_text(annotation) == shown


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        ("ttl", "float | None = None"),
        (
            "load_policy",
            "Literal['get_or_load', 'explicit', 'fit', 'fit_any', 'require_loaded', 'new_instance'] = 'get_or_load'",
        ),
        ("api_token", "SecretStr | None = <factory>"),
        ("max_tokens", "int | Literal[False] | None = None"),
    ],
)
def test_a_setting_has_its_type_and_its_default(package: griffe.Object, field: str, shown: str) -> None:
    attribute = package["langchain.chat_models.ChatLMStudio"].all_members[field]
    default = f" = {attribute.value}" if attribute.value else ""
    assert f"{attribute.annotation}{default}" == shown


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_field_of_an_adapter_is_shown_with_what_it_means(package: griffe.Object, name: str) -> None:
    make = ADAPTERS[name].make
    documented = package[make.__module__.partition(".")[2]][make.__name__].all_members
    parameters = inspect.signature(make).parameters
    ours = [field for field in parameters if field in documented]
    framework = {field for field in parameters if field not in documented}
    assert framework <= make._framework_descriptions.keys()
    assert {"model", "timeouts", "load_config"} <= {*ours}
    for field in ours:
        shown, parameter = documented[field], parameters[field]
        assert shown.annotation == type_text(parameter.annotation)
        assert shown.value == repr(parameter.default)
        assert shown.docstring.value == make.model_fields[field].description
    shown_class = package[make.__module__.partition(".")[2]][make.__name__]
    assert sorted(chain(*shown_class.extra["settings"]["groups"].values())) == sorted(ours)


def test_a_prediction_setting_is_in_the_group_of_its_wire_key() -> None:
    names = ["tool_naming", "seed", "reasoning_budget", "draft_model", "user_max_image_dimension_pixels"]
    assert groups_of(LlmPredictionConfig, names) == {
        "Generation": ["seed"],
        "Reasoning": ["reasoning_budget"],
        "Tools": ["tool_naming"],
        "Images": ["user_max_image_dimension_pixels"],
        "Draft model": ["draft_model"],
    }


def is_documented_alone(value: object) -> bool:
    """Whether the reference has an entry for a public name: types of arguments are described where they are used."""
    return inspect.isroutine(value) or (isinstance(value, type) and not is_typeddict(value) and value is not BaseModel)


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_class_and_function_has_an_entry(module: str) -> None:
    pages = [path.read_text(encoding="utf-8") for path in ROOT.glob("docs/reference/**/*.md")]
    entries = {path.rpartition(".")[2] for page in pages for path in re.findall(r"^::: (\S+)$", page, re.MULTILINE)}
    public = {name: getattr(import_module(module), name) for name in PUBLIC[module].split()}
    alone = {
        name: value for name, value in public.items() if is_documented_alone(value) and name not in vars(errors)
    }  # all errors are one entry
    assert alone
    assert [name for name, value in alone.items() if not {name, value.__name__} & entries] == []


def test_a_page_links_the_files_that_its_entries_come_from(package: griffe.Object) -> None:
    """For whoever reads it in a clone."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        assert with_sources(page, text, package) == text, "run python -m tools.reference_sources"


def test_what_a_class_says_of_its_attributes_is_shown_with_them(package: griffe.Object) -> None:
    status = package["types.hosts.HostStatus"]
    fields = {
        name: member
        for name, member in status.members.items()
        if member.is_attribute and "property" not in member.labels
    }
    assert fields
    assert [name for name, member in fields.items() if not member.docstring] == []
    assert "Attributes:" not in status.docstring.value
