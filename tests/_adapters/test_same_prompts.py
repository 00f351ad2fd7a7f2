"""The same message is sent as the same bytes, wherever it comes from, so each prompt begins with the one before."""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from langchain_core.load import dumps, loads
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    message_chunk_to_message,
    messages_from_dict,
    messages_to_dict,
)
from llama_index.core.llms import ChatMessage

import lmstudio_integrations as lms
from lmstudio_integrations._adapters import conversation
from lmstudio_integrations._adapters.tool_settings import wire_tools
from lmstudio_integrations.client.models.reasoning.sent import without_thoughts
from lmstudio_integrations.client.transport.operation import Call, Operation
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.scripted.chat_template import call_parts, render
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.langchain._messages import convert as from_langchain
from lmstudio_integrations.langchain._tools import openai_tools
from lmstudio_integrations.llama_index import LMStudio
from lmstudio_integrations.llama_index._messages import convert as from_llama_index
from lmstudio_integrations.types.chat import ChatHistory, WireHistory
from lmstudio_integrations.types.results import PredictionResult
from lmstudio_integrations.types.tools import Tool

TURNS, SEEDS = 6, range(5)
SCHEMA = {"type": "object", "properties": {"z": {"description": "Any."}, "a": {"items": {}}}}
"""All arguments fit."""
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": name, "description": "Looks.", "parameters": SCHEMA}}
    for name in ("second", "first")
]
TEXTS = ("Yes.", "  two  spaces\n", '"{}"', "\\ \U0001f600 é", "<tool_call>", "a\n\nb\t", "</think>", "[]")
VALUES: tuple[Any, ...] = ("é\n", 1.0, -3, 1e21, True, None, [], {"z": {"b": 1, "a": []}}, '{"a": 1}', "\U0001f600")


def script(seed: int) -> list[list[dict[str, Any]]]:
    """Return what the model responds in each turn: reasoning, text and calls."""
    draw, turns = random.Random(seed), list[list[dict[str, Any]]]()
    for _ in range(TURNS):
        calls = [
            {
                "tool": draw.choice(["first", "second"]),
                "arguments": dict(zip("zab", draw.sample(VALUES, 3), strict=True)),
            }
            for _ in range(draw.choice([0, 1, 1, 2]))
        ]
        says = not calls or draw.random() < 0.5
        text = [{"text": " ".join(draw.choices(TEXTS, k=3))}] if says else []
        reasoning = [{"reasoning": "Hm."}] if draw.random() < 0.3 else []
        turns.append([*reasoning, *text, *calls])
    return turns


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    rules = tuple(
        {"when": {"last": f"^{seed}[.]{turn}$"}, "then": response}
        for seed in SEEDS
        for turn, response in enumerate(script(seed))
    )
    with Emulator([ModelEntry(key="m", rules=rules)]) as running:
        yield running


# Ways through a conversation ------------------------------------------------------------------------------------------

Restore = Callable[[list[Any]], list[Any]]


def langchain(
    respond: Callable[[Any, list[Any]], Any], restored: Restore, **settings: Any
) -> Callable[[str, int], None]:
    def run(host: str, seed: int) -> None:
        model = ChatLMStudio(model="m", host=host, **settings).bind_tools(TOOLS)
        messages: list[Any] = [SystemMessage("Be brief.")]
        for turn in range(TURNS):
            messages = restored([*messages, HumanMessage(f"{seed}.{turn}")])
            response = respond(model, messages)
            results = [ToolMessage("It rains.", tool_call_id=call["id"]) for call in response.tool_calls]
            messages += [response, *results]

    return run


def llama_index(respond: Callable[..., Any], restored: Restore) -> Callable[[str, int], None]:
    def run(host: str, seed: int) -> None:
        llm = LMStudio(model="m", host=host)
        messages = [ChatMessage("Be brief.", role="system")]
        for turn in range(TURNS):
            messages = restored([*messages, ChatMessage(f"{seed}.{turn}", role="user")])
            response = respond(llm, messages)
            calls = llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)
            messages.append(response.message)
            messages += [
                ChatMessage("It rains.", role="tool", additional_kwargs={"tool_call_id": call.tool_id})
                for call in calls
            ]

    return run


