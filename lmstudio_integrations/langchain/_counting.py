"""How many tokens a conversation is, by the model's own template and tokenizer."""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lmstudio_integrations._adapters.conversation import Draft, ImageSource, to_wire
from lmstudio_integrations.errors import LMStudioServerError, LMStudioValueError
from lmstudio_integrations.types.chat import TextPart
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.tools import ToolCallRequestPart, ToolCallResultPart

if TYPE_CHECKING:
    from lmstudio_integrations.client.sync import LLM

PER_MESSAGE = 4
"""Tokens that a template puts around a message, roughly; only counted where the template could not be asked."""

PER_PICTURE = 256
"""Tokens of a picture, roughly; the server tells nobody."""


def count(model: "LLM", drafts: Sequence[Draft], tools: Sequence[dict[str, Any]]) -> int:
    """Return the number of tokens of a conversation.

    A part of a conversation (`trim_messages` asks for many) may be refused by the template; it is then counted text by
    text, in one batch.
    """
    pictures = sum(_is_picture(part) for draft in drafts for part in draft.parts)
    without = [Draft(draft.role, [part for part in draft.parts if not _is_picture(part)]) for draft in drafts]
    try:
        tokens = model.count_tokens(model.apply_prompt_template(to_wire(without, {}), tools=tools))
    except (LMStudioServerError, LMStudioValueError):
        texts = [*_texts(without), *map(json.dumps, tools)]
        tokens = sum(model.count_tokens(texts)) + PER_MESSAGE * len(drafts)
    return tokens + pictures * PER_PICTURE


def _is_picture(part: object) -> bool:
    return isinstance(part, ImageSource | FileHandle)


def _texts(drafts: Sequence[Draft]) -> Iterator[str]:
    """Yield everything in a conversation that the model reads, without the template around it."""
    for draft in drafts:
        for part in draft.parts:
            if isinstance(part, TextPart):
                yield part.text
            elif isinstance(part, ToolCallResultPart):
                yield part.content
            elif isinstance(part, ToolCallRequestPart):
                yield f"{part.tool_call_request.name} {json.dumps(part.tool_call_request.arguments)}"
