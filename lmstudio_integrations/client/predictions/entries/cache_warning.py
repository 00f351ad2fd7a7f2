"""Notices prompts that leave the server's prompt cache although their conversation only grew, and warns.

A server continues from the first part of a prompt that differs from the one before, so a clock in the system message
makes it process the whole conversation again. Each prompt of a conversation is remembered, with its response.
Only hashes and numbers are kept. If it is not clear that two prompts belong to one conversation, there is no warning.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import chain, takewhile
from typing import NamedTuple

from lmstudio_integrations._support.text import counted
from lmstudio_integrations._support.threads import BoundedCache
from lmstudio_integrations._support.typeguards import is_count
from lmstudio_integrations.client.predictions.middleware import Ask, Events, Middleware
from lmstudio_integrations.client.support.user_warnings import warn_user
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.errors import LMStudioPromptCacheWarning
from lmstudio_integrations.protocol.prompt_fingerprint import PromptFingerprint, fingerprint_of
from lmstudio_integrations.types.functions import ToolCallRequestPart
from lmstudio_integrations.types.results import PredictionEnd, PredictionResult, ToolCallEnd

_MOST_PROMPTS = 64
"""The prompts that are remembered for each server. One that has grown from another one takes its place."""

_MOST_COMPARED = 8
"""How many of them, the newest ones, a prompt is compared with that continues none."""

_MOST_ENDS = 2
"""How many places, the last ones, may be the end of an earlier prompt: a text may be there in each turn."""

_MOST_WARNINGS = 8
"""The warnings about each server: the conversations of one program often have the same problem."""

_LEAST_IN_COMMON = 50
"""How many characters of turns show that two prompts belong to one conversation: more than "Hi" and "Hello"."""

_FEWEST_TOKENS, _SMALLEST_SHARE = 50, 0.05
"""How many tokens, and which share of the prompt, must be processed again for a warning."""

_CHANGES_LAST = "put what changes, such as the time or retrieved texts, into the newest message"


class _Prompt(NamedTuple):
    """A prompt that was responded to.

    Attributes:
        key: Stands for the model and the prompt.
        model: The instance that has responded.
        fingerprint: The fingerprint of the prompt.
        response: The hashes of the parts that the response has in the next prompt.
        tokens: How many tokens of the next prompt the server has in its cache.
        warned: What there were warnings about in its conversation.
    """

    key: int
    model: str
    fingerprint: PromptFingerprint
    response: frozenset[int]
    tokens: int
    warned: frozenset[str]


class _CacheMiss(NamedTuple):
    """Where a prompt misses the cache: at a message of a role. And the warning about it."""

    place: str
    warning: str


class _PrefixChange(NamedTuple):
    """A prompt that has grown from an earlier one, but begins differently: only their ends are the same.

    Attributes:
        earlier: The earlier prompt.
        fingerprint: The fingerprint of this prompt.
        start: How many parts are the same at the beginning.
        same: How many parts are the same at the end of the earlier prompt, at least one.
        end: Where this end is in this prompt; the response to the earlier one follows.
    """

    earlier: _Prompt
    fingerprint: PromptFingerprint
    start: int
    same: int
    end: int

    def cache_miss(self, result: PredictionResult) -> _CacheMiss | None:
        """Return where this prompt misses the cache; `None` if it need not be the same conversation, or costs little.

        Args:
            result: The response to this prompt.
        """
        place, tokens = self._place(), self._tokens_again(result)
        if place is None or tokens == 0 or self._in_common() < _LEAST_IN_COMMON:
            return None
        messages = self.fingerprint.messages
        is_part = messages[self.start] in {messages[self.start - 1], messages[self.end - self.same]}
        is_new = self.start + self.same == len(self.earlier.fingerprint.parts) and not is_part
        difference = "was not in the call before" if is_new else "differs from the call before"
        return _CacheMiss(
            place,
            f"message {messages[self.start]} ({place}) {difference}, although the conversation only grew: the server "
            f"processes {counted(tokens, 'token')} again that were in its prompt cache; {_CHANGES_LAST}",
        )

    def _place(self) -> str | None:
        old, new = self.earlier.fingerprint, self.fingerprint
        before, after = len(old.parts) - self.start - self.same, self.end - self.start - self.same
        if self.start == 0:  # with other tools, it is the prompt of another agent
            return None
        if after < max(before, 1):  # it was trimmed or summarized
            return None
        role = new.roles[new.messages[self.start]]
        is_shorter = 2 * sum(new.sizes[self.start :][:after]) < sum(old.sizes[self.start :][:before])
        return None if is_shorter and role != "system" else role

    def _in_common(self) -> int:
        """Return about how many characters both have in common, without what other conversations begin with, too."""
        first = self.fingerprint.fixed
        turns = chain(range(first, self.start), range(max(first, self.end - self.same), self.end + 1))
        return sum(self.fingerprint.sizes[part] for part in turns)

    def _tokens_again(self, result: PredictionResult) -> int:
        """Return how many tokens are processed again, 0 if they are few; estimated where the server does not say."""
        read, cached, sizes = result.end.stats["promptTokensCount"], result.cached_tokens, self.fingerprint.sizes
        was_cached = sum(self.earlier.fingerprint.sizes[self.start :]) + sizes[self.end]
        again = round(read * min(was_cached / sum(sizes), 1))
        fewest = max(_FEWEST_TOKENS, _SMALLEST_SHARE * read)
        if again >= fewest and is_count(cached):  # otherwise, the cache may have lost what comes before as well
            again = min(self.earlier.tokens, read) - cached
        return again if again >= fewest else 0


@dataclass(eq=False)
class CacheWarning(Middleware):
    """Compares the prompt with those before; that of a second ask need not be in the cache."""

    _first: Ask | None = field(default=None, init=False)
    """The request of the caller, until it is recorded."""

    def events(self, batch: Events, ask: Ask) -> Events:
        """Return the events. A call of the response to the caller may come with a second ask only."""
        if ask.asked_by is None:
            self._first = ask
        return batch

    def finish(self, batch: Events, end: PredictionEnd, ask: Ask) -> Flow[tuple[Events, PredictionEnd | None]]:
        """Record the prompt and its response, with the calls that were read in the text, or mended."""
        yield from ()
        first, self._first = ask if ask.asked_by is None else self._first, None
        is_complete = end.stats.get("stopReason") not in {"failed", "modelUnloaded"}
        if first is not None and is_complete and self.plan.fingerprint is not None:
            result = first.response()
            delivered = [event.to_request() for event in (*first.delivered, *batch) if type(event) is ToolCallEnd]
            if delivered:
                result = replace(result, tool_call_requests=(*result.tool_call_requests, *delivered))
            first.operation.context.shared(PromptCache).add(self.plan.fingerprint(), result)
        return batch, end


class PromptCache:
    """The last prompts of one server. Thread-safe: each change is one operation."""

    def __init__(self) -> None:
        self._prompts: BoundedCache[int, _Prompt] = BoundedCache(_MOST_PROMPTS)
        self._warnings = 0

    def add(self, fingerprint: PromptFingerprint, result: PredictionResult) -> None:
        """Record a prompt and its response; warn if an earlier prompt of its conversation begins differently."""
        model, stats = str(result.end.model_info.get("identifier")), result.end.stats
        read, predicted = stats.get("promptTokensCount"), stats.get("predictedTokensCount")
        if not (is_count(read) and is_count(predicted)) or len(fingerprint.parts) <= fingerprint.fixed:
            return
        parts = frozenset(fingerprint.parts)
        known = [each for each in self._prompts.values() if each.fingerprint.parts[-1] in parts and each.model == model]
        previous, cache_miss, warned = _find_continued(known, fingerprint), None, frozenset[str]()
        if previous is not None:
            warned = previous.warned
        elif changes := _prefix_changes(known, parts, fingerprint):
            cache_miss = changes[-1].cache_miss(result)
            previous = changes[-1].earlier if cache_miss else None
            warned = warned.union(*[change.earlier.warned for change in changes])
        if previous is not None:
            self._prompts.pop(previous.key)
        is_news = cache_miss is not None and cache_miss.place not in warned
        if cache_miss is not None:
            warned |= {cache_miss.place}
        key, tokens = hash((model, fingerprint.parts)), read + predicted - result.reasoning_tokens
        self._prompts.put(key, _Prompt(key, model, fingerprint, _response_parts(result), tokens, warned))
        if cache_miss is not None and is_news and self._warnings < _MOST_WARNINGS:
            self._warnings += 1
            warn_user(cache_miss.warning, LMStudioPromptCacheWarning)


def _find_continued(known: Iterable[_Prompt], fingerprint: PromptFingerprint) -> _Prompt | None:
    """Return the longest prompt that this one continues."""
    continued = [each for each in known if fingerprint.continues(each.fingerprint)]
    return max(continued, key=lambda each: len(each.fingerprint.parts), default=None)


def _prefix_changes(
    known: Iterable[_Prompt], parts: frozenset[int], fingerprint: PromptFingerprint
) -> list[_PrefixChange]:
    """Return how a prompt differs from those with which it has most in common, the latest of them last."""
    responded = [each for each in known if not each.response.isdisjoint(parts)]
    changes = [each for earlier in responded[-_MOST_COMPARED:] for each in _changes_since(earlier, fingerprint)]
    most = max(((each.same, each.start) for each in changes), default=None)
    return [each for each in changes if (each.same, each.start) == most]


def _changes_since(earlier: _Prompt, fingerprint: PromptFingerprint) -> Iterable[_PrefixChange]:
    """Yield how a prompt may differ from one earlier prompt, whose last part it may have several times."""
    old, new, messages = earlier.fingerprint.parts, fingerprint.parts, fingerprint.messages
    start = fingerprint.common_with(earlier.fingerprint)
    responses = {message for part, message in zip(new, messages, strict=True) if part in earlier.response}
    ends = [end for end in range(2, len(new)) if new[end - 1] == old[-1] and messages[end] in responses]
    for end in ends[-_MOST_ENDS:]:
        pairs = zip(reversed(old[max(start, 1) :]), reversed(new[1:end]), strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        yield _PrefixChange(earlier, fingerprint, start, same, end)


def _response_parts(result: PredictionResult) -> frozenset[int]:
    """Return the hashes of the parts of a response, as the next prompt has them."""
    calls = [ToolCallRequestPart(tool_call_request=call).to_dict() for call in result.tool_call_requests]
    texts = [{"type": "text", "text": text} for text in {result.content, result.content.strip()} - {""}]
    return frozenset(fingerprint_of([{"role": "assistant", "content": [*texts, *calls]}]).parts[1:])
