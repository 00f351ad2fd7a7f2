"""Uploaded files: store them (docs/protocol.md#file-endpoints). `documents.py` reads them."""

import base64
import mimetypes
import secrets
from pathlib import PurePath
from typing import Any

from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.emulator.server.clients import Upload
from lmstudio_integrations.emulator.server.context import Context
from lmstudio_integrations.protocol.requests import UploadFile
from lmstudio_integrations.types.files import IMAGE_FORMATS, image_format

_TYPES = {
    ".txt": "text/plain",
    ".md": "text/plain",
    ".markdown": "text/plain",
    ".pdf": "application/pdf",
    ".doc": "application/word",
    ".docx": "application/word",
    **{suffix: "image" for each in IMAGE_FORMATS for suffix in each.suffixes},
}


async def upload_file_base64(context: Context, parameter: UploadFile) -> dict[str, Any]:
    """Store a file for this client; the same content gets a new identifier each time."""
    try:
        data = base64.b64decode(parameter["contentBase64"], validate=True)
    except ValueError as error:  # characters beyond ASCII raise it as well
        raise WireError(f'The content of "{parameter["name"]}" is not base64', cause=str(error)) from error
    file_type = _type_of(parameter["name"], data)
    identifier = f"local:{secrets.token_hex(16)}"
    context.client.uploads[identifier] = Upload(parameter["name"], data, file_type)
    return {"identifier": identifier, "fileType": file_type, "sizeBytes": len(data)}


def _type_of(name: str, data: bytes) -> str:
    """Return the type of a file: `image` by content, else by extension, else `unknown`."""
    if image_format(data):
        return "image"
    file_type = _TYPES.get(PurePath(name).suffix.lower())
    if file_type:
        return file_type
    guessed = mimetypes.guess_type(name)[0] or ""
    return "text/other" if guessed.startswith("text/") else "unknown"
