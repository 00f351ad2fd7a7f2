"""Text, reasoning, metadata and token counts of responses."""

from typing import Any

from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from tests.contract.langchain.integration import (
    Integration,
    both,
    collect,
    contract,
    reasoning_of,
    summed,
    weather,
)
from tests.contract.models import CHAT
from tests.contract.suite import NUMBERS

USAGE = {"input_tokens": 4, "output_tokens": 11, "total_tokens": 15}
"""The token counts of `count` and its response."""


def _counts(message: AIMessage) -> dict[str, Any]:
    return {name: value for name, value in dict(message.usage_metadata or {}).items() if name in USAGE}


def _finish_reason(message: AIMessage) -> Any:
    names = ("finish_reason", "done_reason", "stop_reason")
    return next((message.response_metadata[name] for name in names if name in message.response_metadata), None)


@contract("`invoke` and `ainvoke` return a response")
async def _invoke(integration: Integration) -> None:
    llm = integration.chat()
    assert llm.invoke("count").text == NUMBERS
    assert (await llm.ainvoke("count")).text == NUMBERS


@contract("`stream` and `astream` deliver the text in several chunks, which add up to the response")
async def _stream(integration: Integration) -> None:
    llm = integration.chat()
    for chunks in (list(llm.stream("count")), await collect(llm.astream("count"))):
        assert sum(bool(chunk.text) for chunk in chunks) > 3
        assert summed(chunks).text == "".join(chunk.text for chunk in chunks) == NUMBERS


@contract("a stream adds up to the same text, reasoning and tool calls as `invoke`")
def _equal(integration: Integration) -> None:
    llm = integration.chat()
    for model, text in ((llm, "think"), (llm.bind_tools([weather]), "weather"), (llm.bind_tools([weather]), "both")):
        invoked, streamed = both(model, text)
        assert (streamed.text, reasoning_of(streamed)) == (invoked.text, reasoning_of(invoked))
        calls = [[(call["name"], call["args"]) for call in message.tool_calls] for message in (invoked, streamed)]
        assert calls[0] == calls[1]


@contract("an empty response is an empty message, streaming or not")
def _empty(integration: Integration) -> None:
    for message in both(integration.chat(), "nothing"):
        assert message.text == ""


@contract("`usage_metadata` of `invoke` contains the token counts")
def _usage(integration: Integration) -> None:
    assert _counts(integration.chat().invoke("count")) == USAGE


@contract("`usage_metadata` of a stream counts each token exactly once")
async def _streamed_usage(integration: Integration) -> None:
    llm = integration.chat()
    assert _counts(summed(llm.stream("count"))) == USAGE
    assert _counts(summed(await collect(llm.astream("count")))) == USAGE


@contract("`UsageMetadataCallbackHandler` adds up the token counts of all calls, by model")
def _usage_handler(integration: Integration) -> None:
    handler = UsageMetadataCallbackHandler()
    llm = integration.chat()
    llm.invoke("count", {"callbacks": [handler]})
    list(llm.stream("count", {"callbacks": [handler]}))
    totals = {model: usage["total_tokens"] for model, usage in handler.usage_metadata.items()}
    assert totals == {CHAT: 2 * USAGE["total_tokens"]}, totals


@contract("`response_metadata` contains `model_name`, streaming or not")
def _model_name(integration: Integration) -> None:
    assert [message.response_metadata.get("model_name") for message in both(integration.chat(), "count")] == [CHAT] * 2


@contract("`response_metadata` says whether the response is complete or was cut off, streaming or not")
def _reasons(integration: Integration) -> None:
    complete = [_finish_reason(message) for message in both(integration.chat(), "count")]
    cut_off = [_finish_reason(message) for message in both(integration.chat(max_tokens=3), "count")]
    assert complete[0] == complete[1]
    assert cut_off[0] == cut_off[1]
    assert complete[0]
    assert cut_off[0]
    assert complete[0] != cut_off[0]


@contract("every response has an id of its own, which all chunks of a stream share")
def _ids(integration: Integration) -> None:
    llm = integration.chat()
    streams = [list(llm.stream("count")) for _ in range(2)]
    assert all(len({chunk.id for chunk in chunks}) == 1 for chunks in streams)
    ids = [llm.invoke("count").id, llm.invoke("count").id, *(chunks[0].id for chunks in streams)]
    assert all(ids)
    assert len(set(ids)) == 4


@contract("reasoning is a content block of its own, separate from the text")
def _reasoning(integration: Integration) -> None:
    message = integration.chat().invoke("think")
    assert message.text == "Done now."
    assert reasoning_of(message) == "Let me see."


@contract("streams deliver reasoning as content blocks, also if no text follows")
async def _streamed_reasoning(integration: Integration) -> None:
    llm = integration.chat()
    for prompt, reasoning, text in (("think", "Let me see.", "Done now."), ("think only", "Hmm, well.", "")):
        for chunks in (list(llm.stream(prompt)), await collect(llm.astream(prompt))):
            message = summed(chunks)
            assert (reasoning_of(message), message.text) == (reasoning, text)
            assert sum(bool(reasoning_of(chunk)) for chunk in chunks) > 1


@contract('with `output_version="v1"`, `content` is a list of standard blocks, streaming or not')
def _v1(integration: Integration) -> None:
    for message in both(integration.chat(output_version="v1"), "count"):
        blocks: Any = message.content
        (block,) = blocks
        assert (block["type"], block["text"]) == ("text", NUMBERS)


@contract('with `output_version="v1"`, text and the tool call after it are separate blocks, streaming or not')
def _v1_calls(integration: Integration) -> None:
    for message in both(integration.chat(output_version="v1").bind_tools([weather]), "weather"):
        blocks: list[Any] = list(message.content)
        assert [block["type"] for block in blocks] == ["text", "tool_call"]
        assert (blocks[0]["text"].strip(), blocks[1]["args"]) == ("I look.", {"city": "Oslo"})


@contract("with `logprobs=True`, `response_metadata` has the log-probability of each token, streaming or not")
def _logprobs(integration: Integration) -> None:
    for message in both(integration.chat(logprobs=True), "count"):
        logged = message.response_metadata["logprobs"]
        tokens = logged["content"] if isinstance(logged, dict) else logged
        assert "".join(token["token"] for token in tokens) == NUMBERS
        assert all(token["logprob"] <= 0 for token in tokens)


@contract("a conversation that does not fit into the context window is an error, or the response says what was dropped")
def _overflow(integration: Integration) -> None:
    turns: list[BaseMessage] = [HumanMessage("count"), AIMessage("So far so good. " * 500)] * 8
    try:
        message = integration.chat().invoke([*turns, HumanMessage("count")])
    except Exception:  # noqa: BLE001 - of whatever class
        return
    assert message.response_metadata.get("dropped_tokens")
