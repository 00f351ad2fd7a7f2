"""The peers of our models, at an HTTP server that answers as theirs do, for programs that compare what is recorded."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from neighbour_replies import reply
from neighbour_servers import CHAT, Received

TEXT = "Piers 5 and 7."
"""The text of each answer."""

CALL: Mapping[str, Any] = {"tool": "ferry", "arguments": {"pier": 7}}
"""The call of each answer to a request with tools."""

RULES: Sequence[Mapping[str, Any]] = (
    {"when": {"last": "fail"}, "then": [{"error": "it broke"}]},
    {"when": {"role": "user", "tools": ["ferry"]}, "then": [CALL]},
    {"then": TEXT},
)
"""The rules by which our scripted model gives the same answers."""

WAYS = ("invoke", "stream", "tool", "fail")
"""How each model is called: for a whole response, for a stream, with a tool, and for an error."""


def ferry(pier: int) -> str:
    """Say when the ferry leaves."""
    return f"at {pier}"


# LangChain ------------------------------------------------------------------------------------------------------------


def langchain_models(address: str) -> dict[str, Any]:
    """Return our model and its peers with like settings."""
    from langchain_ollama import ChatOllama
    from langchain_openai import ChatOpenAI

    from lmstudio_integrations.langchain import ChatLMStudio

    openai: Any = ChatOpenAI  # its settings have aliases
    common: dict[str, Any] = {"temperature": 0.2, "top_p": 0.9, "seed": 3, "stop": ["END"]}
    return {
        "lmstudio": ChatLMStudio(model=CHAT, max_tokens=50, **common),
        "openai": openai(
            model="gpt-4o", max_tokens=50, base_url=f"{address}/v1", api_key="key", max_retries=0, **common
        ),
        "ollama": ChatOllama(model="qwen3", num_predict=50, base_url=address, **common),
    }


def call_langchain(model: Any, way: str, callbacks: Sequence[Any] = ()) -> None:
    """Call a model in one way."""
    config: Any = {"callbacks": list(callbacks)}
    if way == "stream":
        list(model.stream("Which piers?", config))
    elif way == "tool":
        model.bind_tools([ferry]).invoke("When?", config)
    elif way == "fail":
        with suppress(Exception):
            model.invoke("fail", config)
    else:
        model.invoke("Which piers?", config)


# LlamaIndex -----------------------------------------------------------------------------------------------------------


def llama_index_models(address: str) -> dict[str, Any]:
    """Return our model and its peers with like settings."""
    from llama_index.llms.ollama import Ollama
    from llama_index.llms.openai import OpenAI

    from lmstudio_integrations.llama_index import LMStudio

    return {
        "lmstudio": LMStudio(model=CHAT, temperature=0.2, max_tokens=50),
        "openai": OpenAI(
            model="gpt-4o", temperature=0.2, max_tokens=50, api_base=f"{address}/v1", api_key="key", max_retries=0
        ),
        "ollama": Ollama(model="qwen3", temperature=0.2, context_window=4096, base_url=address),
    }


def call_llama_index(model: Any, way: str) -> Any:
    """Call a model in one way; return what it returned last."""
    from llama_index.core.llms import ChatMessage
    from llama_index.core.tools import FunctionTool

    messages = [ChatMessage("Which piers?")]
    if way == "stream":
        return list(model.stream_chat(messages))[-1]
    if way == "tool":
        return model.chat_with_tools([FunctionTool.from_defaults(ferry)], "When?")
    if way == "fail":
        with suppress(Exception):
            model.chat([ChatMessage("fail")])
        return None
    return model.chat(messages)


# Their servers --------------------------------------------------------------------------------------------------------


def answer(request: Received) -> tuple[int, Any]:
    """Answer a chat as a server of OpenAI or Ollama does, whole or as a stream."""
    if request.path == "/api/show":
        return 200, {"model_info": {"m.context_length": 4096}}
    body = request.json
    if body["messages"][-1]["content"] == "fail":
        return 400, {"error": {"message": "it broke"}}
    if request.path == "/api/chat":
        return 200, _of_ollama(body)
    return 200, reply(CALL if body.get("tools") else TEXT, body)


def _of_ollama(body: Any) -> Any:
    message: dict[str, Any] = {"role": "assistant", "content": TEXT}
    if body.get("tools"):
        function = {"name": CALL["tool"], "arguments": CALL["arguments"]}
        message = {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}
    common = {"model": body["model"], "created_at": "2026-01-01T00:00:00Z"}
    times = {"total_duration": 9, "load_duration": 1, "prompt_eval_duration": 2, "eval_duration": 3}
    counts = {"prompt_eval_count": 11, "eval_count": 7}
    done = {**common, "done": True, "done_reason": "stop", **times, **counts}
    if not body.get("stream"):
        return {**done, "message": message}
    parts = [{**common, "message": message, "done": False}, {**done, "message": {"role": "assistant", "content": ""}}]
    return "".join(f"{json.dumps(part)}\n" for part in parts).encode()
