"""Mends arguments that do not fit the schema of a tool, where exactly one reading of them does. Pure.

A value that fits is not touched, and none is invented: what is missing stays missing.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lmstudio_integrations._support.typeguards import is_list, is_number, is_object
from lmstudio_integrations.client.predictions.call_repair.names import resembling_arguments, same_spelling
from lmstudio_integrations.client.predictions.tool_parser.lenient_json import WrittenNumber, plain
from lmstudio_integrations.client.predictions.tool_parser.tools import OfferedTool, values_of
from lmstudio_integrations.types._json_schemas import Misfit

_MOST_PASSES = 8
"""How often it is looked for misfits: a mend may show one that was hidden."""

_MOST_UNKNOWN = 16
"""Of how many unknown names it is looked for the meaning: that takes a while for each."""

_WRAPPERS = frozenset({"args", "arguments", "data", "input", "kwargs", "parameters", "params", "properties"})
_BESIDE = frozenset({"function", "name", "tool", "type"})
_TYPES = ("function", "tool_call", "tool_use")
"""What models put around arguments, and beside them."""

_NOTHING = (None, "", "null", "None", "none", "undefined")
"""What models write for an argument that they do not set."""

_ABOUT_NAMES = frozenset({"required", "additionalProperties"})

_SEPARATORS = (",", ";", "\n", "|", " and ", "&")

_OMITTED = object()


def mend(tool: OfferedTool, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """Return arguments that fit; `None` if there is no reading of them that does, or more than one.

    Raises:
        NoCallError: If it cannot be known what fits, because the schema cannot be used.
    """
    current = _unwrap(tool, arguments)
    for _ in range(_MOST_PASSES):
        misfits = tool.misfits(current)
        if not misfits:
            return current if current is arguments else plain(current)
        before = current
        for misfit in sorted(misfits, key=lambda each: each.keyword in _ABOUT_NAMES):
            if _at(current, misfit.path) is not misfit.value:
                continue  # something in it was mended, so it is looked at again
            change = _rename(misfit) if misfit.keyword in _ABOUT_NAMES else _read_again(tool, misfit)
            if change is not misfit.value:
                current = _replace(current, misfit.path, change)
            elif misfit.value in _NOTHING and misfit.is_named:
                without = _replace(current, misfit.path, _OMITTED)
                current = without if len(tool.misfits(without)) < len(misfits) else current
        if current is before:
            return None
    return None


def _unwrap(tool: OfferedTool, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments in the only argument that the tool does not have, if they are there."""
    unknown = arguments.keys() - tool.parameters.keys()
    wrappers = unknown & _WRAPPERS
    if len(wrappers) != 1 or not unknown <= _WRAPPERS | _BESIDE or not tool.misfits(arguments):
        return arguments
    if any(arguments[name] not in (tool.name, *_TYPES) for name in unknown - wrappers):  # what the tool may need
        return arguments
    inner = arguments[wrappers.pop()]
    objects = [each for each in (inner, *_parse(inner)) if is_object(each)]
    known = {name: value for name, value in arguments.items() if name not in unknown}
    if not objects or any(name in objects[0] and objects[0][name] != value for name, value in known.items()):
        return arguments
    return {**known, **objects[0]}


def _rename(misfit: Misfit) -> Any:
    """Return an object with the name of one member that a known one was meant by, if it is clear which."""
    members, known = misfit.value, misfit.schema.get("properties")
    if not (is_object(members) and is_object(known)):
        return members
    unset = [name for name in known if name not in members]
    missing = [name for name in unset if name in misfit.schema.get("required", ())]
    unknown = [name for name in members if name not in known]
    if len(unknown) > _MOST_UNKNOWN:
        return members
    wanted = unset if misfit.keyword == "additionalProperties" else missing
    meant = {name: resembling_arguments(name, unset) for name in unknown}
    for name, names in meant.items():
        is_only_one = all(each not in others for each in names for other, others in meant.items() if other != name)
        if len(names) == 1 and names[0] in wanted and is_only_one:
            return {names[0] if key == name else key: value for key, value in members.items()}
    return members


def _read_again(tool: OfferedTool, misfit: Misfit) -> Any:
    """Return the only reading of a value that fits in its place; the value itself if there is none."""
    value, schema = misfit.value, misfit.schema
    for readings in _readings(value, schema):
        fitting: dict[str, Any] = {json.dumps(each): each for each in readings if tool.accepts(each, schema)}
        if fitting:
            (reading, *others) = fitting.values()
            is_whole = isinstance(reading, float) and reading.is_integer() and not tool.accepts(reading + 0.5, schema)
            return value if others else int(reading) if is_whole else reading
    if value in _NOTHING:
        return value
    # What is in the value may be mended afterwards.
    type_, parsed = schema.get("type"), _parse(value)
    if type_ == "object":
        return next(filter(is_object, parsed), value)
    if type_ == "array":
        return [value] if is_object(value) else next(filter(is_list, parsed), value)
    return value


def _readings(value: Any, schema: Mapping[str, Any]) -> Iterable[Sequence[Any]]:
    """Yield the readings of a value, better ones first."""
    text = _text_of(value)
    yield same_spelling(text, _names(schema))
    is_written = isinstance(value, WrittenNumber)
    yield [*_parse(value), *([text] if text and (is_written or is_number(value)) else ())]
    items: list[Any] = value if is_list(value) and len(value) == 1 else []
    yield items
    yield [each for item in items if not is_list(item) for readings in _readings(item, schema) for each in readings]
    if not (
        is_list(value) or value in _NOTHING or (isinstance(value, str) and any(each in value for each in _SEPARATORS))
    ):
        yield [[value]]
        yield [[each] for each in _parse(value)]


def _names(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts that a schema lists as values."""
    yield from (each for each in (*schema.get("enum", ()), schema.get("const")) if isinstance(each, str))
    for keyword in ("anyOf", "oneOf", "allOf"):
        parts: list[Any] = schema.get(keyword, [])
        for part in filter(is_object, parts):
            yield from _names(part)


def _text_of(value: Any) -> str:
    """Return what the model wrote for a value; nothing where that is not known, as `3.1` may have been `3.10`."""
    if isinstance(value, str | WrittenNumber):
        return str(value)
    return json.dumps(value) if isinstance(value, int) else ""


def _parse(value: Any) -> list[Any]:
    """Return what a string stands for: JSON may be encoded twice."""
    if not isinstance(value, str):
        return []
    values = values_of(value)
    return [value.strip(), *values, *(each for inner in values for each in _parse(inner))]


def _at(whole: Any, path: Sequence[str | int]) -> Any:
    """Return the value at a place; nothing if that was renamed."""
    try:
        for key in path:
            whole = whole[key]
    except KeyError:
        return _OMITTED
    return whole


def _replace(whole: Any, path: Sequence[str | int], value: Any) -> Any:
    """Return a copy of arguments with another value at a place, or without it."""
    if not path:
        return value
    first, changed = path[0], whole.copy()
    changed[first] = _replace(whole[first], path[1:], value)
    if changed[first] is _OMITTED:
        del changed[first]
    return changed
