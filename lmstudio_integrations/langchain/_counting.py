"""How many tokens a conversation is, by the model's own template and tokenizer."""

import json
from collections.abc import Sequence
from typing import Any

from lmstudio_integrations._adapters.conversation import Draft, ImageSource, to_history
from lmstudio_integrations.client.sync import LLM
from lmstudio_integrations.errors import LMStudioServerError, LMStudioValueError
from lmstudio_integrations.types.chat import TextPart
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.tools import ToolCallRequestPart, ToolCallResultPart

PER_MESSAGE = 4
"""Tokens that a template puts around a message, roughly; only counted where the template could not be asked."""

PER_PICTURE = 256
"""Tokens of a picture, roughly; the server tells nobody."""


def count(model: LLM, drafts: Sequence[Draft], tools: Sequence[dict[str, Any]]) -> int:
    """Return the number of tokens of a conversation.

    A part of a conversation (`trim_messages` asks for many) may be refused by the template; it is then counted text by
    text, in one batch.
    """
    texts = [Draft(draft.role, [part for part in draft.parts if not _is_picture(part)]) for draft in drafts]
    pictures = sum(_is_picture(part) for draft in drafts for part in draft.parts)
    return _count_texts(model, texts, tools) + pictures * PER_PICTURE


def _count_texts(model: LLM, drafts: Sequence[Draft], tools: Sequence[dict[str, Any]]) -> int:
    try:
        prompt = model.apply_prompt_template(to_history(drafts, {}), tools=tools)
    except (LMStudioServerError, LMStudioValueError):
        parts = [_text(part) for draft in drafts for part in draft.parts]
        return sum(model.count_tokens([*parts, *map(json.dumps, tools)])) + PER_MESSAGE * len(drafts)
    return model.count_tokens(prompt)


def _is_picture(part: object) -> bool:
    return isinstance(part, ImageSource | FileHandle)


def _text(part: object) -> str:
    match part:
        case TextPart(text=text):
            return text
        case ToolCallRequestPart(tool_call_request=request):
            return f"{request.name} {json.dumps(request.arguments)}"
        case ToolCallResultPart(content=content):
            return content
        case _:
            return ""
