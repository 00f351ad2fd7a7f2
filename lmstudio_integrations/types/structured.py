"""Structured output (`docs/protocol.md#structured-output`): the format that a call requests, and the response in it.

Pure. The client, the results, Ray's stages and the adapters of both frameworks call it; the adapters add what is
their framework's own.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from pydantic import BaseModel, PydanticUndefinedAnnotation, PydanticUserError, TypeAdapter
from pydantic_core import from_json

from lmstudio_integrations._support.secrets import without_secrets
from lmstudio_integrations._support.suggestions import reason_of
from lmstudio_integrations._support.text import REMEDIES, beginning, shortened, shown
from lmstudio_integrations._support.typeguards import is_mapping, is_object
from lmstudio_integrations.errors import LMStudioStructuredOutputError, LMStudioValueError
from lmstudio_integrations.types._json_schemas import check_references, class_schema, problem_of, validator_of
from lmstudio_integrations.types.config import CUSTOM_FIELDS, LlmPredictionConfig
from lmstudio_integrations.types.reasoning import USUAL_TAGS

_JSON_BEGINS = ("{", "[", '"')

T = TypeVar("T")
ErrorT = TypeVar("ErrorT", bound=LMStudioStructuredOutputError)


@runtime_checkable
class ModelSchema(Protocol):
    """Any class with a JSON schema."""

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """Return the JSON schema."""
        ...


ResponseFormat: TypeAlias = type[BaseModel] | type[ModelSchema] | Mapping[str, Any]
"""A pydantic class, a JSON schema, OpenAI's form of it (`{"type": "json_schema", "json_schema": {"schema": …}}`, or
`{"type": "json_object"}`), or the wire form: `{"type": "gbnf", "gbnfGrammar": …}`.
"""

_NO_EFFORTS = (None, "none", "off")

_WIRE_TYPES = ("gbnf", "json", "none")
_JSON_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")

_ADVICE = "\n"
"""Where advice begins in an error: it follows on the lines after the first."""

_MARKER = r"__LM_STUDIO_INTERNAL_LSEP_SYNTHETIC_REASONING_END_[0-9a-fA-F]*__"
"""Tags that LM Studio may leave in the text of reasoning models."""

_BLOCK = r"(?s)```(?:[\w-]*\n|json)?(?P<json>.*?)(?:\n[ \t]*```.*|```\s*)?\Z"
"""The first code block. JSON has no line breaks in its strings, so no string holds a fence that begins a line."""

_LINK = r"\s*For further information visit \S+"
"""What pydantic adds to each problem; it only costs tokens."""

EXCERPT = "; the model wrote "
"""What separates the problem from the excerpt of the response in the message of an error."""

_SMALL = 4096
"""Characters up to which a growing text is parsed after every fragment; a long one would take quadratic time."""

_GROWTH = 1.01
"""The growth after which a longer text is parsed again."""

_LIMITS = """
    $dynamicRef $recursiveRef $ref additionalItems additionalProperties allOf anyOf const contains dependencies
    dependentRequired dependentSchemas enum exclusiveMaximum exclusiveMinimum extends format if items maxItems maxLength
    maxProperties maximum minItems minLength minProperties minimum multipleOf not oneOf pattern patternProperties
    prefixItems properties propertyNames required type unevaluatedItems unevaluatedProperties uniqueItems
"""
"""Members of JSON schemas, of any version, that limit a value."""

_NOTES = """
    contentEncoding contentMediaType contentSchema default definitions deprecated description discriminator else example
    examples externalDocs id markdownDescription maxContains minContains nullable readOnly then title writeOnly xml
"""
"""Other members of JSON schemas, beside those that begin with `$` or `x-`; some are OpenAPI's or of editors."""

# The request ----------------------------------------------------------------------------------------------------------


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
        structured = _wire_form(response_format, _schema_of)
        config = config if structured is None else config.merged(LlmPredictionConfig(structured=structured))
    # The schema of a pydantic class needs no check.
    if (
        check
        and config.structured is not None
        and not (isinstance(response_format, type) and issubclass(response_format, BaseModel))
    ):
        _check(config.structured)
    return config


