"""A conversation on its way to the wire (protocol §6.1). Pure: pictures are only named here, and uploaded elsewhere.

An adapter adds turns to a `Conversation`, which brings them into the form that chat templates want: one system message
first, neighbours of one role in one message, and pictures that a tool returned, for which the wire has no place, in the
next user turn. After the pictures have been uploaded, `to_wire` puts the handles in their places.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lmstudio_integrations._urls import redacted_url
from lmstudio_integrations.errors import LMStudioOSError, LMStudioValueError
from lmstudio_integrations.types.chat import TextPart, WireHistory
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.tools import ToolCallRequest, ToolCallRequestPart, ToolCallResultPart

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ImageSource:
    """A picture that must be uploaded before the conversation can be sent.

    Attributes:
        data: The file's content.
        url: Where to fetch it instead, http or https.
    """

    data: bytes = b""
    url: str | None = field(default=None, repr=False)  # it may hold credentials

    def __post_init__(self) -> None:
        if not self.data and self.url is None:
            raise LMStudioValueError("an image is empty; give its data, a path or an address")

    @classmethod
    def from_base64(cls, text: str | bytes) -> "ImageSource":
        """Read a picture from its base64 form.

        Raises:
            LMStudioValueError: If it is none.
        """
        try:
            return cls(base64.b64decode(text, validate=False))
        except binascii.Error as error:
            raise LMStudioValueError(f"the image's data is not base64: {error}") from error

    @classmethod
    def from_path(cls, path: str | Path) -> "ImageSource":
        """Read a picture from a file.

        Raises:
            LMStudioOSError: If it cannot be read.
            LMStudioValueError: If it is no path, or the file is empty.
        """
        if not isinstance(path, str | Path):  # pyright: ignore[reportUnnecessaryIsInstance] - it comes from a message
            raise LMStudioValueError(f"an image's path must be text or a Path; got {path!r}")
        try:
            return cls(Path(path).read_bytes())
        except OSError as error:
            raise LMStudioOSError(f"cannot read the image {str(path)!r}: {error.strerror or error}") from error

    @classmethod
    def from_url(cls, url: str) -> "ImageSource":
        """Read a picture from a data URL, or note where it is.

        Raises:
            LMStudioValueError: If it is neither a data URL nor one of http or https.
        """
        scheme = url.partition(":")[0].lower()
        if scheme == "data":
            return cls.from_base64(url.partition(",")[2])
        if scheme in {"http", "https"}:
            return cls(url=url)
        raise LMStudioValueError(
            f"an image's URL must begin with data:, http:// or https://; got {redacted_url(url)!r}"
        )


Part: TypeAlias = TextPart | FileHandle | ImageSource | ToolCallRequestPart | ToolCallResultPart


@dataclass(slots=True)
class Draft:
    """A message whose pictures are not uploaded yet."""

    role: Role
    parts: list[Part] = field(default_factory=list[Part])


class Conversation:
    """Collects the turns of a conversation."""

    def __init__(self) -> None:
        self._drafts: list[Draft] = []
        self._names: dict[str, str] = {}
        self._pictures: list[ImageSource] = []

    def add(self, role: Role, parts: Sequence[Part]) -> None:
        """Add a turn, or let the last one of the same role grow."""
        if self._pictures and role != "tool":
            shown, self._pictures = self._pictures, []
            self.add("user", shown)
        _append(self._drafts, Draft(role, list(parts)))

    def add_call(self, name: str, call_id: str | None, arguments: dict[str, Any]) -> None:
        """Add a tool call to the assistant's turn that was added last."""
        assert self._drafts, "the assistant's turn comes before its calls"
        assert self._drafts[-1].role == "assistant", "only the assistant calls tools"
        fields: dict[str, Any] = {"name": name, "arguments": arguments}
        _check_id(call_id)
        if call_id:
            fields["id"] = call_id
            self._names[call_id] = name
        request = ToolCallRequest.from_dict(fields)
        self._drafts[-1].parts.append(ToolCallRequestPart(tool_call_request=request))

    def add_result(
        self, text: str, call_id: str | None, name: str | None = None, pictures: Iterable[ImageSource] = ()
    ) -> None:
        """Add the answer of a tool; what it shows waits for the next user turn."""
        _check_id(call_id)
        self._pictures.extend(pictures)
        fields = {"content": text, "tool_call_id": call_id, "name": name or self._names.get(call_id or "")}
        part = ToolCallResultPart.from_dict({key: value for key, value in fields.items() if value is not None})
        self.add("tool", [part])

    def finish(self) -> list[Draft]:
        """Return the messages, the system prompt first."""
        if self._pictures:
            self.add("user", ())
        if all(draft.role != "system" for draft in self._drafts[1:]):
            return self._drafts
        messages: list[Draft] = []
        for draft in sorted(self._drafts, key=lambda draft: draft.role != "system"):
            _append(messages, Draft(draft.role, list(draft.parts)))
        return messages


def _check_id(call_id: object) -> None:
    if call_id is not None and not isinstance(call_id, str):
        raise LMStudioValueError(f"the identifier of a tool call must be text, got {call_id!r}")


def _append(drafts: list[Draft], more: Draft) -> None:
    """Add a message, or let the last one grow; a blank line keeps two texts apart, however the server joins parts."""
    if not drafts or drafts[-1].role != more.role:
        drafts.append(more)
        return
    parts, added = drafts[-1].parts, more.parts
    if parts and added and isinstance(parts[-1], TextPart) and isinstance(added[0], TextPart):
        parts[-1] = TextPart(text=f"{parts[-1].text}\n\n{added[0].text}")
        added = added[1:]
    parts.extend(added)


def images(drafts: Iterable[Draft]) -> list[ImageSource]:
    """Return the pictures that must be uploaded, each once."""
    found = {part: None for message in drafts for part in message.parts if isinstance(part, ImageSource)}
    return list(found)


def to_wire(drafts: Iterable[Draft], handles: Mapping[ImageSource, FileHandle]) -> WireHistory:
    """Return the conversation as it travels, with the uploaded pictures in their places."""
    messages = [{"role": draft.role, "content": [_wire(part, handles) for part in draft.parts]} for draft in drafts]
    return WireHistory(messages, list(handles.values()))


def _wire(part: Part, handles: Mapping[ImageSource, FileHandle]) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    return (handles[part] if isinstance(part, ImageSource) else part).to_dict()
