"""Prediction settings as llama.cpp takes them: sampling, stop strings, structured output.

Settings arrive complete, with LM Studio's defaults; llama.cpp's own differ and let small models ramble.
"""

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lmstudio_integrations._typeguards import is_list, is_object
from lmstudio_integrations.emulator.engines import _pattern
from lmstudio_integrations.emulator.engines._offload import require_length
from lmstudio_integrations.emulator.engines._refusals import unsupported
from lmstudio_integrations.emulator.engines.base import EngineError
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.tools import Tool

logger = logging.getLogger(__name__)

Json = dict[str, Any]

DEEPEST_SCHEMA = 120
"""JSON nesting (60 objects in each other) that surely becomes a grammar; far deeper, llama.cpp drops the schema."""

MOST_OBJECTS = 4_000
"""Objects in the schemas of one request. llama.cpp follows them one within the other, and its stack ends at 8,000."""

MOST_ALTERNATIVES = 1_000
"""Alternatives (values, branches and optional members) in the schemas of one request. With each, every token takes
longer: with a thousand a fifth of a second, with five thousand four."""

LONGEST_PATTERN = 1_000
LONGEST_GRAMMAR = 100_000
DEEPEST_GRAMMAR = 200
"""Characters of a pattern and of a grammar, and parentheses in each other; much more, and llama.cpp's stack ends."""

LONGEST_TEXT = 256
MOST_ITEMS = 16
"""Bounds for arguments of tools that have none: without them a small model never ends."""

_SAMPLING: tuple[tuple[str, str, Any], ...] = (
    ("temperature", "temperature", None),
    ("top_k_sampling", "top_k", None),
    ("top_p_sampling", "top_p", 1.0),
    ("min_p_sampling", "min_p", 0.0),
    ("repeat_penalty", "repeat_penalty", 1.0),
    ("presence_penalty", "presence_penalty", 0.0),
    ("frequency_penalty", "frequency_penalty", 0.0),
    ("xtc_probability", "xtc_probability", 0.0),
    ("xtc_threshold", "xtc_threshold", 0.1),
    ("seed", "seed", None),
    ("reasoning_budget", "thinking_budget_tokens", None),
)
"""Our name, llama.cpp's name, and its value for "off", which settings have that are not set; `None` leaves it out."""


def sampling(config: LlmPredictionConfig) -> Json:
    """Return the sampling settings.

    Raises:
        EngineError: If a draft model is asked for, or a bias that is none.
    """
    if config.draft_model:
        raise unsupported("speculativeDecoding", "speculative decoding with a draft model", "Leave draftModel out.")
    body: Json = {}
    for ours, theirs, off in _SAMPLING:
        value = getattr(config, ours)
        if value is None or value is False:  # 0 is equal to it, and something else
            value = off
        if value is not None:
            body[theirs] = value
    for key, value in (config.raw or {}).items():
        translate = _RAW.get(key)
        if translate is not None:
            body |= translate(value)
    return body


def stop_strings(config: LlmPredictionConfig) -> list[str]:
    """Return everything at which generation stops."""
    template = config.prompt_template or {}
    of_template: Sequence[str] = template.get("stopStrings") or ()
    return [*(config.stop_strings or ()), *(config.tool_call_stop_strings or ()), *of_template]


def log_probs(config: LlmPredictionConfig) -> int | None:
    """Return how many alternatives each token is to bring; `None` for no probabilities at all."""
    return None if config.log_probs is None or config.log_probs is False else config.log_probs


def template_arguments(config: LlmPredictionConfig) -> Json:
    """Return what the chat template is told."""
    return (
        {} if config.enable_thinking is None else {"chat_template_kwargs": {"enable_thinking": config.enable_thinking}}
    )


def manual_template(config: LlmPredictionConfig) -> Mapping[str, str] | None:
    """Return the template of prefixes and suffixes, if one is set.

    Raises:
        EngineError: If a Jinja template is set: llama.cpp takes one only when it loads a model.
    """
    template = config.prompt_template or {}
    if template.get("type") == "jinja":
        raise unsupported(
            "promptTemplate",
            "a Jinja template for a single prediction",
            "Set promptTemplate in the load config instead.",
        )
    manual = template.get("manualPromptTemplate")
    return manual if is_object(manual) else None


def shape(config: LlmPredictionConfig, forced: Sequence[Tool]) -> Json:
    """Return what bounds the output's form: a call to one of the tools, if one is forced, else what the settings say.

    Raises:
        EngineError: If both are asked for, or llama.cpp would ignore it.
    """
    structured = constraint(config)
    if forced and structured:
        raise EngineError("A required tool call cannot be combined with structured output")
    return forced_call(forced) if forced else structured