def response_settings(response_format: Any, schema_of: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """Return the setting of a framework's response format; empty for plain text.

    Args:
        response_format: An OpenAI dict, the wire's own form, or what `schema_of` accepts.
        schema_of: Returns the JSON schema in any other form of a response format.

    Raises:
        LMStudioValueError: If it is a string, or its schema refers to a part that it does not have.
    """
    structured = None if response_format is None else _wire_form(response_format, schema_of)
    if structured is None:
        return {}
    schema = structured.get("jsonSchema")
    schema = schema if is_object(schema) else {}
    kind = schema.get("type")
    if isinstance(kind, str) and kind not in _JSON_TYPES:
        raise LMStudioValueError(
            f"no JSON schema has the type {kind!r}; an agent takes a class or a JSON schema, for any object "
            "{'type': 'object'}"
        )
    check_limits(schema)
    check_references(schema, "the schema of the response")
    return {"structured": structured}


def check_limits(schema: object) -> None:
    """Reject a dict such as `{"name": "str"}`: as a JSON schema, it allows any JSON.

    Raises:
        LMStudioValueError: If it has members of other kinds than JSON schemas have, and none that limits a value.
    """
    if not is_object(schema):  # `True` is a schema as well
        return
    others = [name for name in map(str, schema) if name not in _NOTES.split() and not name.startswith(("$", "x-"))]
    if not others or not schema.keys().isdisjoint(_LIMITS.split()):
        return
    inner = next((name for name in ("parameters", "schema", "input_schema", "inputSchema") if name in schema), None)
    as_object = f"write {{'type': 'object', 'properties': {{{others[0]!r}: …}}}}, or pass"
    raise LMStudioValueError(
        f"{shown(schema)} is not a JSON schema: none of its members limits what the model writes; "
        f"{as_object if inner is None else f'pass its {inner} alone, or'} a pydantic class"
    )


def is_requested(config: LlmPredictionConfig) -> bool:
    """Return whether the response is to be structured."""
    return config.structured is not None and config.structured["type"] != "none"


def requests_reasoning(config: LlmPredictionConfig) -> bool:
    """Return whether the model is asked to reason, by the setting or by a custom field of its own."""
    raw = (config.raw or {}).items()
    custom = {key.rpartition(".")[2]: value for key, value in raw if key.startswith(CUSTOM_FIELDS)}
    is_on = config.enable_thinking is True or custom.get("enableThinking") is True
    return is_on or custom.get("reasoningEffort") not in _NO_EFFORTS


def reject_text(given: object, name: str) -> None:
    """Reject a string in place of a schema.

    Raises:
        LMStudioValueError: If it is one.
    """
    if isinstance(given, str):
        raise LMStudioValueError(
            f"{name} must be a class or a dict, not a string; got {beginning(given)}; pass the class itself, "
            "json.loads(…) of a JSON schema, or {'type': 'object'} for any JSON object"
        )


def unnested(response_format: Mapping[str, Any]) -> Any:
    """Return the JSON schema of an OpenAI dict, also in the form of the Responses API; any other dict as it is."""
    is_schema = response_format.get("type") == "json_schema"
    nested = response_format.get("json_schema", response_format if is_schema else None)
    return nested.get("schema") or {} if is_mapping(nested) else response_format


def _wire_form(response_format: object, schema_of: Callable[[Any], dict[str, Any]]) -> dict[str, Any] | None:
    """Return the wire form of a response format; `None` for plain text."""
    kind = response_format.get("type") if is_mapping(response_format) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "json", "jsonSchema": {"type": "object"}}
    # A tuple, because a schema may have a list of types, which a set cannot look up.
    if is_mapping(response_format) and kind in ("json", "gbnf"):
        return dict(response_format)
    reject_text(response_format, "response_format")
    return {"type": "json", "jsonSchema": schema_of(response_format)}


def _schema_of(response_format: object) -> dict[str, Any]:
    if is_mapping(response_format):
        response_format = unnested(response_format)
    if is_mapping(response_format):
        return dict(response_format)
    if not isinstance(response_format, type):
        raise LMStudioValueError(
            f"response_format must be a class with a JSON schema, or a dict; got {response_format!r}"
        )
    if not isinstance(response_format, ModelSchema):
        raise LMStudioValueError(
            f"response_format class {response_format.__name__} has no model_json_schema(); use a pydantic class"
        )
    kind: Any = response_format
    try:
        schema: dict[str, Any] = class_schema(kind) if issubclass(kind, BaseModel) else kind.model_json_schema()
    except LMStudioValueError:
        raise
    except Exception as error:
        raise LMStudioValueError(
            f"response_format class {response_format.__name__} has no JSON schema; "
            f"use fields that JSON can represent: {str(error).partition(_ADVICE)[0]}"
        ) from error
    return schema


