"""An extension of griffe: shows the fields of models and dataclasses as users write them, and links pages.

`mkdocs.yml` names this file. The source says `Seconds | None` or `OrOff[Count]`, whose bounds only pydantic reads; the
reference says `float | None` and `int | Literal[False]`, each with its default. The settings of the adapters and of a
prediction stand in groups, which `tools/mkdocstrings` shows.
"""

import dataclasses
import inspect
import re
from collections.abc import Collection, Iterator
from importlib import import_module
from typing import Any

import griffe
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from lmstudio_integrations._adapters.settings import ServerSettings
from lmstudio_integrations.types._config_base import wire_keys
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.timeouts import ModelTimeouts
from tools import ROOT
from tools.public import type_text

GROUPED = (ServerSettings, LlmPredictionConfig)
"""The bases of the classes whose settings stand in groups."""

GROUPS = {
    "Plugin": "plugin prefix plugin_config working_directory spec_functions on_status on_warning",
    "Model": (
        "model model_name preset context_length load_config load_policy device instances ttl unload_on_close "
        "on_config_mismatch on_load_progress show_progress"
    ),
    "Server": "host api_token headers ca_file",
    "Timeouts and retries": "timeout timeouts max_retries",
    "Embedding": (
        "length_policy query_prefix document_prefix query_instruction text_instruction dimensions embed_batch_size"
    ),
    "Reranking": (
        "top_n score_threshold instruction template metadata_mode keep_retrieval_score max_concurrency errors"
    ),
    "Decisions": "instructions threshold default permutations",
    "Generation": "logprobs top_logprobs prediction_config raw",
    "Long responses": "stop_on_repetition",
    "Streaming": "streaming on_prompt_progress",
    "Long prompts": "context_overflow_policy check_context",
    "Reasoning": "reasoning_effort send_reasoning keep_reasoning think_first",
    "Tools": "rescue_tool_calls repair_tool_calls required_tool_fallback",
    "Images": "allow_image_download",
    "Draft model": "",
    "What the framework reads": "profile context_window is_function_calling_model",
}
"""The settings by purpose, but for timeouts and prediction settings. A class shows those that it has."""

KEYS = {
    "llm.prediction.reasoning.": "Reasoning",
    "llm.prediction.tool": "Tools",
    "llm.prediction.vision.": "Images",
    "llm.prediction.speculativeDecoding.": "Draft model",
    "llm.prediction.": "Generation",
}
"""The groups of prediction settings, by how their wire keys begin: the first one counts."""

ATTRIBUTES = re.compile(r"^Attributes:\n(?:[ \t].*\n?|\n)+", re.MULTILINE)
"""The section of a docstring that describes the attributes of a class."""

PAGE = re.compile(r"`?docs/([\w/-]+\.md)(#[\w-]+)?`?")
"""A reference to a page of the site in a docstring."""


def default_of(field: FieldInfo | dataclasses.Field[Any]) -> str | None:
    """Return the source of a default; `None` if there is none."""
    if field.default not in {PydanticUndefined, dataclasses.MISSING}:
        return repr(field.default)
    return None if field.default_factory in {None, dataclasses.MISSING} else "<factory>"


def runtime_class(found: griffe.Class) -> type | None:
    """Return the class that griffe has read; `None` if it exists for type checkers only."""
    value: Any = import_module(found.module.path)
    for name in found.path.removeprefix(f"{found.module.path}.").split("."):
        value = getattr(value, name, None)
    return value if isinstance(value, type) else None


def fields_of(kind: type) -> Iterator[tuple[str, FieldInfo | dataclasses.Field[Any]]]:
    """Yield the fields of a pydantic model or a dataclass, by name."""
    if issubclass(kind, BaseModel):
        yield from kind.model_fields.items()
    elif dataclasses.is_dataclass(kind):
        yield from ((field.name, field) for field in dataclasses.fields(kind))


def show_fields(found: griffe.Class, kind: type) -> None:
    """Set type, default and description of the fields that a class declares, and leave out what it does not have."""
    if issubclass(kind, BaseModel):
        for name in found.members.keys() & found.attributes.keys() - {*inspect.get_annotations(kind), *vars(kind)}:
            del found.members[name]  # it is declared for type checkers only, such as another name of a parameter
    for name, field in fields_of(kind):
        shown = found.members.get(name)
        if not isinstance(shown, griffe.Attribute):
            continue
        shown.value = default_of(field)
        if isinstance(field, FieldInfo):
            shown.annotation = type_text(field.annotation)
            if field.description:
                shown.docstring = griffe.Docstring(field.description, parent=shown)


def describe_attributes(found: griffe.Class) -> None:
    """Move what a class says of its attributes to the attributes, which show their types and defaults as well."""
    if not found.docstring:
        return
    sections = found.docstring.parse("google")
    described = {each.name: each.description for section in sections if section.kind == "attributes"
                 for each in section.value}  # fmt: skip
    if described and found.attributes.keys() >= described.keys():
        for name, text in described.items():
            attribute = found.attributes[name]
            attribute.docstring = griffe.Docstring(text, parent=attribute)
        found.docstring.value = ATTRIBUTES.sub("", found.docstring.value).rstrip()


def groups_of(kind: type[BaseModel], names: Collection[str]) -> dict[str, list[str]]:
    """Return the settings of a class by purpose.

    Raises:
        ValueError: If a setting has no group.
    """
    titles = {name: title for title, listed in GROUPS.items() for name in listed.split()}
    timeouts = dict.fromkeys(ModelTimeouts.model_fields, "Timeouts and retries")
    keyed = {name: _title(wire_key.key) for name, wire_key in wire_keys(kind).items()}
    titles = {**timeouts, **keyed, **titles}
    if missing := {*names} - titles.keys():
        raise ValueError(f"GROUPS in tools/field_types.py lacks settings of {kind.__name__}: {sorted(missing)}")
    groups = {title: [name for name in names if titles[name] == title] for title in GROUPS}
    return {title: settings for title, settings in groups.items() if settings}


def _title(key: str) -> str:
    return next(title for beginning, title in KEYS.items() if key.startswith(beginning))


def objects_in(found: griffe.Object) -> Iterator[griffe.Object]:
    """Yield an object and all that it contains."""
    yield found
    for member in found.members.values():
        if isinstance(member, griffe.Object):
            yield from objects_in(member)


def link_of(match: re.Match[str]) -> str:
    """Return the link to a page that a docstring names, from the root of the site; the page must exist."""
    name, anchor = match.groups(default="")
    title = (ROOT / "docs" / name).read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
    return f"[{title}](/{name}{anchor})"


class FieldTypes(griffe.Extension):
    """Changes what griffe has read, once all of the package is there."""

    def on_package(self, *, pkg: griffe.Module, **_kwargs: Any) -> None:
        """Show the fields of each model, and link the pages that docstrings name."""
        grouped = list[tuple[griffe.Class, type[BaseModel]]]()
        for each in objects_in(pkg):
            if isinstance(each, griffe.Class) and (kind := runtime_class(each)):
                describe_attributes(each)
                show_fields(each, kind)
                if issubclass(kind, GROUPED):
                    grouped.append((each, kind))
            if each.docstring:
                each.docstring.value = PAGE.sub(link_of, each.docstring.value)
        for found, kind in grouped:  # a class has the fields of its bases only when all of them have been changed
            names = [name for name in kind.model_fields if name in found.all_members]
            found.extra["settings"] = {"groups": groups_of(kind, names)}
