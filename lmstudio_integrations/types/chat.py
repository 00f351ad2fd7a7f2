"""Conversations: the wire's messages and parts, and the `Chat` helper that builds them.

See docs/protocol.md#chat-history and docs/protocol.md#tool-call-requests.
"""

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from itertools import count
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeAlias, TypeVar

from pydantic import Field, ValidationError

from lmstudio_integrations._support.secrets import without_secrets
from lmstudio_integrations._support.suggestions import explain
from lmstudio_integrations._support.text import shown
from lmstudio_integrations._support.typeguards import is_iterable, is_mapping
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._wire_model import TaggedModel, WireModel
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.functions import ToolCallRequest, ToolCallRequestPart, ToolCallResultPart
from lmstudio_integrations.types.reasoning import ReasoningPart, with_thoughts
from lmstudio_integrations.types.results import PredictionResult


class TextPart(TaggedModel):
    """Text of a message."""

    type: Literal["text"] = "text"
    text: str


class _Message(TaggedModel):
    """The base of all messages; each role narrows the types of its content."""

    role: Any
    content: list[Any]


class SystemMessage(_Message):
    """Instructions before the conversation."""

    role: Literal["system"] = "system"
    content: list[Annotated[TextPart | FileHandle, Field(discriminator="type")]]


class UserMessage(_Message):
    """Text and files from the user."""

    role: Literal["user"] = "user"
    content: list[Annotated[TextPart | FileHandle, Field(discriminator="type")]]


class AssistantMessage(_Message):
    """Text of the model, its reasoning, and its tool calls."""

    role: Literal["assistant"] = "assistant"
    content: list[Annotated[TextPart | ReasoningPart | FileHandle | ToolCallRequestPart, Field(discriminator="type")]]


class ToolMessage(_Message):
    """Results of tools."""

    role: Literal["tool"] = "tool"
    content: list[ToolCallResultPart]


Message: TypeAlias = SystemMessage | UserMessage | AssistantMessage | ToolMessage


class ChatHistory(WireModel):
    """A conversation in wire form. Its reasoning, for which the wire has no part, is not sent as it is here."""

    messages: list[Annotated[Message, Field(discriminator="role")]]


def text_part(text: str) -> dict[str, Any]:
    """Return a text in wire form."""
    return {"type": "text", "text": text}


_NO_TEXT = text_part("")


