"""The lines by which people first meet this package, natively and in each framework, each on scripted models.

Run as a script with the name of a line, in an environment with a wheel of this package and what the line needs; the
tests in this folder do. It imports nothing else of this folder.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lmstudio_integrations
from lmstudio_integrations.emulator import Emulator, ModelEntry

QUESTION = "From which pier does the ferry leave?"
ANSWER = "It leaves from pier 7."
SUMMARY = "They spoke of ferries."
MODELS = (
    ModelEntry(
        key="chat",
        context_length=4096,
        rules=(
            {"when": {"last": "Context Extraction"}, "then": [{"text": SUMMARY}]},
            {"when": {"role": "tool"}, "then": [{"text": "It leaves from {last}."}]},
            {"when": {"tools": ["pier"]}, "then": [{"tool": "pier", "arguments": {"destination": "island"}}]},
            {"then": [{"text": ANSWER}]},
        ),
    ),
    ModelEntry(key="vectors", kind="embedding", embedding_length=16),
)


def pier(destination: str) -> str:
    """Return the pier of the ferries to a destination."""
    return f"pier {len(destination) + 1}"


def ask(agent: Any) -> str:
    """Return the last message of an agent of LangChain that was asked the question."""
    return str(agent.invoke({"messages": [("user", QUESTION)]})["messages"][-1].text)


def answer_if(vector: list[float]) -> str:
    return ANSWER if len(vector) == 16 else ""


def use_native_client() -> str:
    with lmstudio_integrations.Client() as client:
        assert any(client.embedding.model("vectors", load_policy="explicit").embed(QUESTION))
        return "".join(fragment.content for fragment in client.llm.model("chat").respond_stream(QUESTION))


def use_langchain() -> str:
    from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings, LMStudioLLM

    assert any(LMStudioEmbeddings(model="vectors").embed_query(QUESTION))
    assert LMStudioLLM(model="chat").invoke(QUESTION) == ANSWER
    return "".join(chunk.text for chunk in ChatLMStudio(model="chat").stream(QUESTION))


def use_llama_index() -> str:
    from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding

    assert any(LMStudioEmbedding(model_name="vectors").get_query_embedding(QUESTION))
    return "".join(chunk.delta or "" for chunk in LMStudio(model="chat").stream_complete(QUESTION))


def use_init_chat_model() -> str:
    from langchain.chat_models import init_chat_model

    from lmstudio_integrations.langchain import register

    register()
    return init_chat_model("lmstudio:chat").invoke(QUESTION).text


def use_init_embeddings() -> str:
    from langchain.embeddings import init_embeddings

    from lmstudio_integrations.langchain import register

    register()
    return answer_if(init_embeddings("lmstudio:vectors").embed_query(QUESTION))


def use_create_agent() -> str:
    from langchain.agents import create_agent

    from lmstudio_integrations.langchain import register

    register()
    return ask(create_agent("lmstudio:chat", [pier]))


def use_create_deep_agent() -> str:
    from deepagents import create_deep_agent

    return ask(create_deep_agent("lmstudio:chat", [pier]))


def use_summarization_by_fraction() -> str:
    from langchain.agents import create_agent
    from langchain.agents.middleware import SummarizationMiddleware

    from lmstudio_integrations.langchain import ChatLMStudio

    model: Any = ChatLMStudio(model="chat")
    summarization = SummarizationMiddleware(model.load(), trigger=("fraction", 0.8), keep=("messages", 1))
    agent: Any = create_agent(model, [pier], middleware=[summarization])
    state = agent.invoke({"messages": [*[("user", "ferry " * 100)] * 25, ("user", QUESTION)]})
    messages = state["messages"]
    return str(messages[-1].text) if SUMMARY in messages[0].text else ""


def use_fallbacks_with_tools() -> str:
    from langchain.agents import create_agent

    from lmstudio_integrations.langchain import ChatLMStudio

    nowhere = ChatLMStudio(model="chat", host="127.0.0.1:9", max_retries=0)
    model: Any = nowhere.with_fallbacks([ChatLMStudio(model="chat")])
    return ask(create_agent(model, [pier]))


def use_load_llm() -> str:
    from llama_index.core.llms.loading import load_llm

    from lmstudio_integrations.llama_index import register

    register()
    return str(load_llm({"class_name": "LMStudio", "model": "chat"}).complete(QUESTION))


def use_load_embed_model() -> str:
    from llama_index.core.embeddings.loading import load_embed_model

    from lmstudio_integrations.llama_index import register

    register()
    model = load_embed_model({"class_name": "LMStudioEmbedding", "model_name": "vectors"})
    return answer_if(model.get_query_embedding(QUESTION))


def use_chat_memory_buffer() -> str:
    from llama_index.core.chat_engine import SimpleChatEngine
    from llama_index.core.memory import ChatMemoryBuffer

    from lmstudio_integrations.llama_index import LMStudio

    llm = LMStudio(model="chat").load()
    memory = ChatMemoryBuffer.from_defaults(llm=llm)
    assert memory.token_limit < 4096
    return str(SimpleChatEngine.from_defaults(llm=llm, memory=memory).chat(QUESTION))


def use_function_agent() -> str:
    from llama_index.core.agent.workflow import FunctionAgent

    from lmstudio_integrations.llama_index import LMStudio

    async def run() -> str:
        return str(await FunctionAgent(tools=[pier], llm=LMStudio(model="chat")).run(user_msg=QUESTION))

    return asyncio.run(run())


LINES: Mapping[str, Callable[[], str]] = {
    "native": use_native_client,
    "langchain": use_langchain,
    "llama-index": use_llama_index,
    "init_chat_model": use_init_chat_model,
    "init_embeddings": use_init_embeddings,
    "create_agent": use_create_agent,
    "create_deep_agent": use_create_deep_agent,
    "summarization by fraction": use_summarization_by_fraction,
    "with_fallbacks with tools": use_fallbacks_with_tools,
    "load_llm": use_load_llm,
    "load_embed_model": use_load_embed_model,
    "ChatMemoryBuffer": use_chat_memory_buffer,
    "FunctionAgent": use_function_agent,
}


def use(line: str) -> None:
    """Start an emulator, let `LMSTUDIO_HOST` be its address, and use a line.

    Raises:
        AssertionError: If what comes out is not the answer of the emulator's models.
    """
    with Emulator(MODELS) as emulator:
        os.environ["LMSTUDIO_HOST"] = emulator.address
        answer = LINES[line]()
        assert answer == ANSWER, answer
        assert emulator.predictions or emulator.embedded_texts


def main(line: str) -> None:
    installed = Path(lmstudio_integrations.__file__).parent
    if installed.parent in Path(__file__).parents:
        sys.exit(f"this uses the checkout, {installed}, and not a wheel")
    use(line)
    print(f"{line}: works, from {installed}")


if __name__ == "__main__":
    main(*sys.argv[1:])
