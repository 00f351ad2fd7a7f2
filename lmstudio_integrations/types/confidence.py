"""How sure a model was of each field of a JSON text, from the log-probabilities of its tokens. Pure.

The results and the tool calls that the client itself reads use it; see `docs/guides/confidence.md`.
"""

import json
import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, TypeAlias

from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.types._json_schemas import target_of
from lmstudio_integrations.types._log_probs import probability_of
from lmstudio_integrations.types.structured import json_bounds, without_markers

Token: TypeAlias = Mapping[str, Any]
Path: TypeAlias = tuple[str | int, ...]
Span: TypeAlias = tuple[int, int]

ALTERNATIVES = 20
"""How many alternatives of each token are requested."""

_SPACE = " \t\r\n"
_AFTER_VALUE = frozenset(",}]" + _SPACE)
_NUMBER = r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?"
_STRING_OR_BEGIN = r'(?s)"(?:[^"\\]|\\.)*+"|\{'
_MOST_FAILURES = 100
"""Each of them takes time in proportion to the text before it: the error says in which line it is."""

_MOST_ENDS = 100
"""Places where a token may end, in a long row of characters of which each takes several tokens."""

_PARTS = "\ufffd+|[^\ufffd]+"
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class FieldConfidence:
    """How sure the model was of one field.

    Attributes:
        probability: The product of the probabilities of the tokens of the value.
        alternative: The most probable other value of an enum, a boolean or a number. A number may go on: the model did
            not write its other digits.
        alternative_probability: The probability of the tokens up to the one in which the alternative differs; `None`
            if no alternative is known.
    """

    probability: float
    alternative: Any = None
    alternative_probability: float | None = None


def confidence_of(text: str, tokens: Sequence[Token], schema: object = None) -> dict[str, FieldConfidence] | None:
    """Return the confidence of each field of a JSON text, by its path, such as `items[0].price`.

    A field is a value that is no object or array, or an empty one. A token counts in full in each value that it has a
    character of; the quotation marks are part of a string. A field is left out if a token of it has no log-probability.

    Args:
        text: The text.
        tokens: Its tokens, in wire form.
        schema: Its JSON schema, which names the members of enums.

    Returns:
        The confidence; `None` if the text is not JSON, or the tokens are not those of the text.
    """
    if not tokens:
        return None
    text = without_markers(text)
    start, end = json_bounds(text)
    start = _skip_space(text, start)
    try:
        if _skip_space(text, _DECODER.raw_decode(text, start)[1]) >= end:
            return _confidence(text, start, tokens, schema)
    except (ValueError, RecursionError):
        pass
    return None


def confidence_of_arguments(
    text: str, tokens: Sequence[Token], arguments: Mapping[str, Any], schema: object
) -> dict[str, FieldConfidence] | None:
    """Return the confidence of the arguments of a tool call; see `confidence_of`.

    Returns:
        The confidence; `None` also if the arguments are not in the text as JSON, or more than once.
    """
    if not tokens:
        return None
    starts = _places_of(arguments, text)
    try:
        return _confidence(text, starts[0], tokens, schema) if len(starts) == 1 else None
    except (ValueError, RecursionError):
        return None


def _places_of(arguments: Mapping[str, Any], text: str) -> list[int]:
    """Return where a text has these arguments as JSON; nothing if it has too many braces that begin no JSON."""
    places, failures, at = list[int](), 0, text.find("{")
    while at != -1:
        try:
            end = _DECODER.raw_decode(text, at)[1]
        except (ValueError, RecursionError):
            failures, end = failures + 1, at + 1
            if failures > _MOST_FAILURES:
                return []
        else:
            begins = (
                token.start() for token in re.compile(_STRING_OR_BEGIN).finditer(text, at, end) if token[0] == "{"
            )
            places += [begin for begin in begins if _DECODER.raw_decode(text, begin)[0] == arguments]
        at = text.find("{", end)
    return places