def wire_messages(messages: Iterable[tuple[str, Sequence[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """Return messages in wire form: the same message is always the same, as a server continues from the same prompt.

    An empty text says nothing beside other parts, and is all that a message without parts has. Each result of a tool
    has the identifier and the name of its call.

    Args:
        messages: The role and the parts of each, in wire form. The identifiers in the parts may be changed.
    """
    written, calls = list[dict[str, Any]](), _Calls()
    for role, content in messages:
        said = [part for part in content if part != _NO_TEXT]
        if role == "assistant":
            calls.add([part["toolCallRequest"] for part in said if part["type"] == "toolCallRequest"])
        elif role == "tool":
            for part in said:
                calls.add_result(part)
        written.append({"role": role, "content": said or ([] if role == "tool" else [_NO_TEXT])})
    return written


class _Calls:
    """The tool calls of a conversation that have no result yet, each in wire form.

    In histories of other programs, the calls of a turn may have the same identifier, and an empty one is none. Results
    of calls with one identifier are in the order of the calls, unless their names say otherwise.
    """

    def __init__(self) -> None:
        self._waiting: dict[str | None, list[dict[str, Any]]] = {}
        """By the identifier that they were given: those of the last turn that has used it."""
        self._turn: Collection[str | None] = ()
        """The identifiers that the last turn has used."""

    def add(self, turn: Iterable[dict[str, Any]]) -> None:
        """Add the calls of a turn; those that have the same identifier get others."""
        calls = [(_pop_if_empty(call, "id"), call) for call in turn]
        used, by_id = {given for given, _ in calls}, dict[str | None, list[dict[str, Any]]]({None: []})
        for given, call in calls:
            same = by_id.setdefault(given, [])
            if given and same:
                call["id"] = _another_id(given, used)
                used.add(call["id"])
            same.append(call)
        self._turn = by_id.keys()
        self._waiting |= by_id

    def add_result(self, result: dict[str, Any]) -> None:
        """Give a result the identifier and the name of its call, if there is one that has no result."""
        given, name = _pop_if_empty(result, "toolCallId"), result.get("name")
        keys = self._turn if given is None and not self._waiting.get(None) else [given]
        calls = [(key, call) for key in keys for call in self._waiting.get(key, [])]
        same_name = [(key, call) for key, call in calls if call["name"] == name]
        if not same_name and given is None and name is not None:
            return
        for key, call in (same_name or calls)[:1]:
            self._waiting[key] = [each for each in self._waiting[key] if each is not call]
            result |= {"toolCallId": call["id"]} if "id" in call else {}
            result.setdefault("name", call["name"])


def _pop_if_empty(fields: dict[str, Any], name: str) -> str | None:
    value: str | None = fields.get(name)
    if value == "":
        del fields[name]
    return value or None


def _another_id(given: str, used: Container[str | None]) -> str:
    """Return an identifier of the same length, where that is possible: some chat templates require nine characters."""
    numbers = map(str, count(2))
    return next(each for number in numbers if (each := f"{given[: -len(number)]}{number}") not in used)


class WireHistory(NamedTuple):
    """A conversation in wire form, for callers that do not need its messages as objects.

    Attributes:
        messages: The messages, each in wire form.
        files: The files in them that may have to be uploaded again before they are sent.
        system_first: The same messages with one system message, at the front: sent instead to models whose chat
            template takes no other. `None` if there is no other.
        has_reasoning: Whether there is reasoning in them, which is sent as text or omitted.
    """

    messages: list[dict[str, Any]]
    files: Sequence[FileHandle] = ()
    system_first: list[dict[str, Any]] | None = None
    has_reasoning: bool = False

    @classmethod
    def of(cls, history: ChatHistory) -> Self:
        """Return the wire form of a conversation."""
        parts = [part for message in history.messages for part in message.content]
        messages = wire_messages((each["role"], each["content"]) for each in history.to_dict()["messages"])
        has_reasoning = any(isinstance(part, ReasoningPart) for part in parts)
        return cls(messages, [part for part in parts if isinstance(part, FileHandle)], has_reasoning=has_reasoning)

    @classmethod
    def of_prompt(cls, text: str) -> Self:
        """Return the wire form of a conversation of one user message."""
        return cls([{"role": "user", "content": [text_part(text)]}])

    def to_dict(self) -> dict[str, Any]:
        """Return the wire form."""
        return {"messages": self.messages}


_MESSAGES: dict[str, type[Message]] = {
    "system": SystemMessage,
    "user": UserMessage,
    "assistant": AssistantMessage,
    "tool": ToolMessage,
}

MessageT = TypeVar("MessageT", bound=_Message)

Content: TypeAlias = str | TextPart | ReasoningPart | FileHandle | Mapping[str, Any]
ToolCall: TypeAlias = ToolCallRequest | ToolCallRequestPart | Mapping[str, Any]

_TAGS = {
    "text": "text",
    "identifier": "file",
    "toolCallRequest": "toolCallRequest",
    "tool_call_request": "toolCallRequest",
}
"""Names that only one kind of part has, with its `type`, which dicts may omit."""


class Chat:
    """A conversation that grows.

    Consecutive messages of one role become one message, as chat templates expect.

    Args:
        initial_prompt: The system prompt, if any.
    """

    def __init__(self, initial_prompt: str | None = None) -> None:
        self._messages: list[Any] = []
        if initial_prompt is not None:
            self.add_system_prompt(initial_prompt)

    @classmethod
    def from_history(
        cls, history: "str | Chat | ChatHistory | Mapping[str, Any] | Sequence[Message | Mapping[str, Any]]"
    ) -> Self:
        """Build a chat from a user prompt, another chat (copied), its wire form, or a list of messages.

        The list may be in a dict, `{"messages": […]}`. A message has a role and content: a string, one part, or a list
        of parts. The `reasoning_content` of an assistant is its reasoning. Other members, such as `id`, are ignored.

        Raises:
            LMStudioValueError: If the data has another form.
        """
        chat = cls()
        if isinstance(history, Chat):
            # Its parts are frozen, except for the arguments of tool calls.
            chat._messages = [message.model_copy(deep=True) for message in history.messages]
        elif isinstance(history, str):
            chat.add_user_message(history)
        else:
            for message in _messages_of(history):
                chat.append(message)
        return chat

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages so far."""
        return tuple(self._messages)

    def copy(self) -> Self:
        """Return an independent copy."""
        return self.from_history(self)

    __copy__ = copy

    def add_system_prompt(self, prompt: Content | Iterable[Content]) -> SystemMessage:
        """Add instructions for the model."""
        return self._add(SystemMessage, _parts(prompt))

    def add_user_message(
        self, content: Content | Iterable[Content], *, images: Iterable[FileHandle | Mapping[str, Any]] = ()
    ) -> UserMessage:
        """Add a user message; images, as `prepare_image` returns them, come after the text."""
        requirement = "images must be a list of prepared files, which prepare_image(…) returns"
        files = [_tagged(each) for each in _listed(images, requirement)]
        for each in files:
            if not (isinstance(each, FileHandle) or is_mapping(each)):
                raise LMStudioValueError(f"{requirement}; got {shown(each)}")
        return self._add(UserMessage, [*_parts(content), *files])

    def add_assistant_response(
        self,
        response: "str | PredictionResult | Content | Iterable[Content]",
        tool_call_requests: Iterable[ToolCall] = (),
    ) -> AssistantMessage:
        """Add the response of the model; that of a `PredictionResult` with its reasoning.

        Args:
            response: The text, or the result of a prediction. How much of the reasoning is sent again is a matter of
                each request: see `send_reasoning` of `PredictionParameters`.
            tool_call_requests: The tool calls that the model requested; dicts may be in either wire form, the request
                (`{"type": "function", …}`) or the part around it (`{"type": "toolCallRequest", …}`).

        Raises:
            LMStudioValueError: If the response or a tool call has another form.
        """
        content = response
        if isinstance(response, PredictionResult):
            content = with_thoughts(response.content, response.thoughts)
        return self._add(AssistantMessage, [*_parts(content), *_calls(tool_call_requests)])

    def add_tool_results(self, results: Iterable[ToolCallResultPart | Mapping[str, Any]]) -> ToolMessage:
        """Add the results of tools."""
        return self._add(ToolMessage, _listed(results, "results must be a list of tool results"))

    def add_tool_result(self, result: ToolCallResultPart | Mapping[str, Any]) -> ToolMessage:
        """Add the result of a tool."""
        return self.add_tool_results([result])

    def add_entry(self, role: str, content: Content | Iterable[Content | ToolCall]) -> Message:
        """Add a message of any role.

        Raises:
            LMStudioValueError: If the role is unknown or the content does not fit it.
        """
        return self.append({"role": role, "content": content})

    def append(self, message: Message | Mapping[str, Any]) -> Message:
        """Add a message, as an object or in wire form.

        Raises:
            LMStudioValueError: If the role is unknown or the content does not fit it.
        """
        if isinstance(message, Message):
            return self._add(type(message), list(message.content))
        role, reasoning, content = _members(message)
        return self._add(_MESSAGES[role], [*reasoning, *_parts(content)])

    def to_history(self) -> ChatHistory:
        """Return the conversation in wire form.

        Raises:
            LMStudioValueError: If it is empty.
        """
        if not self._messages:
            raise LMStudioValueError("the chat is empty; add a message before requesting a response")
        return ChatHistory(messages=self._messages)

    def __len__(self) -> int:
        return len(self._messages)

    def __repr__(self) -> str:
        return f"{type(self).__name__}.from_history({ChatHistory(messages=self._messages).to_dict()!r})"

    def _add(self, kind: type[MessageT], parts: list[Any]) -> MessageT:
        """Add a message, or add its content to the last one if that has the same role."""
        try:
            message = kind.model_validate({"content": parts})
        except ValidationError as error:
            problem = without_secrets(error)
        else:
            return self._joined(message)
        raise LMStudioValueError(f"content does not fit a message of {kind.__name__}: {explain(problem)}") from problem

    def _joined(self, message: MessageT) -> MessageT:
        kind = type(message)
        last = self._messages[-1] if self._messages else None
        if not isinstance(last, kind):
            self._messages.append(message)
            return message
        begins_with_thought = message.content and isinstance(message.content[0], ReasoningPart)
        is_gap = begins_with_thought and last.content and isinstance(last.content[-1], TextPart)
        gap = [TextPart(text="\n\n")] if is_gap else []  # a thought joins the texts around it, also if it is omitted
        grown = kind.model_validate({"content": [*last.content, *gap, *message.content]})
        self._messages[-1] = grown
        return grown


def _listed(values: object, requirement: str) -> list[Any]:
    if not is_iterable(values) or isinstance(values, str | Mapping | WireModel):
        raise LMStudioValueError(f"{requirement}; got {values!r}")
    return list(values)


def _messages_of(history: object) -> list[Any]:
    if isinstance(history, ChatHistory):
        return list(history.messages)
    messages = history.get("messages") if is_mapping(history) else history
    if not isinstance(messages, list | tuple):
        raise LMStudioValueError(f"a history must be a string, a chat or a list of messages; got {history!r}")
    return [*messages]


def _members(message: object) -> tuple[str, list[ReasoningPart], object]:
    """Return role, reasoning and content of a message. Servers and programs store more in one, which no model reads."""
    if not is_mapping(message):
        raise LMStudioValueError(f"a message must be an object, or a dict with role and content; got {message!r}")
    role = message.get("role")
    if not isinstance(role, str) or role not in _MESSAGES:
        raise LMStudioValueError(f"role must be one of {', '.join(_MESSAGES)}; got {role!r}")
    for name, remedy in _NOT_IN_MESSAGES.items():
        if message.get(name):
            raise LMStudioValueError(f"a message has no {name!r}; {remedy}")
    reasoning = message.get("reasoning_content") if role == "assistant" else None
    if not isinstance(reasoning, str | None):
        raise LMStudioValueError(f"reasoning_content must be a string; got {reasoning!r}")
    return role, [ReasoningPart(text=reasoning)] if reasoning else [], message.get("content")


_NOT_IN_MESSAGES = {
    **dict.fromkeys(("tool_calls", "function_call"), "add tool calls with add_assistant_response()"),
    "tool_call_id": "add the results of tools with add_tool_result()",
    "images": "prepare them with prepare_image(), and add them with add_user_message(text, images=[…])",
}
"""Members of messages in other APIs that a model reads, and what takes their place."""


def _calls(requests: object) -> list[Any]:
    """Return tool calls as parts of a message."""
    requirement = "tool_call_requests must be a list of ToolCallRequest"
    listed = _listed(requests, requirement)
    calls = [_tagged(call, tag="function") for call in listed]
    if not all(isinstance(call, ToolCallRequestPart) or _is_tagged(call, "toolCallRequest") for call in calls):
        raise LMStudioValueError(f"{requirement}; got {listed!r}")
    return calls


def _parts(content: object) -> list[Any]:
    """Return content as a list of parts. Wire form stays as it is, to be validated with the message."""
    if isinstance(content, str):
        return [TextPart(text=content)]
    if isinstance(content, WireModel) or is_mapping(content):
        return [_tagged(content)]
    if is_iterable(content):
        return [TextPart(text=part) if isinstance(part, str) else _tagged(part) for part in content]
    raise LMStudioValueError(f"content must be a string, a part or a list of parts; got {content!r}")


def _tagged(part: object, tag: str | None = None) -> object:
    """Return a part of a message: a dict gets a missing `type`, by default `tag`; a tool call gets its part."""
    if isinstance(part, ToolCallRequest):
        return ToolCallRequestPart(tool_call_request=part)
    if not is_mapping(part):
        return part
    if "type" not in part:
        tag = next((kind for name, kind in _TAGS.items() if name in part), tag)
        part = part if tag is None else {"type": tag, **part}
    return {"type": "toolCallRequest", "toolCallRequest": part} if _is_tagged(part, "function") else part


def _is_tagged(part: object, tag: str) -> bool:
    return is_mapping(part) and part.get("type") == tag