def _check(structured: Mapping[str, Any]) -> None:
    kind, schema = structured.get("type"), structured.get("jsonSchema")
    if kind not in _WIRE_TYPES:
        raise LMStudioValueError(f"structured needs a type of {', '.join(_WIRE_TYPES)}; got {kind!r}")
    if kind == "gbnf" and not isinstance(structured.get("gbnfGrammar"), str):
        raise LMStudioValueError("structured output by grammar needs gbnfGrammar, a string")
    if kind == "json" and schema is not None:
        try:
            _validator(json.dumps(schema))
        except Exception as problem:
            raise LMStudioValueError(
                f"structured output needs a JSON schema; got {shown(schema)}: {str(problem).partition(_ADVICE)[0]}"
            ) from problem
        check_limits(schema)
        check_references(schema, "the schema of the response")


@lru_cache(maxsize=64)
def _validator(schema: str) -> Any:
    """Return the validator of a JSON schema, checked. It is cached, because a check is slow."""
    return validator_of(json.loads(schema))


# The response ---------------------------------------------------------------------------------------------------------


def fits(config: LlmPredictionConfig, text: str) -> bool:
    """Return whether a text is JSON that the requested schema allows. For a grammar it is not known, so it is false."""
    structured = config.structured or {}
    if structured.get("type") != "json":
        return False
    try:
        return bool(_validator(json.dumps(structured.get("jsonSchema") or {})).is_valid(json.loads(text)))
    except Exception:  # noqa: BLE001 - the text is no JSON, or the schema cannot be applied
        return False


def json_object(text: str) -> dict[str, Any] | None:
    """Return the JSON object of a response; `None` for anything else, such as a list or text that a grammar shaped."""
    try:
        value = from_json(_cleaned(text))
    except (ValueError, TypeError):  # a `TypeError` is about half of a surrogate pair
        return None
    return value if is_object(value) else None


def read_response(parse: Callable[[str], T], text: str, stop_reason: str, reasoning: str = "") -> T:
    """Return the value of a response.

    Args:
        parse: Parses the text; raises `ValueError` with the reason, or `RecursionError`.
        text: The response.
        stop_reason: Why it ended.
        reasoning: What the model wrote before it.

    Raises:
        LMStudioStructuredOutputError: If the text does not match the format.
    """
    try:
        cleaned = _cleaned(text)
        cleaned.encode()  # parsers disagree about lone surrogates
        return parse(cleaned)
    except (ValueError, RecursionError) as error:
        problem = without_secrets(error)
    only_reasoning = reasoning.strip() and not text.strip()
    reason = shortened(_reason(problem))
    if only_reasoning:
        has_json = partial_json(reasoning) is not None
        why = "the JSON in the reasoning does not fit" if has_json else "the model only reasoned"
        reason = f"the text is empty, and {why}"
    remedy = f"; {REMEDIES[stop_reason]}" if stop_reason in REMEDIES else ""
    raise LMStudioStructuredOutputError(
        f"the response is not the structured output that was requested: {reason} (stop reason {stop_reason}){remedy}"
        f"{EXCERPT}{beginning(reasoning if only_reasoning else text)}",
        text=text,
    ) from problem


def read_as(model: type[T], text: str, stop_reason: str, reasoning: str = "") -> T:
    """Return a response as an instance of a type.

    Raises:
        LMStudioStructuredOutputError: If the text does not match the type.
        LMStudioValueError: If pydantic cannot validate the type.
    """
    try:
        adapter = TypeAdapter(model)
        adapter.rebuild(raise_errors=True)  # an unresolved forward reference fails here, not while it parses
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        reason = str(error).partition(_ADVICE)[0]
        raise LMStudioValueError(
            f"parsed_as needs a pydantic class, or another type that pydantic validates; got {model!r}: {reason}"
        ) from error
    return read_response(adapter.validate_json, text, stop_reason, reasoning)