def native(respond: Callable[[Any, Any, Any], PredictionResult], restored: Callable[[Any], Any]) -> Any:
    config = {"raw_tools": {"type": "toolArray", "tools": wire_tools(TOOLS)}}

    def run(host: str, seed: int) -> None:
        with lms.Client(host) as client:
            model, chat = client.llm.model("m"), lms.Chat("Be brief.")
            for turn in range(TURNS):
                chat.add_user_message(f"{seed}.{turn}")
                chat = restored(chat)
                result = respond(model, chat, config)
                chat.add_assistant_response(result, result.tool_call_requests)
                for call in result.tool_call_requests:
                    chat.add_tool_result({"content": "It rains.", "toolCallId": call.id, "name": call.name})

    return run


def streamed(model: Any, messages: list[Any]) -> Any:
    whole, *rest = model.stream(messages)
    for chunk in rest:
        whole += chunk
    return message_chunk_to_message(whole)


def natively_streamed(model: Any, chat: Any, config: Any) -> PredictionResult:
    stream = model.respond_stream(chat, config=config)
    for _ in stream:
        pass
    result: PredictionResult = stream.result()
    return result


def as_it_is(given: Any) -> Any:
    return given


def through_json(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    return [ChatMessage.model_validate_json(message.model_dump_json()) for message in messages]


WAYS: dict[str, Callable[[str, int], None]] = {
    "LangChain": langchain(lambda model, messages: model.invoke(messages), as_it_is),
    "LangChain, stream": langchain(streamed, as_it_is),
    "LangChain, loads": langchain(streamed, lambda messages: loads(dumps(messages), allowed_objects="core")),
    "LangChain, from dicts": langchain(
        lambda model, messages: model.invoke(messages),
        lambda messages: messages_from_dict(json.loads(json.dumps(messages_to_dict(messages)))),
    ),
    "LangChain, v1": langchain(streamed, as_it_is, output_version="v1"),
    "LlamaIndex": llama_index(lambda llm, messages: llm.chat(messages, tools=TOOLS), as_it_is),
    "LlamaIndex, stream": llama_index(lambda llm, messages: [*llm.stream_chat(messages, tools=TOOLS)][-1], as_it_is),
    "LlamaIndex, restored": llama_index(
        lambda llm, messages: [*llm.stream_chat(messages, tools=TOOLS)][-1], through_json
    ),
    "native": native(lambda model, chat, config: model.respond(chat, config=config), as_it_is),
    "native, stream": native(natively_streamed, as_it_is),
    "native, restored": native(
        lambda model, chat, config: model.respond(chat, config=config),
        lambda chat: lms.Chat.from_history(json.loads(json.dumps(chat.to_history().to_dict()))),
    ),
}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Any]]:
    """The parameters of the predictions, as they become JSON."""
    parameters: list[Mapping[str, Any]] = []
    start = Operation.start

    def record(operation: Operation, namespace: Any, endpoint: Any, parameter: Any, **options: Any) -> Call:
        if "modelSpecifier" in parameter:  # of a prediction, not of the rendering of a conversation
            parameters.append(parameter)
        return start(operation, namespace, endpoint, parameter, **options)

    monkeypatch.setattr(Operation, "start", record)
    return parameters


def tools_of(parameter: Mapping[str, Any]) -> list[dict[str, Any]]:
    fields = {
        each["key"]: each["value"]
        for layer in parameter["predictionConfigStack"]["layers"]
        for each in layer["config"]["fields"]
    }
    tools: list[dict[str, Any]] = fields["llm.prediction.tools"]["tools"]
    return tools


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
@pytest.mark.parametrize("seed", SEEDS)
def test_every_way_sends_the_same_and_each_prompt_begins_with_the_one_before(
    server: Emulator, sent: list[Mapping[str, Any]], seed: int
) -> None:
    expected = ""
    for name, way in WAYS.items():
        sent.clear()
        way(server.address, seed)
        found = json.dumps([[parameter["history"], tools_of(parameter)] for parameter in sent])
        expected = expected or found
        assert found == expected, name
    before = ""
    for parameter, record in zip(sent, server.predictions[-TURNS:], strict=True):
        messages, tools = ChatHistory.from_dict(parameter["history"]).messages, tools_of(parameter)
        prompt = render(messages, [Tool.from_dict(tool) for tool in tools])
        assert prompt.startswith(before)
        calls = [call_text(call["name"], call["arguments"]) for call in record.tool_calls]
        thought = f"<think>{record.reasoning}</think>" if record.reasoning and calls else ""
        before = "".join([prompt, thought, record.text, *calls])


