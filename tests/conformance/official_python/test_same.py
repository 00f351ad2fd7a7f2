"""The same program does the same with the official SDK and with ours: to move over is to change an import."""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import lmstudio as official
import pydantic
import pytest

import lmstudio_integrations as ours
from lmstudio_integrations.emulator import Emulator

pytestmark = pytest.mark.broad
CHAT, EMBEDDING = "qwen2.5-7b-instruct", "text-embedding-nomic-embed-text-v1.5"
Sdk: TypeAlias = Any
"""Either package."""

TEXT = {
    "object": '{"title": "The Hobbit", "author": "J.R.R. Tolkien", "year": 1937}',
    "misfit": '{"title": 5}',
    "list": "[1, 2, 3]",
    "string": '"The Hobbit"',
    "number": "1937",
    "words": "It is a book.",
}
"""What the model says to a prompt."""

SCHEMA = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "author": {"type": "string"}, "year": {"type": "integer"}},
    "required": ["title", "author", "year"],
}


class Book(pydantic.BaseModel):
    title: str
    author: str
    year: int


class OwnForm:
    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        return SCHEMA


def own_base(lms: Sdk) -> Any:
    """Return a class on the base that the SDK brings."""

    class Book(lms.BaseModel):
        title: str
        author: str
        year: int

    return Book


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server whose model says what it is asked for."""
    rules: list[Any] = [{"when": {"last": f"^{prompt}"}, "then": [{"text": text}]} for prompt, text in TEXT.items()]
    rules.append({"when": {"last": "^count"}, "then": [{"text": " ".join(map(str, range(2001)))}]})
    rules.append({"when": {"image": True}, "then": [{"text": "I see a picture."}]})
    models: list[Any] = [
        {"key": CHAT, "rules": rules, "vision": True, "tokens_per_second": 2000},
        {"key": EMBEDDING, "kind": "embedding"},
    ]
    with Emulator(models) as emulator:
        yield emulator


def same(program: Callable[[Sdk], Any]) -> Any:
    """Run a program with both SDKs; return the result, which must be the same."""
    theirs, mine = program(official), program(ours)
    assert mine == theirs
    return mine


FORMATS: dict[str, Callable[[Sdk], Any]] = {
    "pydantic": lambda _: Book,
    "BaseModel": own_base,
    "a class that says its schema": lambda _: OwnForm,
    "schema": lambda _: SCHEMA,
    "json": lambda _: {"type": "json", "jsonSchema": SCHEMA},
    "grammar": lambda _: {"type": "gbnf", "gbnfGrammar": "root ::= .*"},
    "no format": lambda _: None,
}


def comparable(result: Any) -> tuple[Any, ...]:
    return type(result.parsed).__name__, result.parsed, result.structured, result.content, str(result)


@pytest.mark.parametrize(
    ("form", "prompt"),
    [
        *(("pydantic", prompt) for prompt in TEXT),
        *((form, prompt) for form in FORMATS for prompt in ("object", "words")),
    ],
)
def test_structured_responses_are_parsed_alike(server: Emulator, form: str, prompt: str) -> None:
    def program(lms: Sdk) -> Any:
        with lms.Client(server.address) as client:
            model, response_format = client.llm.model(CHAT), FORMATS[form](lms)
            stream = model.respond_stream(prompt, response_format=response_format)
            fragments = [fragment.content for fragment in stream]
            return (
                comparable(model.respond(prompt, response_format=response_format)),
                comparable(model.complete(prompt, response_format=response_format)),
                (comparable(stream.result()), fragments),
            )

    (kind, _, structured, *_), *_ = same(program)
    assert (kind == "dict") == structured == (prompt in {"object", "misfit"} and form != "no format")


@pytest.mark.parametrize(
    "structured",
    [
        {"type": "gbnf", "gbnf_grammar": "root ::= .*"},
        {"type": "gbnf", "gbnfGrammar": "root ::= .*"},
        {"type": "json", "json_schema": SCHEMA},
        {"type": "json", "jsonSchema": SCHEMA},
    ],
)
def test_the_structured_setting_is_read_alike(server: Emulator, structured: dict[str, Any]) -> None:
    def program(lms: Sdk) -> Any:
        with lms.Client(server.address) as client:
            result = client.llm.model(CHAT).respond("object", config={"structured": structured})
            return comparable(result), result.prediction_config.to_dict()["structured"]

    assert same(program)[0][2]


def wire(chat: Any) -> Any:
    """Return a chat as it is sent."""
    return chat.to_history().to_dict() if isinstance(chat, ours.Chat) else chat._get_history()


CALL = {"type": "toolCallRequest", "toolCallRequest": {"type": "function", "id": "1", "name": "add", "arguments": {}}}
FILE = {"name": "a.png", "identifier": "f", "sizeBytes": 1, "fileType": "image"}
CHATS: dict[str, Callable[[Sdk, Any], Any]] = {
    "a file without type": lambda _, chat: chat.add_user_message(["Look", FILE]),
    "an image without type": lambda _, chat: chat.add_user_message("Look", images=[FILE]),
    "an image with a type": lambda _, chat: chat.add_user_message("Look", images=[{"type": "file", **FILE}]),
    "a file in snake case": lambda _, chat: chat.add_user_message(
        {"name": "a.png", "identifier": "f", "size_bytes": 1, "file_type": "image"}
    ),
    "a file of the assistant": lambda _, chat: chat.add_assistant_response(FILE),
    "texts without type": lambda _, chat: (
        chat.add_system_prompt({"text": "a"}),
        chat.add_user_message([{"text": "b"}]),
        chat.add_assistant_response({"text": "c"}),
    ),
    "a tool call as a dict": lambda _, chat: chat.add_assistant_response("a", [CALL]),
    "a tool call as a part": lambda lms, chat: chat.add_entry(
        "assistant", ["a", lms.ToolCallRequest.from_dict(CALL["toolCallRequest"])]
    ),
    "a tool call as an object": lambda lms, chat: chat.add_assistant_response(
        "a", [lms.ToolCallRequest.from_dict(CALL["toolCallRequest"])]
    ),
}


@pytest.mark.parametrize("name", CHATS)
def test_chats_take_the_same_dicts(name: str) -> None:
    def program(lms: Sdk) -> Any:
        chat = lms.Chat()
        CHATS[name](lms, chat)
        return wire(chat)

    assert same(program)["messages"]


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("LlmInfo", {}),
        ("EmbeddingModelInfo", {}),
        ("LlmInstanceInfo", {"identifier": "a", "instance_reference": "r", "context_length": 4096}),
        ("EmbeddingModelInstanceInfo", {"identifier": "a", "instance_reference": "r", "context_length": 4096}),
    ],
)
def test_infos_are_made_by_hand_alike(name: str, more: dict[str, Any]) -> None:
    fields = {"model_key": "a", "format": "gguf", "display_name": "A", "path": "p", "size_bytes": 1, **more}
    if name.startswith("Llm"):
        fields |= {"vision": True, "trained_for_tool_use": False}

    def program(lms: Sdk) -> Any:
        info = getattr(lms, name)(max_context_length=2048, **fields)
        return info.type, info.to_dict(), str(info)

    same(program)


def test_an_empty_list_of_disabled_cards_arrives(server: Emulator) -> None:
    def program(lms: Sdk) -> Any:
        with lms.Client(server.address) as client:
            model = client.llm.load_new_instance(CHAT, lms.__name__, config={"gpu": {"disabledGpus": []}})
            return model.get_load_config().to_dict()["gpu"]["disabledGpus"]

    assert same(program) == []


def call(city: str) -> dict[str, Any]:
    return {"tool": "weather", "arguments": {"city": city}, "id": city}


TRAVELER: list[Any] = [
    {"when": {"last": "^trip"}, "then": [{"reasoning": "\nOslo \t first.\n"}, {"text": "\n\nI look. "}, call("Oslo")]},
    {"when": {"last": "Oslo"}, "then": [{"reasoning": "\nNow Rome.\n"}, call("Rome")]},
    {"when": {"last": "Rome"}, "then": [{"text": "Half. "}, {"reasoning": "Hmm."}, {"text": "More. "}, call("Paris")]},
    {"when": {"last": "Paris"}, "then": [{"reasoning": "Done."}, {"text": "It rains."}]},
]
"""A model that reasons before its calls and its response, once in the middle of a text."""


def weather(city: str) -> str:
    """Return the weather of a city."""
    return f"rain in {city}"


def test_earlier_reasoning_is_sent_alike() -> None:
    def program(lms: Sdk) -> Any:
        with Emulator([{"key": CHAT, "rules": TRAVELER}]) as server, lms.Client(server.address) as client:
            model, chat = client.llm.model(CHAT), lms.Chat()
            chat.add_user_message("trip")
            model.act(chat, [weather], on_message=chat.append)
            chat.add_user_message("And now?")
            # In a finished turn, ours leaves it out by default, as this template would show it as text.
            model.respond(chat, **({"send_reasoning": "always"} if lms is ours else {}))
            histories = [record.messages for record in server.predictions]
            return [[each["content"] for each in messages if each["role"] == "assistant"] for messages in histories]

    assert [*map(len, same(program))] == [0, 1, 2, 3, 4]
