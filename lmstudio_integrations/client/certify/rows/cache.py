"""The row `cache`: whether what a conversation begins with comes from the prompt cache in each further turn."""

import re
from collections.abc import Callable, Sequence

from typing_extensions import Unpack

from lmstudio_integrations.client.certify.asking import FEW, Asking, Case, Row, Summary, random_words
from lmstudio_integrations.client.predictions.requests import PredictionParameters
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.types.cards import Observation, outcomes
from lmstudio_integrations.types.chat import Chat
from lmstudio_integrations.types.results import PredictionResult
from lmstudio_integrations.types.tools import ToolCallRequest

MOST = 0.8
"""The share of the tokens of the turn before that must come from the cache: templates change the last ones."""

TURNS, STEPS = 10, 5
"""Requests of the conversation, and of the other ones; the first one of each finds nothing."""

THOUGHT = 32
"""Tokens of a response that may begin with a thought."""

_TOOL = {
    "type": "function",
    "function": {"name": "get_level", "parameters": {"type": "object", "properties": {"river": {"type": "string"}}}},
}
_RIVERS = ("Rhine", "Loire", "Tagus", "Danube", "Thames")

Grow = Callable[[Chat, int, PredictionResult], None]
"""Adds the next step to a conversation: its number, and the response to the one before."""


def _turn(asking: Asking) -> Flow[None]:
    yield from _converse(asking, "turn", TURNS, FEW, _next_question)


def _tool_result(asking: Asking) -> Flow[None]:
    parameters: PredictionParameters = {
        "config": {"raw_tools": {"type": "toolArray", "tools": [_TOOL]}},
        "check_response": False,
    }
    yield from _converse(asking, "tool result", STEPS, FEW, _next_result, **parameters)


def _thoughts(asking: Asking) -> Flow[None]:
    yield from _converse(asking, "thoughts", STEPS, THOUGHT, _next_question, config={"reasoning_budget": THOUGHT // 2})


def _next_question(chat: Chat, number: int, result: PredictionResult) -> None:
    chat.add_assistant_response(result)
    chat.add_user_message(f"Now name word {number} of the list.")


def _next_result(chat: Chat, number: int, _result: PredictionResult) -> None:
    identifier = f"call{number:05}"  # some chat templates require nine characters
    river = _RIVERS[number - 2]
    chat.add_assistant_response("", [ToolCallRequest(id=identifier, name="get_level", arguments={"river": river})])
    chat.add_tool_result({"content": f"{number} meters", "toolCallId": identifier})


def _converse(
    asking: Asking, part: str, requests: int, max_tokens: int, grow: Grow, **parameters: Unpack[PredictionParameters]
) -> Flow[None]:
    """Make a conversation, and record for each request but the first one what came from the cache."""
    chat = Chat(f"{random_words(220)}. This was a list of words.")  # nothing of it is in a cache
    chat.add_user_message("Name word 1 of the list.")
    before: int | None = None
    for number in range(2, requests + 2):
        is_thinking = max_tokens > FEW
        reply = yield from asking.respond(chat, max_tokens, reasoning=is_thinking, **parameters)
        if reply.result is None:
            for _ in range(max(number, 3), requests + 2):  # neither this request nor the ones that follow on it
                asking.verdict(part, "rejected", 0, reply.text)
            return
        if before is None and is_thinking and not reply.result.reasoning_content:
            return  # it does not reason
        if before is not None:
            _record(asking, part, before, reply.result.cached_tokens)
        before = reply.result.stats.prompt_tokens_count or 0
        grow(chat, number, reply.result)


def _record(asking: Asking, part: str, before: int, cached: int | None) -> None:
    if cached is None or not before:
        asking.verdict(part, "not reported", 0)
        return
    is_reused = cached >= MOST * before
    asking.verdict(part, "reused" if is_reused else "lost", is_reused, f"{min(cached, before)} of {before} tokens")


def _summarize(observations: Sequence[Observation]) -> Summary:
    counts = [re.findall(r"\d+", each.detail) for each in observations if each.outcome in {"reused", "lost"}]
    cached, before = (sum(int(each[index]) for each in counts) for index in (0, 1))
    text = outcomes(observations)
    if before:
        share = f"{100 * cached / before:.0f} % of the earlier tokens ({cached} of {before})"
        text = f"{share} came from the cache; {text}"
    lost = {each.part for each in observations if each.outcome == "lost"}
    if lost == {"thoughts"}:
        return Summary(text, 'send_reasoning="always" sends thoughts as they are in the cache')
    if lost:
        return Summary(
            text, "max_parallel_predictions=1 keeps conversations in one cache, and keep_warm=True the system prompt"
        )
    return Summary(text)


CACHE = Row(
    name="cache",
    question="Does each turn find the earlier ones in the prompt cache, also with tool results and thoughts?",
    anchor="parallel-requests",
    cases=[Case("turn", _turn), Case("tool result", _tool_result), Case("thoughts", _thoughts)],
    prompt_tokens=8_500,
    predicted_tokens=300,
    summarize=_summarize,
    apart=True,
)
