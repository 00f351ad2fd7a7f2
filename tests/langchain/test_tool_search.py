"""`ToolSearchMiddleware`: what the model sees, what the agent runs, and what is found."""

import asyncio
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, HumanInTheLoopMiddleware
from langchain.tools import InjectedState, ToolRuntime
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import Embeddings
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, StructuredTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.models.catalog import parse_model
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.langchain import LMStudioEmbeddings
from lmstudio_integrations.langchain.middleware import RepeatedToolCallMiddleware, ToolSearchMiddleware
from lmstudio_integrations.langchain.middleware._ranking import all_words, compact, name_and_description
from tests.langchain.agents import WAYS, Run, Script, assert_is_valid, run, script
from tests.langchain.conftest import Server
from tests.support.adapters import covering

__all__ = ["run", "script"]

invoke = WAYS["invoke"]


def call(name: str, **arguments: Any) -> list[dict[str, Any]]:
    """Return a turn of the model that calls a tool by `call_tool`."""
    return [{"tool": "call_tool", "arguments": {"name": name, "arguments": arguments}}]


def find(query: str) -> list[dict[str, Any]]:
    """Return a turn of the model that searches."""
    return [{"tool": "find_tools", "arguments": {"query": query}}]


DONE = [{"text": "Done."}]


@tool
def get_forecast(city: str, days: int = 3, unit: Literal["c", "f"] | None = None) -> str:
    """Return the weather that is expected in a city."""
    return f"rain in {city} for {days} days"


@tool
def send_mail(to: str, text: str) -> str:
    """Send an e-mail to a person."""
    return f"sent {text} to {to}"


@tool
async def only_async(city: str) -> str:
    """Return the mayor of a city."""
    return f"the mayor of {city}"


@tool(response_format="content_and_artifact")
def draw(what: str) -> tuple[str, Any]:
    """Draw a picture."""
    return f"a picture of {what}", {"of": what}


@tool
def count(state: Annotated[dict[str, Any], InjectedState], runtime: ToolRuntime, secret: str = "") -> str:
    """Count the messages of this conversation."""
    return f"{len(state['messages'])} {runtime.tool_call_id} {secret}"


@tool
def remember(fact: str, runtime: ToolRuntime) -> Any:
    """Keep a fact."""
    return Command(update={"messages": [ToolMessage(f"kept: {fact}", tool_call_id=runtime.tool_call_id)]})


@tool(return_direct=True)
def finish(report: str) -> str:
    """End the work with a report."""
    return report


ELSEWHERE = {"type": "function", "function": {"name": "elsewhere", "description": "Runs elsewhere."}}
TOOLS: list[BaseTool] = [get_forecast, send_mail, draw, count, remember, finish]


def agent_of(
    server: Any, *before: Any, tools: Sequence[Any] = TOOLS, after: Sequence[Any] = (), **settings: Any
) -> Any:
    search = ToolSearchMiddleware(**settings)
    model = server.chat(model="scripted", repair_tool_calls=False)
    return create_agent(model, tools, middleware=[*before, search, *after], checkpointer=InMemorySaver())


THREAD = {"configurable": {"thread_id": "a"}}


