"""A text that is embedded, and its vector, in llama.cpp's form; without I/O.

The engine tokenizes the text of an embedding request itself, but it parses special tokens in it, and rejects a text
that is too long. So only texts where neither can happen are sent as they are; the tokens of others are counted first.
"""

import base64
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any

ADDED_TOKENS = 8
"""The most tokens that a tokenizer adds to a text: a start, an end, a leading space."""

_PLAIN = re.compile(r"[A-Za-z0-9\s.,;:!?'\"()/%&+*=-]+", re.ASCII)
"""Text that contains no special token, such as `[SEP]` or `</s>`, and of which each character is at most one token."""


def fits(text: str, context_length: int) -> bool:
    """Return whether a text surely fits into the context, and reads the same with special tokens."""
    return len(text) + ADDED_TOKENS <= context_length and not text.isspace() and _PLAIN.fullmatch(text) is not None


def request_of(text_or_tokens: str | Sequence[int]) -> dict[str, Any]:
    """Return the body for `/v1/embeddings`."""
    # Base64, because a list of numbers takes eight times as long to read.
    return {"input": text_or_tokens, "encoding_format": "base64"}


def vector_of(response: Mapping[str, Any]) -> list[float]:
    data = base64.b64decode(response["data"][0]["embedding"])
    return list(struct.unpack(f"<{len(data) // 4}f", data))
