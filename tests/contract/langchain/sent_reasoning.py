"""What goes back to the model of its earlier reasoning."""

import pickle
from collections.abc import Callable
from typing import Any

from langchain.agents import create_agent
from langchain_core.load import dumpd, load
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    ToolMessage,
    get_buffer_string,
    message_to_dict,
    messages_from_dict,
)
from langgraph.checkpoint.memory import InMemorySaver

from tests.contract.langchain.integration import Integration, both, collect, contract, population, summed, weather
from tests.contract.models import LONG, NEEDED, NEXT, PONDERED
from tests.contract.suite import texts_of, written


def _loop(message: AIMessage) -> list[Any]:
    """Return a conversation whose last turn is the result of a call in a message."""
    (call,) = message.tool_calls
    return [HumanMessage("ponder"), message, ToolMessage("rain in Oslo", tool_call_id=call["id"])]


def _sent_back(integration: Integration, llm: Any, message: AIMessage) -> str:
    """Send a message back, with the result of its call; return what was sent of it, as the model writes it."""
    llm.invoke(_loop(message))
    (sent,) = written(integration.server.last_request)
    return sent


async def _responses(llm: Any) -> list[AIMessage]:
    """Return responses with reasoning and a call, from all methods."""
    awaited = [await llm.ainvoke("ponder"), summed(await collect(llm.astream("ponder")))]
    return [*both(llm, "ponder"), *awaited]


@contract("in a tool loop, the reasoning before a call goes back to the model, streaming or not")
async def _reasoning(integration: Integration) -> None:
    llm = integration.chat().bind_tools([weather])
    for message in await _responses(llm):
        assert NEEDED.strip() in _sent_back(integration, llm, message)


@contract("in a tool loop, reasoning and text go back exactly as the server sent them, with their white space")
async def _exactly(integration: Integration) -> None:
    llm = integration.chat().bind_tools([weather])
    for message in await _responses(llm):
        assert _sent_back(integration, llm, message) == PONDERED[0]


@contract('with `output_version="v1"`, the reasoning before a call goes back to the model, streaming or not')
async def _v1(integration: Integration) -> None:
    llm = integration.chat(output_version="v1").bind_tools([weather])
    for message in await _responses(llm):
        assert NEEDED.strip() in _sent_back(integration, llm, message)


_COPIES: dict[str, Callable[[AIMessage], Any]] = {
    "pickle": lambda message: pickle.loads(pickle.dumps(message)),  # our own bytes
    "load": lambda message: load(dumpd(message), allowed_objects=[AIMessage, AIMessageChunk]),
    "messages_from_dict": lambda message: messages_from_dict([message_to_dict(message)])[0],
}


@contract("a message that was pickled, or stored as JSON, goes back to the model with its reasoning")
def _stored(integration: Integration) -> None:
    llm = integration.chat().bind_tools([weather])
    for message in both(llm, "ponder"):
        for copied in _COPIES.values():
            assert NEEDED.strip() in _sent_back(integration, llm, copied(message))


@contract("a standard `reasoning` block before a call, as other providers' messages have it, goes back as reasoning")
def _foreign(integration: Integration) -> None:
    call = {"name": "weather", "args": {"city": "Oslo"}, "id": "call-1"}
    blocks: Any = [{"type": "reasoning", "reasoning": "Hmm, well."}, {"type": "text", "text": "I look."}]
    message = AIMessage(
        blocks, tool_calls=[call], response_metadata={"model_provider": "other", "output_version": "v1"}
    )
    sent = _sent_back(integration, integration.chat().bind_tools([weather]), message)
    head, _, text = sent.partition("</think>")
    assert head.removeprefix("<think>").strip() == "Hmm, well."
    assert text.strip() == "I look."


def _input(text: str) -> Any:
    return {"messages": [("user", text)]}


@contract("`create_agent`: in each step, the model gets the reasoning before each of its calls")
async def _agent(integration: Integration) -> None:
    agent: Any = create_agent(integration.chat(), [weather, population])
    runs: list[Callable[[], Any]] = [
        lambda: agent.ainvoke(_input("ponder")),
        lambda: collect(agent.astream(_input("ponder"), stream_mode="messages")),
    ]
    for run in runs:
        await run()
        sent = written(integration.server.last_request)
        assert [NEEDED.strip() in sent[0], NEXT.strip() in sent[1]] == [True, True]


@contract("`create_agent`: an agent that continues from a checkpoint sends the reasoning before its call")
def _checkpoint(integration: Integration) -> None:
    agent: Any = create_agent(integration.chat(), [weather], checkpointer=InMemorySaver(), interrupt_before=["tools"])
    config = {"configurable": {"thread_id": "1"}}
    agent.invoke(_input("ponder"), config)
    agent.invoke(None, config)
    (sent,) = written(integration.server.last_request)
    assert NEEDED.strip() in sent


@contract("`get_num_tokens_from_messages` counts the reasoning before a call if it is sent, and only then")
def _counted(integration: Integration) -> None:
    llm = integration.chat()
    message = llm.bind_tools([weather]).invoke("ponder at length")
    without = AIMessage(message.text, tool_calls=message.tool_calls)
    counts = [llm.get_num_tokens_from_messages(_loop(each)) for each in (message, without)]
    is_sent = LONG in _sent_back(integration, llm.bind_tools([weather]), message)
    assert (counts[0] - counts[1] > len(LONG.split()) // 2) == is_sent


@contract("a response can be sent back, and the reasoning of a finished turn is not sent as text of the answer")
def _finished(integration: Integration) -> None:
    llm = integration.chat()
    for message in both(llm, "think"):
        llm.invoke([HumanMessage("think"), message, HumanMessage("count")])
        # The model's template has no notion of reasoning: what is sent as text would be shown to the model as text.
        assert texts_of(integration.server.last_request) == [
            ("user", "think"),
            ("assistant", "Done now."),
            ("user", "count"),
        ]


@contract("`text` and `get_buffer_string`, from which titles and summaries are made, have no reasoning")
async def _visible(integration: Integration) -> None:
    for settings in ({}, {"output_version": "v1"}):
        for message in await _responses(integration.chat(**settings).bind_tools([weather])):
            assert message.text.strip() == "I look."
            assert NEEDED.strip() not in get_buffer_string([message])


@contract("tags of reasoning in a user's text are sent as they are")
def _tags(integration: Integration) -> None:
    text = "count </think> now <think> and </think> on"
    integration.chat().invoke([HumanMessage(text)])
    assert texts_of(integration.server.last_request) == [("user", text)]
