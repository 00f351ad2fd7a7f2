"""How a conversation becomes the text that a scripted model reads, and how that text is fitted into the context window.

The template is plain: `<|role|>`, a line break, the content, a line break, for each message; the tools come first, as a
message of the role `tools`; `<|assistant|>` and a line break end it.
"""

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.emulator.engines.errors import context_overflow
from lmstudio_integrations.emulator.engines.scripted import words
from lmstudio_integrations.emulator.engines.scripted.error_codes import unsupported
from lmstudio_integrations.types.chat import ChatHistory, Message, TextPart
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.reasoning import ReasoningPart
from lmstudio_integrations.types.tools import Tool, ToolCallRequestPart, ToolCallResultPart

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
        return words.count(render([*messages[:first], *messages[first + dropped :]], tools, prompt_template))

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
    tokens = words.count(prompt)
    if tokens >= limit and policy == "stopAtLimit":
        raise context_overflow(tokens, limit)
    return min(tokens, limit - 1)
