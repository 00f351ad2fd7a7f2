"""Writes `tests/public/`: what users rely on, as it was released last, in a list for each kind.

A test compares each list with the package: what differs must be named in the changelog, under what is unreleased. So
run `python -m tools.public` with a release, and not before. What a class has from its framework alone is left out.
"""

import inspect
import io
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import redirect_stdout, suppress
from functools import reduce
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, is_typeddict
from unittest.mock import patch

from pydantic import BaseModel
from typer.main import get_command

from lmstudio_integrations import errors
from lmstudio_integrations._support.typeguards import is_list, is_mapping, is_object
from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.types._wire_model import ExplainedModel
from tools import ROOT
from tools.stub import NAME

FOLDER = ROOT / "tests" / "public"
_MODULE = re.compile(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z])")
_VARIABLE = re.compile(r"[\"'](LMS?(?:TUDIO)?_[A-Z_]+)[\"']")
_CATALOG = {"memory_gib": 16, "models": [{"key": "chat", "preload": True}]}

Lines = Iterator[tuple[str, str]]
"""What users rely on: its name, which is that in the changelog, and what may change of it."""


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


# Classes --------------------------------------------------------------------------------------------------------------


def _classes(*packages: str) -> Iterator[tuple[str, Any]]:
    for package in packages:
        module = import_module(package)
        for name in getattr(module, "__all__", vars(module)):
            with suppress(ImportError):  # its leaf was deleted
                found = getattr(module, name)
                if inspect.isclass(found) and found.__module__.startswith(NAME):
                    yield name, found


def _fields(name: str, found: Any) -> Lines:
    """Yield what a class takes, and what is computed of that."""
    ours = [base for base in found.__mro__ if base.__module__.startswith(NAME)]
    annotated = {field for base in ours for field in inspect.get_annotations(base)}
    if is_typeddict(found):
        yield from ((f"{name}.{field}", type_text(type_)) for field, type_ in found.__annotations__.items())
        return
    if issubclass(found, BaseModel):
        found.model_rebuild()  # else some have no signature before they are used
    for field, each in inspect.signature(found).parameters.items():
        if field in annotated or not hasattr(found, "model_fields"):
            default = "" if each.default is each.empty else f" = {each.default!r}"
            yield f"{name}.{field}", f"{type_text(each.annotation)}{default}"
    for base in ours:
        for field, value in vars(base).items():
            if isinstance(value, property) and not field.startswith("_"):
                yield f"{name}.{field}", type_text(getattr(value.fget, "__annotations__", {}).get("return"))


def adapters() -> Lines:
    """Yield the fields of the classes of both frameworks."""
    for name, found in _classes(*(f"{NAME}.{each}" for each in ("langchain", "langchain.middleware", "llama_index"))):
        yield from () if issubclass(found, Exception) else _fields(name, found)


def types() -> Lines:
    """Yield the fields of results, settings and other data, and the arguments of clients."""
    others = {name for name, _ in _classes(f"{NAME}.langchain")}
    for name, found in _classes(NAME):
        yield from () if issubclass(found, Warning | Exception) or name in others else _fields(name, found)


def errors_and_warnings() -> Lines:
    """Yield the classes of what is raised, and what each of them takes."""
    for name, found in _classes(errors.__name__):
        yield name, ", ".join(base.__name__ for base in found.__bases__)
        yield from _fields(name, found) if "__init__" in vars(found) else ()


# Commands -------------------------------------------------------------------------------------------------------------


def commands() -> Lines:
    """Yield the options of commands, and the members of what they print as JSON."""
    from lmstudio_integrations.cli import _app  # a leaf

    group = get_command(_app.app)
    for name in _app.COMMANDS:
        command: Any = group.get_command(None, name)  # type: ignore[attr-defined] # typer's own class
        for each in command.params:
            yield f"lmsi {name} {each.opts[0]}", "required" if each.required else f"= {each.default!r}"
    with Emulator(catalog=_CATALOG) as server:
        for arguments in (["ls"], ["doctor"], ["plan", "chat"]):
            printed = io.StringIO()
            argv = ["lmsi", *arguments, "--json", "--host", server.address]
            with patch.object(sys, "argv", argv), redirect_stdout(printed):
                _app.run_app()
            yield from _members(f"lmsi {arguments[0]} --json", json.loads(printed.getvalue()))


def _members(name: str, value: object) -> Lines:
    """Yield the members of JSON, with their types; those of a list of objects are those of its objects."""
    if is_object(value):
        for member, each in value.items():
            yield from _members(f"{name} {member}", each)
    elif is_list(value) and any(map(is_mapping, value)):
        for each in value:
            yield from _members(name, each)
    else:
        yield name, "null" if value is None else type(value).__name__


# Files and variables --------------------------------------------------------------------------------------------------


def files() -> Lines:
    """Yield the members of catalogs and of their rules, and those of the lines of cassettes."""
    from lmstudio_integrations.cassettes import use_cassette  # a leaf

    for module in ("engines.scripted.rules", "models.devices", "models.plugins"):
        import_module(f"{NAME}.emulator.{module}")
    parts: list[type[ExplainedModel]] = [ExplainedModel]
    for each in parts:
        parts += each.__subclasses__()
        if each.__module__.startswith(f"{NAME}.emulator."):
            for name, field in each.model_fields.items():
                default = "" if field.is_required() else f" = {field.get_default(call_default_factory=True)!r}"
                yield f"{each.__name__}.{field.alias or name}", f"{type_text(field.annotation)}{default}"
    with TemporaryDirectory() as folder, Emulator(catalog=_CATALOG) as server:
        path = Path(folder, "cassette.jsonl")
        with use_cassette(path, "once", server=server.address), Client(server.address) as client:
            client.llm.model("chat").respond("Hello")
        for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            yield from _members("cassette", {**line, "body": None})


def entry_points() -> Lines:
    """Yield what other programs find of the package by its metadata."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for group, entries in {"scripts": project["scripts"], **project["entry-points"]}.items():
        yield from ((f"{group} {name}", target) for name, target in entries.items())
    yield from ((f"[{name}]", ", ".join(needed)) for name, needed in project["optional-dependencies"].items())


def variables() -> Lines:
    """Yield the variables of the environment that are read."""
    for path in (ROOT / NAME).rglob("*.py"):
        yield from ((name, "") for name in _VARIABLE.findall(path.read_text(encoding="utf-8")))


KINDS: Mapping[str, Callable[[], Lines]] = {
    each.__name__: each for each in (adapters, types, errors_and_warnings, commands, files, entry_points, variables)
}


def read(kind: str) -> dict[str, str]:
    """Return what was released last."""
    lines = (FOLDER / f"{kind}.txt").read_text(encoding="utf-8").splitlines()
    return {name: value for name, _, value in (line.partition(": ") for line in lines)}


def find(kind: str) -> dict[str, str]:
    """Return what is there now; a member may have values of several types."""
    found: dict[str, list[str]] = {}
    for name, value in sorted({*KINDS[kind]()}):
        found.setdefault(name, []).append(value)
    return {name: " or ".join(values) for name, values in found.items()}


def changes(kind: str) -> Iterable[list[str]]:
    """Return the names of what has changed since, those together that have changed alike in several classes."""
    before, after = read(kind), find(kind)
    alike: dict[tuple[str, str | None, str | None], list[str]] = {}
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            alike.setdefault((name.rpartition(".")[2], before.get(name), after.get(name)), []).append(name)
    return alike.values()


if __name__ == "__main__":
    for kind in KINDS:
        lines = [f"{name}: {value}" for name, value in find(kind).items()]
        (FOLDER / f"{kind}.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")
