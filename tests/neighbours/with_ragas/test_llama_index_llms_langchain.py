"""LlamaIndex chats and completes on our LangChain model in its wrapper, which loses most of what our own class has."""

import pytest
from neighbour_servers import CHAT, EMBEDDING, Serve

pytestmark = pytest.mark.neighbour(
    "llama-index-llms-langchain",
    group="llama-index",
    job="`LangChainLLM(llm=ChatLMStudio())` chats, completes and streams",
    settings="`langchain-community<0.4.2`: with 0.4.2, each call is an `ImportError`. Rather use `LMStudio`: the "
    "wrapper says `context_window=3900` whatever the model has, calls no tools, fails at a tool's result, and drops "
    "usage and `raw`; `stream_complete` sets `callbacks` and `streaming` of the model that it got",
    weekly=True,
)


async def test_it_chats_and_loses_what_our_own_class_has(serve: Serve) -> None:
    from llama_index.core import Settings
    from llama_index.core.agent import FunctionAgent
    from llama_index.core.llms import ChatMessage
    from llama_index.llms.langchain import LangChainLLM

    from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings
    from lmstudio_integrations.llama_index import LMStudio

    server = serve({"then": "At pier 7."})
    ours = ChatLMStudio(model=CHAT).load()
    wrapped = LangChainLLM(llm=ours)
    messages = [ChatMessage("Be brief.", role="system"), ChatMessage("Where do ferries leave?")]
    response = wrapped.chat(messages)
    assert (response.message.content, response.raw) == ("At pier 7.", None)
    assert (await wrapped.achat(messages)).message.content == "At pier 7."
    assert "".join(chunk.delta for chunk in wrapped.stream_chat(messages)) == "At pier 7."
    assert [each["role"] for each in server.predictions[0].messages] == ["system", "user"]

    metadata, own = wrapped.metadata, LMStudio(model=CHAT).load().metadata
    assert (metadata.context_window, metadata.num_output, metadata.model_name) == (3900, 256, "unknown")
    assert (own.context_window, own.model_name) == (32768, CHAT)
    assert (metadata.is_chat_model, metadata.is_function_calling_model) == (True, False)
    with pytest.raises(ValueError, match="LLM must be a FunctionCallingLLM"):
        await FunctionAgent(llm=wrapped, tools=[lambda: None]).run("Where do ferries leave?")
    with pytest.raises(ValueError, match="Invalid role"):
        wrapped.chat([ChatMessage("21 euros", role="tool", additional_kwargs={"tool_call_id": "1"})])

    Settings.llm = ours
    assert isinstance(Settings.llm, LangChainLLM)
    Settings.embed_model = LMStudioEmbeddings(model=EMBEDDING)
    assert type(Settings.embed_model).__name__ == "LangchainEmbedding"


def test_a_stream_of_a_completion_changes_our_object(serve: Serve) -> None:
    from llama_index.llms.langchain import LangChainLLM

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve({"then": "At pier 7."})
    ours = ChatLMStudio(model=CHAT)
    assert "".join(chunk.delta for chunk in LangChainLLM(llm=ours).stream_complete("Where?")) == "At pier 7."
    assert (ours.streaming, [type(each).__name__ for each in ours.callbacks]) == (
        True,
        ["StreamingGeneratorCallbackHandler"],
    )
    assert len(server.predictions) == 1
