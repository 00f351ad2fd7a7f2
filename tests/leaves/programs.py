"""Programs that need nothing but the trunk: native, in LangChain and in LlamaIndex; with tools, and embeddings.

`python -m tests.leaves.programs` runs them, after it has imported every module of the package.
"""

import asyncio
import importlib
import pkgutil

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings, LMStudioLLM
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding
from tools.leaves import has_leaf, is_of, leaves

RULES = (
    {"when": {"role": "user", "tools": ["weather"]}, "then": [{"tool": "weather", "arguments": {"city": "Oslo"}}]},
    {"when": {"role": "tool"}, "then": [{"text": "Rain."}]},
)
MODELS = [ModelEntry(key="chat", rules=RULES), ModelEntry(key="embedder", kind="embedding")]
HAS_ACT = has_leaf("tool_loop") and has_leaf("tool_contents")
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def weather(city: str) -> str:
    """Return the weather in a city."""
    return f"rain in {city}"


def native(host: str) -> None:
    with lms.Client(host) as client:
        model = client.llm.model("chat")
        assert "Hello" in model.respond("Hello").content
        assert "".join(each.content for each in model.respond_stream("Hello"))
        assert model.respond("Hello", response_format=SCHEMA).parsed.keys() == {"city"}
        if HAS_ACT:
            messages: list[object] = []
            model.act("How is it?", [weather], on_message=messages.append)
            assert len(messages) == 3
        assert model.count_tokens("Hello") == len(model.tokenize("Hello"))
        assert client.list_loaded_models()
        assert client.list_downloaded_models()
        (vector,) = client.embedding.model("embedder", load_policy="explicit").embed(["Hello"])
        assert len(vector) > 1
        model.unload()


async def native_async(host: str) -> None:
    async with lms.AsyncClient(host) as client:
        model = await client.llm.model("chat")
        assert "Hello" in (await model.respond("Hello")).content
        assert [each async for each in model.respond_stream("Hello")]
        if HAS_ACT:
            await model.act("How is it?", [weather])


def langchain(host: str) -> None:
    model = ChatLMStudio(model="chat", host=host)
    assert model.invoke("Hello").text
    assert "".join(chunk.text for chunk in model.stream("Hello"))
    calling = model.bind_tools([tool(weather)]).invoke([question := HumanMessage("How is it?")])
    (call,) = calling.tool_calls
    answer = model.invoke([question, calling, ToolMessage(weather(**call["args"]), tool_call_id=call["id"])])
    assert answer.text == "Rain."
    assert model.with_structured_output(SCHEMA | {"title": "Place"}).invoke("Hello").keys() == {"city"}
    assert LMStudioLLM(model="chat", host=host).invoke("Hello")
    assert len(LMStudioEmbeddings(model="embedder", host=host).embed_documents(["Hello", "World"])) == 2


def llama_index(host: str) -> None:
    llm = LMStudio(model="chat", host=host)
    assert llm.chat([ChatMessage("Hello")]).message.content
    assert "".join(chunk.delta or "" for chunk in llm.stream_complete("Hello"))
    response = llm.chat_with_tools([FunctionTool.from_defaults(weather)], "How is it?")
    assert [call.tool_name for call in llm.get_tool_calls_from_response(response)] == ["weather"]
    assert len(LMStudioEmbedding(model="embedder", host=host).get_text_embedding("Hello")) > 1


def main() -> None:
    """Import all modules of the package, and run the programs."""
    of_leaves = [name for names in leaves().values() for name in names]
    for module in pkgutil.walk_packages(lms.__path__, f"{lms.__name__}."):
        try:
            if not module.name.endswith("worker_main"):  # the program of a process
                importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            # A leaf may need another one: what searches for tools needs what reads calls in texts.
            if not (is_of(module.name, of_leaves) and is_of(error.name or "", of_leaves)):
                raise
    with Emulator(MODELS) as server:
        native(server.address)
        asyncio.run(native_async(server.address))
        langchain(server.address)
        llama_index(server.address)


if __name__ == "__main__":
    main()
