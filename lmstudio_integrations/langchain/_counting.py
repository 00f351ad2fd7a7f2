"""Counts the tokens of a conversation with the model's own template and tokenizer."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from lmstudio_integrations._adapters.conversation import ImageSource, PendingMessage, encode
from lmstudio_integrations.client.api.sync import LLM
from lmstudio_integrations.client.models.reasoning.sent import Messages, without_thoughts
from lmstudio_integrations.client.predictions.requests import PromptParameters
from lmstudio_integrations.client.transport.flows import run
from lmstudio_integrations.errors import LMStudioServerError, LMStudioValueError
from lmstudio_integrations.types.chat import WireHistory
from lmstudio_integrations.types.files import FileHandle

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
    conversation = encode(without, {})
    try:
        prompt = model.apply_prompt_template(conversation, tools=tools, **parameters)
        tokens = model.count_tokens(prompt)
    except (LMStudioServerError, LMStudioValueError):
        texts = [*_texts(_sent(model, conversation, parameters)), *map(json.dumps, tools)]
        tokens = sum(model.count_tokens(texts)) + PER_MESSAGE * len(pending)
    return tokens + images * PER_IMAGE


def _is_image(part: object) -> bool:
    return isinstance(part, ImageSource | FileHandle)


def _sent(model: LLM, conversation: WireHistory, parameters: PromptParameters) -> Messages:
    try:
        return run(model.model.get_sent_messages(conversation, parameters))
    except (LMStudioServerError, LMStudioValueError):
        return without_thoughts(conversation.messages)


def _texts(messages: Messages) -> Iterator[str]:
    """Yield everything in a conversation that the model reads, without the template around it."""
    for part in (part for message in messages for part in message["content"]):
        if part["type"] == "toolCallRequest":
            call = part["toolCallRequest"]
            yield f"{call['name']} {json.dumps(call.get('arguments', {}))}"
        else:
            yield part["content" if part["type"] == "toolCallResult" else "text"]
