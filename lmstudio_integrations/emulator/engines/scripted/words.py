"""What a scripted model reads and writes: words with the spaces before them, and conversations as text.

Tokens, vectors and log-probabilities are those of words. At the end: how a conversation becomes a text, and how that is
fitted into the context window.
"""

import json
import math
import re
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.emulator.engines.base import context_overflow
from lmstudio_integrations.emulator.engines.scripted.error_codes import unsupported
from lmstudio_integrations.types.chat import ChatHistory, Message, TextPart
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.functions import Tool, ToolCallRequestPart, ToolCallResultPart
from lmstudio_integrations.types.reasoning import ReasoningPart

_WORD = re.compile(r"\s*\S+|\s+")
_NAME = re.compile(r"\w+")

START_TOKEN, END_TOKEN = 1, 2
"""The tokens that an embedding model puts around a text."""

_FIRST_WORD = 3
_TOKENS = 2**31 - _FIRST_WORD

_OTHERS = (" the", " a", " of", " and", " to", " in", " is", " it", " that", " not")
"""The other candidates of a token."""

_IMPOSSIBLE = -1000.0
"""The logarithm of a probability of 0: JSON has no infinity."""

_SHORT_WORD_WEIGHT, _TRIGRAM_WEIGHT = 0.3, 0.3


def split(text: str) -> Iterator[str]:
    """Yield the tokens of a text one by one; joined they are the text. A list would take thirty times its memory."""
    return (match.group() for match in _WORD.finditer(text))


def count(text: str) -> int:
    """Return how many tokens a text has."""
    return sum(1 for _ in _WORD.finditer(text))


def token_id(token: str) -> int:
    """Return the number of a token."""
    return _FIRST_WORD + _hash(token) % _TOKENS


def log_probs(probabilities: Mapping[str, float], candidates: int) -> dict[str, Any]:
    """Return an entry of `fragment.tokens` (docs/protocol.md#fragments).

    Args:
        probabilities: Those of the written token, which is the first, and of the others, by their texts.
        candidates: How many of them to list.
    """
    listed: list[dict[str, Any]] = [
        {"text": token, "id": token_id(token), "logProb": math.log(probability) if probability else _IMPOSSIBLE}
        for token, probability in islice(probabilities.items(), max(candidates, 1))
    ]
    return {**listed[0], "candidates": listed} if candidates else listed[0]


def probabilities_of(token: str) -> dict[str, float]:
    """Return the probabilities of a token and of ten others, made up of the token alone.

    Two runs agree, and they add up to at most 1.
    """
    probability = 0.5 + token_id(token) % 499 / 1000
    others = (other for other in _OTHERS if other != token)
    return {token: probability, **{other: (1 - probability) / 2**rank for rank, other in enumerate(others, 1)}}


def embed(text: str, length: int) -> list[float]:
    """Return the vector of a text, of unit length. Texts that share words and letters have similar vectors."""
    vector = [0.0] * length
    for feature, weight in features(text):
        number = _hash(feature)
        vector[number % length] += weight if number >> 31 else -weight
    norm = math.sqrt(math.fsum(value * value for value in vector))
    if norm == 0:
        return [1.0, *vector[1:]]
    return [value / norm for value in vector]


def features(text: str) -> Iterator[tuple[str, float]]:
    """Yield the words of a text, short ones with less weight, and their trigrams, so that inflected forms are alike."""
    for word, times in Counter(match.group() for match in _NAME.finditer(text.lower())).items():
        yield word, times * (1.0 if len(word) > 3 else _SHORT_WORD_WEIGHT)
        delimited = f"^{word}$"
        for start in range(len(delimited) - 2):
            yield f"…{delimited[start : start + 3]}", times * _TRIGRAM_WEIGHT


def _hash(text: str) -> int:
    # Lone surrogates may come from a client; they are text like any other here.
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))


_PLAIN: dict[str, tuple[str, str]] = {role: (f"<|{role}|>\n", "\n") for role in ("system", "user", "assistant", "tool")}
"""What stands before and after a message, by its role."""


def call_parts(name: str) -> tuple[str, str, str]:
    """Return the text of a tool call: what opens it, its name, and what closes it after the arguments."""
    return '<tool_call>\n{"name": ', f'{json.dumps(name, ensure_ascii=False)}, "arguments": ', "}\n</tool_call>"