def test_the_model_sees_a_few_tools_and_the_agent_runs_all(run: Run, script: Script) -> None:
    server = script(find("what weather is expected"), call("get_forecast", city="Oslo", days=2), finally_=DONE)
    agent = agent_of(server, tools=[*TOOLS, ELSEWHERE], always=["send_mail"])
    messages = run(agent, config=THREAD)
    assert messages[-1].text == "Done."
    assert_is_valid(messages)

    offered = [[each["function"]["name"] for each in sent.tools] for sent in server.predictions]
    assert offered == [["find_tools", "call_tool", "send_mail", "elsewhere"]] * 3, "the beginning of the prompt stays"
    _, _, found, called, result, _ = messages
    assert 'get_forecast(city: string, days?: integer = 3, unit?: "c" | "f" | null)' in found.text
    assert "send_mail" not in found.text, "it is in the prompt"
    assert isinstance(called, AIMessage)
    assert isinstance(result, ToolMessage)
    assert [(each["name"], each["args"]) for each in called.tool_calls] == [
        ("get_forecast", {"city": "Oslo", "days": 2})
    ]
    assert (result.name, result.text) == ("get_forecast", "rain in Oslo for 2 days")
    sent = server.predictions[-1].messages[-2]
    assert '"call_tool"' in str(sent).replace("'", '"'), "the model sees what it wrote"
    first, second = (sent.messages for sent in server.predictions[1:])
    assert second[: len(first)] == first


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_the_blocks_of_a_message_have_the_same_call(script: Script, version: str) -> None:
    server = script(call("get_forecast", city="Oslo"), finally_=DONE)
    model = server.chat(model="scripted", output_version=version)
    agent: Any = create_agent(model, TOOLS, middleware=[ToolSearchMiddleware()])
    message = invoke(agent)[1]
    names = [each["name"] for each in message.content_blocks if each["type"] == "tool_call"]
    assert names == ["get_forecast"]
    assert server.predictions[1].messages[1] != server.predictions[1].messages[2]
    assert str(server.predictions[1].messages[1]).count("call_tool") == 1


@pytest.mark.parametrize(
    ("arguments", "args"),
    [
        ({"name": "get_forecast", "arguments": {"city": "Oslo", "days": "2"}}, {"city": "Oslo", "days": 2}),
        ({"name": "functions.get_forecast", "arguments": {"city": "Oslo"}}, {"city": "Oslo"}),
        ({"name": "getForecast", "arguments": {"City": "Oslo"}}, {"city": "Oslo"}),
        ({"name": "get_forecast", "arguments": '{"city": "Oslo"}'}, {"city": "Oslo"}),
        ({"name": "get_forecast", "city": "Oslo"}, {"city": "Oslo"}),
    ],
)
def test_a_call_with_one_reading_is_mended(script: Script, arguments: Any, args: Any) -> None:
    server = script([{"tool": "call_tool", "arguments": arguments}], finally_=DONE)
    messages = invoke(agent_of(server), config=THREAD)
    assert isinstance(messages[1], AIMessage)
    assert [(each["name"], each["args"]) for each in messages[1].tool_calls] == [("get_forecast", args)]
    assert messages[2].text.startswith("rain in Oslo")


EXPLAINED: list[tuple[Any, str]] = [
    (
        {"name": "get_forecast", "arguments": {}},
        "get_forecast did not run: .*'city'.*Its definition:\nget_forecast",
    ),
    ({"name": "get_forecast", "arguments": {"city": "Oslo", "days": "many"}}, "get_forecast did not run: days: "),
    ({"name": "drop_tables", "arguments": {}}, "there is no tool 'drop_tables'. find_tools finds the tools"),
    ({"name": "find_tools", "arguments": {"query": "x"}}, "there is no tool 'find_tools'"),
    ({"name": "get_forecast", "arguments": [1]}, "call_tool needs the name of a tool, and its arguments"),
    ({}, "call_tool needs the name of a tool, and its arguments"),
]


@pytest.mark.parametrize(("way", "case"), covering(WAYS, EXPLAINED))
def test_a_call_that_does_not_fit_is_explained_to_the_model(script: Script, way: str, case: tuple[Any, str]) -> None:
    arguments, problem = case
    server = script([{"tool": "call_tool", "arguments": arguments}], finally_=DONE)
    messages = WAYS[way](agent_of(server), config=THREAD)
    assert_is_valid(messages)
    result = messages[2]
    assert isinstance(result, ToolMessage)
    assert (result.name, result.status) == ("call_tool", "error")
    assert re.search(problem, result.text, re.DOTALL)
    assert messages[-1].text == "Done."


MENDED = '{"name": "get_forecast", "arguments": {"city": "Oslo", "days": 2}}'