def call_text(name: str, arguments: dict[str, Any]) -> str:
    """Return a call as a scripted model writes it."""
    opening, name, closing = call_parts(name)
    return f"{opening}{name}{json.dumps(arguments, ensure_ascii=False)}{closing}"


CALL = {"name": "first", "args": {"z": 1, "a": None}, "id": "1"}
BLOCK = {"block_type": "tool_call", "tool_call_id": "1", "tool_name": "first"}
LEGACY = {"tool_calls": [{"id": "1", "function": {"name": "first", "arguments": '{ "z" : 1,\n"a":null}'}}]}
CALLING: list[Any] = [
    AIMessage("", tool_calls=[CALL]),
    AIMessage([], tool_calls=[CALL]),
    AIMessage([{"type": "text", "text": ""}], tool_calls=[CALL]),
    AIMessage(["", {"type": "tool_use", "name": "first", "id": "1", "input": CALL["args"]}]),
    AIMessage([{"type": "tool_call", **CALL}], tool_calls=[CALL]),
    ChatMessage.model_validate({"role": "assistant", "blocks": [{**BLOCK, "tool_kwargs": CALL["args"]}]}),
    ChatMessage.model_validate({"role": "assistant", "blocks": [{**BLOCK, "tool_kwargs": '{"z":1, "a":null }'}]}),
    ChatMessage("", role="assistant", additional_kwargs=LEGACY),
    lms.Chat().add_assistant_response("", [{"name": "first", "id": "1", "arguments": CALL["args"]}]),
]
"""One call of a tool without a text."""
SAYING: list[Any] = [
    AIMessage("a\nb"),
    AIMessage(["a\n", "", "b"]),
    AIMessage([{"type": "text", "text": "a\nb", "index": 0}, {"type": "reasoning", "reasoning": "Hm."}]),
    ChatMessage("a\nb", role="assistant"),
    ChatMessage.model_validate({"role": "assistant", "blocks": [{"block_type": "text", "text": t} for t in "ab"]}),
    lms.Chat().add_assistant_response("a\nb"),
]
SILENT: list[Any] = [
    AIMessage(""),
    AIMessage([]),
    AIMessage([{"type": "text", "text": ""}]),
    ChatMessage("", role="assistant"),
    lms.Chat().add_assistant_response(""),
]


def written(message: Any) -> str:
    """Return a message as it is sent, without thoughts."""
    if isinstance(message, AIMessage):
        (sent,) = conversation.encode(from_langchain([message]), {}).messages
    elif isinstance(message, ChatMessage):
        (sent,) = conversation.encode(from_llama_index([message]), {}).messages
    else:
        (sent,) = WireHistory.of(ChatHistory(messages=[message])).messages
    return json.dumps(without_thoughts([sent]))


@pytest.mark.parametrize("forms", [CALLING, SAYING, SILENT], ids=["call", "text", "nothing"])
def test_all_forms_of_a_message_are_the_same_bytes(forms: list[Any]) -> None:
    assert len({*map(written, forms)}) == 1


def test_a_tool_is_the_same_bytes_however_its_keys_are_ordered() -> None:
    def first(z: str, a: list[int] | None = None) -> None:
        """Looks."""

    (definition,) = definitions = wire_tools(openai_tools([first]))
    function = definition["function"]
    assert [*definition, *function, *function["parameters"]] == [
        *("type", "function", "name", "description", "parameters", "type", "properties", "required")
    ]
    assert [*function["parameters"]["properties"]] == ["z", "a"]  # as the function has them

    def turned(value: Any) -> Any:
        """Return a schema with all keys in another order, but for the parameters."""
        if isinstance(value, dict):
            pairs = [(key, value[key] if key == "required" else turned(value[key])) for key in value]
            return dict(pairs if "z" in value else pairs[::-1])
        return [*map(turned, value)] if isinstance(value, list) else value

    assert json.dumps(turned(definitions)) != json.dumps(definitions)
    assert json.dumps(wire_tools(openai_tools(turned(definitions)))) == json.dumps(definitions)
