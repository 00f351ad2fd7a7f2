"""What a row asks for: a prompt from a template, or messages, images and tools from its columns. Pure.

`actors.py` calls it. Arrow fills the fields that one of several dicts lacks with nulls, which are removed here.
"""

import json
from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any

from pydantic import ValidationError

from lmstudio_integrations._support.secrets import redacted_url
from lmstudio_integrations._support.text import beginning
from lmstudio_integrations._support.typeguards import is_list, is_mapping
from lmstudio_integrations.client.files.images import PendingHistory
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.chat import Chat, WireHistory
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.tools import Tool


class Template:
    """A prompt with the names of columns in braces: `Summarize: {body}`. `{{` is a brace.

    Args:
        text: The template. A column may have a format: `{price:.2f}`.

    Raises:
        LMStudioValueError: If it is not a template, or has no column.
    """

    def __init__(self, text: str) -> None:
        try:
            parts = list(Formatter().parse(text))
        except (TypeError, ValueError) as error:
            raise LMStudioValueError(
                f"prompt {beginning(str(text))} is no template: {error}; write {{{{ for a brace"
            ) from error
        if any(name is not None and (not name or conversion) for _, name, _, conversion in parts):
            raise LMStudioValueError("prompt must name a column between braces, such as {body}; write {{ for a brace")
        self._parts = [(literal, name, form or "") for literal, name, form, _ in parts]
        self.columns: tuple[str, ...] = tuple(dict.fromkeys(name for _, name, _ in self._parts if name is not None))
        """The columns that it needs."""
        if not self.columns:
            raise LMStudioValueError("prompt names no column; write the name of one in braces, such as {body}")

    def render(self, row: Mapping[str, Any]) -> str:
        """Return the prompt of a row.

        Raises:
            LMStudioValueError: If a column is null in this row, or its format does not suit its value.
        """
        return "".join(literal + (_format(row, name, form) if name else "") for literal, name, form in self._parts)


def _format(row: Mapping[str, Any], name: str, form: str) -> str:
    value = row[name]
    if value is None:
        raise LMStudioValueError(f"column {name!r} is null")
    try:
        return format(value, form)
    except (TypeError, ValueError) as error:
        raise LMStudioValueError(f"column {name!r} cannot be formatted: {error}") from error


def string_in(value: object, column: str) -> str:
    """Return a cell of a column that must have strings.

    Raises:
        LMStudioValueError: If it is null, or no string.
    """
    if value is None:
        raise LMStudioValueError(f"column {column!r} is null")
    if not isinstance(value, str):
        raise LMStudioValueError(f"column {column!r} must be a string; got {type(value).__name__}")
    return value


def strings_in(value: object, column: str) -> list[str]:
    """Return a cell of a column that must have lists of strings.

    Raises:
        LMStudioValueError: If it is null, or no such list.
    """
    if value is None:
        raise LMStudioValueError(f"column {column!r} is null")
    if not is_list(value):
        raise LMStudioValueError(f"column {column!r} must be a list of strings; got {type(value).__name__}")
    return [string_in(each, f"{column}[{index}]") for index, each in enumerate(value)]


def chat_of(value: object, column: str) -> Chat:
    """Return a conversation: a list of messages with role and content, or JSON text of one.

    Raises:
        LMStudioValueError: If it has another form.
    """
    messages = _parse(value, column)
    if not is_list(messages) or not messages:
        raise LMStudioValueError(f"column {column!r} must be a list of messages with role and content")
    return Chat.from_history({"messages": messages})


def tools_of(value: object, column: str) -> dict[str, Any] | None:
    """Return tools in wire form, from a list of OpenAI functions, or JSON text of one; `None` if there are none.

    Raises:
        LMStudioValueError: If it has another form.
    """
    tools = None if value is None else _parse(value, column)
    if not tools:
        return None
    try:
        return {"type": "toolArray", "tools": [Tool.model_validate(each).to_dict() for each in list(tools)]}
    except (TypeError, ValidationError) as error:
        raise LMStudioValueError(
            f"column {column!r} must be a list of tools: {{'type': 'function', 'function': {{'name': …}}}}"
        ) from error


def images_of(value: object, column: str, *, allow_download: bool = False) -> list[bytes | str]:
    """Return images: the content of files, or URLs of http, https or data; one or several.

    Args:
        value: The cell.
        column: Its column.
        allow_download: Whether images may be downloaded from their URLs.

    Raises:
        LMStudioValueError: If one is something else, such as a path, or would have to be downloaded and may not.
    """
    if value is None:
        return []
    images = value if is_list(value) else [value]
    contents = [each.get("bytes") if is_mapping(each) else each for each in images]
    return [_image(each, column, allow_download=allow_download) for each in contents]


def _image(value: object, column: str, *, allow_download: bool) -> bytes | str:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str) and value.lower().startswith("data:"):
        return value
    if isinstance(value, str) and value.lower().startswith(("http:", "https:")):
        if not allow_download:
            raise LMStudioValueError(
                f"column {column!r} has an image on the web, {redacted_url(value)}; set allow_image_download=True to "
                "download it, or make a column with its content"
            )
        return value
    # A path would let a dataset choose which files of the worker are read.
    raise LMStudioValueError(
        f"column {column!r} must be the content of image files, or their URLs; got {beginning(str(value))}; "
        "read files with ray.data.read_binary_files"
    )


def with_images(chat: Chat, images: Sequence[bytes | str], *, allow_private_hosts: bool) -> PendingHistory:
    """Return a conversation whose last user message has images, which the client uploads to the host of the call.

    Args:
        chat: The conversation.
        images: The content of files, or URLs.
        allow_private_hosts: Whether images may be downloaded from addresses that are not public.
    """

    def encode(handles: Sequence[FileHandle]) -> WireHistory:
        whole = chat.copy()
        whole.add_user_message([], images=handles)
        return WireHistory.of(whole.to_history())

    return PendingHistory(images, encode, allow_private_hosts)


def _parse(value: object, column: str) -> Any:
    """Return a value of a column that may be JSON text, without the nulls that Arrow adds."""
    if not isinstance(value, str):
        return _without_nulls(value)
    try:
        return json.loads(value)
    except ValueError as error:
        raise LMStudioValueError(f"column {column!r} is not JSON: {error}") from error


def _without_nulls(value: Any) -> Any:
    if is_mapping(value):
        return {name: _without_nulls(each) for name, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if is_list(value) else value
