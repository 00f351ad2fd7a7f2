"""Uploads files to the emulator."""

import base64
from typing import Any

from tests.emulator.bare_client import Wire


def upload(files: Wire, name: str, content: str) -> dict[str, Any]:
    found: dict[str, Any] = files.result("uploadFileBase64", {"name": name, "contentBase64": content})
    return found


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()
