"""Finds the recorded request that a new one equals, and knows which are used up."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

from lmstudio_integrations._support.text import counted
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.emulator.testing.cassettes.cassette import ABSENT, Interaction, Request
from lmstudio_integrations.emulator.testing.cassettes.diff import differences, similarity
from lmstudio_integrations.emulator.testing.cassettes.instances import RecordedInstances
from lmstudio_integrations.emulator.testing.cassettes.normalize import key_of, normalize
from lmstudio_integrations.emulator.testing.cassettes.redaction import Redaction

logger: logging.Logger = logging.getLogger(__name__)

USED_ONCE = {"predict", "completeRawText", "generateWithGenerator"}
"""Requests whose recorded response is used once: the same prompt may get another response each time. For any other, the
last response counts for all further requests."""


class Matcher:
    """Finds recorded requests. Belongs to the event loop of its server.

    Args:
        interactions: The recording.
        redaction: Removes secrets from new requests, as it did from the recorded ones.
    """

    def __init__(self, interactions: Iterable[Interaction], redaction: Redaction) -> None:
        self.unmatched: list[str] = []
        """Why requests were not found, one text for each."""
        self._interactions = list(interactions)
        self._redaction = redaction
        self._used: set[Interaction] = set()

    def find(self, request: Request) -> Interaction | None:
        """Return the recorded request that this one equals: in the first place exactly, in the second once normalized.

        Equal requests are found in their order. If there is none, a request that only asks about a model gets what the
        recording tells of it elsewhere. `None` if nothing is found, or nothing that is not used up.
        """
        request = self._redact(request)
        matches: list[Interaction] = []
        for candidates in (self._exact_matches, self._normalized_matches):
            matches = candidates(request) or matches
            unused = next((each for each in matches if each not in self._used), None)
            if unused is not None:
                self._used.add(unused)
                return unused
        if matches:
            return matches[-1] if request.endpoint not in USED_ONCE else None
        return self._instances.response(request)

    def use(self, interaction: Interaction, *, has_arrived: bool) -> None:
        """Use up a request that was found, or let it be found again."""
        (self._used.add if has_arrived else self._used.discard)(interaction)

    def explain(self, request: Request) -> WireError:
        """Return the error for a request that is not in the recording, with the difference to the nearest one."""
        request = self._redact(request)
        used = len(self._normalized_matches(request))
        if used:
            cause = f"It was recorded {counted(used, 'time')}, and each recorded response is used once."
        else:
            cause = self._nearest(self._normalize(request))
        self.unmatched.append(f"{request}: {cause}")
        logger.warning("not in the cassette: %s", self.unmatched[-1])
        return WireError(
            f"The cassette has no such request ({request})",
            cause=cause,
            suggestion="Record the cassette again if the program has changed on purpose.",
        )

    def _nearest(self, sent: dict[str, Any]) -> str:
        normalized = {each: self._normalize(request) for each, request in self._recorded.items()}
        others = [each for each in normalized if normalized[each]["request"] == sent["request"]]
        if not others:
            recorded = sorted({str(each["request"]) for each in normalized.values()})
            return f"It has requests of {', '.join(recorded) or 'no endpoint'} only."
        nearest = max(others, key=lambda each: similarity(normalized[each], sent))
        lines = "\n".join(f"  {line}" for line in differences(normalized[nearest], sent))
        return f"The nearest is request {nearest.number}:\n{lines}"

    def _exact_matches(self, request: Request) -> list[Interaction]:
        return self._by_request.get(_exact_key(request), [])

    def _normalized_matches(self, request: Request) -> list[Interaction]:
        return self._by_normalized_request.get(key_of(self._normalize(request)), [])

    @cached_property
    def _recorded(self) -> Mapping[Interaction, Request]:
        # Without secrets once more, because they may be recorded with the contents of files, or with fewer patterns.
        return {each: self._redact(each.request) for each in self._interactions}

    @cached_property
    def _by_request(self) -> Mapping[str, list[Interaction]]:
        return self._table(_exact_key)

    @cached_property
    def _by_normalized_request(self) -> Mapping[str, list[Interaction]]:
        return self._table(lambda request: key_of(self._normalize(request)))

    @cached_property
    def _instances(self) -> RecordedInstances:
        return RecordedInstances(self._interactions)

    def _table(self, key: Callable[[Request], str]) -> Mapping[str, list[Interaction]]:
        table: defaultdict[str, list[Interaction]] = defaultdict(list)
        for interaction, request in self._recorded.items():
            table[key(request)].append(interaction)
        return table

    def _redact(self, request: Request) -> Request:
        return request._replace(parameter=self._redaction.value(request.parameter))

    def _normalize(self, request: Request) -> dict[str, Any]:
        return normalize(request, self._instances.references)


def _exact_key(request: Request) -> str:
    return key_of([each for each in request if each is not ABSENT])
