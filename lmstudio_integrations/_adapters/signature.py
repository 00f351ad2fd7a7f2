"""What `help`, `inspect` and notebooks show of the adapters: signatures, and descriptions of fields.

pydantic's own signature, which `model?` shows in IPython and Jupyter, begins with the framework's fields and has the
validators in its types; its docstrings have no fields at all.
"""

import inspect
import re
from collections.abc import Iterator
from functools import reduce
from types import UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lmstudio_integrations._support.typeguards import is_list

PACKAGE = __name__.partition(".")[0]


class ClassSignature:
    """The signature of a pydantic class, as `__signature__` (PEP 362)."""

    def __get__(self, instance: BaseModel | None, owner: type[BaseModel]) -> inspect.Signature:
        if instance is not None:  # for `inspect`, an instance has the signature of its `__call__`
            raise AttributeError("__signature__ is an attribute of the class")
        return inspect.Signature(list(_parameters(owner)))


_SIGNATURE = ClassSignature()
_LINE = re.compile(r"(.{1,92}|\S+)(?: |$)")
"""A line of a description. Splitting is part of every import, and `textwrap` takes 30 times as long."""


def show_fields(owner: type[BaseModel]) -> None:
    """Make `inspect.signature` show the fields of a class."""
    cast("Any", owner).__signature__ = _SIGNATURE


def describe_fields(owner: type[BaseModel]) -> None:
    """Add the descriptions of its fields to the docstring of a class. A class without one inherits that of its base."""
    if owner.__doc__ is not None:
        owner.__doc__ = "\n".join([inspect.cleandoc(owner.__doc__), "", "Settings:", *_descriptions(owner)])


def _descriptions(owner: type[BaseModel]) -> Iterator[str]:
    for name in _ordered_fields(owner):
        text = " ".join((owner.model_fields[name].description or "").split())
        yield "    " + "\n        ".join(_LINE.findall(f"{name}: {text}"))


class _Factory:
    """Stands for a default that is made with each object."""

    def __repr__(self) -> str:
        return "<factory>"


_FACTORY = _Factory()


def _parameters(owner: type[BaseModel]) -> Iterator[inspect.Parameter]:
    """Yield the parameters of `__init__`, and the fields if it passes them on."""
    _, *declared = inspect.signature(owner.__init__).parameters.values()
    named = {each.name: each for each in declared if each.kind not in {each.VAR_POSITIONAL, each.VAR_KEYWORD}}
    yield from named.values()
    if any(each.kind is each.VAR_KEYWORD for each in declared):
        for name in _ordered_fields(owner):
            if name not in named:
                yield _parameter(name, owner.model_fields[name])


def _ordered_fields(owner: type[BaseModel]) -> list[str]:
    """Return the names of the fields, with those of the framework's base classes last; pydantic lists these first."""
    bases = owner.__mro__
    last = max(index for index, base in enumerate(bases) if base.__module__.startswith(PACKAGE))
    framework = {name for base in bases[last + 1 :] if issubclass(base, BaseModel) for name in base.model_fields}
    return sorted(owner.model_fields, key=framework.__contains__)


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    default = inspect.Parameter.empty if field.is_required() else _FACTORY if field.default_factory else field.default
    annotation = plain_type(field.annotation)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def plain_type(annotation: Any) -> Any:
    """Return a type without the metadata of `Annotated`, wherever it is in the type."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return plain_type(arguments[0])
    if origin in {Union, UnionType}:
        return reduce(lambda union, member: union | member, map(plain_type, arguments))
    if origin in {None, Literal}:
        return annotation
    plain = tuple(
        list(map(plain_type, each)) if is_list(each) else plain_type(each)  # a list: those of `Callable`
        for each in arguments
    )
    return annotation if plain == arguments else origin[plain]
