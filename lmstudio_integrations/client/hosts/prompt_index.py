"""Which conversations a host has in its prompt cache, as far as this process had them processed there.

`hosts.py` asks it before it chooses a host, and `failover.py` records what the host has responded to. It keeps hashes
and numbers, and no text.
"""

import time
from itertools import accumulate
from typing import NamedTuple

from lmstudio_integrations._support.bounded_cache import BoundedCache
from lmstudio_integrations.protocol.prompt_fingerprint import PromptFingerprint
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
    turns: int


class PromptIndex:
    """The prompts that a host has in the cache of a model. Thread-safe: each change is one operation.

    Attributes:
        call_seconds: How long a call takes on average; `None` before the first.
    """

    def __init__(self) -> None:
        self._cached: BoundedCache[int, _Cached] = BoundedCache(_MOST)
        self._token_seconds: float | None = None
        self.call_seconds: float | None = None

    def record_request(self, fingerprint: PromptFingerprint) -> None:
        """Record that the next turn of a conversation is sent to the host."""
        key, known = self._find(_keys(fingerprint))
        if key is not None:
            tokens, turns = (known.tokens, known.turns) if known else (0, 0)
            self._cached.put(key, _Cached(tokens, time.monotonic(), turns + 1))

    def record_response(self, fingerprint: PromptFingerprint | None, result: PredictionResult) -> None:
        """Record that the host has responded, to a conversation if there is a fingerprint."""
        stats, keys = result.end.stats, _keys(fingerprint) if fingerprint else []
        previous, known = self._find(keys)
        if previous is not None:
            self._cached.pop(previous)
            tokens = stats.get("totalTokensCount") or 0
            self._cached.put(keys[-1], _Cached(tokens, time.monotonic(), known.turns if known else 1))
        self.call_seconds = _average(self.call_seconds, stats.get("totalTimeSec"))
        cached, first_token = result.cached_tokens or 0, stats.get("timeToFirstTokenSec")
        processed = (stats.get("promptTokensCount") or 0) - cached
        if processed > cached and first_token is not None:  # for few tokens, most of the time is for something else
            self._token_seconds = _average(self._token_seconds, first_token / processed)

    def clear(self) -> None:
        """Record that the host has nothing in its cache."""
        self._cached.pop_all()

    def seconds_saved(self, fingerprint: PromptFingerprint) -> float:
        """Return about how long the host would take for what it has cached of a prompt; 0 if that is nothing."""
        _, known = self._find(_keys(fingerprint))
        return 0.0 if known is None else known.tokens * (self._token_seconds or 0.0)

    def active(self) -> float:
        """Return about how many conversations go on here: had a turn lately, so that the next one is to be expected.

        Of those that had their first turn only, as many are expected as have gone on until now, or one at the most:
        many calls are no conversations.
        """
        since = time.monotonic() - _ACTIVE
        recent = [each for each in self._cached.values() if each.at >= since]
        going = sum(each.turns > 1 for each in recent)
        return going + (len(recent) - going) * (going + 1) / (len(recent) + 1)

    def _find(self, keys: list[int]) -> tuple[int | None, _Cached | None]:
        """Return under which key a conversation is cached, and what; if it is not, under which it is to be."""
        for key in reversed(keys):
            known = self._cached.get(key)
            if known is not None:
                return key, known
        return keys[-1] if keys else None, None


def _keys(fingerprint: PromptFingerprint) -> list[int]:
    """Return what stands for a conversation after each of its parts; none for what many conversations begin with."""
    chain = list(accumulate(fingerprint.parts, lambda before, part: hash((before, part)), initial=0))
    return chain[fingerprint.fixed + 1 :]


def _average(average: float | None, latest: float | None) -> float | None:
    if average is None or latest is None:
        return latest if average is None else average
    return average + _WEIGHT * (latest - average)