def _confidence(text: str, start: int, tokens: Sequence[Token], schema: object) -> dict[str, FieldConfidence] | None:
    spans = _spans(text, [str(token.get("text") or "") for token in tokens])
    if spans is None:
        return None
    starts, ends = [start for start, _ in spans], [end for _, end in spans]
    confidence: dict[str, FieldConfidence] = {}
    for leaf in _leaves(text, start, ())[0]:
        # A token without characters, a part of one that others write, belongs to the value around it.
        own = slice(bisect_right(ends, leaf.start), bisect_left(starts, leaf.end))
        written = [*map(probability_of, tokens[own])]
        if None not in written:
            probability = math.prod(each for each in written if each is not None)
            alternatives = _alternatives(text, leaf, starts[own], tokens[own], _members(schema, leaf.path))
            best = max(alternatives, key=lambda each: each[1], default=(None, None))
            confidence[_path_of(leaf.path)] = FieldConfidence(probability, *best)
    return confidence


# Values ---------------------------------------------------------------------------------------------------------------


class _Leaf(NamedTuple):
    """A value that has no values of its own, and where it stands."""

    path: Path
    start: int
    end: int
    value: Any


def _leaves(text: str, at: int, path: Path) -> tuple[list[_Leaf], int]:
    """Return the leaves of the value that begins here, and where it ends. The text is known to be JSON."""
    closing = {"{": "}", "[": "]"}.get(text[at])
    inner = _skip_space(text, at + 1)
    if closing is None or text[inner] == closing:
        value, end = _DECODER.raw_decode(text, at)
        return [_Leaf(path, at, end, value)], end
    members: dict[str | int, list[_Leaf]] = {}
    at = inner
    while True:
        key: str | int = len(members)
        if closing == "}":
            key, at = _DECODER.raw_decode(text, at)
            at = _skip_space(text, _skip_space(text, at) + 1)
        members[key], at = _leaves(text, at, (*path, key))  # the last of equal keys counts, as in every parser
        at = _skip_space(text, at)
        if text[at] == closing:
            return [leaf for leaves in members.values() for leaf in leaves], at + 1
        at = _skip_space(text, at + 1)


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _path_of(path: Path) -> str:
    written = ""
    for step in path:
        if isinstance(step, int):
            written += f"[{step}]"
        elif step.isidentifier():
            written += f".{step}" if written else step
        else:
            written += f"[{_json(step)}]"
    return written


# Tokens ---------------------------------------------------------------------------------------------------------------


def _spans(text: str, tokens: Sequence[str]) -> list[Span] | None:
    """Return where each token stands in a text; `None` if they are not its tokens.

    A server may strip the text, or have tokens after its end. A character that takes several tokens is replaced or
    missing in them.
    """
    joined = "".join(tokens)
    if joined == text:
        return list(pairwise(accumulate(map(len, tokens), initial=0)))
    stripped = _skip_space(joined, 0) - _skip_space(text, 0)
    padded = joined[:stripped] + text if stripped > 0 else text
    before: list[dict[int, int]] = [{0: 0}]
    """For each number of tokens, where they may end, and where the last of them then begins."""
    for token in tokens:
        before.append({end: start for start in before[-1] for end in _ends(padded, start, token)})
        if len(before[-1]) > _MOST_ENDS:
            return None
    end = len(padded)
    if end not in before[-1]:
        return None
    spans: list[Span] = []
    for starts in reversed(before[1:]):
        spans.append((starts[end], end))
        end = starts[end]
    shift = max(stripped, 0)
    return [(start - shift, end - shift) for start, end in reversed(spans)]


def _ends(text: str, start: int, token: str) -> set[int]:
    """Return where a token may end that begins here."""
    if len(text) - start < len(token) and token.startswith(text[start:]):
        return {len(text)}  # what follows is not part of the text
    if not token:
        return {start, *_characters(text, start, 1)}
    ends = {start}
    for part in re.findall(_PARTS, token):
        if part[0] == "\ufffd":
            ends |= {end for at in ends for end in _characters(text, at, len(part))}
        else:
            ends = {at + len(part) for at in ends if text.startswith(part, at)}
    return ends


def _characters(text: str, at: int, most: int) -> Iterator[int]:
    """Yield the ends of up to so many characters that may take several tokens."""
    for end in range(at + 1, min(at + most, len(text)) + 1):
        if text[end - 1].isascii():
            return
        yield end


# Alternatives ---------------------------------------------------------------------------------------------------------


