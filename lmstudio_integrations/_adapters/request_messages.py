"""A conversation on its way to the wire (docs/protocol.md#chat-history), with its images, documents and thoughts. Pure.

The converters of both frameworks (`langchain/_messages.py`, `llama_index/_messages.py`) add turns to a `Conversation`,
which brings them into the form that chat templates expect: neighbors of one role merged, names in the text if they
differ, and images that a tool returned in the next user turn, because the wire has no place for either. A system
message stays where it is; the client moves it to the front if the model's template takes it nowhere else. Images are
only listed here. The client downloads and uploads those of `history_of`, and `encode` puts the file handles in their
places.

What a tool or a model returned is no error, because every later call with that message would raise it again: a note
takes the place of what cannot be sent. Nor is it read from a file: only the program itself may name paths.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeAlias

from lmstudio_integrations._adapters.request_tools import wire_name
from lmstudio_integrations._support.secrets import redacted_url
from lmstudio_integrations._support.text import shown
from lmstudio_integrations._support.typeguards import is_count, is_list, is_object
from lmstudio_integrations.client.files.uploads import (
    PendingHistory,
    PendingImage,
    decode_base64,
    decode_data_url,
    missing_prefix,
)
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.chat import WireHistory, text_part, wire_messages
from lmstudio_integrations.types.files import FileHandle, image_format
from lmstudio_integrations.types.functions import ToolCallRequest, ToolCallRequestPart, ToolCallResultPart
from lmstudio_integrations.types.reasoning import ReasoningPart, Thought, with_thoughts
from lmstudio_integrations.types.structured import partial_json

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image that must be uploaded before the conversation can be sent.

    Attributes:
        data: The file's content.
        url: Where to fetch it instead, http or https.
        path: The file to read it from instead.
        is_optional: Whether a note takes its place if it cannot be sent, as a tool or a model has returned it.
    """

    data: bytes = b""
    url: str | None = field(default=None, repr=False)  # it may hold credentials
    path: Path | None = None
    is_optional: bool = False

    def __post_init__(self) -> None:
        if not self.data and self.url is None and self.path is None:
            raise LMStudioValueError("an image is empty; pass its data, a path or a URL")

    @classmethod
    def from_base64(cls, text: str | bytes) -> "ImageSource":
        """Read an image from its base64 form.

        Raises:
            LMStudioValueError: If it is not base64.
        """
        if not isinstance(text, str | bytes):  # pyright: ignore[reportUnnecessaryIsInstance] - it comes from a message
            raise LMStudioValueError(f"an image's data must be base64 or bytes; got {shown(text)}")
        return cls(decode_base64(text, "the image's data"))

    @classmethod
    def from_path(cls, path: str | Path) -> "ImageSource":
        """Name the file of an image, which the client reads.

        Raises:
            LMStudioValueError: If the path has another type.
        """
        if not isinstance(path, str | Path):  # pyright: ignore[reportUnnecessaryIsInstance] - it comes from a message
            raise LMStudioValueError(f"an image's path must be a string or a Path; got {shown(path)}")
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

    def for_role(self, role: Role) -> "ImageSource":
        """Return the image as a part of a message of this role.

        Raises:
            LMStudioValueError: If a tool or a model has returned it, and it is a file or certainly no image.
        """
        if role not in RETURNED:
            return self
        if self.path is not None:
            raise LMStudioValueError(NO_PATHS)
        if self.url is None and image_format(self.data) is None:
            raise LMStudioValueError("it is not a JPEG, PNG or WebP image")
        return replace(self, is_optional=True)


RETURNED: frozenset[Role] = frozenset({"tool", "assistant"})
"""The roles of messages that others wrote, models and the tools that they called."""


NO_PATHS = "files are only read from paths in messages of a user or the system; return the content"
"""The error about a path in a message that others wrote."""


