"""An extension of griffe: shows the fields of models and dataclasses as users write them, and links pages.

`mkdocs.yml` names this file. The source says `Seconds | None` or `OrOff[Count]`, whose bounds only pydantic reads; the
reference says `float | None` and `int | Literal[False]`, each with its default.
"""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from types import UnionType
from typing import Any, Union, get_args, get_origin

import griffe
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from lmstudio_integrations._both_frameworks.signature import plain_type
from tools import ROOT

PAGE = re.compile(r"`?docs/([\w/-]+\.md)(#[\w-]+)?`?")
"""A page of the site in a docstring."""

_MODULE = re.compile(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z])")


def type_text(annotation: Any) -> str:
    """Return a type as people write it: no modules, no metadata, and `|` for unions."""
    plain = plain_type(annotation)
    if get_origin(plain) in {Union, UnionType}:
        return " | ".join(map(type_text, get_args(plain)))
    return _MODULE.sub("", inspect.formatannotation(plain)).replace("NoneType", "None")


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
        for each in objects_in(pkg):
            if isinstance(each, griffe.Class) and (kind := runtime_class(each)):
                show_fields(each, kind)
            if each.docstring:
                each.docstring.value = PAGE.sub(link_of, each.docstring.value)
