"""The one error that LlamaIndex's callers know under another name."""

from typing import Any

from lmstudio_integrations.errors import LMStudioToolCallError


class LlamaIndexToolCallError(LMStudioToolCallError, ValueError):
    """A tool call failed, was cut off, or was required and did not come. LlamaIndex's callers expect `ValueError`.

    Args:
        message: The whole text, made for people.
        raw_content: What the model wrote as the call, where known.
        text: What the model said besides.
        details: What `LMStudioServerError` takes.
    """

    def __init__(self, message: str = "", *, raw_content: str | None = None, text: str = "", **details: Any) -> None:
        super().__init__(message, raw_content=raw_content, **details)
        self.text = text
