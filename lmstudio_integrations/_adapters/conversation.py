"""A conversation on its way to the wire (docs/protocol.md#chat-history), and its images.

The converters of both frameworks (`langchain/_messages.py`, `llama_index/_messages.py`) add turns to a `Conversation`,
which brings them into the form that chat templates expect: neighbors of one role merged, and images that a tool
returned, for which the wire has no place, in the next user turn. A system message stays where it is; the client moves
it to the front if the model's template takes it nowhere else. Pure: images are only listed here.
The client downloads and uploads those of `for_upload`, and `encode` puts the file handles in their places.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lmstudio_integrations._adapters.tool_settings import wire_name
from lmstudio_integrations._support.secrets import redacted_url
from lmstudio_integrations._support.text import shown
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.client.files.images import PendingHistory
from lmstudio_integrations.client.files.uploads import decode_base64, decode_data_url, missing_prefix
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.chat import WireHistory, wire_messages
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.reasoning import ReasoningPart
from lmstudio_integrations.types.structured import partial_json
from lmstudio_integrations.types.tools import ToolCallRequest, ToolCallRequestPart, ToolCallResultPart

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image that must be uploaded before the conversation can be sent.

    Attributes:
        data: The file's content.
        url: Where to fetch it instead, http or https.
        path: The file to read it from instead.
    """

    data: bytes = b""
    url: str | None = field(default=None, repr=False)  # it may hold credentials
    path: Path | None = None

    def __post_init__(self) -> None:
        if not self.data and self.url is None and self.path is None:
            raise LMStudioValueError("an image is empty; pass its data, a path or a URL")

    @classmethod
    def from_base64(cls, text: str | bytes) -> "ImageSource":
        """Read an image from its base64 form.

        Raises:
            LMStudioValueError: If it is not base64.
        """
        return cls(decode_base64(text, "the image's data"))

    @classmethod
    def from_path(cls, path: str | Path) -> "ImageSource":
        """Name the file of an image, which the client reads.

        Raises:
            LMStudioValueError: If the path has another type.
        """
        if not isinstance(path, str | Path):  # pyright: ignore[reportUnnecessaryIsInstance] - it comes from a message
            raise LMStudioValueError(f"an image's path must be a string or a Path; got {path!r}")
        return cls(path=Path(path))

    @classmethod
    def from_url(cls, url: str) -> "ImageSource":
        """Read an image from a data URL, or keep the URL of one on the web.

        Raises:
            LMStudioValueError: If the URL has another scheme, or a data URL is broken.
        """
        scheme = url.partition(":")[0].lower()
        if scheme == "data":
            return cls(decode_data_url(url))
        if scheme in {"http", "https"}:
            return cls(url=url)
        prefix = missing_prefix(url)
        if prefix is not None:
            raise LMStudioValueError(f"an image's URL is bare base64; put {prefix} before it")
        if not any(each in url for each in ("://", "@", "?")):  # after these, a URL may have a secret
            raise LMStudioValueError(
                f"{shown(url)} is a file, not the URL of an image; pass it as path, or its content as base64"
            )
        raise LMStudioValueError(
            f"an image's URL must begin with data:, http:// or https://; got {redacted_url(url)!r}"
        )


Part: TypeAlias = str | ReasoningPart | FileHandle | ImageSource | ToolCallRequestPart | ToolCallResultPart
"""A part of a message; a string is a text."""


@dataclass(slots=True)
class PendingMessage:
    """A message whose images are not uploaded yet."""

    role: Role
    parts: list[Part] = field(default_factory=list[Part])


NO_MESSAGES = "the list of messages is empty; add a message before requesting a response"
"""The error about a conversation without messages."""


class Conversation:
    """Collects the turns of a conversation."""

    def __init__(self) -> None:
        self._messages: list[PendingMessage] = []
        self._images: list[ImageSource] = []

    def add(self, role: Role, parts: Sequence[Part]) -> None:
        """Add a turn. Neighbors of one role become one message."""
        if self._images and role != "tool":
            held, self._images = self._images, []
            self.add("user", held)
        last = self._messages[-1] if self._messages else None
        if last is None or last.role != role:
            self._messages.append(PendingMessage(role, list(parts)))
            return
        if last.parts and _is_cut_off(last.parts[-1]):  # in front of what follows, it would be a whole one
            last.parts.pop()
        # A blank line separates two texts, however the server joins parts. A thought joins those around it.
        begins_with_thought = bool(parts) and isinstance(parts[0], ReasoningPart)
        new = ["", *parts] if begins_with_thought else [*parts]
        last.parts[-1:] = [*joined([*last.parts[-1:], *new[:1]], "\n\n"), *new[1:]]

    def add_call(self, name: str, call_id: str | None, arguments: dict[str, Any]) -> None:
        """Add a tool call to the assistant's turn that was added last."""
        assert self._messages, "the assistant's turn comes before its calls"
        assert self._messages[-1].role == "assistant", "only the assistant calls tools"
        fields = {"name": wire_name(name), "arguments": arguments, "id": _checked_id(call_id)}
        request = ToolCallRequest.from_dict({key: value for key, value in fields.items() if value is not None})
        self._messages[-1].parts.append(ToolCallRequestPart(tool_call_request=request))

    def add_result(self, text: str, call_id: str | None, name: object, parts: Iterable[Part] = ()) -> None:
        """Add the result of a tool. The images among its parts are held back for the next user turn."""
        self._images += [part for part in parts if isinstance(part, ImageSource)]
        sent_name = wire_name(name) if name and isinstance(name, str) else None
        fields = {"content": text, "tool_call_id": _checked_id(call_id), "name": sent_name}
        part = ToolCallResultPart.from_dict({key: value for key, value in fields.items() if value is not None})
        self.add("tool", [part])

    def finish(self) -> list[PendingMessage]:
        if self._images:
            self.add("user", ())
        return self._messages


