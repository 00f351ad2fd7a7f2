"""JSON schemas of tools and responses: checks that no server makes, and the form that the wire keeps. Pure.

`functions.py`, `structured.py` and the adapters call it. See `docs/protocol.md#tool-definitions`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from itertools import count
from typing import Annotated, Any, NamedTuple, cast
from urllib.parse import unquote

from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.fields import FieldInfo

from lmstudio_integrations._support.secrets import redact_values
from lmstudio_integrations._support.text import shortened
from lmstudio_integrations._support.typeguards import MOST_LEVELS, is_list, is_mapping, is_object, is_too_deep
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._patterns import is_found

DATA = frozenset({"default", "const", "enum", "examples"})
"""Members of a schema whose values are data."""

_PARAMETERS = ("type", "properties", "required", "additionalProperties", "$defs")
"""The top-level members of a tool's schema that the wire keeps."""

_DEFINITIONS = ("$defs", "definitions")

_NAMED = frozenset({"properties", "patternProperties", *_DEFINITIONS})
"""Members of a schema whose values are schemas by name."""

_MOST_PARTS = 20_000
"""Parts of a schema without its references. Each definition that has the next one twice doubles them."""

_MOST_CHECKED = 2_000
"""Objects of a schema that is checked to be one. That takes half a millisecond for each."""


class _NeedsReferencesError(Exception):
    """A schema is recursive, or far larger without its references."""


