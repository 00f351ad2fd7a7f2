"""How two requests differ, for people: which message, which setting, which characters."""

import json
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any

from lmstudio_integrations._support.text import counted
from lmstudio_integrations._support.typeguards import is_list, is_object

MAX_LISTED = 8
"""Differences that are shown; of more, only their number."""

_AROUND = 24
"""Characters that are shown before and after the place where two texts differ."""

_LONGEST = 200
"""Characters of a text that is shown whole."""

_SHORT = 2_000
"""Characters of requests that are compared in every detail to find the nearest one."""

_MISSING: Any = object()


def differences(recorded: Any, sent: Any, *, names: Sequence[str] = ("recorded", "sent")) -> list[str]:
    """Return a line for each place where two requests differ, empty if they are equal."""
    lines = list(_compare(recorded, sent, "", names))
    if len(lines) > MAX_LISTED:
        rest = counted(len(lines) - MAX_LISTED, "further difference")
        lines = [*lines[:MAX_LISTED], f"and {rest}"]
    return lines


def similarity(recorded: Any, sent: Any) -> float:
    """Return how similar two requests are, from 0 to 1."""
    if recorded == sent:
        return 1.0
    one, other = _text(recorded), _text(sent)
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    # The exact ratio takes time in the square of the length.
    return matcher.ratio() if max(len(one), len(other)) <= _SHORT else matcher.quick_ratio()


def _compare(recorded: Any, sent: Any, place: str, names: Sequence[str]) -> Iterator[str]:
    if recorded == sent:
        return
    if is_object(recorded) and is_object(sent):
        for name in [*recorded, *(name for name in sent if name not in recorded)]:
            below = f"{place}.{name}" if place else name
            yield from _compare(recorded.get(name, _MISSING), sent.get(name, _MISSING), below, names)
    elif is_list(recorded) and is_list(sent):
        for index in range(max(len(recorded), len(sent))):
            one, other = (each[index] if index < len(each) else _MISSING for each in (recorded, sent))
            yield from _compare(one, other, f"{place}[{index}]{_role(one, other)}", names)
    elif isinstance(recorded, str) and isinstance(sent, str):
        at = next((i for i, pair in enumerate(zip(recorded, sent, strict=False)) if pair[0] != pair[1]), None)
        at = min(len(recorded), len(sent)) if at is None else at
        where = f", from character {at}" if at else ""
        yield f"{place}{where}: {names[0]} {_excerpt(recorded, at)}, {names[1]} {_excerpt(sent, at)}"
    else:
        yield f"{place}: {names[0]} {_format(recorded)}, {names[1]} {_format(sent)}"


def _role(*messages: Any) -> str:
    roles = [each.get("role") for each in messages if is_object(each)]
    return f" ({roles[0]})" if roles and roles[0] else ""


def _excerpt(text: str, at: int) -> str:
    start, end = max(at - _AROUND, 0), at + _AROUND
    return f"{'…' if start else ''}{_quote(text[start:end])}{'…' if end < len(text) else ''}"


def _format(value: Any) -> str:
    if value is _MISSING:
        return "nothing"
    text = _quote(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _quote(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