def not_shown(what: object, reason: object) -> str:
    """Return the note that takes the place of what cannot be sent."""
    return f"[{what}: not shown, because {reason}]"


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The result of a tool.

    Attributes:
        part: Its text, with the identifier and the name of its call.
        images: The images in it, which are sent in the next user turn.
    """

    part: ToolCallResultPart
    images: tuple[ImageSource, ...] = ()


OtherPart: TypeAlias = ReasoningPart | FileHandle | ImageSource | ToolCallRequestPart | ToolResult
Part: TypeAlias = str | OtherPart
"""A part of a message; a string is a text."""

Uploaded: TypeAlias = Mapping[ImageSource, FileHandle | str]
"""The uploaded images; of one that cannot be sent, why."""


@dataclass(slots=True)
class PendingMessage:
    """A message, or a turn of one, whose images are not uploaded yet.

    Attributes:
        role: Whose it is.
        parts: Its parts.
        name: The name of the speaker, while its text does not say it.
    """

    role: Role
    parts: list[Part] = field(default_factory=list[Part])
    name: str | None = None


NO_MESSAGES = "the list of messages is empty; add a message before requesting a response"
"""The error about a conversation without messages."""


class Conversation:
    """Collects the turns of a conversation."""

    def __init__(self) -> None:
        self._turns: list[PendingMessage] = []
        self._images: list[ImageSource] = []

    def add(self, role: Role, parts: Sequence[Part], name: object = None) -> None:
        """Add a turn.

        Args:
            role: Whose it is.
            parts: Its parts.
            name: The name of the speaker, if there is one. Only users and models speak.
        """
        if self._images and role != "tool":
            held, self._images = self._images, []
            self.add("user", held)
        is_speaker = isinstance(name, str) and role in {"user", "assistant"}
        one_line = " ".join(str(name).split()) if is_speaker else ""
        self._turns.append(PendingMessage(role, list(parts), one_line or None))

    def add_call(self, name: str, call_id: str | None, arguments: dict[str, Any]) -> None:
        """Add a tool call to the assistant's turn that was added last."""
        assert self._turns, "the assistant's turn comes before its calls"
        assert self._turns[-1].role == "assistant", "only the assistant calls tools"
        fields = {"name": wire_name(name), "arguments": arguments, "id": _checked_id(call_id)}
        request = ToolCallRequest.from_dict({key: value for key, value in fields.items() if value is not None})
        self._turns[-1].parts.append(ToolCallRequestPart(tool_call_request=request))

    def add_result(self, text: str, call_id: str | None, name: object, parts: Iterable[Part] = ()) -> None:
        """Add the result of a tool. The images among its parts are held back for the next user turn."""
        images = tuple(part for part in parts if isinstance(part, ImageSource))
        self._images += images
        sent_name = wire_name(name) if name and isinstance(name, str) else None
        fields = {"content": text, "tool_call_id": _checked_id(call_id), "name": sent_name}
        part = ToolCallResultPart.from_dict({key: value for key, value in fields.items() if value is not None})
        self.add("tool", [ToolResult(part, images)])

    def finish(self) -> list[PendingMessage]:
        """Return the messages. Neighbors of one role become one."""
        if self._images:
            self.add("user", ())
        return [_merged(list(turns)) for _, turns in groupby(self._turns, key=lambda turn: turn.role)]


def _merged(turns: Sequence[PendingMessage]) -> PendingMessage:
    """Return neighbors of one role as one message.

    Their names stand before the texts if two differ. Other turns do not count, so that what was sent stays the same
    when the conversation goes on: at most the last message changes, when a second speaker joins it.
    """
    names = list(dict.fromkeys(turn.name for turn in turns if turn.name))
    has_several = len(names) > 1
    merged = PendingMessage(turns[0].role, name=None if has_several or not names else names[0])
    for index, turn in enumerate(turns):
        parts = _with_name(turn.parts, turn.name) if has_several and turn.name else turn.parts
        if index == 0:
            merged.parts = [*parts]
            continue
        if merged.parts and _is_cut_off(merged.parts[-1]):  # in front of what follows, it would be a whole one
            merged.parts.pop()
        # A blank line separates two texts, however the server joins parts. A thought joins those around it.
        begins_with_thought = bool(parts) and isinstance(parts[0], ReasoningPart)
        new = ["", *parts] if begins_with_thought else [*parts]
        merged.parts[-1:] = [*joined([*merged.parts[-1:], *new[:1]], "\n\n"), *new[1:]]
    return merged


def _with_name(parts: Sequence[Part], name: str) -> list[Part]:
    """Return what someone said with the name before it, unless it begins with that. Thoughts and calls have none."""
    at = next((index for index, part in enumerate(parts) if not isinstance(part, ReasoningPart)), len(parts))
    match parts[at:]:
        case [str(text), *rest]:
            said = text.lstrip()
            has_name = not said or said.startswith((f"{name}:", f"<name>{name}</name>"))
            before = text[: len(text) - len(said)]
            return [*parts[:at], text if has_name else f"{before}{name}: {said}", *rest]
        case [ImageSource() | FileHandle(), *_]:
            return [*parts[:at], f"{name}:", *parts[at:]]
        case _:
            return [*parts]


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
        return {str(name): each for name, each in value.items()}
    return {} if arguments in (None, "", "null") else {"arguments": arguments}