def class_schema(kind: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of a pydantic class.

    Raises:
        LMStudioValueError: If a field has a type that JSON does not have, such as `Callable`; the message names it.
    """
    try:
        return kind.model_json_schema()
    except PydanticInvalidForJsonSchema:
        fields = [repr(field.alias or name) for name, field in kind.model_fields.items() if not _has_schema(field)]
    of_fields = f"the type of {' and '.join(fields)}" if fields else "a type in it"
    raise LMStudioValueError(f"{kind.__name__} has no JSON schema: JSON does not have {of_fields}; use another")


def _has_schema(field: FieldInfo) -> bool:
    annotated: Any = Annotated
    try:
        TypeAdapter[Any](annotated[(field.annotation, *field.metadata, None)]).json_schema()
    except PydanticInvalidForJsonSchema:
        return False
    return True


def check_references(schema: Mapping[str, Any], name: str) -> None:
    """Reject references to parts that a schema does not have: servers ignore them, or fail in ways that do not help.

    Args:
        schema: The schema.
        name: What it is, for the error.

    Raises:
        LMStudioValueError: If there is one, or the schema is nested too deeply.
    """
    if is_too_deep(schema):
        raise LMStudioValueError(f"{name} is nested more than {MOST_LEVELS} levels deep")
    for reference in references(schema):
        if reference.startswith("#/") and target_of(reference, schema) is None:
            raise LMStudioValueError(
                f"{name} refers to {reference!r}, which it does not contain; add that definition, or pass a pydantic "
                "class, whose schema is complete"
            )


def reject_lambda(name: str) -> None:
    """Reject the name that Python gives to every lambda.

    Raises:
        LMStudioValueError: If it is that of a tool.
    """
    if name == "<lambda>":
        raise LMStudioValueError(
            "a lambda has no name by which a model could call it; make the tool of a function that is written with def"
        )


def wire_tool(name: str, description: str | None, parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a tool's definition in wire form: its parameters are an object with properties, even if it has none.

    The same definition always has the same order of keys, wherever it was stored: it begins the prompt, and a server
    processes all of a prompt again that begins differently. The parameters stay in the given order.

    Patterns without `^` and `$` are left out, because llama.cpp rejects every prompt with one. The arguments of calls
    are checked against the schema of the tool itself.
    """
    check_references(parameters or {}, f"the schema of tool {name!r}")
    flat = rewritten(inlined(parameters or {}), _sent)
    flat |= {"type": "object", "properties": flat.get("properties") or {}}
    described = {"description": description} if description else {}
    root = {key: flat[key] for key in _PARAMETERS if key in flat}
    return {"type": "function", "function": {"name": name, **described, "parameters": root}}


def _sent(part: dict[str, Any]) -> dict[str, Any]:
    pattern = part.get("pattern")
    rejected = isinstance(pattern, str) and not (pattern.startswith("^") and pattern.endswith("$"))
    return {key: part[key] for key in sorted(part) if not (rejected and key == "pattern")}


def rewritten(schema: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """Return a copy of a schema with every schema in it changed, inner ones first; plain values stay as they are."""
    if is_list(schema):
        return [rewritten(item, change) for item in schema]
    if not is_object(schema):
        return schema
    copied: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _NAMED and is_object(value):
            copied[key] = {name: rewritten(named, change) for name, named in value.items()}
        else:
            copied[key] = value if key in DATA else rewritten(value, change)
    return change(copied)


class Misfit(NamedTuple):
    """A value in arguments that does not fit its schema.

    Attributes:
        path: Where it is.
        value: The value.
        keyword: The keyword of the schema that it violates.
        schema: The schema of the place.
        text: What is wrong, for people and models.
        is_named: Whether the schema names the place, rather than allows it beside others, or as an item.
    """

    path: tuple[str | int, ...]
    value: Any
    keyword: str
    schema: Mapping[str, Any]
    text: str
    is_named: bool


class ArgumentSchema:
    """Checks the arguments of a tool against a JSON schema.

    Args:
        schema: The schema; without `$schema` it is one of draft 2020-12.
        name: The name of the tool, for errors.

    Raises:
        LMStudioValueError: If it is not a JSON schema, or nested too deeply.
    """

    def __init__(self, schema: Mapping[str, Any], name: str) -> None:
        from jsonschema.exceptions import SchemaError  # noqa: PLC0415 - see `validator_of`

        try:
            self._validator = validator_of(schema)
        except SchemaError as error:
            path = "".join(f"[{part!r}]" for part in error.absolute_path)
            raise LMStudioValueError(
                f"the parameters of tool {name!r} are not a JSON schema: parameters{path}: {shortened(error.message)}"
            ) from error
        except RecursionError:
            raise LMStudioValueError(f"the parameters of tool {name!r} are nested too deeply") from None

    def problems(self, arguments: Mapping[str, Any]) -> list[str]:
        """Return what is wrong with arguments.

        Raises:
            Exception: If the schema cannot be used, in one of many ways.
        """
        from referencing.exceptions import Unresolvable  # noqa: PLC0415 - see `validator_of`

        try:
            return [each.text for each in self.misfits(dict(arguments))]
        except Unresolvable as error:
            return [f"the schema of the tool refers to {error.ref!r}, which it does not contain"]
        except RecursionError:
            return ["the arguments are nested too deeply"]

    def misfits(self, arguments: dict[str, Any]) -> list[Misfit]:
        """Return which values in arguments do not fit.

        Raises:
            Exception: If the schema cannot be used, in one of many ways.
        """
        return [
            Misfit(
                tuple(each.absolute_path),
                each.instance,
                each.validator,
                each.schema,
                problem_of(each, "arguments"),
                _is_named(each),
            )
            for each in self._validator.iter_errors(arguments)
        ]

    def accepts(self, value: Any, schema: Mapping[str, Any]) -> bool:
        """Whether a value fits a part of the schema."""
        return bool(self._validator.evolve(schema=schema).is_valid(value))


def _is_named(error: Any) -> bool:
    """Whether the value of an error of `jsonschema` is a member that the schema names."""
    place, names = list(error.absolute_path)[-1:], list(error.absolute_schema_path)
    return any(["properties", *place] == names[at : at + 2] for at in range(len(names))) if place else False


def problem_of(error: Any, whole: str) -> str:
    """Return what an error of `jsonschema` says, without the values of members with the names of secrets.

    Args:
        error: The error.
        whole: What the place is called if it is the whole value.
    """
    message = redact_values(error.message, error.instance, error.absolute_path)
    return f"{'.'.join(map(str, error.absolute_path)) or whole}: {shortened(message)}"


def validator_of(schema: object) -> Any:
    """Return a validator of `jsonschema` for a schema, which is one of draft 2020-12 if it has no `$schema`.

    Raises:
        jsonschema.SchemaError: If it is not a JSON schema. A huge one fails only where it is used.
    """
    # The import takes 51 ms of CPU time, which only those pay who check a schema.
    from jsonschema import Draft202012Validator  # noqa: PLC0415
    from jsonschema.validators import validator_for  # noqa: PLC0415
    from referencing.jsonschema import EMPTY_REGISTRY  # noqa: PLC0415

    kind: Any = Draft202012Validator
    if is_mapping(schema):
        schema = dict(schema)  # jsonschema accepts no other mapping as an object
        if isinstance(schema.get("$schema"), str):
            kind = validator_for(schema, default=Draft202012Validator)
    if len(_objects_in(schema)) <= _MOST_CHECKED:
        kind.check_schema(schema)
    # A registry of its own: jsonschema's default downloads what a schema refers to.
    return _in_linear_time(kind, has_patterns_of_names(schema))(schema, registry=EMPTY_REGISTRY)


@cache
def _in_linear_time(kind: Any, has_patterns: bool) -> Any:  # noqa: FBT001 - a cache takes it so
    from jsonschema import validators  # noqa: PLC0415 - see `validator_of`

    return cast("Any", validators).extend(kind, linear_keywords(kind, has_patterns=has_patterns))


def linear_keywords(kind: Any, *, has_patterns: bool) -> dict[str, Any]:
    """Return keywords for a class of validators that take no longer than in proportion to the value.

    Args:
        kind: The class.
        has_patterns: Whether the schema has patterns of names. `jsonschema` itself looks for these to find out which
            members no keyword has evaluated, so these are not checked.
    """
    keywords: dict[str, Any] = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": partial(_additional_properties, kind.VALIDATORS["additionalProperties"]),
        "uniqueItems": _unique_items,
    }
    return keywords | ({"unevaluatedProperties": _unchecked} if has_patterns else {})


def has_patterns_of_names(schema: object) -> bool:
    """Whether patterns of names are in a schema."""
    return any("patternProperties" in each for each in _objects_in(schema))


def _objects_in(schema: object) -> list[dict[str, Any]]:
    """Return the objects in a schema, each once."""
    found: dict[int, object] = {}
    rest = [schema]
    while rest:
        part = rest.pop()
        if id(part) not in found and (is_object(part) or is_list(part)):
            found[id(part)] = part
            rest += part.values() if is_object(part) else part
    return [part for part in found.values() if is_object(part)]


def _unchecked(*_: object) -> tuple[()]:
    return ()


def _pattern(_: object, pattern: str, value: object, __: object) -> Iterator[Exception]:
    """Check the keyword `pattern`. A plugin's may be one over which Python never comes to an end."""
    from jsonschema import ValidationError  # noqa: PLC0415 - see `validator_of`

    if isinstance(value, str) and is_found(pattern, value) is False:
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Mapping[str, Any], value: object, _: object) -> Iterator[Exception]:
    """Check the keyword `patternProperties`, of which the patterns are no better."""
    if is_object(value):
        for pattern, schema in patterns.items():
            for name, member in value.items():
                if is_found(pattern, name):
                    yield from validator.descend(member, schema, path=name, schema_path=pattern)


