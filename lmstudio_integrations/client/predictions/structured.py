"""[Structured output](docs/protocol.md#structured-output): the format that a call requests, as a setting.

`requests.py` calls it; `types/structured.py` reads the response.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol, TypeAlias, runtime_checkable

from pydantic import BaseModel

from lmstudio_integrations._support.typeguards import is_mapping
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._schema_errors import check_references, reject_text
from lmstudio_integrations.types.config import LlmPredictionConfig


@runtime_checkable
class ModelSchema(Protocol):
    """Any class with a JSON schema."""

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """Return the JSON schema."""
        ...


ResponseFormat: TypeAlias = type[BaseModel] | type[ModelSchema] | Mapping[str, Any]
"""A pydantic class, a JSON schema, or the wire form: `{"type": "gbnf", "gbnfGrammar": …}`."""

_WIRE_TYPES = {"json", "gbnf", "none"}


def with_format(
    response_format: ResponseFormat | None, config: LlmPredictionConfig, *, check: bool
) -> LlmPredictionConfig:
    """Return the settings of a call, with `structured` set if the call gives a format.

    Args:
        response_format: The format; `None` if only the settings may have one.
        config: The settings.
        check: Whether a JSON schema or a grammar is checked.

    Raises:
        LMStudioValueError: If the settings have a format as well, or a format is invalid.
    """
    if response_format is not None:
        if config.structured is not None:
            raise LMStudioValueError("give response_format or config['structured'], not both")
        config = config.merged(LlmPredictionConfig(structured=_wire_form(response_format)))
    # The schema of a pydantic class needs no check.
    if (
        check
        and config.structured is not None
        and not (isinstance(response_format, type) and issubclass(response_format, BaseModel))
    ):
        _check(config.structured)
    return config


def is_requested(config: LlmPredictionConfig) -> bool:
    """Return whether the response is to be structured."""
    return config.structured is not None and config.structured["type"] != "none"


def fits(config: LlmPredictionConfig, text: str) -> bool:
    """Return whether a text is JSON that the requested schema allows. For a grammar it is not known, so it is false."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - lazy: keeps import cheap

    wire = config.structured or {}
    if wire.get("type") != "json":
        return False
    validator: Any = Draft202012Validator(wire.get("jsonSchema") or {})
    try:
        return bool(validator.is_valid(json.loads(text)))
    except Exception:  # noqa: BLE001 - the text is no JSON, or the schema cannot be applied
        return False


def _wire_form(response_format: object) -> dict[str, Any]:
    if isinstance(response_format, type):
        return {"type": "json", "jsonSchema": _schema_of(response_format)}
    if is_mapping(response_format):
        data = dict(response_format)
        return data if data.get("type") in {"json", "gbnf"} else {"type": "json", "jsonSchema": data}
    reject_text(response_format, "response_format")
    raise LMStudioValueError(f"response_format must be a class with a JSON schema, or a dict; got {response_format!r}")


def _schema_of(kind: type[Any]) -> dict[str, Any]:
    if not isinstance(kind, ModelSchema):
        raise LMStudioValueError(
            f"response_format class {kind.__name__} has no model_json_schema(); use a pydantic class"
        )
    try:
        return kind.model_json_schema()
    except Exception as error:
        raise LMStudioValueError(
            f"response_format class {kind.__name__} has no JSON schema; "
            f"use fields that JSON can represent: {_first_line(error)}"
        ) from error


def _check(wire: Mapping[str, Any]) -> None:
    kind, schema = wire.get("type"), wire.get("jsonSchema")
    if kind not in _WIRE_TYPES:
        raise LMStudioValueError(f"structured needs a type of {', '.join(sorted(_WIRE_TYPES))}; got {kind!r}")
    if kind == "gbnf" and not isinstance(wire.get("gbnfGrammar"), str):
        raise LMStudioValueError("structured output by grammar needs gbnfGrammar, a string")
    if kind == "json" and schema is not None:
        try:
            _check_schema(json.dumps(schema))
        except Exception as problem:
            raise LMStudioValueError(
                f"structured output needs a JSON schema; got {schema!r}: {_first_line(problem)}"
            ) from problem
        check_references(schema, "the schema of the response")


@lru_cache(maxsize=64)
def _check_schema(schema: str) -> None:
    """Check a JSON schema. The result is cached, because a check is slow."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - lazy: keeps import cheap

    Draft202012Validator.check_schema(json.loads(schema))


def _first_line(error: Exception) -> str:
    """Return the first line of an error; advice follows on the others."""
    return str(error).partition("\n")[0]