def _alternatives(
    text: str, leaf: _Leaf, starts: Sequence[int], tokens: Sequence[Token], members: Mapping[str, Any] | None
) -> Iterator[tuple[Any, float]]:
    """Yield the other values that candidates of the tokens of a value begin, and their probabilities."""
    is_number = isinstance(leaf.value, int | float) and not isinstance(leaf.value, bool)
    if members is None and isinstance(leaf.value, bool):
        members = {"true": True, "false": False}
    if members is None and not is_number:
        return
    if members is not None:
        members = {key: each for key, each in members.items() if key != _json(leaf.value)}
    written, before = text[leaf.start : leaf.end], 1.0
    for start, token in zip(starts, tokens, strict=True):
        known = written[: max(start - leaf.start, 0)]
        for candidate in token.get("candidates") or ():
            part, probability = str(candidate.get("text") or ""), before * (probability_of(candidate) or 0.0)
            if start <= leaf.start:
                part = _without_lead(part, text[start : leaf.start])
            if part and probability:
                begun = known + part
                others = _begun_numbers(begun, written) if members is None else _begun_members(begun, written, members)
                yield from ((other, probability) for other in others)
        before *= probability_of(token) or 0.0


def _without_lead(candidate: str, lead: str) -> str:
    """Return what a candidate has of a value, without the characters before the value; empty if it has other ones."""
    lead = lead.rstrip(_SPACE)
    return candidate[len(lead) :].lstrip(_SPACE) if candidate.startswith(lead) else ""


def _begun_members(begun: str, written: str, members: Mapping[str, Any]) -> list[Any]:
    """Return the first member that a text begins, if it does not begin the one that was written."""
    if _begins(begun, written):
        return []
    return [member for value, member in members.items() if _begins(begun, value)][:1]


def _begins(begun: str, value: str) -> bool:
    """Whether a text is the beginning of a value, or begins with it."""
    return value.startswith(begun) or (begun.startswith(value) and begun[len(value)] in _AFTER_VALUE)


def _begun_numbers(begun: str, written: str) -> list[Any]:
    """Return the number that a text begins with, if that is not the one that was written."""
    match = re.match(_NUMBER, begun)
    if match is None or written.startswith(begun) or (begun[match.end() :] and begun[match.end()] not in _AFTER_VALUE):
        return []
    number = json.loads(match.group())
    return [] if number == json.loads(written) else [number]


def _members(schema: object, path: Path) -> dict[str, Any] | None:
    """Return the values that a schema allows at a path, by their JSON; `None` if it does not list them."""
    places = [*_variants(schema, schema, frozenset())]
    for step in path:
        inner = [_inner(place, step) for place in places]
        places = [variant for each in inner for variant in _variants(each, schema, frozenset())]
    listed = [_listed(place) for place in places]
    members = {_json(each): each for values in listed for each in values or ()}
    return None if None in listed or not members else members


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _variants(schema: object, root: object, within: frozenset[str]) -> Iterator[Mapping[str, Any]]:
    """Yield what a schema refers to, or is composed of."""
    if not is_object(schema):
        return
    reference = schema.get("$ref")
    if isinstance(reference, str):
        if reference.startswith("#") and reference not in within:
            yield from _variants(target_of(reference, root), root, within | {reference})
        return
    composed = [variants for name in ("anyOf", "oneOf", "allOf") if is_list(variants := schema.get(name))]
    for variants in composed:
        for variant in variants:
            yield from _variants(variant, root, within)
    if not composed or "properties" in schema:
        yield schema


def _inner(schema: Mapping[str, Any], step: str | int) -> object:
    """Return the schema of a member or an item."""
    if isinstance(step, str):
        properties = schema.get("properties")
        subschema = properties.get(step) if is_object(properties) else None
        return schema.get("additionalProperties") if subschema is None else subschema
    first = schema.get("prefixItems")
    return first[step] if is_list(first) and step < len(first) else schema.get("items")


def _listed(schema: Mapping[str, Any]) -> list[Any] | None:
    """Return the values that a schema lists; `None` if it allows others."""
    if "const" in schema:
        return [schema["const"]]
    if is_list(schema.get("enum")):
        return [*schema["enum"]]
    kinds = schema.get("type")
    values: list[Any] = []
    for kind in kinds if is_list(kinds) else [kinds]:
        if kind not in ("boolean", "null"):
            return None
        values += [True, False] if kind == "boolean" else [None]
    return values