@pytest.mark.parametrize(
    ("second", "result"),
    [
        ([{"text": MENDED}], "rain in Oslo for 2 days"),
        ([{"text": "No."}], "days: 'two' is not of type 'integer'"),
        ([{"error": "no such grammar"}], "days: 'two' is not of type 'integer'"),
    ],
)
def test_a_call_that_does_not_fit_is_asked_for_by_grammar(
    run: Run, second: Any, result: str, caplog: pytest.LogCaptureFixture
) -> None:
    rules = (
        {"when": {"structured": True}, "then": second},
        {"when": {"round": 1}, "then": call("get_forecast", city="Oslo", days="two")},
        {"then": DONE},
    )
    with Server([ModelEntry(key="scripted", rules=rules)]) as server:
        model = server.chat(model="scripted", presence_penalty=0.5, frequency_penalty=0.5, repeat_penalty=1.3)
        messages = run(create_agent(model, TOOLS, middleware=[ToolSearchMiddleware()]))
    assert result in next(each.text for each in messages if isinstance(each, ToolMessage))
    assert messages[-1].text == "Done."
    assert_is_valid(messages)
    request = server.predictions[1]
    assert (request.tools, request.config["enableThinking"]) == ([], False)
    penalties = ("repeatPenalty", "presencePenalty", "frequencyPenalty")
    assert [request.config[name] for name in penalties] == [False] * 3
    properties = request.config["structured"]["jsonSchema"]["properties"]["arguments"]["properties"]
    assert properties == {"city": {"const": "Oslo"}, "days": {"default": 3, "type": "integer"}}
    if second[0].get("text") == MENDED:
        (called,) = [each for each in messages if isinstance(each, AIMessage) and each.tool_calls]
        assert called.response_metadata["repaired_tool_calls"][0]["replaced_by"]["arguments"]["days"] == 2
        assert called.usage_metadata is not None
        assert called.usage_metadata["input_tokens"] > server.predictions[0].stats["promptTokensCount"]
    else:
        assert ("request to mend a call failed" in caplog.text) is ("error" in second[0])


