"""What a program may do with a model object besides calling it, and what becomes of it: ours, and those of peers.

`test_objects.py` checks the column of this package; `tests/neighbours`, where the peers are installed, checks theirs.
"""

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler, CallbackManager
from langchain_core.load import dumpd, dumps, load
from langchain_core.messages import HumanMessage
from langchain_core.runnables import ConfigurableField

SECRET = "sk-lm-abcdefgh:abcdefghij0123456789"
"""The key that each object is made with; OpenAI's and ours have one."""

PROMPT = "Say hello."
TEXT = "hello"
"""What each server answers to everything."""


@dataclass(frozen=True, slots=True)
class Row:
    """One use of a model object.

    Attributes:
        use: Takes an object that has answered once, and returns what becomes of it.
        ours: What `use` returns; the name of the exception that it raises.
        peers: The same of the peers, in the order of their names.
    """

    use: Callable[[Any], Any]
    ours: Any
    peers: tuple[Any, Any]


def outcome(row: Row, model: Any) -> Any:
    """Return what becomes of an object, or the name of an exception."""
    try:
        return row.use(model)
    except Exception as error:  # noqa: BLE001 - what the row is about
        return next(each.__name__ for each in type(error).__mro__ if each.__module__ == "builtins")


def _set(name: str, value: Any) -> Callable[[Any], Any]:
    def use(model: Any) -> Any:
        setattr(model, name, value)
        return getattr(model, name)

    return use


def _get(name: str) -> Callable[[Any], Any]:
    return lambda model: getattr(model, name)