def message_text(message: Message) -> str:
    """Return the text of a message, without its files and tool calls."""
    return "\n".join(_part(part) for part in message.content if isinstance(part, TextPart | ToolCallResultPart))


def render(messages: Sequence[Message], tools: Sequence[Tool], prompt_template: Mapping[str, Any] | None = None) -> str:
    """Return the conversation as the model reads it.

    Args:
        messages: The conversation.
        tools: The tools that the model may call.
        prompt_template: The setting of that name; only manual templates are supported.

    Raises:
        EngineError: If the template is in Jinja, which is not rendered here, or the text is too long.
    """
    around = _around(prompt_template)
    offered = [tool.function.to_dict() for tool in tools]
    head = f"<|tools|>\n{json.dumps(offered, ensure_ascii=False)}\n" if offered else ""
    contents = ((message.role, _content(message)) for message in messages)
    body = (f"{around[role][0]}{content}{around[role][1]}" for role, content in contents)
    return "".join(chain([head], body, [around["assistant"][0]]))


def _around(prompt_template: Mapping[str, Any] | None) -> Mapping[str, tuple[str, str]]:
    """Return what stands before and after a message, by its role."""
    if prompt_template is None:
        return _PLAIN
    manual = prompt_template.get("manualPromptTemplate")
    if prompt_template.get("type") != "manual" or not is_object(manual):
        raise unsupported("Jinja prompt templates")
    manual_texts = {
        role: (str(manual.get(f"before{role.title()}", "")), str(manual.get(f"after{role.title()}", "")))
        for role in ("system", "user", "assistant")
    }
    return {**_PLAIN, **manual_texts}


def _content(message: Message) -> str:
    """Return the parts of a message, each in a line of its own, and tool calls where the model writes them: behind."""
    gaps = ["" if isinstance(part, ToolCallRequestPart) else "\n" for part in message.content[1:]]
    return "".join(f"{gap}{_part(part)}" for gap, part in zip(["", *gaps], message.content, strict=False))


def _part(part: TextPart | ReasoningPart | FileHandle | ToolCallRequestPart | ToolCallResultPart) -> str:
    if isinstance(part, TextPart | ReasoningPart):
        return part.text
    if isinstance(part, ToolCallResultPart):
        return part.content
    if isinstance(part, FileHandle):
        return f"[{part.name}]"
    call = part.tool_call_request
    opening, name, closing = call_parts(call.name)
    return f"{opening}{name}{json.dumps(call.arguments or {}, ensure_ascii=False)}{closing}"


def fit_history(
    history: ChatHistory,
    tools: Sequence[Tool],
    *,
    limit: int,
    policy: str,
    prompt_template: Mapping[str, Any] | None = None,
) -> int:
    """Return how many tokens of a conversation are read, so that at least one more fits into the context window.

    `truncateMiddle` keeps the system prompt and the first user message and drops what comes after them, oldest first;
    `rollingWindow` drops the oldest; `stopAtLimit` drops nothing. The last message always stays.

    Raises:
        EngineError: If it does not fit.
    """
    messages = history.messages
    roles = [message.role for message in messages]
    first = roles.index("user") + 1 if policy == "truncateMiddle" and "user" in roles else 0

    def tokens_without(dropped: int) -> int:
        return count(render([*messages[:first], *messages[first + dropped :]], tools, prompt_template))

    tokens = tokens_without(0)
    if tokens < limit:
        return tokens
    most = 0 if policy == "stopAtLimit" else max(len(messages) - 1 - first, 0)
    enough = bisect_left(range(most + 1), 1, key=lambda dropped: tokens_without(dropped) < limit)
    if enough > most:
        raise context_overflow(tokens_without(most), limit)
    return tokens_without(enough)


def fit_text(prompt: str, *, limit: int, policy: str) -> int:
    """Return how many tokens of a raw prompt are read; the policies drop words, not messages.

    Raises:
        EngineError: If it does not fit and nothing may be dropped.
    """
    tokens = count(prompt)
    if tokens >= limit and policy == "stopAtLimit":
        raise context_overflow(tokens, limit)
    return min(tokens, limit - 1)
