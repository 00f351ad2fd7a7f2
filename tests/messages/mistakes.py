"""The mistakes, by the entry of the page that explains them: what triggers each, on every interface that allows it."""

import socket
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import pytest
from langchain.agents.middleware import SummarizationMiddleware
from langchain_core.tools import tool
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

import lmstudio_integrations as lms
from lmstudio_integrations import langchain, llama_index
from lmstudio_integrations.client.transport.connect import discovery, suggestions
from lmstudio_integrations.client.transport.connect.addresses import Address
from lmstudio_integrations.client.transport.operation import decode_errors
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.models.catalog import Catalog, Preset
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from lmstudio_integrations.types.config import ModelKind
from tests.client.transport.connect.test_tls_and_redirects import certified, listening
from tests.messages.surfaces import (
    ADAPTED,
    ADAPTED_CHAT,
    ADAPTED_EMBEDDING,
    ADAPTED_LANGUAGE,
    CHAT,
    EMBEDDING,
    LANGUAGE,
    SURFACES,
    Surface,
)
from tests.support.certificates import LOCALHOST
from tests.support.web import web_server

LLM, OTHER, VECTORS = "gemma-3-4b", "qwen3-8b", "nomic-embed-text-v1.5"
KEYS: dict[ModelKind, str] = {"llm": LLM, "embedding": VECTORS}
WRONG: dict[ModelKind, str] = {"llm": VECTORS, "embedding": LLM}
TOKEN, OTHER_TOKEN = "sk-lm-abcdefgh:0123456789abcdefghij", "sk-lm-abcdefgh:0123456789abcdefghik"

RULES: tuple[Any, ...] = (
    {"when": {"last": "^drop"}, "then": [{"text": "so far "}, {"fault": "drop"}]},
    {"when": {"last": "^crash"}, "then": [{"fault": "crash"}]},
    {"when": {"last": "^stall"}, "then": [{"text": "so far "}, {"fault": "stall"}]},
    {"when": {"last": "^slow"}, "then": [{"fault": "stall"}]},
    {"when": {"last": "^muse"}, "then": [{"reasoning": "Let me see."}]},
    {"when": {"last": "^half"}, "then": [{"text": '{"name": "Ann", "age": 7}'}]},
    {"when": {"last": "^silent"}, "then": [{"text": "I will not."}]},
    {"when": {"last": "^cut"}, "then": [{"fault": "truncate"}, {"text": "What?"}]},
)
REQUIRED = {"type": "generic", "mode": "required"}
BROKEN = {"type": "object", "title": "Person", "properties": {"home": {"$ref": "#/$defs/Address"}}}


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def models(*load_steps: Mapping[str, Any], context_length: int = 64, maximum: int = 4096) -> list[ModelEntry]:
    """Return the models of the server."""
    rules: tuple[Any, ...] = ({"when": {"load": True}, "then": list(load_steps)},) if load_steps else ()
    language: dict[str, Any] = {"context_length": context_length, "max_context_length": maximum, "slots": 1}
    return [
        ModelEntry(key=LLM, rules=(*rules, *RULES), **language),
        ModelEntry(key=OTHER),
        ModelEntry(key=VECTORS, kind="embedding", rules=rules, context_length=32, max_context_length=32),
    ]


@dataclass(frozen=True)
class Case:
    """One call of a mistake: the interface, and what patches the environment."""

    surface: Surface
    monkeypatch: pytest.MonkeyPatch

    def __call__(self, host: str | None, **settings: Any) -> Any:
        return self.surface(host, **{"model": KEYS[self.surface.kind], **settings})

    def on_server(self, *load_steps: Mapping[str, Any], **settings: Any) -> Any:
        """Make a call to a server of its own."""
        with Emulator(models(*load_steps)) as server:
            return self(server.address, **settings)


Trigger: TypeAlias = Callable[[Case], Any]
Mistake: TypeAlias = tuple[Mapping[str, Surface], Trigger]

MISTAKES: dict[str, list[Mistake]] = defaultdict(list)
"""The mistakes of each entry, with the interfaces that allow them."""