def schema_problems(schema: Mapping[str, Any], value: object) -> str:
    """Return what is wrong with a value, with the path of each problem; empty if the schema allows it.

    It is also empty for a schema that `jsonschema` cannot apply, such as one with a pattern of another dialect.
    """
    try:
        return "; ".join(
            problem_of(each, "the value")
            for each in _validator(json.dumps(schema)).iter_errors(value)
            # `jsonschema` computes with doubles, in which 0.3 is no multiple of 0.1.
            if not (each.validator == "multipleOf" and isinstance(each.validator_value, float))
        )
    except Exception:  # noqa: BLE001 - whatever the schema leads to
        return ""


def partial_json(text: str) -> Any:
    """Return as much of a JSON value as there is; `None` if there is none."""
    text = _cleaned(text)
    try:
        try:
            return from_json(text, allow_partial="trailing-strings")
        except TypeError:  # half of a surrogate pair: the other half may follow
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            return from_json(text, allow_partial="trailing-strings")
    except ValueError:
        return None


@dataclass(slots=True)
class PartialJson:
    """JSON that is still being generated: the fragments of its text, which is parsed only when it has grown enough."""

    _fragments: list[str] = field(default_factory=list[str])
    _length: int = 0
    _parsed: int = 0

    def add(self, fragment: str) -> None:
        """Add a fragment."""
        self._fragments.append(fragment)
        self._length += len(fragment)

    def value(self) -> Any:
        """Return as much of the JSON value as there is; `None` if the text has not grown enough to be parsed again."""
        if self._length <= self._parsed or (self._length > _SMALL and self._length < self._parsed * _GROWTH):
            return None
        self._parsed = self._length
        return partial_json(str(self))

    def __str__(self) -> str:
        return "".join(self._fragments)


# Attempts -------------------------------------------------------------------------------------------------------------


def check_max_attempts(max_attempts: object) -> None:
    """Reject a number of attempts that is not an integer of at least 1.

    Raises:
        LMStudioValueError: If it is something else.
    """
    if not isinstance(max_attempts, int) or isinstance(max_attempts, bool) or max_attempts < 1:
        raise LMStudioValueError(f"max_attempts must be an integer of at least 1; got {max_attempts!r}")


def correction(error: LMStudioStructuredOutputError) -> str:
    """Return the user message that requests a corrected response; it follows the response that was rejected."""
    problem = re.sub(_LINK, "", str(error).partition(EXCERPT)[0])
    return f"Your response was rejected: {problem}\n\nRespond again with a corrected response."


def uncorrected(error: ErrorT, failure: object) -> ErrorT:
    """Return the error about a response that does not fit, and that could not be corrected either.

    Args:
        error: What is wrong with the response.
        failure: The error of the prediction that was to correct it.
    """
    return type(error)(f"{error}\nThe request for a correction failed: {failure}", text=error.text)


# Helpers --------------------------------------------------------------------------------------------------------------


def without_markers(text: str) -> str:
    """Return a response without the tags that LM Studio may leave in it, or with the usual one behind thoughts."""
    before, *_ = re.split(_MARKER, text, maxsplit=1)
    has_thoughts = bool(before.strip()) and not before.lstrip().startswith(_JSON_BEGINS)
    return re.sub(_MARKER, "", re.sub(_MARKER, USUAL_TAGS[0].end, text, count=1) if has_thoughts else text)


def json_bounds(text: str) -> tuple[int, int]:
    """Return where the JSON of a response begins and ends: behind thoughts, and in a code block before any JSON.

    Models write such blocks where no grammar keeps them from it. A block that is not closed ends with the text.
    """
    begin = _end_of_thoughts(text)
    block = None if text[begin:].lstrip().startswith(_JSON_BEGINS) else re.compile(_BLOCK).search(text, begin)
    return (begin, len(text)) if block is None else block.span("json")


def _end_of_thoughts(text: str) -> int:
    """Return where thoughts in a response end that the server has left in the text; 0 if there are none.

    A prompt that opens the thought leaves only its end.
    """
    first = text.lstrip()
    ends = [
        at + len(tags.end)
        for tags in USUAL_TAGS
        if (at := text.find(tags.end)) >= 0 and (first.startswith(tags.start) or not first.startswith(_JSON_BEGINS))
    ]
    return min(ends, default=0)


def _cleaned(text: str) -> str:
    text = without_markers(text)
    start, end = json_bounds(text)
    return text[start:end].strip()


def _reason(error: ValueError | RecursionError) -> str:
    if isinstance(error, UnicodeEncodeError):
        return f"it has half of a surrogate pair at character {error.start}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else reason_of(error)
