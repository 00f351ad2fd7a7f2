"""Which recorded request a new one equals, and how it is told where they differ."""

import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import Any, TypeAlias

from lmstudio_integrations._support.text import counted, printable
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.cassettes.cassette import ABSENT, BeforeRecord, Interaction, reviewed
from lmstudio_integrations.cassettes.redaction import redact
from lmstudio_integrations.emulator.errors import WireError

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
"""Characters that are shown before and after the place where two values differ."""

Leaves: TypeAlias = dict[tuple[str, ...], str]
"""A normalized request: what is at the end of each path into it, as JSON."""


class Matcher:
    """Finds recorded requests. Belongs to the event loop of its server.

    Args:
        interactions: The recording.
        before_record: What changed its requests before they were written; it changes what is compared with them.
    """

    def __init__(self, interactions: Iterable[Interaction], before_record: BeforeRecord | None = None) -> None:
        self._before_record = before_record
        self.unmatched: list[str] = []
        """Why requests were not found, one text for each."""
        self._used: set[int] = set()
        self._recorded = defaultdict[str, list[tuple[Interaction, Leaves]]](list)
        for each in interactions:
            self._recorded[each.name].append((each, _normalize(each.parameter)))

    def find(self, name: str, parameter: Any) -> Interaction:
        """Return the recorded request that this one equals, once both are normalized.

        Equal requests are found in their order.

        Args:
            name: The namespace and the endpoint.
            parameter: What is asked.

        Raises:
            WireError: If nothing is found, or nothing that is not used up; it has the difference to the nearest one. Or
                if the user's function fails.
        """
        if self._before_record is not None:
            try:
                found = reviewed(self._before_record, name, redact(parameter))
            except Exception as error:
                raise self._failed(name, error) from error
            if found is None:
                raise self._missing(name, "before_record leaves such requests out.")
            parameter, _ = found
        sent = _normalize(parameter)
        matches = [each for each, leaves in self._recorded[name] if leaves == sent]
        unused = [each for each in matches if each.number not in self._used]
        if unused:
            self._used.add(unused[0].number)
            return unused[0]
        if matches and name.partition(".")[2] not in USED_ONCE:
            return matches[-1]
        cause = self._nearest(name, sent)
        if matches:
            cause = f"It was recorded {counted(len(matches), 'time')}, and each recorded response is used once."
        raise self._missing(name, cause)

    def _failed(self, name: str, error: Exception) -> WireError:
        cause = f"{type(error).__name__}: {error}"
        self.unmatched.append(f"{name}: before_record failed: {cause}")
        logger.warning("%s", self.unmatched[-1])
        return WireError(
            f"before_record failed ({name})",
            cause=cause,
            suggestion="Mend the function: it must take each request also without events, as it is replayed.",
        )

    def _missing(self, name: str, cause: str) -> WireError:
        cause = printable(cause)  # pytest prints it as it is
        self.unmatched.append(f"{name}: {cause}")
        logger.warning("not in the cassette: %s", self.unmatched[-1])
        return WireError(
            f"The cassette has no such request ({name})",
            cause=cause,
            suggestion="Record the cassette again if the program has changed on purpose.",
        )

    def _nearest(self, name: str, sent: Leaves) -> str:
        if not self._recorded[name]:
            names = ", ".join(sorted(each for each in self._recorded if self._recorded[each]))
            return f"It has requests of {names or 'no endpoint'} only."
        compared = [(each, list(_compare(leaves, sent))) for each, leaves in self._recorded[name]]
        nearest, lines = min(compared, key=lambda pair: len(pair[1]))
        if len(lines) > MAX_LISTED:
            lines[MAX_LISTED:] = [f"and {counted(len(lines) - MAX_LISTED, 'further difference')}"]
        return "\n  ".join([f"The nearest is request {nearest.number}:", *lines])


def _normalize(parameter: Any) -> Leaves:
    """Return a parameter without secrets, and without what is new in each run; void and null are the same."""
    return dict(_leaves(redact(None if parameter is ABSENT else parameter), ("parameter",), {}))


def _leaves(value: Any, path: tuple[str, ...], calls: dict[str, str]) -> Iterator[tuple[tuple[str, ...], str]]:
    if is_list(value) and value and all(is_object(each) and each.keys() == {"key", "value"} for each in value):
        value = {str(each["key"]): each["value"] for each in value}  # settings, whose order means nothing
    if is_object(value) and value:
        for name in sorted(value):
            if name == "toolCallId" or (name == "id" and "arguments" in value):
                call = json.dumps(value[name])
                yield (*path, name), calls.setdefault(call, f"call {len(calls) + 1}")
            else:
                yield from _leaves(value[name], (*path, name), calls)
    elif is_list(value) and value:
        for index, each in enumerate(value):
            yield from _leaves(each, (*path[:-1], f"{path[-1]}[{index}]"), calls)
    else:
        if isinstance(value, str):
            for pattern, by in _NEUTRAL:
                value = pattern.sub(by, value)
        yield path, json.dumps(value, ensure_ascii=False)


def _compare(recorded: Leaves, sent: Leaves) -> Iterator[str]:
    """Return a line for each place where two requests differ, for people."""
    for path in {**recorded, **sent}:
        one, other = (leaves.get(path, "nothing") for leaves in (recorded, sent))
        if one != other:
            equal = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
            start = max(equal - _AROUND, 0)
            shown = (_excerpt(each, start) for each in (one, other))
            yield "{}: recorded {}, sent {}".format(".".join(path[1:]) or path[0], *shown)


def _excerpt(text: str, start: int) -> str:
    end = start + 2 * _AROUND
    return f"{'…' if start else ''}{text[start:end]}{'…' if len(text) > end else ''}"