class AskBeforeMending(AgentMiddleware[Any, Any, Any]):
    """Asks a person before a model mends a call."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        if "does not fit" in request.messages[-1].text:
            interrupt("May it?")
        return handler(request)

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        if "does not fit" in request.messages[-1].text:
            interrupt("May it?")
        return await handler(request)


@pytest.mark.parametrize("is_async", [False, True])
def test_an_interrupt_of_the_request_to_mend_a_call_reaches_the_person(is_async: bool) -> None:
    rules = (
        {"when": {"structured": True}, "then": [{"text": MENDED}]},
        {"when": {"round": 1}, "then": call("get_forecast", city="Oslo", days="two")},
        {"then": DONE},
    )
    with Server([ModelEntry(key="scripted", rules=rules)]) as server:
        model, middleware = server.chat(model="scripted"), [ToolSearchMiddleware(), AskBeforeMending()]
        agent: Any = create_agent(model, TOOLS, middleware=middleware, checkpointer=InMemorySaver())
        given: list[Any] = [{"messages": [HumanMessage("Go.")]}, Command(resume=True)]
        states: list[Any] = [
            asyncio.run(agent.ainvoke(each, THREAD)) if is_async else agent.invoke(each, THREAD) for each in given
        ]
    assert [each.value for each in states[0]["__interrupt__"]] == ["May it?"]
    assert "rain in Oslo for 2 days" in [each.text for each in states[1]["messages"]]


def test_agents_that_share_the_object_may_have_other_tools_of_the_same_name(script: Script) -> None:
    search = ToolSearchMiddleware()
    server = script(call("get_forecast", city="Oslo"), call("get_forecast", place="Oslo"), finally_=DONE)

    @tool("get_forecast")
    def other(place: str) -> str:
        """Return the weather."""
        return f"sun in {place}"

    model = server.chat(model="scripted", repair_tool_calls=False)
    first, second = (create_agent(model, [each], middleware=[search]) for each in (get_forecast, other))
    assert "rain in Oslo for 3 days" in [each.text for each in invoke(first)]
    assert "sun in Oslo" in [each.text for each in invoke(second)]


def test_a_schema_that_cannot_be_used_leaves_the_check_to_the_tool(script: Script) -> None:
    schema = {"type": "object", "properties": {"of": {"type": "string", "pattern": "("}}}
    odd = StructuredTool(name="odd", description="Odd.", args_schema=schema, func=lambda of: f"odd {of}")
    server = script(call("odd", of="a"), finally_=DONE)
    assert invoke(agent_of(server, tools=[odd]), config=THREAD)[2].text == "odd a"


RUN: list[tuple[Any, str, str]] = [
    (call("draw", what="a ship"), "draw", "a picture of a ship"),
    (call("count", secret="s"), "count", r"^2 \w+ s$"),
    (call("remember", fact="It rains."), "remember", "kept: It rains."),
    (call("send_mail", to="Ann", text="Hello"), "send_mail", "sent Hello to Ann"),
]


@pytest.mark.parametrize(("way", "case"), covering(WAYS, RUN))
def test_a_tool_is_run_as_if_the_model_had_called_it(script: Script, way: str, case: tuple[Any, str, str]) -> None:
    turn, name, expected = case
    server = script(turn, finally_=DONE)
    messages = WAYS[way](agent_of(server), config=THREAD)
    result = messages[2]
    assert isinstance(result, ToolMessage)
    assert (result.name, result.status) == (name, "success")
    assert re.search(expected, result.text)
    assert (result.artifact == {"of": "a ship"}) is (name == "draw")
    assert messages[-1].text == "Done."


def test_an_async_tool_runs(script: Script) -> None:
    server = script(call("only_async", city="Oslo"), finally_=DONE)
    messages = WAYS["ainvoke"](agent_of(server, tools=[only_async]), config=THREAD)
    assert messages[2].text == "the mayor of Oslo"


def test_a_tool_that_returns_directly_ends_the_run(run: Run, script: Script) -> None:
    server = script(call("finish", report="All is well."), finally_=DONE)
    assert run(agent_of(server), config=THREAD)[-1].text == "All is well."


@pytest.mark.parametrize("name", ["find", "call", "tools"])
def test_a_tool_whose_name_resembles_those_of_the_search_is_called_itself(script: Script, name: str) -> None:
    own = StructuredTool.from_function(lambda what: f"{what}: on the table", name=name, description="Find a thing.")
    server = script([{"tool": name, "arguments": {"what": "keys"}}], finally_=DONE)
    agent = create_agent(server.chat(model="scripted"), [*TOOLS, own], middleware=[ToolSearchMiddleware()])
    messages = invoke(agent)
    assert [(each.name, each.content) for each in messages if isinstance(each, ToolMessage)] == [
        (name, "keys: on the table")
    ]


def test_other_middleware_sees_the_tool_itself(script: Script) -> None:
    """What must be approved is not hidden from who approves it."""
    server = script(call("send_mail", to="Ann", text="Hello"), finally_=DONE)
    approval: Any = HumanInTheLoopMiddleware({"send_mail": {"allowed_decisions": ["approve", "reject"]}})
    agent = agent_of(server, approval)
    interrupted = agent.invoke({"messages": [HumanMessage("Hello!")]}, THREAD)
    assert "__interrupt__" in interrupted
    rejected = {"decisions": [{"type": "reject", "message": "not now"}]}
    messages = agent.invoke(Command(resume=rejected), THREAD)["messages"]
    assert messages[2].text.endswith("not now")


@pytest.mark.parametrize(("is_outside", "marked"), [(True, True), (True, False), (False, False)])
def test_repeated_calls_are_those_of_the_tool(script: Script, is_outside: bool, marked: bool) -> None:
    server = script(*[call("get_forecast", city="Oslo")] * 4, finally_=DONE)
    repeated = [RepeatedToolCallMiddleware(repeatable=["get_forecast"] if marked else ())]
    before, after = (repeated, []) if is_outside else ([], repeated)
    messages = invoke(agent_of(server, *before, after=after), config=THREAD)
    ran = [message.text.startswith("rain") for message in messages if isinstance(message, ToolMessage)]
    assert ran == [True, True, marked, marked]
    assert_is_valid(messages)


# Searches -------------------------------------------------------------------------------------------------------------


class Vectors(Embeddings):
    """Texts about the same thing have the same vector.

    Attributes:
        embedded: The texts of each call.
    """

    def __init__(self) -> None:
        self.embedded: list[list[str]] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.embedded.append(texts)
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [
            float(any(word in text.lower() for word in about))
            for about in (("weather", "umbrella"), ("mail", "letter"))
        ]


class Backwards(BaseDocumentCompressor):
    """Prefers what comes last in the alphabet."""

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Any = None
    ) -> Sequence[Document]:
        return sorted(documents, key=lambda document: document.page_content, reverse=True)


def first_names(text: str) -> list[str]:
    """Return the names of the tools that a search has found, in their order."""
    return re.findall(r"^(\w+)\(", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("query", "settings", "found"),
    [
        ("expected weather", {}, ["get_forecast"]),
        ("umbrella", {}, []),
        ("umbrella", {"embeddings": Vectors()}, ["get_forecast"]),
        ("write a letter to a person", {"embeddings": Vectors()}, ["send_mail"]),
        ("picture messages", {"most": 1, "reranker": Backwards()}, ["draw"]),
    ],
    ids=["words", "no word", "vectors", "both", "reranker"],
)
def test_what_is_found(script: Script, query: str, settings: dict[str, Any], found: list[str]) -> None:
    server = script(find(query), finally_=DONE)
    text = invoke(agent_of(server, **settings), config=THREAD)[2].text
    assert first_names(text)[: len(found)] == found
    assert bool(found) is text.startswith("Call these with call_tool:\n")
    assert bool(found) is ("No tool was found." not in text)


async def test_the_vectors_of_tools_are_computed_once(script: Script) -> None:
    server = script(find("umbrella"), find("weather"), finally_=DONE)
    vectors = Vectors()
    agent = agent_of(server, embeddings=vectors)

    def thread(number: int) -> None:
        WAYS["ainvoke" if number % 2 else "invoke"](agent, config={"configurable": {"thread_id": str(number)}})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(thread, range(4)))
    (texts,) = vectors.embedded
    assert len(texts) == len(TOOLS)


@pytest.mark.slow
def test_a_real_model_finds_tools_by_their_meaning(script: Script) -> None:
    server = script(find("do I need an umbrella tomorrow?"), finally_=DONE)
    with Emulator([parse_model("text-embedding-all-minilm-l6-v2")]) as real:
        embeddings = LMStudioEmbeddings(model="text-embedding-all-minilm-l6-v2", host=real.address)
        messages = invoke(agent_of(server, embeddings=embeddings), config=THREAD)
    assert first_names(messages[2].text)[0] == "get_forecast"


# Definitions ----------------------------------------------------------------------------------------------------------


DEEP: dict[str, Any] = {"type": "string"}
for _ in range(5):
    DEEP = {"type": "object", "properties": {"in": DEEP}}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, "string"),
        ({"type": "string", "format": "date"}, "string(date)"),
        ({"type": ["integer", "null"]}, "integer | null"),
        ({"enum": ["a", 1]}, '"a" | 1'),
        ({"const": "a"}, '"a"'),
        ({"anyOf": [{"type": "integer"}, {"type": "integer", "minimum": 2}]}, "integer"),
        ({"oneOf": [{"type": "integer"}, {"type": "null"}]}, "integer | null"),
        ({"type": "array", "items": {"type": "string"}}, "string[]"),
        ({"type": "array", "items": {"enum": ["a", "b"]}}, '("a" | "b")[]'),
        ({"type": "array"}, "any[]"),
        ({"type": "object"}, "object"),
        (
            {"type": "object", "properties": {"x": {"type": "number"}, "y": {}}, "required": ["x"]},
            "{x: number, y?: any}",
        ),
        ({"$ref": "#"}, "any"),
        (True, "any"),
        ({"type": "integer", "default": 3}, "integer = 3"),
        (DEEP, "{in?: {in?: {in?: object}}}"),
    ],
)
def test_the_compact_form_of_a_type(schema: Any, expected: str) -> None:
    function = {"name": "f", "parameters": {"properties": {"a": schema}, "required": ["a"]}}
    assert compact(function) == f"f(a: {expected})"


def test_descriptions_are_one_line_and_of_limited_length() -> None:
    parameters = {"properties": {"a": {"description": "of\na " + "x" * 200}, "b": {}}}
    text = compact({"name": "f", "description": "Does\n\nthis. " + "y" * 400, "parameters": parameters})
    first, second = text.splitlines()
    assert first.startswith("f(a?: any, b?: any) - Does this. yyy")
    assert first.endswith("y…")
    assert second.startswith("  a: of a xxx")
    assert second.endswith("x…")
    assert len(text) < 500


def test_a_tool_is_found_by_its_name_its_description_and_its_parameters() -> None:
    function = {
        "name": "getHTTPStatus",
        "description": "Ask a server.",
        "parameters": {"properties": {"host_name": {}}},
    }
    assert name_and_description(function) == "get http status: Ask a server."
    assert all_words(function) == "getHTTPStatus Ask a server. host_name"
    assert name_and_description({"name": "look"}) == "look"
    assert all_words({"name": "look"}).split() == ["look"]
    assert len(name_and_description({"name": "look", "description": "x" * 5000})) == 600


# Errors ---------------------------------------------------------------------------------------------------------------


def test_a_tool_that_is_always_shown_and_missing_is_skipped_with_one_warning(
    script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    server = script(find("weather"), finally_=DONE)
    assert invoke(agent_of(server, always=["send_mial"]), config=THREAD)[-1].text == "Done."
    (text,) = [each.getMessage() for each in caplog.records if "always" in each.getMessage()]
    assert text.startswith(
        "always names the tool 'send_mial', which a model call did not have; did you mean 'send_mail'"
    )


class WithoutMail(AgentMiddleware):
    """Takes a tool away from each model call."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request.override(tools=[each for each in request.tools if each.name != "send_mail"]))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(request.override(tools=[each for each in request.tools if each.name != "send_mail"]))


@pytest.mark.parametrize("always", [[], ["send_mail"]])
def test_what_a_middleware_outside_takes_away_is_neither_found_nor_called(
    run: Run, script: Script, always: list[str]
) -> None:
    server = script(find("send an e-mail"), call("send_mail", to="Ann", text="Hi"), find("weather"), finally_=DONE)
    agent = agent_of(server, WithoutMail(), always=always)
    messages = run(agent, config=THREAD)
    found, called, other, done = [each.text for each in messages if isinstance(each, ToolMessage)] + [messages[-1].text]
    assert "send_mail" not in found
    assert called == "send_mail is not available now. find_tools finds the tools that are."
    assert "get_forecast" in other
    assert done == "Done."
    assert "searchable_tools" not in agent.invoke({"messages": ["Hi"]}, THREAD)


@pytest.mark.parametrize("settings", [{"most": 0}, {"always": [1]}])
def test_an_argument_that_cannot_be_used_is_an_error_that_names_it(settings: dict[str, Any]) -> None:
    with pytest.raises(LMStudioValueError, match=f"^{next(iter(settings))} must be"):
        ToolSearchMiddleware(**settings)