def _same(duplicate: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Whether a duplicate of a used object has the same settings and answers."""

    def use(model: Any) -> Any:
        other = duplicate(model)
        return (other.model, other.temperature, _ask(other)) == (model.model, model.temperature, TEXT)

    return use


def _ask(model: Any, **settings: Any) -> str:
    if hasattr(model, "invoke"):
        return str(model.invoke(PROMPT, **settings).text)
    return str(model.complete(PROMPT, **settings))


# LangChain ----------------------------------------------------------------------------------------------------------


class _Starts(BaseCallbackHandler):
    """Counts the calls that begin."""

    def __init__(self) -> None:
        self.count = 0

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        self.count += 1


def _heard(call: Callable[[Any, _Starts], Any]) -> Callable[[Any], int]:
    """How many calls a handler hears that is given in one way."""

    def use(model: Any) -> int:
        handler = _Starts()
        call(model, handler)
        return handler.count

    return use


def _call_with(name: str, make: Callable[[_Starts], Any]) -> Callable[[Any, _Starts], Any]:
    def call(model: Any, handler: _Starts) -> None:
        other = copy.copy(model)
        setattr(other, name, make(handler))
        other.invoke(PROMPT)

    return call


def _configured(model: Any) -> float:
    configurable = model.configurable_fields(temperature=ConfigurableField(id="warmth"))
    bound, _ = configurable.prepare({"configurable": {"warmth": 0.1}})
    return float(bound.temperature)


LANGCHAIN = {
    "copy": Row(_same(copy.copy), True, (True, True)),
    "deepcopy": Row(_same(copy.deepcopy), True, ("TypeError", "TypeError")),
    "pickle": Row(_same(lambda model: pickle.loads(pickle.dumps(model))), True, ("TypeError", "TypeError")),
    "model_copy": Row(lambda model: model.model_copy(update={"temperature": 0.2}).temperature, 0.2, (0.2, 0.2)),
    "dumpd": Row(lambda model: dumpd(model)["type"], "constructor", ("not_implemented", "constructor")),
    "lc_id": Row(
        lambda model: model.lc_id(),
        ["lmstudio_integrations", "langchain", "ChatLMStudio"],
        (["langchain_ollama", "chat_models", "ChatOllama"], ["langchain", "chat_models", "openai", "ChatOpenAI"]),
    ),
    "loads": Row(
        _same(
            lambda model: load(
                dumpd(model),
                secrets_map={"LM_API_TOKEN": SECRET, "OPENAI_API_KEY": SECRET},
                allowed_objects=[type(model)],
                valid_namespaces=[type(model).__module__.partition(".")[0]],
            )
        ),
        True,
        ("NotImplementedError", True),
    ),
    "a dump without the key": Row(lambda model: SECRET in dumps(model) + repr(model), False, (False, False)),
    "configurable_fields": Row(_configured, 0.1, (0.1, 0.1)),
    "with_config": Row(lambda model: model.with_config(tags=["a"]).config["tags"], ["a"], (["a"], ["a"])),
    "bind(stop=…)": Row(lambda model: _ask(model.bind(stop=["zzz"])), TEXT, (TEXT, TEXT)),
    "bind(n=1)": Row(lambda model: _ask(model.bind(n=1)), TEXT, ("TypeError", TEXT)),
    "n": Row(_get("n"), "AttributeError", ("AttributeError", None)),
    "logprobs": Row(_get("logprobs"), None, (None, None)),
    "bind(logprobs=True)": Row(lambda model: _ask(model.bind(logprobs=True)), TEXT, (TEXT, TEXT)),
    "streaming": Row(_get("streaming"), None, ("AttributeError", False)),
    "writable streaming": Row(_set("streaming", True), True, ("ValueError", True)),
    "disable_streaming": Row(_set("disable_streaming", True), True, (True, True)),
    "writable temperature": Row(_set("temperature", 0.1), 0.1, (0.1, 0.1)),
    "an impossible temperature": Row(_set("temperature", "hot"), "ValueError", ("hot", "hot")),
    "model_name": Row(lambda model: model.model_name == model.model, True, ("AttributeError", True)),
    "writable model_name": Row(_set("model_name", "other"), "other", ("ValueError", "other")),
    "writable max_tokens": Row(_set("max_tokens", 7), 7, ("ValueError", 7)),
    "writable stop": Row(_set("stop", ["a"]), ["a"], (["a"], ["a"])),
    "get_num_tokens, offline": Row(lambda model: model.get_num_tokens("two words"), 2, ("ImportError", "OSError")),
    "get_token_ids, offline": Row(lambda model: len(model.get_token_ids("two words")), 2, ("ImportError", "OSError")),
    "get_num_tokens_from_messages, offline": Row(
        lambda model: model.get_num_tokens_from_messages([HumanMessage("two words")]) > 2,
        True,
        ("ImportError", "OSError"),
    ),
    "metadata": Row(_set("metadata", {"a": 1}), {"a": 1}, ({"a": 1}, {"a": 1})),
    "name": Row(lambda model: model.get_name() == type(model).__name__, True, (True, True)),
    "callbacks as an attribute": Row(_heard(_call_with("callbacks", lambda handler: [handler])), 1, (1, 1)),
    "callbacks as a manager": Row(
        _heard(_call_with("callbacks", lambda handler: CallbackManager(handlers=[handler]))), 1, (1, 1)
    ),
    "callbacks of a call": Row(
        _heard(lambda model, handler: model.invoke(PROMPT, config={"callbacks": [handler]})), 1, (1, 1)
    ),
    "callbacks of with_config": Row(
        _heard(lambda model, handler: model.with_config(callbacks=[handler]).invoke(PROMPT)), 1, (1, 1)
    ),
    "callbacks of generate": Row(
        _heard(lambda model, handler: model.generate([[HumanMessage(PROMPT)]] * 2, callbacks=[handler])), 2, (2, 2)
    ),
    "_llm_type": Row(lambda model: "chat" in model._llm_type, True, (True, True)),
}
"""The uses of a chat model of LangChain; the peers are `ChatOllama` and `ChatOpenAI`."""


# LlamaIndex ---------------------------------------------------------------------------------------------------------


def _through_dict(model: Any) -> Any:
    data = model.to_dict()
    assert data["class_name"] == model.class_name()
    return type(model).from_dict(data)


def _events(model: Any) -> int:
    from llama_index.core.callbacks import CallbackManager as Manager
    from llama_index.core.callbacks import LlamaDebugHandler

    debug = LlamaDebugHandler(print_trace_on_end=False)
    model.callback_manager = Manager([debug])
    model.complete(PROMPT)
    return len(debug.get_llm_inputs_outputs())


LLAMA_INDEX = {
    "copy": Row(_same(copy.copy), True, (True, True)),
    "deepcopy": Row(_same(copy.deepcopy), True, ("TypeError", "TypeError")),
    "pickle": Row(_same(lambda model: pickle.loads(pickle.dumps(model))), True, (True, True)),
    "to_dict": Row(_same(_through_dict), True, (True, True)),
    "a dump without the key": Row(lambda model: SECRET in model.to_json() + repr(model), False, (False, True)),
    "class_name": Row(lambda model: bool(model.class_name()), True, (True, True)),
    "metadata.model_name": Row(lambda model: model.metadata.model_name == model.model, True, (True, True)),
    "metadata.context_window": Row(lambda model: model.metadata.context_window, 4096, (4096, 3900)),
    "metadata.is_function_calling_model": Row(
        lambda model: model.metadata.is_function_calling_model, True, (True, False)
    ),
    "writable temperature": Row(_set("temperature", 0.1), 0.1, (0.1, 0.1)),
    "an impossible temperature": Row(_set("temperature", "hot"), "ValueError", ("hot", "hot")),
    "writable model": Row(_set("model", "other"), "other", ("other", "other")),
    "callback_manager as an attribute": Row(_events, 1, (2, 1)),
    "complete(stop=…)": Row(lambda model: _ask(model, stop=["zzz"]), TEXT, (TEXT, TEXT)),
}
"""The uses of an LLM of LlamaIndex; the peers are `Ollama` and `OpenAILike`."""