def _is_cut_off(part: Part) -> bool:
    return isinstance(part, ReasoningPart) and not part.end_tag


def joined(parts: Iterable[Part], separator: str) -> list[Part]:
    """Join neighboring texts of one message."""
    merged: list[Part] = []
    for part in parts:
        last = merged[-1] if merged else None
        if isinstance(last, str) and isinstance(part, str):
            merged[-1] = f"{last}{separator}{part}"
        else:
            merged.append(part)
    return merged


def text_of(parts: Iterable[Part], separator: str) -> str:
    """Return the texts of a message as one."""
    return separator.join(part for part in parts if isinstance(part, str))


def stored_arguments(arguments: object) -> dict[str, Any]:
    """Return the arguments of a call of an older message. Those that are no JSON object are kept as one argument.

    Args:
        arguments: A dict, or JSON text, of which a part may be missing.
    """
    value = partial_json(arguments) if isinstance(arguments, str) else arguments
    if is_object(value):
        return value
    return {} if arguments in (None, "", "null") else {"arguments": arguments}


def _checked_id(call_id: object) -> object:
    if call_id is not None and not isinstance(call_id, str):
        raise LMStudioValueError(f"the identifier of a tool call must be a string; got {call_id!r}")
    return call_id


def images(messages: Iterable[PendingMessage]) -> list[ImageSource]:
    """Return the images that must be uploaded, each once."""
    return list(dict.fromkeys(part for each in messages for part in each.parts if isinstance(part, ImageSource)))


def for_upload(pending: Sequence[PendingMessage], values: Mapping[str, Any]) -> WireHistory | PendingHistory:
    """Return a conversation as the client sends it, after it has uploaded the images.

    Args:
        pending: The messages.
        values: The settings of the call.

    Raises:
        LMStudioValueError: If an image would have to be downloaded, and may not.
    """
    sources = images(pending)
    if not sources:
        return encode(pending, {})
    for source in sources:
        if source.url and not values["allow_image_download"]:
            raise LMStudioValueError(
                f"the image {redacted_url(source.url)} is on the web; set allow_image_download=True to download it, "
                "or pass its data"
            )

    def with_handles(handles: Sequence[FileHandle]) -> WireHistory:
        return encode(pending, dict(zip(sources, handles, strict=True)))

    contents = [source.url or source.path or source.data for source in sources]
    return PendingHistory(
        contents,
        with_handles,
        values["allow_private_image_hosts"],
        _files(pending),
        has_reasoning=_has_reasoning(pending),
    )


def encode(messages: Sequence[PendingMessage], handles: Mapping[ImageSource, FileHandle]) -> WireHistory:
    """Return the wire form of a conversation, with the uploaded images in their places."""
    has_late = any(message.role == "system" for message in messages[1:])
    system_first = _written(_with_system_first(messages), handles) if has_late else None
    files = [*_files(messages), *handles.values()]
    return WireHistory(_written(messages, handles), files, system_first, _has_reasoning(messages))


def _written(messages: Sequence[PendingMessage], handles: Mapping[ImageSource, FileHandle]) -> list[dict[str, Any]]:
    return wire_messages((each.role, [_wire(part, handles) for part in each.parts]) for each in messages)


def _with_system_first(messages: Sequence[PendingMessage]) -> list[PendingMessage]:
    """Return a conversation with its system messages as one, at the front."""
    merged = Conversation()
    for message in sorted(messages, key=lambda message: message.role != "system"):
        merged.add(message.role, message.parts)
    return merged.finish()


def _files(messages: Sequence[PendingMessage]) -> list[FileHandle]:
    return [part for each in messages for part in each.parts if isinstance(part, FileHandle)]


def _has_reasoning(messages: Sequence[PendingMessage]) -> bool:
    return any(isinstance(part, ReasoningPart) for each in messages for part in each.parts)


def _wire(part: Part, handles: Mapping[ImageSource, FileHandle]) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return (handles[part] if isinstance(part, ImageSource) else part).to_dict()
