"""Which conversations a host has in its prompt cache, as far as this process had them processed there.

`hosts.py` asks it before it chooses a host, and `route.py` records what the host has responded to. It keeps hashes and
numbers, and no text.
"""

import time
from itertools import accumulate
from typing import NamedTuple

from lmstudio_integrations._support.bounded_cache import BoundedCache
from lmstudio_integrations.protocol.prompt_outline import PromptOutline
from lmstudio_integrations.types.results import PredictionResult

_MOST = 512
"""The conversations that are remembered for each model on each host."""

_ACTIVE = 60.0
"""Seconds after which a conversation is not expected to go on soon."""

_WEIGHT = 0.3
"""How much the latest call changes an average."""


class _Cached(NamedTuple):
    tokens: int
    at: float


class Conversations:
    """The conversations of a model on one host. Thread-safe: each change is one operation.

    Attributes:
        call_seconds: How long a call takes on average; `None` before the first.
    """

    def __init__(self) -> None:
        self._cached: BoundedCache[int, _Cached] = BoundedCache(_MOST)
        self._token_seconds: float | None = None
        self.call_seconds: float | None = None

    def begin(self, outline: PromptOutline) -> None:
        """Record that the next turn of a conversation is sent to the host."""
        key, known = self._find(outline)
        if key is not None:
            self._cached.put(key, _Cached(known.tokens if known else 0, time.monotonic()))

    def end(self, outline: PromptOutline, result: PredictionResult) -> None:
        """Record that the host has responded to it."""
        stats, keys = result.end.stats, _keys(outline)
        previous, _ = self._find(outline)
        if previous is not None:
            self._cached.pop(previous)
            self._cached.put(keys[-1], _Cached(stats.get("totalTokensCount") or 0, time.monotonic()))
        self.call_seconds = _averaged(self.call_seconds, stats.get("totalTimeSec"))
        processed = (stats.get("promptTokensCount") or 0) - (result.cached_tokens or 0)
        first_token = stats.get("timeToFirstTokenSec")
        if processed > 0 and first_token is not None:
            self._token_seconds = _averaged(self._token_seconds, first_token / processed)

    def seconds_saved(self, outline: PromptOutline) -> float:
        """Return about how long the host would take for what it has cached of a prompt; 0 if that is nothing."""
        _, known = self._find(outline)
        return 0.0 if known is None else known.tokens * (self._token_seconds or 0.0)

    def active(self) -> int:
        """Return how many conversations had a turn here lately, so that the next one is to be expected."""
        since = time.monotonic() - _ACTIVE
        return sum(each.at >= since for each in self._cached.values())

    def _find(self, outline: PromptOutline) -> tuple[int | None, _Cached | None]:
        """Return under which key a conversation is cached, and what; if it is not, under which it is to be."""
        keys = _keys(outline)
        for key in reversed(keys):
            known = self._cached.get(key)
            if known is not None:
                return key, known
        return keys[-1] if keys else None, None


def _keys(outline: PromptOutline) -> list[int]:
    """Return what stands for a conversation after each of its parts; none for what many conversations begin with."""
    chain = list(accumulate(outline.parts, lambda before, part: hash((before, part)), initial=0))
    return chain[outline.fixed + 1 :]


def _averaged(average: float | None, latest: float | None) -> float | None:
    if average is None or latest is None:
        return latest if average is None else average
    return average + _WEIGHT * (latest - average)