def _additional_properties(
    check: Callable[..., Iterable[Exception]], validator: Any, allowed: object, value: object, schema: Mapping[str, Any]
) -> Iterable[Exception]:
    """Check the keyword `additionalProperties`, which does not apply to the names of `patternProperties`."""
    patterns: Iterable[str] = schema.get("patternProperties", ())
    if is_object(value) and patterns:
        value = {
            name: member
            for name, member in value.items()
            if all(is_found(pattern, name) is False for pattern in patterns)
        }
        schema = {key: member for key, member in schema.items() if key != "patternProperties"}
    return check(validator, allowed, value, schema) or ()


def _unique_items(_: object, is_set: object, value: object, __: object) -> Iterator[Exception]:
    """Check the keyword `uniqueItems`. `jsonschema` compares each object with each other one."""
    from jsonschema import ValidationError  # noqa: PLC0415 - see `validator_of`

    if is_set and is_list(value) and len(set(map(_hashable, value))) < len(value):
        yield ValidationError(f"{value!r} has non-unique elements")


def _hashable(value: Any) -> object:
    """Return what JSON values have in common that are equal. Python would also take `1` and `true` for equal."""
    if is_object(value):
        return frozenset((name, _hashable(member)) for name, member in value.items())
    return tuple(map(_hashable, value)) if is_list(value) else (isinstance(value, bool), value)