def constraint(config: LlmPredictionConfig) -> Json:
    """Return what bounds the output's form, as `json_schema` or `grammar`; both work for chat and for raw text.

    Raises:
        EngineError: If llama.cpp would generate without the constraint, and would not say so.
    """
    structured = config.structured or {}
    kind = structured.get("type", "none")
    if kind == "json":
        return {"json_schema": checked_schema(structured.get("jsonSchema", {}))}
    if kind == "gbnf":
        return {"grammar": checked_grammar(structured.get("gbnfGrammar"))}
    return {}


def checked_schema(schema: object) -> Json:
    """Return the schema in the form that llama.cpp follows.

    Raises:
        EngineError: If it is not an object, or nested too deeply, or has bounds that nothing fits.
    """
    if not is_object(schema):
        raise unsupported("structured", f"a JSON schema must be an object, not {schema!r}")
    _check_size(schema, "structured")
    for part in _objects(schema):
        _check_bounds(part)
    complete: Json = followed(schema)
    return complete


def check_tools(tools: Sequence[Tool]) -> None:
    """Reject tools that are together too large.

    Raises:
        EngineError: If they are.
    """
    _check_size({"anyOf": [{"parameters": tool.function.parameters or {}} for tool in tools]}, "tools")
    require_length(json.dumps([tool.to_dict() for tool in tools]))


def _check_size(schema: object, feature: str) -> None:
    """Reject a schema that is too large to become a grammar in reasonable time.

    Raises:
        EngineError: If it is.
    """
    for size, most, what in (
        (depth(schema), DEEPEST_SCHEMA, "nested more than {} levels deep"),
        (sum(1 for _ in _objects(schema)), MOST_OBJECTS, "with more than {} objects"),
        (sum(map(_alternatives, _objects(schema))), MOST_ALTERNATIVES, "with more than {} alternatives"),
    ):
        if size > most:
            raise unsupported(feature, f"JSON schemas {what.format(most)}")


def _alternatives(part: Json) -> int:
    """Return between how many ways to go on a schema lets the model choose, those of inner schemas left aside."""
    properties, required = part.get("properties"), part.get("required")
    optional = _count(properties) - _count(required) if is_object(properties) else 0
    return max(optional, 0) + sum(_count(part.get(keyword)) for keyword in ("enum", "anyOf", "oneOf"))


def _count(value: object) -> int:
    return len(value) if is_list(value) or is_object(value) else 0


def checked_grammar(grammar: object) -> str:
    """Return the grammar if llama.cpp follows it.

    Raises:
        EngineError: If it is empty, or of another kind than GBNF.
    """
    if not isinstance(grammar, str) or not grammar.strip():
        raise EngineError("Invalid structured output setting: gbnfGrammar must be a grammar, and not empty")
    if grammar.lstrip().startswith("%llguidance"):
        raise unsupported("structured", "a grammar in Lark form; write it in GBNF")
    if len(grammar) > LONGEST_GRAMMAR or _parentheses(grammar) > DEEPEST_GRAMMAR:
        raise unsupported(
            "structured", f"a grammar of more than {LONGEST_GRAMMAR} characters or {DEEPEST_GRAMMAR} nested parentheses"
        )
    return grammar


def _parentheses(grammar: str) -> int:
    """Return how deeply parentheses are nested, those in texts and sets of characters left aside."""
    level = deepest = 0
    for sign in _GRAMMAR_TOKEN.findall(grammar):
        level += {"(": 1, ")": -1}.get(sign, 0)
        deepest = max(deepest, level)
    return deepest


_GRAMMAR_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"?|\[(?:\\.|[^\]\\])*\]?|\#[^\n]*|[()]', re.DOTALL)


def depth(value: object) -> int:
    """Return how deeply a JSON value is nested; counts without recursion, because input may be hostile."""
    level, deepest = [value], 0
    while level:
        deepest += 1
        level = [inner for outer in level for inner in _inside(outer)]
    return deepest - 1


def forced_call(tools: Sequence[Tool]) -> Json:
    """Return the settings that make the answer a call to one of the tools.

    Without penalties: arguments are words of the question, and a penalty on repeating would spoil just these.
    """
    penalties = {"repeat_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    return {"json_schema": call_schema(tools), **penalties}


def call_schema(tools: Sequence[Tool]) -> Json:
    """Return the schema of a call to one of the tools: `{"name": …, "arguments": …}`.

    The parameters of each stand under `$defs`, and their own references are moved there with them.
    """
    parameters = followed([tool.function.parameters or {"type": "object", "properties": {}} for tool in tools])
    definitions = {f"tool{number}": bounded(part, f"#/$defs/tool{number}") for number, part in enumerate(parameters)}
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.function.name}, "arguments": {"$ref": f"#/$defs/tool{number}"}},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for number, tool in enumerate(tools)
    ]
    return {"anyOf": calls, "$defs": definitions} if len(calls) > 1 else {**calls[0], "$defs": definitions}


def bounded(schema: Any, root: str) -> Any:
    """Return a schema whose texts and lists end, whose objects are closed, and whose references start at `root`."""
    return _rewritten(schema, lambda part: _bounded_part(part, root))


