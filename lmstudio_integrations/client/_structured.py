"""Structured output: what was asked for to the wire, and the answer to a checked value (protocol §7.6)."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, TypeAlias, runtime_checkable

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from lmstudio_integrations.errors import LMStudioStructuredOutputError, LMStudioValueError
from lmstudio_integrations.protocol.errors import beginning, shortened
from lmstudio_integrations.types.config import LlmPredictionConfig


@runtime_checkable
class ModelSchema(Protocol):
    """Any class that can say its JSON schema."""

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """Return the JSON schema."""
        ...


ResponseFormat: TypeAlias = type[BaseModel] | type[ModelSchema] | Mapping[str, Any]
"""A pydantic class, a JSON schema, or the wire form: `{"type": "gbnf", "gbnfGrammar": …}`."""

_MARKER = re.compile(r"__LM_STUDIO_INTERNAL_LSEP_SYNTHETIC_REASONING_END_[0-9a-fA-F]*__")
"""What LM Studio is known to leave in the text of reasoning models."""

_HINTS = {
    "maxPredictedTokensReached": "; raise max_tokens",
    "contextLengthReached": "; load the model with a larger context length, or ask for less",
}
"""What helps when an answer was cut off."""

_WIRE_TYPES = {"json", "gbnf", "none"}


@dataclass(frozen=True, slots=True)
class Format:
    """What the answer must be.

    Attributes:
        wire: The setting `structured`.
        parse: Text to value; raises `ValueError` with the reason if it is not what was asked for, or `RecursionError`.
    """

    wire: dict[str, Any]
    parse: Callable[[str], Any] | None

    def read(self, text: str, stop_reason: str) -> Any:
        """Return the value of an answer.

        Raises:
            LMStudioStructuredOutputError: If the text is not what was asked for.
        """
        assert self.parse is not None, "a format without parser is not read"
        cleaned = _MARKER.sub("", text).strip()
        try:
            return self.parse(cleaned)
        except (ValueError, RecursionError) as error:
            hint = _HINTS.get(stop_reason, "")
            raise LMStudioStructuredOutputError(
                f"the answer is not the structured output that was asked for: {shortened(_reason(error))} "
                f"(stop reason {stop_reason}){hint}; the model wrote {beginning(text)}",
                text=text,
            ) from error

    def is_structured(self, value: Any) -> bool:
        """Whether a value is more than the text of an answer: a grammar may describe anything, JSON may be a string."""
        return self.wire.get("type") == "json" or not isinstance(value, str)


def requested(response_format: ResponseFormat | None, config: LlmPredictionConfig) -> Format | None:
    """Return the format that a call asks for, by `response_format` or by its settings.

    Raises:
        LMStudioValueError: If both ask, or what is asked for is no format.
    """
    if response_format is None:
        return _of_wire(config.structured) if config.structured is not None else None
    if config.structured is not None:
        raise LMStudioValueError("give response_format or config['structured'], not both")
    if isinstance(response_format, type):
        return _of_class(response_format)
    if isinstance(response_format, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        data = dict(response_format)
        if data.get("type") in {"json", "gbnf"}:
            return _of_wire(data)
        return _of_wire({"type": "json", "jsonSchema": data})
    raise LMStudioValueError(f"response_format must be a class with a JSON schema, or a dict; got {response_format!r}")


def _of_class(kind: type[Any]) -> Format:
    if not isinstance(kind, ModelSchema):
        raise LMStudioValueError(
            f"response_format class {kind.__name__} has no model_json_schema(); use a pydantic class"
        )
    try:
        schema = kind.model_json_schema()
    except Exception as error:
        raise LMStudioValueError(
            f"response_format class {kind.__name__} has no JSON schema; "
            f"use fields that JSON can hold: {_first_line(error)}"
        ) from error
    wire = {"type": "json", "jsonSchema": schema}
    if issubclass(kind, BaseModel):
        return Format(wire, kind.model_validate_json)
    return Format(wire, _checker(schema))


def _of_wire(wire: Mapping[str, Any]) -> Format:
    kind = wire.get("type")
    if kind not in _WIRE_TYPES:
        raise LMStudioValueError(f"structured needs a type of {', '.join(sorted(_WIRE_TYPES))}; got {kind!r}")
    if kind == "gbnf":
        if not isinstance(wire.get("gbnfGrammar"), str):
            raise LMStudioValueError("structured output by grammar needs gbnfGrammar, a text")
        return Format(dict(wire), _json_or_text)
    if kind == "none":
        return Format(dict(wire), None)
    return Format(dict(wire), _checker(wire.get("jsonSchema")))


def _checker(schema: Any) -> Callable[[str], Any]:
    """Return a parser that checks against a JSON schema; without one, any JSON will do.

    Raises:
        LMStudioValueError: If it is no schema.
    """
    if schema is None:
        return from_json
    try:
        check = _check_by(json.dumps(schema))
    except Exception as problem:
        raise LMStudioValueError(
            f"structured output needs a JSON schema; got {schema!r}: {_first_line(problem)}"
        ) from problem

    def parse(text: str) -> Any:
        value = from_json(text)
        check(value)
        return value

    return parse


@lru_cache(maxsize=64)
def _check_by(schema: str) -> Callable[[Any], None]:
    """Return a check against a JSON schema, which is checked itself; that takes so long that it is done only once."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - loaded only where a schema is to be checked
    from jsonschema import ValidationError as JsonSchemaError  # noqa: PLC0415
    from jsonschema_specifications import (  # noqa: PLC0415  # pyright: ignore[reportMissingTypeStubs] - it has none
        REGISTRY,
    )

    known = json.loads(schema)
    Draft202012Validator.check_schema(known)
    # Without a registry, a reference to another document would be fetched, from the network or from a file.
    validator = Draft202012Validator(known, registry=REGISTRY)

    def check(value: Any) -> None:
        try:
            validator.validate(value)  # pyright: ignore[reportUnknownMemberType]
        except JsonSchemaError as problem:
            raise ValueError(f"{problem.json_path}: {problem.message}") from problem
        except Exception as problem:  # a reference in the schema that leads nowhere
            raise ValueError(f"the JSON schema that was asked for is not valid: {problem!r}") from problem

    return check


def _json_or_text(text: str) -> Any:
    """Return the JSON value of a text, or the text: a grammar may describe anything."""
    try:
        return from_json(text)
    except ValueError:
        return text


def _first_line(error: Exception) -> str:
    """Return what is wrong, without the advice that follows it."""
    return str(error).partition("\n")[0]


def _reason(error: ValueError | RecursionError) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'the whole'}: {each['msg']}"
            for each in error.errors(include_url=False)
        )
    return "it nests too deep" if isinstance(error, RecursionError) else str(error)
