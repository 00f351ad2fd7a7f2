"""Counts the tokens of a conversation with the model's own template and tokenizer."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from lmstudio_integrations._adapters.conversation import ImageSource, PendingMessage, encode
from lmstudio_integrations.client.api.sync import LLM
from lmstudio_integrations.client.predictions.requests import PromptParameters
from lmstudio_integrations.errors import LMStudioServerError, LMStudioValueError
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.reasoning import ReasoningPart
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
        texts = [*_texts(without, _sent_by_place(model, without, parameters)), *map(json.dumps, tools)]
        tokens = sum(model.count_tokens(texts)) + PER_MESSAGE * len(pending)
    return tokens + images * PER_IMAGE


def _is_image(part: object) -> bool:
    return isinstance(part, ImageSource | FileHandle)


def _sent_by_place(model: LLM, pending: Sequence[PendingMessage], parameters: PromptParameters) -> dict[str, bool]:
    """Return in which places thoughts are sent; see `ReasoningReplay`. A place that is missing is none."""
    mode = parameters.get("send_reasoning", "auto")
    if mode is False or not any(isinstance(part, ReasoningPart) for message in pending for part in message.parts):
        return {}
    if mode == "turn":
        return {"current_call": True}
    if mode == "auto" and not parameters.get("keep_reasoning"):
        with suppress(LMStudioServerError):
            return model.get_reasoning_replay().sent_by_place
        return {}
    return dict.fromkeys(("current_call", "earlier_call", "answer"), True)


def _texts(pending: Sequence[PendingMessage], sent_by_place: Mapping[str, bool]) -> Iterator[str]:
    """Yield everything in a conversation that the model reads, without the template around it."""
    last_user = max((at for at, message in enumerate(pending) if message.role == "user"), default=-1)
    for at, message in enumerate(pending):
        has_call = any(isinstance(part, ToolCallRequestPart) for part in message.parts)
        place = "answer" if not has_call else "current_call" if at > last_user else "earlier_call"
        for part in message.parts:
            if isinstance(part, str):
                yield part
            elif isinstance(part, ReasoningPart):
                if sent_by_place.get(place):
                    yield f"{part.start_tag}{part.text}{part.end_tag}"
            elif isinstance(part, ToolCallResultPart):
                yield part.content
            elif isinstance(part, ToolCallRequestPart):
                yield f"{part.tool_call_request.name} {json.dumps(part.tool_call_request.arguments)}"
