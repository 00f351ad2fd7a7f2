"""Our errors as the classes that LlamaIndex's callers catch."""

from typing import Any

from lmstudio_integrations.errors import LMStudioToolCallError


class LlamaIndexToolCallError(LMStudioToolCallError, ValueError):
    """A tool call failed, was cut off, or was required and is missing. LlamaIndex's callers expect `ValueError`.

    Args:
        message: The complete text, for people.
        raw_content: What the model wrote as the call, where known.
        text: The text of the response besides the call.
        details: The other arguments of `LMStudioServerError`.
    """

    def __init__(self, message: str = "", *, raw_content: str | None = None, text: str = "", **details: Any) -> None:
        super().__init__(message, raw_content=raw_content, **details)
        self.text = text
