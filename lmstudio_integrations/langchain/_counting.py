"""Counts the tokens of a conversation with the model's own template and tokenizer."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from lmstudio_integrations._adapters.conversation import ImageSource, PendingMessage, encode
from lmstudio_integrations.client.api.sync import LLM
from lmstudio_integrations.client.predictions.requests import PromptParameters
from lmstudio_integrations.errors import LMStudioServerError, LMStudioValueError
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.tools import ToolCallRequestPart, ToolCallResultPart

PER_MESSAGE = 4
"""Tokens that a template puts around a message, roughly; counted only where the template rejects the conversation."""

PER_IMAGE = 256
"""Tokens of an image, roughly; the server does not report them."""


def count(
    model: LLM, pending: Sequence[PendingMessage], tools: Sequence[dict[str, Any]], parameters: PromptParameters
) -> int:
    """Return the number of tokens of a conversation, with the earlier thoughts that are sent.

    The template may reject a part of a conversation, and `trim_messages` counts many parts. Such a part is counted text
    by text, in one batch.
    """
    images = sum(_is_image(part) for message in pending for part in message.parts)
    without = [
        PendingMessage(message.role, [part for part in message.parts if not _is_image(part)]) for message in pending
    ]
    try:
        prompt = model.apply_prompt_template(encode(without, {}), tools=tools, **parameters)
        tokens = model.count_tokens(prompt)
    except (LMStudioServerError, LMStudioValueError):
        texts = [*_texts(without), *map(json.dumps, tools)]
        tokens = sum(model.count_tokens(texts)) + PER_MESSAGE * len(pending)
    return tokens + images * PER_IMAGE


def _is_image(part: object) -> bool:
    return isinstance(part, ImageSource | FileHandle)


def _texts(pending: Sequence[PendingMessage]) -> Iterator[str]:
    """Yield everything in a conversation that the model reads, without the template around it."""
    for message in pending:
        for part in message.parts:
            if isinstance(part, str):
                yield part
            elif isinstance(part, ToolCallResultPart):
                yield part.content
            elif isinstance(part, ToolCallRequestPart):
                yield f"{part.tool_call_request.name} {json.dumps(part.tool_call_request.arguments)}"
