"""Counts the tokens of a conversation with the model's own template and tokenizer."""

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
"""Roughly the tokens that a template adds to a message; only used if the template cannot be applied."""

PER_IMAGE = 256
"""Roughly the tokens of an image, which no server reports."""


def count(model: "LLM", drafts: Sequence[Draft], tools: Sequence[dict[str, Any]]) -> int:
    """Return the number of tokens of a conversation.

    The template may reject a part of a conversation, and `trim_messages` counts many parts. Such a part is counted text
    by text, in one batch.
    """
    images = sum(_is_image(part) for draft in drafts for part in draft.parts)
    without = [Draft(draft.role, [part for part in draft.parts if not _is_image(part)]) for draft in drafts]
    try:
        tokens = model.count_tokens(model.apply_prompt_template(to_wire(without, {}), tools=tools))
    except (LMStudioServerError, LMStudioValueError):
        texts = [*_texts(without), *map(json.dumps, tools)]
        tokens = sum(model.count_tokens(texts)) + PER_MESSAGE * len(drafts)
    return tokens + images * PER_IMAGE


def _is_image(part: object) -> bool:
    return isinstance(part, ImageSource | FileHandle)


def _texts(drafts: Sequence[Draft]) -> Iterator[str]:
    """Yield all texts of a conversation, without the template."""
    for draft in drafts:
        for part in draft.parts:
            if isinstance(part, TextPart):
                yield part.text
            elif isinstance(part, ToolCallResultPart):
                yield part.content
            elif isinstance(part, ToolCallRequestPart):
                yield f"{part.tool_call_request.name} {json.dumps(part.tool_call_request.arguments)}"
