"""What a model reads of a file that is no image, for which LM Studio's API has no type. Pure.

The converters of both frameworks call it (`langchain/_messages.py`, `llama_index/_messages.py`).
"""

import re

_TEXT = re.compile(
    r"text/.+|.+\+(json|xml|yaml)"
    r"|application/(json|jsonl|ndjson|x-ndjson|xml|yaml|x-yaml|toml|x-toml|sql|graphql|javascript|x-javascript|x-sh)"
)
"""MIME types of texts."""

_UNKNOWN = frozenset({"", "application/octet-stream", "binary/octet-stream"})
"""MIME types of anything, also of a text."""


def decoded_text(data: bytes, mime_type: str | None) -> str | None:
    """Return the text of a document; `None` if it is of another type, or not in UTF-8."""
    kind = (mime_type or "").partition(";")[0].strip().lower()
    if kind not in _UNKNOWN and not _TEXT.fullmatch(kind):
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def document_text(*, data: bytes | None, url: str | None, mime_type: str | None, name: str | None) -> str:
    """Return what stands for a document in the result of a tool: its text, its name and address, or a note.

    Args:
        data: Its content.
        url: Its address, if it is on the web.
        mime_type: Its type.
        name: Its name.
    """
    if data is not None:
        text = decoded_text(data, mime_type)
        details = f"{mime_type or 'unknown type'}, {len(data)} bytes"
        return f"[{name or 'file'} ({details}): not shown, because it is not text]" if text is None else text
    if url:
        return f"{name}: {url}" if name else url
    return f"[{name or 'file'} ({mime_type or 'unknown type'}): not shown, because it has no content]"
