"""Read base64, also from data URLs. Uploads, and the messages of both frameworks, are read with these functions."""

import base64
import re
from urllib.parse import unquote

from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.files import image_format

_URL_SAFE = str.maketrans("-_", "+/")
_OTHER = re.compile(r"[^A-Za-z0-9+/]")


def decode_base64(text: str | bytes, what: str) -> bytes:
    """Return what a text holds in base64, in the standard or the URL-safe alphabet.

    White space is skipped, and padding may be missing.

    Args:
        text: The text.
        what: What errors call it.

    Raises:
        LMStudioValueError: If it is not base64.
    """
    text = text.decode("latin-1") if isinstance(text, bytes) else text
    digits = "".join(text.split()).rstrip("=").translate(_URL_SAFE)
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except ValueError as error:
        other = _OTHER.search(digits)
        problem = f"it contains {other[0]!r}" if other else "it was cut off"
        raise LMStudioValueError(f"{what} is not base64: {problem}") from error


def missing_prefix(text: str) -> str | None:
    """Return how the data URL of an image would begin, of which a text has only the base64; `None` if it is no such."""
    try:
        image_type = image_format(decode_base64(text[:32], ""))
    except LMStudioValueError:
        return None
    return image_type and f"data:{image_type.media_type};base64,"


def decode_data_url(url: str) -> bytes:
    """Return the content of a data URL.

    Raises:
        LMStudioValueError: If it is not in base64.
    """
    if not is_base64_url(url):
        raise LMStudioValueError(f"a data URL must be data:<type>;base64,<content>; got {url[:40]!r}")
    return decode_base64(unquote(url.partition(",")[2]), "the data URL's content")


def is_base64_url(url: str) -> bool:
    head = url.partition(",")[0].lower()
    return head.startswith("data:") and head.endswith(";base64")
