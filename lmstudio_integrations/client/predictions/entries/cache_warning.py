"""Notices prompts that leave the server's prompt cache although their conversation only grew, and warns.

A server continues from the first part of a prompt that differs from the one before, so a clock in the system message
makes it process the whole conversation again. Each prompt of a conversation is remembered, with its response.
Only hashes and numbers are kept. If it is not clear that two prompts belong to one conversation, there is no warning.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import chain, takewhile
from typing import NamedTuple

from lmstudio_integrations._support.bounded_cache import BoundedCache
from lmstudio_integrations._support.text import counted
from lmstudio_integrations._support.typeguards import is_count
from lmstudio_integrations.client.predictions.middleware import Ask, Events, Middleware
from lmstudio_integrations.client.support.user_warnings import warn_user
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.errors import LMStudioPromptCacheWarning
from lmstudio_integrations.protocol.prompt_outline import PromptOutline, outline_of
from lmstudio_integrations.types.results import PredictionEnd, PredictionResult, ToolCallEnd
from lmstudio_integrations.types.tools import ToolCallRequestPart

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
_SAME_ORDER = "send the same tools in the same order each time"


class _Prompt(NamedTuple):
    """A prompt that was responded to.

    Attributes:
        key: Stands for the model and the prompt.
        model: The instance that has responded.
        outline: The outline of the prompt.
        response: The hashes of the parts that the response has in the next prompt.
        tokens: How many tokens of the next prompt the server has in its cache.
        warned: What there were warnings about in its conversation.
    """

    key: int
    model: str
    outline: PromptOutline
    response: frozenset[int]
    tokens: int
    warned: frozenset[str]


class _Departure(NamedTuple):
    """Where a prompt leaves the cache: at the tools or at a message of a role. And the warning about it."""

    place: str
    warning: str


class _Growth(NamedTuple):
    """How a prompt has grown from an earlier one without continuing it: only their ends are the same.

    Attributes:
        earlier: The earlier prompt.
        outline: The outline of this prompt.
        start: How many parts are the same at the beginning.
        same: How many parts are the same at the end of the earlier prompt, at least one.
        end: Where this end is in this prompt; the response to the earlier one follows.
    """

    earlier: _Prompt
    outline: PromptOutline
    start: int
    same: int
    end: int

    def departure(self, result: PredictionResult) -> _Departure | None:
        """Return where this prompt leaves the cache; `None` if it need not be the same conversation, or costs little.

        Args:
            result: The response to this prompt.
        """
        place, tokens = self._place(), self._tokens_again(result)
        if place is None or tokens == 0 or self._in_common() < _LEAST_IN_COMMON:
            return None
        if place == "tools":
            problem, remedy = "the tools, or their order, differ from the call before", _SAME_ORDER
        else:
            messages = self.outline.messages
            is_part = messages[self.start] in {messages[self.start - 1], messages[self.end - self.same]}
            is_new = self.start + self.same == len(self.earlier.outline.parts) and not is_part
            difference = "was not in the call before" if is_new else "differs from the call before"
            problem = f"message {messages[self.start]} ({place}) {difference}"
            remedy = _CHANGES_LAST
        return _Departure(
            place,
            f"{problem}, although the conversation only grew: the server processes {counted(tokens, 'token')} again "
            f"that were in its prompt cache; {remedy}",
        )

    def _place(self) -> str | None:
        old, new = self.earlier.outline, self.outline
        before, after = len(old.parts) - self.start - self.same, self.end - self.start - self.same
        if self.start == 0:  # with other messages as well, it is the prompt of another agent
            return "tools" if before == after == 1 and old.sizes[0] and new.sizes[0] else None
        if after < max(before, 1):  # it was trimmed or summarized
            return None
        role = new.roles[new.messages[self.start]]
        is_shorter = 2 * sum(new.sizes[self.start :][:after]) < sum(old.sizes[self.start :][:before])
        return None if is_shorter and role != "system" else role

    def _in_common(self) -> int:
        """Return about how many characters both have in common, without what other conversations begin with, too."""
        first = self.outline.fixed
        turns = chain(range(first, self.start), range(max(first, self.end - self.same), self.end + 1))
        return sum(self.outline.sizes[part] for part in turns)

    def _tokens_again(self, result: PredictionResult) -> int:
        """Return how many tokens are processed again, 0 if they are few; estimated where the server does not say."""
        read, cached, sizes = result.end.stats["promptTokensCount"], result.cached_tokens, self.outline.sizes
        was_cached = sum(self.earlier.outline.sizes[self.start :]) + sizes[self.end]
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
        if first is not None and is_complete and self.plan.outline is not None:
            result = first.response()
            delivered = [event.to_request() for event in (*first.delivered, *batch) if type(event) is ToolCallEnd]
            if delivered:
                result = replace(result, tool_call_requests=(*result.tool_call_requests, *delivered))
            first.operation.caller.shared(PromptCache).add(self.plan.outline(), result)
        return batch, end


class PromptCache:
    """The last prompts of one server. Thread-safe: each change is one operation."""

    def __init__(self) -> None:
        self._prompts: BoundedCache[int, _Prompt] = BoundedCache(_MOST_PROMPTS)
        self._warnings = 0

    def add(self, outline: PromptOutline, result: PredictionResult) -> None:
        """Record a prompt and its response; warn if an earlier prompt of its conversation begins differently."""
        model, stats = str(result.end.model_info.get("identifier")), result.end.stats
        read, predicted = stats.get("promptTokensCount"), stats.get("predictedTokensCount")
        if not (is_count(read) and is_count(predicted)) or len(outline.parts) <= outline.fixed:
            return
        parts = frozenset(outline.parts)
        known = [each for each in self._prompts.values() if each.outline.parts[-1] in parts and each.model == model]
        previous, departure, warned = _continued(known, outline), None, frozenset[str]()
        if previous is not None:
            warned = previous.warned
        elif growths := _growths(known, parts, outline):
            departure = growths[-1].departure(result)
            previous = growths[-1].earlier if departure else None
            warned = warned.union(*[growth.earlier.warned for growth in growths])
        if previous is not None:
            self._prompts.pop(previous.key)
        is_news = departure is not None and departure.place not in warned
        if departure is not None:
            warned |= {departure.place}
        key, tokens = hash((model, outline.parts)), read + predicted - result.reasoning_tokens
        self._prompts.put(key, _Prompt(key, model, outline, _response_parts(result), tokens, warned))
        if departure is not None and is_news and self._warnings < _MOST_WARNINGS:
            self._warnings += 1
            warn_user(departure.warning, LMStudioPromptCacheWarning)


def _continued(known: Iterable[_Prompt], outline: PromptOutline) -> _Prompt | None:
    """Return the longest prompt that this one continues."""
    continued = [each for each in known if outline.continues(each.outline)]
    return max(continued, key=lambda each: len(each.outline.parts), default=None)


def _growths(known: Iterable[_Prompt], parts: frozenset[int], outline: PromptOutline) -> list[_Growth]:
    """Return how a prompt has grown from those with which it has most in common, the latest of them last."""
    responded = [each for each in known if not each.response.isdisjoint(parts)]
    found = [each for earlier in responded[-_MOST_COMPARED:] for each in _grown(earlier, outline)]
    most = max(((each.same, each.start) for each in found), default=None)
    return [each for each in found if (each.same, each.start) == most]


def _grown(earlier: _Prompt, outline: PromptOutline) -> Iterable[_Growth]:
    """Yield how a prompt may have grown from one earlier prompt: its last part may be there several times."""
    old, new, messages = earlier.outline.parts, outline.parts, outline.messages
    start = outline.common_with(earlier.outline)
    responses = {message for part, message in zip(new, messages, strict=True) if part in earlier.response}
    ends = [end for end in range(2, len(new)) if new[end - 1] == old[-1] and messages[end] in responses]
    for end in ends[-_MOST_ENDS:]:
        pairs = zip(reversed(old[max(start, 1) :]), reversed(new[1:end]), strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        yield _Growth(earlier, outline, start, same, end)


def _response_parts(result: PredictionResult) -> frozenset[int]:
    """Return the hashes of the parts of a response, as the next prompt has them."""
    calls = [ToolCallRequestPart(tool_call_request=call).to_dict() for call in result.tool_call_requests]
    texts = [{"type": "text", "text": text} for text in {result.content, result.content.strip()} - {""}]
    return frozenset(outline_of([{"role": "assistant", "content": [*texts, *calls]}]).parts[1:])