def _checked_id(call_id: object) -> object:
    if call_id is not None and not isinstance(call_id, str):
        raise LMStudioValueError(f"the identifier of a tool call must be a string; got {shown(call_id)}")
    return call_id


class Attachments(NamedTuple):
    """What a conversation has besides texts and calls.

    Attributes:
        images: The images that must be uploaded, each once.
        files: The uploaded files that it refers to.
        has_reasoning: Whether it has thoughts.
    """

    images: list[ImageSource]
    files: list[FileHandle]
    has_reasoning: bool

    @classmethod
    def of(cls, messages: Iterable[PendingMessage]) -> Self:
        """Return those of messages."""
        images, files, has_reasoning = dict[ImageSource, None](), list[FileHandle](), False
        for message in messages:
            for part in message.parts:
                match part:
                    case ImageSource():
                        images[part] = None
                    case FileHandle():
                        files.append(part)
                    case ReasoningPart():
                        has_reasoning = True
                    case _:
                        pass
        return cls([*images], files, has_reasoning)


def history_of(pending: Sequence[PendingMessage], values: Mapping[str, Any]) -> WireHistory | PendingHistory:
    """Return a conversation as the client sends it, after it has uploaded the images.

    Args:
        pending: The messages.
        values: The settings of the call.

    Raises:
        LMStudioValueError: If an image would have to be downloaded, and may not.
    """
    attachments = Attachments.of(pending)
    if not attachments.images:
        return encode(pending, {})
    unsent = dict[ImageSource, str]()
    for source in attachments.images:
        if source.url and not values["allow_image_download"]:
            problem = (
                f"the image {redacted_url(source.url)} is on the web; set allow_image_download=True to download it, "
                "or pass its data"
            )
            if not source.is_optional:
                raise LMStudioValueError(problem)
            unsent[source] = problem
    sent = [source for source in attachments.images if source not in unsent]
    if not sent:
        return encode(pending, unsent)

    def with_handles(handles: Sequence[FileHandle | str]) -> WireHistory:
        return encode(pending, {**unsent, **dict(zip(sent, handles, strict=True))})

    return PendingHistory(
        [PendingImage(source.url or source.path or source.data, source.is_optional) for source in sent],
        with_handles,
        values["allow_image_download"] == "private",
        attachments.files,
        has_reasoning=attachments.has_reasoning,
    )


def encode(messages: Sequence[PendingMessage], uploaded: Uploaded) -> WireHistory:
    """Return the wire form of a conversation, with the uploaded images, or notes, in their places."""
    attachments = Attachments.of(messages)
    handles = [each for each in uploaded.values() if isinstance(each, FileHandle)] if uploaded else []
    system_first = None
    if "system" in [message.role for message in messages[1:]]:
        system_first = _written(_with_system_first(messages), uploaded)
    files = [*attachments.files, *handles]
    return WireHistory(_written(messages, uploaded), files, system_first, attachments.has_reasoning)


def _written(messages: Sequence[PendingMessage], uploaded: Uploaded) -> list[dict[str, Any]]:
    written: list[tuple[str, list[dict[str, Any]]]] = []
    for message in messages:
        parts: list[dict[str, Any]] = []
        for part in message.parts:
            if isinstance(part, str):
                parts.append(text_part(part))
            # A user has an image of a tool only if it could be uploaded: otherwise the tool's result says why not.
            elif not (
                message.role == "user"
                and isinstance(part, ImageSource)
                and part.is_optional
                and isinstance(uploaded[part], str)
            ):
                parts.append(_wire(part, uploaded))
        if parts or not message.parts:
            written.append((message.role, parts))
    return wire_messages(written)


def _with_system_first(messages: Sequence[PendingMessage]) -> list[PendingMessage]:
    """Return a conversation with its system messages as one, at the front."""
    merged = Conversation()
    for message in sorted(messages, key=lambda message: message.role != "system"):
        merged.add(message.role, message.parts, message.name)
    return merged.finish()