def _bounded_part(part: Json, root: str) -> Json:
    reference = part.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        part["$ref"] = root + reference[1:]
    for key, value in _BOUNDS.get(str(part.get("type")), {}).items():
        if not _SETTLED.intersection(part):
            part.setdefault(key, value)
    return part


def followed(schema: Any) -> Any:
    """Return a schema, or a list of them, with patterns that llama.cpp follows; what it does not follow is logged."""
    lost: list[str] = []
    result = _rewritten(schema, lambda part: _followed_part(part, lost))
    if lost:
        logger.warning("llama.cpp does not hold itself to these parts of a schema: %s", ", ".join(lost))
    return result


def _followed_part(part: Json, lost: list[str]) -> Json:
    pattern = part.get("pattern")
    if isinstance(pattern, str):
        if len(pattern) > LONGEST_PATTERN:
            raise unsupported("structured", f"a pattern of more than {LONGEST_PATTERN} characters")
        part["pattern"] = _pattern.followed(pattern)
        if part["pattern"] is None:
            del part["pattern"]
            lost.append(f"the pattern {pattern!r}")
    lost += sorted(key for key in _ignored(part) & part.keys() if part[key] is not False)
    return part


def _ignored(part: Json) -> set[str]:
    """Return the keywords that have no effect in a schema."""
    kinds = part.get("type")
    of_numbers = "number" in (kinds if is_list(kinds) else [kinds])
    return _IGNORED.union(_RANGES if of_numbers else (), _LENGTHS if "pattern" in part else ())


def _rewritten(schema: Any, change: Callable[[Json], Json]) -> Any:
    """Return a schema in which a copy of every schema was changed, the inner ones first; plain values stay."""
    if is_list(schema):
        return [_rewritten(item, change) for item in schema]
    if not is_object(schema):
        return schema
    return change({key: _rewritten_part(key, value, change) for key, value in schema.items()})


def _rewritten_part(key: str, value: Any, change: Callable[[Json], Json]) -> Any:
    """Return what stands under a keyword: named schemas, a schema, or a plain value."""
    if key in _NAMED and is_object(value):
        return {name: _rewritten(schema, change) for name, schema in value.items()}
    return value if key in _LITERALS else _rewritten(value, change)


_NAMED = {"properties", "patternProperties", "$defs", "definitions"}
_LITERALS = {"const", "enum", "default", "examples"}
_SETTLED = {"const", "enum", "pattern", "format"}
_IGNORED = {
    *("multipleOf", "not", "if", "contains", "uniqueItems", "minProperties", "maxProperties"),
    *("patternProperties", "propertyNames", "dependentRequired"),
}
_RANGES = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
_LENGTHS = {"minLength", "maxLength"}
_BOUNDS: dict[str, Json] = {
    "string": {"maxLength": LONGEST_TEXT},
    "array": {"maxItems": MOST_ITEMS},
    "object": {"additionalProperties": False},
}


def _objects(schema: object) -> Iterator[Json]:
    """Yield every object of a schema."""
    waiting: list[Any] = [schema]
    while waiting:
        value = waiting.pop()
        if is_object(value):
            yield value
        waiting.extend(_inside(value))


def _check_bounds(part: Json) -> None:
    """Refuse bounds that nothing fits: llama.cpp would write white space for ever."""
    for least, most in (("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems")):
        low, high = part.get(least), part.get(most)
        if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
            raise EngineError(f"Invalid structured output setting: {least} {low} is more than {most} {high}")


def _inside(value: object) -> Sequence[Any]:
    if is_object(value):
        return list(value.values())
    return value if is_list(value) else ()


def _checked(value: Any) -> Any:
    """Return the value of a checkbox that is on."""
    return value.get("value") if is_object(value) and value.get("checked") and value.get("value") is not False else None


def _mirostat(value: Any) -> Json:
    if not is_object(value) or not value.get("version"):
        return {}
    return {
        "mirostat": value["version"],
        "mirostat_eta": value.get("learningRate", 0.1),
        "mirostat_tau": value.get("targetEntropy", 5),
    }


def _logit_bias(value: Any) -> Json:
    pairs = value if is_list(value) else []
    if not all(is_list(pair) and len(pair) == 2 for pair in pairs):
        raise EngineError(f"Invalid logit bias: a list of pairs of token and bias is wanted, not {value!r}")
    return {"logit_bias": [[token, False if bias == "-inf" else bias] for token, bias in pairs]}


def _typical(value: Any) -> Json:
    part = _checked(value)
    return {} if part is None else {"typical_p": part}


_RAW: dict[str, Callable[[Any], Json]] = {
    "llm.prediction.llama.mirostatSampling": _mirostat,
    "llm.prediction.llama.logitBias": _logit_bias,
    "llm.prediction.llama.locallyTypicalSampling": _typical,
}
"""Settings that have no field of their own."""