def inlined(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema with its references replaced by their targets; one that needs them keeps all but the topmost.

    Older servers drop the definitions of a tool's schema, which breaks its references.
    """
    # PHP writes an empty object as an empty list.
    schema = {key: value for key, value in schema.items() if key not in _DEFINITIONS or is_object(value)}
    definitions = {f"#/{group}/{name}": each for group in _DEFINITIONS for name, each in schema.get(group, {}).items()}
    if not definitions:
        return schema
    bare = {key: value for key, value in schema.items() if key not in _DEFINITIONS}
    try:
        flat: dict[str, Any] = _inline(bare, definitions, (), iter(range(_MOST_PARTS)))
    except (_NeedsReferencesError, RecursionError):
        target = definitions.get(str(schema.get("$ref")))
        target = target if is_object(target) else {}
        return _with_defs({**target, **{key: value for key, value in schema.items() if key != "$ref"}})
    return flat


def _with_defs(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with all definitions in `$defs`. Older drafts and pydantic 1 use `definitions`."""
    older = schema.get("definitions")
    if not older:
        return schema
    moved = {f"#/definitions/{name}": {"$ref": f"#/$defs/{name}"} for name in older}
    bare = {key: value for key, value in schema.items() if key != "definitions"}
    renamed: dict[str, Any] = _inline({**bare, "$defs": {**older, **schema.get("$defs", {})}}, moved, (), count())
    return renamed


def _inline(node: Any, definitions: Mapping[str, Any], within: tuple[str, ...], parts: Iterator[int]) -> Any:
    """Return a part of a schema without references.

    Args:
        node: The part.
        definitions: The targets by their references.
        within: The path of references to the part.
        parts: Has as many items as parts may still follow.
    """
    if next(parts, None) is None:
        raise _NeedsReferencesError
    if is_list(node):
        return [_inline(item, definitions, within, parts) for item in node]
    if not is_object(node):
        return node
    reference = node.get("$ref")
    if not isinstance(reference, str) or reference not in definitions:
        return {key: _inline(value, definitions, within, parts) for key, value in node.items()}
    if reference in within:
        raise _NeedsReferencesError
    target = _inline(definitions[reference], definitions, (*within, reference), parts)
    siblings = {key: _inline(value, definitions, within, parts) for key, value in node.items() if key != "$ref"}
    return {**target, **siblings} if is_object(target) else target


def references(node: object) -> Iterator[str]:
    """Yield the references in a schema."""
    if is_list(node):
        for item in node:
            yield from references(item)
    elif is_object(node):
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str):
                yield value
            elif key not in DATA:
                yield from references(value)


def target_of(reference: str, schema: object) -> object:
    """Return what a reference refers to, a JSON pointer (RFC 6901) in a fragment of a URL; `None` for nothing."""
    node: object = schema
    for part in unquote(reference).split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if is_object(node) and name in node:
            node = node[name]
        elif is_list(node) and name.isdecimal() and int(name) < len(node):
            node = node[int(name)]
        else:
            return None
    return node