def mistake(entry: str, surfaces: Mapping[str, Surface] = SURFACES) -> Callable[[Trigger], Trigger]:
    """Add a mistake to an entry of the page."""

    def add(trigger: Trigger) -> Trigger:
        MISTAKES[entry].append((surfaces, trigger))
        return trigger

    return add


def only(framework: str, surfaces: Mapping[str, Surface] = CHAT) -> dict[str, Surface]:
    """Return one interface of a framework, for mistakes whose code is the same on its others."""
    return {framework: next(each for each in surfaces.values() if each.framework == framework)}


@contextmanager
def closed_port() -> Iterator[str]:
    """Yield an address at which nothing listens, and which no other program can take meanwhile."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{reserved.getsockname()[1]}"


def _candidates(case: Case, *addresses: str) -> None:
    found = tuple(map(Address.parse, addresses))
    case.monkeypatch.setattr(discovery, "local_candidates", lambda: found)


SETTINGS: list[tuple[str, Mapping[str, Surface], dict[str, Any]]] = [
    ("connection-lost", LANGUAGE, {"prompt": "drop"}),
    ("token-malformed", SURFACES, {"api_token": "sk-lm-abcdefghijklmnop"}),
    ("nothing-loaded", SURFACES, {"model": None}),
    ("not-loaded", SURFACES, {"load_policy": "require_loaded"}),
    ("not-downloaded", LANGUAGE, {"model": "gpt-oss-20b"}),
    ("not-downloaded", LANGUAGE, {"model": "gema-3-4b"}),
    ("crashed", LANGUAGE, {"prompt": "crash"}),
    ("context-overflow", CHAT, {"prompt": "word " * 100}),
    ("dropped-tokens", ADAPTED_LANGUAGE, {"prompt": "cut " + "word " * 100}),
    ("text-too-long", ADAPTED_EMBEDDING, {"prompt": "word " * 100, "length_policy": "error"}),
    ("long-texts", ADAPTED_EMBEDDING, {"prompt": "word " * 100, "length_policy": "average"}),
    ("all-reasoning", ADAPTED_CHAT, {"prompt": "muse"}),
    ("preset", LANGUAGE, {"preset": "mine"}),
    ("timeouts", LANGUAGE, {"prompt": "stall", "idle_timeout": 0.2}),
    ("timeouts", LANGUAGE, {"prompt": "stall", "timeout": 0.5}),
    ("slow-first-token", LANGUAGE, {"prompt": "slow", "first_token_timeout": 0.2}),
    ("seconds", SURFACES, {"ttl": "5m"}),
    ("seconds", SURFACES, {"idle_timeout": "30s"}),
    ("seconds", SURFACES, {"keepalive": -1}),
    ("units", SURFACES, {"context_length": "8k"}),
    ("units", SURFACES, {"load_config": {"gpu": {"ratio": "50%"}}}),
    ("unknown-setting", LANGUAGE, {"temprature": 0.5}),
    ("unknown-setting", SURFACES, {"load_config": {"gpu_offload": 0.5}}),
    ("unknown-setting", ADAPTED_EMBEDDING, {"temperature": 0.5}),
    ("unknown-setting", ADAPTED, {"zzz": 1}),
    ("schema-text", CHAT, {"response_format": "json"}),
    ("schema-reference", CHAT, {"response_format": BROKEN}),
]
"""Mistakes in the settings of one call: the entry, the interfaces, and the settings."""

for _entry, _surfaces, _settings in SETTINGS:
    mistake(_entry, _surfaces)(partial(Case.on_server, **_settings))


# Connecting -----------------------------------------------------------------------------------------------------------


@mistake("no-server")
def _no_server(case: Case) -> Any:
    with closed_port() as address:
        _candidates(case, address)
        return case(None)


@mistake("nothing-listens")
def _closed(case: Case) -> Any:
    with closed_port() as address:
        return case(address)


@mistake("nothing-listens")
def _closed_elsewhere(case: Case) -> Any:
    with closed_port() as address:
        return case(address.replace("127.0.0.1", "0.0.0.0"))  # no loopback address


@mistake("wrong-port")
def _wrong_port(case: Case) -> Any:
    with closed_port() as address, Emulator(models()) as server:
        _candidates(case, server.address)
        return case(address)


@mistake("wrong-port")
def _another_server(case: Case) -> Any:
    with listening(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") as address:
        return case(address)


@mistake("wrong-path")
def _wrong_path(case: Case) -> Any:
    with Emulator(models()) as server:
        return case(f"http://{server.address}/lmstudio")


@mistake("docker")
def _in_a_container(case: Case) -> Any:
    case.monkeypatch.setattr(suggestions, "in_container", lambda: True)
    return _closed(case)


@mistake("docker")
def _no_server_in_a_container(case: Case) -> Any:
    case.monkeypatch.setattr(suggestions, "in_container", lambda: True)
    return _no_server(case)


@mistake("docker")
def _no_docker_host(case: Case) -> Any:
    def fail(*_: object, **__: object) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    case.monkeypatch.setattr(socket, "getaddrinfo", fail)
    return case("host.docker.internal:1234")


@mistake("no-name")
def _no_name(case: Case) -> Any:
    return case("no..such..host:1234")


@mistake("no-response")
def _no_response(case: Case) -> Any:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        return case(f"127.0.0.1:{silent.getsockname()[1]}", connect_timeout=0.2)


@mistake("tls")
def _plain_server(case: Case) -> Any:
    with Emulator(models()) as server:
        return case(f"https://{server.address}")


@mistake("tls")
def _tls_server(case: Case) -> Any:
    with listening(b"HTTP/1.1 400 Bad Request\r\n\r\n", certified(LOCALHOST.name)) as address:
        return case(f"http://{address}")


@mistake("tls")
def _untrusted(case: Case) -> Any:
    with listening(b"HTTP/1.1 400 Bad Request\r\n\r\n", certified(LOCALHOST.name)) as address:
        return case(f"https://{address}")


@mistake("proxy")
def _no_websocket(case: Case) -> Any:
    with web_server() as web:
        web.pages = defaultdict(lambda: lambda request: request.head(403))
        web.pages["/lmstudio-greeting"] = lambda request: request.respond(b'{"lmstudio": true}')
        return case(f"127.0.0.1:{web.port}")


@mistake("token-missing")
def _no_token(case: Case) -> Any:
    with Emulator(models(), tokens=[TOKEN]) as server:
        return case(server.address)


@mistake("token-missing")
def _token_under_another_name(case: Case) -> Any:
    case.monkeypatch.setenv("LMSTUDIO_API_KEY", TOKEN)
    return _no_token(case)


@mistake("token-wrong")
def _wrong_token(case: Case) -> Any:
    with Emulator(models(), tokens=[TOKEN]) as server:
        return case(server.address, api_token=OTHER_TOKEN)


@mistake("token-wrong")
def _two_tokens(case: Case) -> Any:
    case.monkeypatch.setenv("LM_API_TOKEN", OTHER_TOKEN)
    case.monkeypatch.setenv("LMSTUDIO_API_TOKEN", TOKEN)
    return _no_token(case)


@mistake("token-malformed")
def _no_token_of_lm_studio(case: Case) -> Any:
    case.monkeypatch.setenv("LM_API_TOKEN", "not-needed")
    return _no_token(case)


# Models ---------------------------------------------------------------------------------------------------------------


@mistake("cross-encoder", only("native"))
def _cross_encoder(case: Case) -> Any:
    return _rerank("llm")


@mistake("cross-encoder", only("native"))
def _reranker_without_words(case: Case) -> Any:
    return _rerank("embedding", "qwen3-embedding")


def _rerank(kind: ModelKind, key: str = "bge-reranker-v2-m3") -> Any:
    model = ModelEntry(key=key, kind=kind)
    with Emulator([model]) as server, lms.Client(server.address) as client:
        return client.llm.lazy_model(model.key).rerank("What does a swim cost?", ["The pool costs four euros."])


@mistake("evicted", CHAT)
def _eviction(case: Case) -> Any:
    with Emulator(models()) as server:
        for model in (LLM, OTHER):
            case(server.address, model=model)


@mistake("evicted", CHAT)
def _eviction_for_memory(case: Case) -> Any:
    with Emulator(catalog=_in_memory(2)) as server:
        for model in (LLM, OTHER):
            case(server.address, model=model, load_policy="fit")


def _in_memory(gib: float) -> Catalog:
    """Return the models, each of which takes a gibibyte besides its context, on a machine with so much memory."""
    entries = [entry.model_copy(update={"memory_gib": 1}) for entry in models(maximum=32768)]
    return Catalog(models=tuple(entries), memory_gib=gib)


@mistake("does-not-fit")
def _beside_what_stays(case: Case) -> Any:
    with Emulator(catalog=_in_memory(2)) as server:
        server.load(OTHER)
        return case(server.address, load_policy="fit")


@mistake("does-not-fit", LANGUAGE)
def _with_this_context(case: Case) -> Any:
    with Emulator(catalog=_in_memory(3)) as server:
        server.load(OTHER)
        return case(server.address, load_policy="fit", context_length=32768)


@mistake("evicted", only("LangChain"))
def _evicted(case: Case) -> Any:
    with Emulator(models()) as server:
        instance = server.load(LLM)
        chat = ChatLMStudio(model=LLM, host=server.address, load_policy="require_loaded")
        chat.invoke("hello")
        server.unload(instance.identifier)
        return chat.invoke("hello")


@mistake("other-settings")
def _other_settings(case: Case) -> Any:
    with Emulator(models()) as server:
        server.load(KEYS[case.surface.kind])
        return case(server.address, context_length=16)


@mistake("other-settings", LANGUAGE)
def _shorter_than_requested(case: Case) -> Any:
    with Emulator(models(context_length=4096, maximum=16384)) as server:
        server.load(LLM)
        return case(server.address, context_length=8192)


@mistake("other-settings")
def _fitted_up(case: Case) -> Any:
    entries = [entry.model_copy(update={"loaded_context_length": 32}) for entry in models()]
    with Emulator(entries) as server:
        return case(server.address, context_length=16)


@mistake("other-settings")
def _above_the_maximum(case: Case) -> Any:
    with Emulator(models(maximum=64)) as server:
        server.load(KEYS[case.surface.kind])
        return case(server.address, context_length=8192)


@mistake("wrong-kind", LANGUAGE | EMBEDDING)
def _wrong_kind(case: Case) -> Any:
    return case.on_server(model=WRONG[case.surface.kind])


@mistake("no-memory")
def _no_memory(case: Case) -> Any:
    return case.on_server({"fault": "out_of_memory"})


@mistake("load-failed")
def _load_failed(case: Case) -> Any:
    return case.on_server({"error": "Failed to load model"})


@mistake("timeouts")
def _stalled_load(case: Case) -> Any:
    return case.on_server({"fault": "stall"}, load_timeout=0.2)


# Prompts and responses ------------------------------------------------------------------------------------------------


@mistake("context-overflow", CHAT)
def _longer_than_the_maximum(case: Case) -> Any:
    with Emulator(models(maximum=64)) as server:
        return case(server.address, prompt="word " * 100)


def _grow(system: Callable[[int], str | None]) -> None:
    """Let a conversation grow by two turns."""
    with Emulator(models(context_length=4096)) as server:
        chat, history = ChatLMStudio(model=LLM, host=server.address), list[Any]()
        for turn in range(2):
            history.append(("user", f"And what else is there to see on day {turn}? " * 9))
            first = [("system", text)] if (text := system(turn)) else []
            history.append(("assistant", chat.invoke([*first, *history]).text))


@mistake("prompt-cache", only("LangChain"))
def _clock_in_front(_: Case) -> None:
    _grow(lambda turn: f"It is 12:0{turn}.")


@mistake("prompt-cache", only("LangChain"))
def _context_in_front(_: Case) -> None:
    _grow(lambda turn: "It rains." if turn else None)


@mistake("no-profile", only("LangChain"))
def _without_profile(_: Case) -> Any:
    return SummarizationMiddleware(ChatLMStudio(model=LLM), trigger=("fraction", 0.8))


@mistake("truncated", only("LangChain"))
def _truncated_langchain(case: Case) -> Any:
    with Emulator(models()) as server:
        chat = ChatLMStudio(model=LLM, host=server.address, max_tokens=2)
        return chat.with_structured_output(Person).invoke("half")


@mistake("truncated", only("LlamaIndex"))
def _truncated_llama_index(case: Case) -> Any:
    with Emulator(models()) as server:
        llm = LMStudio(model=LLM, host=server.address, max_tokens=2)
        return llm.structured_predict(Person, PromptTemplate("half"))


@mistake("truncated", only("native"))
def _truncated_native(case: Case) -> Any:
    with Emulator(models()) as server, lms.Client(server.address) as client:
        config: Any = {"max_tokens": 2}
        result = client.llm.model(LLM).respond("half", config=config, response_format=Person)
        return result.parsed_as(Person)


@mistake("preset", LANGUAGE)
def _unknown_preset(case: Case) -> Any:
    preset = Preset(identifier="poet", fields={"llm.prediction.temperature": 0.9})
    with Emulator(catalog=Catalog(models=tuple(models()), presets=(preset,))) as server:
        return case(server.address, preset="mine")


# Timeouts -------------------------------------------------------------------------------------------------------------


@mistake("timeouts", only("native"))
def _stalled_queue(case: Case) -> Any:
    with Emulator(models()) as server, lms.Client(server.address) as client:
        model = client.llm.model(LLM)
        with model.respond_stream("stall") as stream:
            next(stream)
            return model.respond("hello", queue_timeout=0.2)


# Settings -------------------------------------------------------------------------------------------------------------


@mistake("unknown-setting", only("native"))
def _setting_as_argument(case: Case) -> Any:
    with Emulator(models()) as server, lms.Client(server.address) as client:
        arguments: Any = {"temperature": 0.5}
        return client.llm.model(LLM).respond("hello", **arguments)


@mistake("unknown-setting", only("native"))
def _load_setting_of_a_call(case: Case) -> Any:
    with Emulator(models()) as server, lms.Client(server.address) as client:
        config: Any = {"context_length": 8192}
        return client.llm.model(LLM).respond("hello", config=config)


@mistake("unknown-setting", only("native"))
def _call_setting_of_a_load(case: Case) -> Any:
    with Emulator(models()) as server, lms.Client(server.address) as client:
        config: Any = {"temperature": 0.5}
        return client.llm.model(LLM, config=config)


@mistake("unknown-setting", only("native"))
def _host_as_argument(case: Case) -> Any:
    arguments: Any = {"host": "localhost:1234"}
    return lms.Client(**arguments)


@mistake("unknown-setting", ADAPTED)
def _port(case: Case) -> Any:
    return case("127.0.0.1", port=7777)


@mistake("unknown-setting", only("native"))
def _port_of_client(case: Case) -> Any:
    arguments: Any = {"port": 7777}
    return lms.Client("127.0.0.1", **arguments)


@mistake("positional", ADAPTED)
def _positional(case: Case) -> Any:
    adapter: Any = case.surface.adapter
    return adapter("gemma-3-4b")


# Schemas and tools ----------------------------------------------------------------------------------------------------


@mistake("schema-text", only("LangChain"))
def _schema_as_text_langchain(case: Case) -> Any:
    return ChatLMStudio(model=LLM).with_structured_output("Person")  # type: ignore[arg-type]


@mistake("schema-reference", only("LangChain"))
def _broken_reference_langchain(case: Case) -> Any:
    for method in ("json_schema", "function_calling"):
        with pytest.raises(lms.LMStudioValueError) as caught:
            ChatLMStudio(model=LLM).with_structured_output(BROKEN, method=method)
    raise caught.value


def weather(city):  # type: ignore[no-untyped-def]  # the fault is the point
    return city


def forecast(city):  # type: ignore[no-untyped-def]  # the fault is the point
    """Return the weather of tomorrow."""
    return city


@mistake("bare-tool", only("LangChain"))
def _bare_function(case: Case) -> Any:
    ChatLMStudio(model=LLM).bind_tools([weather])
    ChatLMStudio(model=LLM).bind_tools([tool(forecast)])


@mistake("bare-tool", only("LlamaIndex"))
def _bare_tool(case: Case) -> Any:
    with Emulator(models(context_length=4096)) as server:
        llm = LMStudio(model=LLM, host=server.address)
        llm.chat_with_tools([FunctionTool.from_defaults(weather)], "hello")
        llm.chat_with_tools([FunctionTool.from_defaults(forecast)], "hello")


@mistake("bare-tool", only("native"))
def _bare_native_tool(case: Case) -> Any:
    with Emulator(models()) as server, lms.Client(server.address) as client:
        with pytest.raises(lms.LMStudioValueError) as caught:
            client.llm.model(LLM).act("hello", [weather])
        warnings.warn(str(caught.value), UserWarning, stacklevel=2)
        return client.llm.model(LLM).act("hello", [forecast])


@mistake("not-a-tool", only("LangChain"))
def _no_tool(case: Case) -> Any:
    return ChatLMStudio(model=LLM).bind_tools(["weather"])  # type: ignore[list-item]


@mistake("not-a-tool", only("LlamaIndex"))
def _function_as_tool(case: Case) -> Any:
    return LMStudio(model=LLM).chat_with_tools([weather], "hello")  # type: ignore[list-item]


@mistake("no-call", only("LangChain"))
def _no_call(case: Case) -> Any:
    with Emulator(models(context_length=4096)) as server:
        chat = ChatLMStudio(model=LLM, host=server.address, required_tool_fallback=False)
        return chat.bind_tools([Person], tool_choice="any").invoke("silent")


@mistake("no-call", only("native"))
def _no_native_call(case: Case) -> Any:
    with Emulator(models(context_length=4096)) as server, lms.Client(server.address) as client:
        return client.llm.model(LLM).respond("silent", config={"tool_choice": REQUIRED})


@mistake("forced-call", only("LangChain"))
def _forced_call(case: Case) -> Any:
    with Emulator(models(context_length=4096)) as server:
        chat = ChatLMStudio(model=LLM, host=server.address).bind_tools([Person], tool_choice="any")
        return [chat.invoke("silent") for _ in range(3)]


def _with_text(text: str) -> Any:
    """Ask a model that leaves a call in its text."""
    with Emulator([ModelEntry(key=LLM, rules=({"then": [{"text": text}]},))]) as server:
        return ChatLMStudio(model=LLM, host=server.address).bind_tools([Person]).invoke("Who is Ada?")


@mistake("call-in-text", only("LangChain"))
def _call_in_text(case: Case) -> Any:
    return _with_text('<tool_call>{"name": "Person", "arguments": {"name": "Ada", "age": 36}}</tool_call>')


@mistake("broken-call", only("LangChain"))
def _broken_call(case: Case) -> Any:
    return _with_text('<tool_call>{"name": "Person", "arguments": {"name": "A')


@mistake("repetition", only("LangChain"))
def _repetition(case: Case) -> Any:
    loop = [{"reasoning": "I look at it once more. " * 400}, {"wait": 60}]
    with Emulator([ModelEntry(key=LLM, rules=({"then": loop},))]) as server:
        return ChatLMStudio(model=LLM, host=server.address).invoke("Where is it?")


@mistake("reasoning-budget", only("native"))
def _ignored_budget(case: Case) -> Any:
    thought = {"text": f"<think>{'Hm ' * 300}</think>Yes."}
    with Emulator([ModelEntry(key=LLM, rules=({"then": [thought]},))]) as server, lms.Client(server.address) as client:
        return client.llm.model(LLM).respond("Is it?", config={"reasoning_budget": 10})


# Installation and versions --------------------------------------------------------------------------------------------


@mistake("missing-package", {**only("LangChain"), **only("LlamaIndex")})
def _missing_package(case: Case) -> Any:
    framework, package, name = (
        ("langchain_core", langchain, "ChatLMStudio")
        if case.surface.framework == "LangChain"
        else ("llama_index", llama_index, "LMStudio")
    )

    def fail(_: str) -> Any:
        raise ModuleNotFoundError(f"No module named {framework!r}", name=framework)

    case.monkeypatch.setattr("lmstudio_integrations._support.installation.import_module", fail)
    return package.__getattr__(name)


@mistake("unreadable", only("native"))
def _unreadable(case: Case) -> Any:
    info: dict[str, Any] = {}
    with decode_errors("Model list"):
        return info["identifier"]