def _wire(part: OtherPart, uploaded: Uploaded) -> dict[str, Any]:
    if isinstance(part, ToolResult):
        notes = [not_shown("image", reason) for each in part.images if isinstance(reason := uploaded.get(each), str)]
        wire = part.part.to_dict()
        return wire | {"content": "\n".join([wire["content"], *notes] if wire["content"] else notes)} if notes else wire
    if isinstance(part, ImageSource):
        handle = uploaded[part]
        return text_part(not_shown("image", handle)) if isinstance(handle, str) else handle.to_dict()
    return part.to_dict()


# Documents ------------------------------------------------------------------------------------------------------------
# What a model reads of a file that is no image, for which LM Studio's API has no type.

_TEXT = (
    r"text/.+|.+\+(json|xml|yaml)"
    r"|application/(json|jsonl|ndjson|x-ndjson|xml|yaml|x-yaml|toml|x-toml|sql|graphql|javascript|x-javascript|x-sh)"
)
"""MIME types of texts."""

_UNKNOWN = frozenset({"", "application/octet-stream", "binary/octet-stream"})
"""MIME types of anything, also of a text."""


def decoded_text(data: bytes, mime_type: str | None) -> str | None:
    """Return the text of a document; `None` if it is of another type, or not in UTF-8."""
    kind = (mime_type or "").partition(";")[0].strip().lower()
    if kind not in _UNKNOWN and not re.fullmatch(_TEXT, kind):
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
        return not_shown(f"{name or 'file'} ({details})", "it is not text") if text is None else text
    if url:
        return f"{name}: {url}" if name else url
    return not_shown(f"{name or 'file'} ({mime_type or 'unknown type'})", "it has no content")


# Thoughts -------------------------------------------------------------------------------------------------------------
# As messages of both frameworks keep them, so that they go back as the model wrote them. Their text is in the
# framework's own place, their tags are beside it.

TAGS = "reasoning_tags"
"""The member of a message, or of its block, that holds the tags."""


def tags_of(thoughts: Sequence[Thought], text: str) -> list[dict[str, Any]]:
    """Return the tags of the thoughts of a response as JSON.

    Each has the length of the thought, and how many characters of the response stand before it, of which white space at
    its beginning does not count. One inside of the response also has a hash of the response.
    """
    leading = len(text) - len(text.lstrip())
    return [
        {
            "start": each.start_tag,
            "end": each.end_tag,
            "length": len(each.text),
            "at": each.at - leading,
            **({"inside": _hash(text)} if each.at > leading else {}),
        }
        for each in thoughts
    ]


def response_parts(parts: list[Part], reasoning: str, tags: object) -> list[Part]:
    """Return the parts of a message with its thoughts where the model wrote them.

    Args:
        parts: The parts; texts beside each other are joined.
        reasoning: The thoughts, joined.
        tags: What `tags_of` returned, or anything else that a message may hold in its place.
    """
    known = tags if is_list(tags) else []
    if not (reasoning or known):
        return parts
    text, rest = (parts[0], parts[1:]) if parts and isinstance(parts[0], str) else ("", parts)
    return [*with_thoughts(text, _thoughts(reasoning, known, text)), *rest]


def _thoughts(reasoning: str, tags: list[Any], text: str) -> list[Thought]:
    """Return the thoughts; edited ones become one, in front.

    Of a text that was edited, only those that stood before it are returned: the places of others are not known.
    """
    known = [each for each in tags if _is_valid(each)]
    if not known or len(known) < len(tags):
        return [Thought(reasoning)] if reasoning else []
    if sum(each["length"] for each in known) != len(reasoning):
        return [Thought(reasoning, known[0]["start"], known[-1]["end"])] if reasoning else []
    leading, own = len(text) - len(text.lstrip()), None
    thoughts, done = list[Thought](), 0
    for each in known:
        thought = reasoning[done : done + each["length"]]
        done += each["length"]
        if each["at"] > 0:
            own = own or _hash(text)
            if each.get("inside") != own:
                continue
        at = min(max(each["at"] + leading, 0), len(text))
        thoughts.append(Thought(thought, each["start"], each["end"], at))
    return sorted(thoughts, key=lambda thought: thought.at)


def _hash(text: str) -> str:
    return sha256(text.strip().encode(errors="surrogatepass")).hexdigest()[:16]


def _is_valid(tags: object) -> bool:
    return (
        is_object(tags)
        and isinstance(tags.get("start"), str)
        and isinstance(tags.get("end"), str)
        and is_count(tags.get("length"))
        and type(tags.get("at")) is int
    )
