"""Finds the recorded request that a new one equals, knows which are used up, and tells how a request differs from them.

Two requests are compared as JSON. What is new in each run is left aside: UUIDs, times of day, paths of temporary files,
and the identifiers of tool calls, which are numbered; and the order of settings.
"""

import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from lmstudio_integrations._support.text import counted
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.emulator.testing.cassette import ABSENT, Interaction, Request
from lmstudio_integrations.emulator.testing.redaction import Redaction

logger: logging.Logger = logging.getLogger(__name__)

USED_ONCE = {"predict", "completeRawText", "generateWithGenerator"}
"""Requests whose recorded response is used once: the same prompt may get another response each time. For any other, the
last response counts for all further requests."""

_NEUTRAL = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?(?!\d)"), "<time>"),
    (re.compile(r"(?:/private)?(?:/tmp|/var/folders|/var/tmp)/[^\s\"'<>|:*?,;)\]}]+"), "<path>"),
    (re.compile(r"(?:~|[A-Za-z]:)?[\\/]\S{0,120}?[\\/]Temp[\\/][^\s\"'<>|:*?,;)\]}]+", re.IGNORECASE), "<path>"),
)
"""What differs from run to run in texts, and what stands for it."""

MAX_LISTED = 8
"""Differences that are shown; of more, only their number."""

_AROUND = 24
"""Characters that are shown before and after the place where two texts differ."""

_LONGEST = 200
"""Characters of a text that is shown whole."""

_MISSING: Any = object()


class Matcher:
    """Finds recorded requests. Belongs to the event loop of its server.

    Args:
        interactions: The recording.
        redaction: Removes secrets from new requests, as it did from the recorded ones.
    """

    def __init__(self, interactions: Iterable[Interaction], redaction: Redaction) -> None:
        self.unmatched: list[str] = []
        """Why requests were not found, one text for each."""
        self._redaction = redaction
        self._used: set[Interaction] = set()
        self._recorded: defaultdict[str, list[Interaction]] = defaultdict(list)
        for each in interactions:
            for form in self._forms(each.request):
                self._recorded[form].append(each)

    def find(self, request: Request) -> Interaction | None:
        """Return the recorded request that this one equals: in the first place exactly, in the second once normalized.

        Equal requests are found in their order. `None` if nothing is found, or nothing that is not used up.
        """
        for form in self._forms(request):
            matches = self._recorded.get(form, [])
            unused = next((each for each in matches if each not in self._used), None)
            if unused is not None:
                self._used.add(unused)
                return unused
            if matches and request.endpoint not in USED_ONCE:
                return matches[-1]
        return None

    def explain(self, request: Request) -> WireError:
        """Return the error for a request that is not in the recording, with the difference to the nearest one."""
        *_, form = self._forms(request)
        if form in self._recorded:
            used = counted(len(self._recorded[form]), "time")
            cause = f"It was recorded {used}, and each recorded response is used once."
        else:
            cause = self._nearest(request)
        self.unmatched.append(f"{request}: {cause}")
        logger.warning("not in the cassette: %s", self.unmatched[-1])
        return WireError(
            f"The cassette has no such request ({request})",
            cause=cause,
            suggestion="Record the cassette again if the program has changed on purpose.",
        )

    def _nearest(self, request: Request) -> str:
        recorded = {each for group in self._recorded.values() for each in group}
        others = [each for each in recorded if str(each.request) == str(request)]
        if not others:
            names = ", ".join(sorted({str(each.request) for each in recorded}))
            return f"It has requests of {names or 'no endpoint'} only."
        sent = _normalize(self._plain(request), {})
        lines = {each: list(_compare(_normalize(self._plain(each.request), {}), sent)) for each in others}
        nearest = min(others, key=lambda each: (len(lines[each]), each.number))
        listed = lines[nearest][:MAX_LISTED]
        if len(lines[nearest]) > MAX_LISTED:
            listed.append(f"and {counted(len(lines[nearest]) - MAX_LISTED, 'further difference')}")
        return "\n  ".join([f"The nearest is request {nearest.number}:", *listed])

    def _forms(self, request: Request) -> tuple[str, str]:
        """Return a request as text, as it is and normalized."""
        plain = self._plain(request)
        forms = (json.dumps(each, sort_keys=True) for each in (plain, _normalize(plain, {})))
        exact, normalized = (f"{request} {form}" for form in forms)
        return exact, normalized

    def _plain(self, request: Request) -> Any:
        """Return a parameter without secrets; void and null are the same."""
        return self._redaction.value(None if request.parameter is ABSENT else request.parameter)


def _normalize(value: Any, numbers: dict[Any, str], *, is_identifier: bool = False) -> Any:
    """Return JSON without what is new in each run."""
    if is_list(value) and value and all(is_object(each) and each.keys() == {"key", "value"} for each in value):
        value = {str(each["key"]): each["value"] for each in value}  # settings
    if is_list(value):
        return [_normalize(each, numbers) for each in value]
    if is_object(value):
        identifiers = {"toolCallId", "id"} if "arguments" in value else {"toolCallId"}
        return {
            name: _normalize(each, numbers, is_identifier=name in identifiers and each is not None)
            for name, each in value.items()
        }
    if is_identifier:
        return numbers.setdefault(value, f"call {len(numbers) + 1}")
    if isinstance(value, str):
        for pattern, by in _NEUTRAL:
            value = pattern.sub(by, value)
    return value


def _compare(recorded: Any, sent: Any, place: str = "parameter") -> Iterator[str]:
    """Return a line for each place where two requests differ, for people."""
    if recorded == sent:
        return
    if is_object(recorded) and is_object(sent):
        for name in [*recorded, *(name for name in sent if name not in recorded)]:
            below = name if place == "parameter" else f"{place}.{name}"
            yield from _compare(recorded.get(name, _MISSING), sent.get(name, _MISSING), below)
    elif is_list(recorded) and is_list(sent):
        for index in range(max(len(recorded), len(sent))):
            one, other = (each[index] if index < len(each) else _MISSING for each in (recorded, sent))
            roles = [f" ({each['role']})" for each in (one, other) if is_object(each) and "role" in each]
            yield from _compare(one, other, f"{place}[{index}]{(roles or [''])[0]}")
    elif isinstance(recorded, str) and isinstance(sent, str):
        shorter = min(len(recorded), len(sent))
        at = next((index for index in range(shorter) if recorded[index] != sent[index]), shorter)
        where = f", from character {at}" if at else ""
        yield f"{place}{where}: recorded {_excerpt(recorded, at)}, sent {_excerpt(sent, at)}"
    else:
        yield f"{place}: recorded {_format(recorded)}, sent {_format(sent)}"


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
