"""Writes `tests/_adapters/public_fields.txt`: what users may pass to the classes of both frameworks, and the defaults.

Run `python -m tools.public_fields` after one was added, removed or changed on purpose: it is public from then on. What
a class has from its framework alone is left out.
"""

import inspect
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import reduce
from importlib import import_module
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from lmstudio_integrations._support.typeguards import is_list
from tools import ROOT
from tools.stub import NAME

PATH = ROOT / "tests" / "_adapters" / "public_fields.txt"
_MODULE = re.compile(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z])")


def type_text(annotation: Any) -> str:
    """Return a type as people write it: no modules, no metadata, and `|` for unions."""
    plain = plain_type(annotation)
    if get_origin(plain) in {Union, UnionType}:
        return " | ".join(map(type_text, get_args(plain)))
    if get_origin(plain) is list:
        return f"list[{type_text(*get_args(plain))}]"
    return _MODULE.sub("", inspect.formatannotation(plain)).replace("NoneType", "None")


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


def public_fields() -> dict[str, list[str]]:
    """Return what each class takes, a line for each, by the name of the class below the package."""
    return {name: [*_lines(found)] for name, found in _classes("langchain", "langchain.middleware", "llama_index")}


def _classes(*packages: str) -> Iterator[tuple[str, Any]]:
    for package in packages:
        module = import_module(f"{NAME}.{package}")
        for name in module.__all__:
            with suppress(ImportError):  # its leaf was deleted
                found = getattr(module, name)
                if inspect.isclass(found) and not issubclass(found, Exception):
                    yield f"{package}.{name}", found


def _lines(found: Any) -> Iterator[str]:
    ours = [inspect.get_annotations(base) for base in found.__mro__ if base.__module__.startswith(NAME)]
    for name, each in sorted(inspect.signature(found).parameters.items()):
        if any(name in fields for fields in ours) or not hasattr(found, "model_fields"):
            default = "" if each.default is each.empty else f" = {each.default!r}"
            yield f"{name}: {type_text(each.annotation)}{default}"


if __name__ == "__main__":
    sections = ["\n    ".join([name, *lines]) for name, lines in public_fields().items()]
    PATH.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
