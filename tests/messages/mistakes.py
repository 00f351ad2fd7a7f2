"""The mistakes: what triggers each, on which interfaces, and what its message must name.

One interface of each kind whose message is made by other code is enough: `tests/_adapters` tests what adapters share.
"""

import logging
import socket
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import pytest
from langchain.agents.middleware import SummarizationMiddleware
from langchain_core.tools import StructuredTool, tool
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

import lmstudio_integrations as lms
from lmstudio_integrations import langchain, llama_index
from lmstudio_integrations._support import suggestions
from lmstudio_integrations._support.environment import HOST_VARIABLE
from lmstudio_integrations.client.transport.connect import discovery
from lmstudio_integrations.client.transport.connect.addresses import Address
from lmstudio_integrations.client.transport.operation import decode_errors
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.models.catalog import Catalog, Preset
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from lmstudio_integrations.types.config import ModelKind
from tests.client.transport.connect.test_tls_and_redirects import certified, listening
from tests.faults import actions
from tests.faults.cells import until_noticed
from tests.faults.faults import at
from tests.faults.proxy import Injection, Proxy
from tests.faults.stage import Threads
from tests.messages.surfaces import Surface
from tests.support.certificates import LOCALHOST
from tests.support.ports import closed_port
from tests.support.web import web_server

LLM, OTHER, VECTORS = "gemma-3-4b", "qwen3-8b", "nomic-embed-text-v1.5"
KEYS: dict[ModelKind, str] = {"llm": LLM, "embedding": VECTORS}
TOKEN, OTHER_TOKEN = "sk-lm-abcdefgh:0123456789abcdefghij", "sk-lm-abcdefgh:0123456789abcdefghik"
UNREAD = "does not match the expected peg-native format"

RULES: tuple[Any, ...] = (
    {"when": {"last": "^drop"}, "then": [{"text": "so far "}, {"fault": "drop"}]},
    {"when": {"last": "^crash"}, "then": [{"fault": "crash"}]},
    {"when": {"last": "^lose"}, "then": [{"error": "Engine protocol predict request failed: fetch failed"}]},
    {"when": {"last": "^unread"}, "then": [{"error": f"The model produced output that {UNREAD}"}]},
    {"when": {"last": "^stall"}, "then": [{"text": "so far "}, {"fault": "stall"}]},
    {"when": {"last": "^slow"}, "then": [{"fault": "stall"}]},
    {"when": {"last": "^muse"}, "then": [{"reasoning": "Let me see."}]},
    {"when": {"last": "^half"}, "then": [{"text": '{"name": "Ann", "age": 7}'}]},
    {"when": {"last": "^silent"}, "then": [{"text": "I will not."}]},
    {"when": {"last": "^cut"}, "then": [{"fault": "truncate"}, {"text": "What?"}]},
    {"when": {"last": "^loop"}, "then": [{"reasoning": "I look at it once more. " * 400}, {"fault": "stall"}]},
    {"when": {"last": "^think"}, "then": [{"text": f"<think>{'Hm ' * 300}</think>Yes."}]},
)
BROKEN = {"type": "object", "title": "Person", "properties": {"home": {"$ref": "#/$defs/Address"}}}
LONG = "word " * 100
SEVERAL: Any = ["studio-a:1234", "studio-b:1234"]


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def weather(city):  # type: ignore[no-untyped-def]  # the fault is the point
    return city


def forecast(city):  # type: ignore[no-untyped-def]  # the fault is the point
    """Return the weather of tomorrow."""
    return city


LAMBDA: Any = lambda city: city  # noqa: E731 - it is the fault


def _structured(schema: Any, method: Any) -> Any:
    return ChatLMStudio(model=LLM).with_structured_output(schema, method=method)


def models(
    load: Iterable[Mapping[str, Any]] = (), *, context_length: int = 64, maximum: int = 4096, **members: Any
) -> list[ModelEntry]:
    """Return the models of the server; the steps are those of a load."""
    rules: tuple[Any, ...] = ({"when": {"load": True}, "then": [*load]},) if load else ()
    language: dict[str, Any] = {"context_length": context_length, "max_context_length": maximum, "slots": 1}
    entries = [
        ModelEntry(key=LLM, rules=(*rules, *RULES), **language),
        ModelEntry(key=OTHER),
        ModelEntry(key=VECTORS, kind="embedding", rules=rules, context_length=32, max_context_length=32),
    ]
    return [entry.model_copy(update=members) for entry in entries]


def in_memory(gib: float) -> Catalog:
    """Return the models, each of which takes a gibibyte besides its context, on a machine with so much memory."""
    return Catalog(models=tuple(models(maximum=32768, memory_gib=1)), memory_gib=gib)


@dataclass(frozen=True)
class Case:
    """One call of a mistake: the interface, and what patches the environment."""

    surface: Surface
    monkeypatch: pytest.MonkeyPatch

    def __call__(self, host: Any, **settings: Any) -> Any:
        return self.surface(host, **{"model": KEYS[self.surface.kind], **settings})


Trigger: TypeAlias = Callable[[Case], Any]


def _server(catalog: Catalog | None, **members: Any) -> Emulator:
    return Emulator(catalog=catalog) if catalog else Emulator(models(**members))


def served(
    *, host: str = "{}", catalog: Catalog | None = None, loaded: str = "", members: Any = None, **settings: Any
) -> Trigger:
    """Call a server of its own, on which a model may be loaded already: `own` is that of the interface."""

    def trigger(case: Case) -> Any:
        with _server(catalog, **members or {}) as server:
            if loaded:
                server.load(KEYS[case.surface.kind] if loaded == "own" else loaded)
            return case(host.format(server.address), **settings)

    return trigger


def in_turn(catalog: Catalog | None = None, **settings: Any) -> Trigger:
    """Call two models, of which only one fits beside the other."""

    def trigger(case: Case) -> None:
        with _server(catalog) as server:
            for model in (LLM, OTHER):
                case(server.address, model=model, **settings)

    return trigger


def with_token(token: str | None = None, **variables: str) -> Trigger:
    """Call a server that requires a token."""

    def trigger(case: Case) -> Any:
        for name, value in variables.items():
            case.monkeypatch.setenv(name, value)
        with Emulator(models(), tokens=[TOKEN]) as server:
            return case(server.address, **{"api_token": token} if token else {})

    return trigger


def direct(host: Any, **settings: Any) -> Trigger:
    """Make a call for which no server is needed."""
    return lambda case: case(host, **settings)


def native(call: Callable[[lms.Client], Any]) -> Trigger:
    """Use a client."""

    def trigger(_: Case) -> Any:
        with Emulator(models(context_length=4096)) as server, lms.Client(server.address) as client:
            return call(client)

    return trigger


def adapted(make: Any, call: Callable[[Any], Any], **settings: Any) -> Trigger:
    """Use an adapter."""

    def trigger(_: Case) -> Any:
        with Emulator(models(context_length=4096)) as server:
            return call(make(model=LLM, host=server.address, **settings))

    return trigger


def _nothing_listens(case: Case, *, host: str | None = "{}", in_container: bool = False, found: bool = False) -> Any:
    if in_container:
        case.monkeypatch.setattr(suggestions, "IN_CONTAINER", True)
    with closed_port() as address, Emulator(models()) as server:
        candidates = (Address.parse(server.address if found else address),)
        case.monkeypatch.setattr(discovery, "local_candidates", lambda: candidates)
        return case(host and host.format(address, port=address.partition(":")[2]))


def _no_docker_host(case: Case) -> Any:
    def fail(*_: object, **__: object) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    case.monkeypatch.setattr(socket, "getaddrinfo", fail)
    return case("host.docker.internal:1234")


def _silent(case: Case) -> Any:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        return case(f"127.0.0.1:{silent.getsockname()[1]}", connect_timeout=0.2)


def _other_server(case: Case, response: bytes, *, scheme: str = "", tls: bool = False) -> Any:
    with listening(response, *[certified(LOCALHOST.name)] * tls) as address:
        return case(scheme + address)


def _no_websocket(case: Case) -> Any:
    with web_server() as web:
        web.pages = defaultdict(lambda: lambda request: request.head(403))
        web.pages["/lmstudio-greeting"] = lambda request: request.respond(b'{"lmstudio": true}')
        return case(f"127.0.0.1:{web.port}")


def _wrong_proxy(case: Case) -> Any:
    case.monkeypatch.setattr(Address, "is_loopback", False)
    case.monkeypatch.setenv("http_proxy", f"127.0.0.1:{closed_port()}")
    case.monkeypatch.setenv("no_proxy", "localhost")
    with Emulator(models()) as server:
        return case(server.address)


def _rerank(key: str, kind: ModelKind) -> Trigger:
    def trigger(_: Case) -> Any:
        with Emulator([ModelEntry(key=key, kind=kind)]) as server, lms.Client(server.address) as client:
            return client.llm.lazy_model(key).rerank("What does a swim cost?", ["The pool costs four euros."])

    return trigger


def _unloaded(case: Case) -> Any:
    with Emulator(models()) as server:
        instance = server.load(LLM)
        chat = ChatLMStudio(model=LLM, host=server.address, load_policy="require_loaded")
        chat.invoke("hello")
        server.unload(instance.identifier)
        return chat.invoke("hello")


def _queued(client: lms.Client) -> Any:
    model = client.llm.model(LLM)
    with model.respond_stream("stall") as stream:
        next(stream)
        return model.respond("hello", queue_timeout=0.2)


def responding(prompt: str = "hello", **given: Any) -> Trigger:
    """Ask a model with these arguments."""
    return native(lambda client: client.llm.model(LLM).respond(prompt, **given))


def loading(**given: Any) -> Trigger:
    """Load a model with these arguments."""
    return native(lambda client: client.llm.model(LLM, **given))


def acting(function: Any) -> Trigger:
    """Give a model a tool."""
    return native(lambda client: client.llm.model(LLM).act("hello", [function]))


def bound(function: Any) -> Trigger:
    """Give a tool to a chat model of a framework."""

    def trigger(case: Case) -> Any:
        if case.surface.framework == "LangChain":
            return ChatLMStudio(model=LLM).bind_tools([function])
        with Emulator(models(context_length=4096)) as server:
            llm = LMStudio(model=LLM, host=server.address)
            return llm.chat_with_tools([FunctionTool.from_defaults(function)], "hello")

    return trigger


def _bare_function(_: Case) -> Any:
    return LMStudio(model=LLM).chat_with_tools([weather], "hello")  # type: ignore[list-item]  # the fault is the point


def forced(times: int, **settings: Any) -> Trigger:
    """Require a call so many times of a model that makes none."""

    def call(chat: ChatLMStudio) -> None:
        for _ in range(times):
            chat.bind_tools([Person], tool_choice="any").invoke("silent")

    return adapted(ChatLMStudio, call, **settings)


def drafted_by(key: str) -> Trigger:
    """Name a model for drafts."""

    def trigger(case: Case) -> Any:
        if case.surface.framework == "native":
            return served(draft_model=key)(case)
        return served(prediction_config={"draft_model": key})(case)

    return trigger


def long_enough(prompt: str, **settings: Any) -> Trigger:
    """Call a model whose context has room for what it writes."""
    return served(members={"context_length": 4096}, prompt=prompt, **settings)


def loaded(members: Any = None, **settings: Any) -> Trigger:
    """Call a model that is loaded already."""
    return served(loaded="own", members=members, **settings)


def load_of(step: dict[str, Any], **settings: Any) -> Trigger:
    """Call a model whose load ends with a step of a rule."""
    return served(members={"load": [step]}, **settings)


def fitted_into(gib: float, **settings: Any) -> Trigger:
    """Call a model with another one loaded, which stays, on a machine with so much memory."""
    return served(catalog=in_memory(gib), loaded=OTHER, load_policy="fit", **settings)


def cut_off(make: Any, call: Callable[[Any], Any]) -> Trigger:
    """Ask an adapter for a structured output whose tokens do not suffice."""
    return adapted(make, call, max_tokens=2)


def _summarized(_: Case) -> Any:
    return SummarizationMiddleware(ChatLMStudio(model=LLM), trigger=("fraction", 0.8))


def _truncated(client: lms.Client) -> Any:
    result = client.llm.model(LLM).respond("half", config={"max_tokens": 2}, response_format=Person)
    return result.parsed_as(Person)


def _written(text: str) -> Trigger:
    def trigger(_: Case) -> Any:
        with Emulator([ModelEntry(key=LLM, rules=({"when": {"last": ""}, "then": [{"text": text}]},))]) as server:
            return ChatLMStudio(model=LLM, host=server.address).bind_tools([Person]).invoke("hello")

    return trigger


_CALL = '<tool_call>{"name": "Person", "arguments": {"name": "Ada", "age": 36}}</tool_call>'
_EXAMPLE = "The `<tool_call>` tag opens a call, such as:\n"


def _missing_package(package: Any, framework: str, name: str) -> Trigger:
    def fail(_: str) -> Any:
        raise ModuleNotFoundError(f"No module named {framework!r}", name=framework)

    def trigger(case: Case) -> Any:
        case.monkeypatch.setattr("lmstudio_integrations._support.installation.import_module", fail)
        return package.__getattr__(name)

    return trigger


def _unreadable(_: Case) -> Any:
    with decode_errors("Model list"):
        return dict[str, Any]()["identifier"]


# Several hosts --------------------------------------------------------------------------------------------------------


def _by_variable(case: Case) -> Any:
    case.monkeypatch.setenv(HOST_VARIABLE, ",".join(SEVERAL))
    return case(None)


def _all_hosts_failed(case: Case) -> Any:
    with closed_port() as first, closed_port() as second:
        return case([first, second])


def _loaded_differently(case: Case) -> Any:
    key, adapter = KEYS[case.surface.kind], case.surface.adapter
    assert adapter
    smaller = [entry.model_copy(update={"context_length": 16}) for entry in models()]
    with Emulator(models(), load=[key]) as first, Emulator(smaller, load=[key]) as second:
        hosts: Any = [first.address, second.address]
        with adapter(model=key, host=hosts) as known:
            known.hosts()  # else the call starts when one of them has responded
            return case(hosts)


# Plugins --------------------------------------------------------------------------------------------------------------

FILES, ARGUMENTS = "mcp/my-files", {"path": "a.txt"}
DENIED = (
    f"Permission denied to use plugin '{FILES}'. Ensure that the server configuration allows plugin usage and, if "
    "using an API token, it has the necessary permissions."
)
"""What LM Studio's REST API says. The emulator has no permissions."""


def read_text_file(path: str) -> str:
    """Return the text of a file."""
    return f"This is {path}."


def _denied(message: dict[str, Any]) -> dict[str, Any]:
    return {"type": "channelError", "channelId": message["channelId"], "error": {"title": DENIED}}


@contextmanager
def _tool(case: Case, host: str, plugin: str) -> Iterator[Callable[[], Any]]:
    """Yield what calls the tool of the plugin, in the framework of a case."""
    match case.surface.framework:
        case "native":
            with lms.Client(host) as client, client.plugins.tools(plugin) as session:
                yield partial(session.tools[0].call, ARGUMENTS)
        case "LangChain":
            with langchain.LMStudioToolkit(plugin, host=host) as toolkit:
                yield partial(toolkit.get_tools()[0].invoke, ARGUMENTS)
        case "LlamaIndex":
            with llama_index.LMStudioToolSpec(plugin, host=host) as tool_spec:
                yield partial(tool_spec.to_tool_list()[0].call, **ARGUMENTS)


def with_plugin(*injections: Injection, plugin: str = FILES, calls: int = 1) -> Trigger:
    """Call a tool of a plugin, behind a proxy that injects faults; between two calls, the first loss is noticed."""

    def trigger(case: Case) -> None:
        with (
            Threads() as thread,
            Emulator(["m"], plugins={FILES: [read_text_file]}) as server,
            Proxy(thread, server.address, injections) as proxy,
            _tool(case, f"ws://{proxy.address}", plugin) as call,
        ):
            call()
            if calls == 2:
                until_noticed(thread, f"ws://{proxy.address}", ["plugins"])
                call()

    return trigger


EACH = ("Client.llm", "ChatLMStudio", "LMStudio")
CHAT = ("ChatLMStudio",)
LLAMA = ("LMStudio",)
VECTOR = ("LMStudioEmbedding",)
ANY = ("Client.llm", "LMStudioEmbedding")
ADAPTED = ("ChatLMStudio", "LMStudioEmbedding")
CHATS = ("ChatLMStudio", "LMStudio")
VECTORS_OF_LANGCHAIN = ("LMStudioEmbeddings",)
COMPLETING = ("Client.llm", "LMStudioLLM")
PREDICTING = (*EACH, "LMStudioLLM")
NATIVE = ("Client.llm",)

NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\n\r\n"
TWICE = "http://localhost:1234/v1"
LARGER = {"context_length": 4096, "maximum": 16384}
FITTED_UP = {"loaded_context_length": 32}
WITH_PRESET = Catalog(models=tuple(models()), presets=(Preset(identifier="poet", fields={}),))
NO_SCHEMA = {"name": "str", "age": "int"}
FUNCTION = {"name": "Person", "parameters": {}}
REQUIRED = {"type": "generic", "mode": "required"}
NO_CALL = f"'{LLM}': a tool call was required … tool_choice='required' … tool_choice='auto'"
DENY = at("sessionReady", actions.replace(_denied))
LOSE_CALL = at("toolCallComplete", actions.reset)
LOSE_SESSION = at("toolCallComplete", actions.after(actions.reset))
TRUNCATED = 'is not the structured output that was requested … raise max_tokens … \'{"name": "Ann",\''

LOGGED = logging.LogRecord
"""What is neither raised nor warned of."""

Row: TypeAlias = tuple[tuple[str, ...], Trigger, str]
"""The interfaces, the trigger, and the words of the message that name the value and the remedy, between ` … `.

The words are few, so that a sentence can become better without a change here.
"""

Mistake: TypeAlias = tuple[type[Any], *tuple[Row, ...]]
"""The class of an error or a warning, or `LOGGED`, and its rows."""

MISTAKES: dict[str, Mistake] = {
    "no-server": (lms.LMStudioUnreachableError, (ANY, partial(_nothing_listens, host=None), "tried: … LMSTUDIO_HOST")),
    "nothing-listens": (
        lms.LMStudioUnreachableError,
        (EACH, _nothing_listens, "ws://127.0.0.1: … nothing listens there … lmsi serve … host"),
        (NATIVE, partial(_nothing_listens, host="0.0.0.0:{port}"), "ws://0.0.0.0: … 'Serve on Local Network'"),
    ),
    "wrong-port": (
        lms.LMStudioUnreachableError,
        (CHAT, partial(_nothing_listens, found=True), "an LM Studio listens at 127.0.0.1: … set host"),
        (NATIVE, partial(_other_server, response=NOT_FOUND), "something else listens there … set host"),
    ),
    "wrong-path": (lms.LMStudioUnreachableError, (CHAT, served(host="http://{}/lmstudio"), "'/lmstudio' … set host")),
    "docker": (
        lms.LMStudioUnreachableError,
        (CHAT, partial(_nothing_listens, in_container=True), "container … host.docker.internal:"),
        (NATIVE, partial(_nothing_listens, in_container=True, host=None), "container … host.docker.internal:1234"),
        (NATIVE, _no_docker_host, "'host.docker.internal' … --add-host=host.docker.internal:host-gateway"),
    ),
    "no-name": (lms.LMStudioUnreachableError, (CHAT, direct("no..such..host:1234"), "'no..such..host' … spelling")),
    "no-response": (lms.LMStudioTimeoutError, (CHAT, _silent, "ws://127.0.0.1: … connect_timeout … firewall")),
    "tls": (
        lms.LMStudioUnreachableError,
        (CHAT, served(host="https://{}"), "TLS failed … use ws:// in place of wss://"),
        (NATIVE, partial(_other_server, response=BAD_REQUEST, scheme="http://", tls=True), "wss:// in place of ws://"),
        (CHAT, partial(_other_server, response=BAD_REQUEST, scheme="https://", tls=True), "certificate … ca_file"),
    ),
    "proxy": (
        lms.LMStudioUnreachableError,
        (CHAT, _no_websocket, "rejected the WebSocket … /llm … the proxy in front"),
    ),
    "forward-proxy": (
        lms.LMStudioUnreachableError,
        (
            EACH,
            _wrong_proxy,
            "the proxy http_proxy=127.0.0.1: … does not lead to it … set no_proxy=localhost,127.0.0.1",
        ),
    ),
    "connection-lost": (
        lms.LMStudioConnectionLostError,
        (EACH, served(prompt="drop"), "connection to LM Studio was lost … the next call"),
    ),
    "token-missing": (
        lms.LMStudioAuthenticationError,
        (ANY, with_token(), "no API token was sent … LM_API_TOKEN … api_token="),
        (CHAT, with_token(LMSTUDIO_API_KEY=TOKEN), "LMSTUDIO_API_KEY … LM_API_TOKEN … api_token="),
    ),
    "token-wrong": (
        lms.LMStudioAuthenticationError,
        (ANY, with_token(OTHER_TOKEN), "given as api_token … copy it again"),
        (NATIVE, with_token(LM_API_TOKEN=OTHER_TOKEN, LMSTUDIO_API_TOKEN=TOKEN), "in LM_API_TOKEN … copy it again"),
    ),
    "token-malformed": (
        lms.LMStudioAuthenticationError,
        (NATIVE + CHAT, served(api_token="sk-lm-abcdefghijklmnop"), "malformed … sk-lm- … copy it again"),
        (NATIVE, with_token(LM_API_TOKEN="not-needed"), "in LM_API_TOKEN … not sent … 'Require Authentication'"),
    ),
    "one-host": (
        lms.LMStudioValueError,
        (NATIVE, direct(SEVERAL), "host 'studio-a:1234, studio-b:1234' … name one of them"),
        (NATIVE, _by_variable, "LMSTUDIO_HOST 'studio-a:1234,studio-b:1234' … name one of them"),
    ),
    "hosts-without-model": (
        lms.LMStudioValueError,
        (ADAPTED, direct(SEVERAL, model=None), "several hosts need a model"),
    ),
    "hosts-invalid": (
        lms.LMStudioValueError,
        (ADAPTED, direct(["localhost:1234", TWICE]), f"'localhost:1234' … '{TWICE}' … once"),
        (CHAT, direct([]), "host … at least one server … an empty list"),
        (CHAT, direct(SEVERAL, api_token={"studio-c:1234": TOKEN}), "api_token … 'studio-c:1234' … add it"),
    ),
    "hosts-failed": (
        lms.LMStudioUnreachableError,
        (ADAPTED, _all_hosts_failed, "all 2 hosts … \n  127.0.0.1: … nothing listens there … lmsi serve"),
    ),
    "hosts-differ": (
        lms.LMStudioConfigWarning,
        (CHAT, _loaded_differently, f"'{LLM}' … context_length … : 64, … : 16) … on_config_mismatch='ignore'"),
        (VECTOR, _loaded_differently, f"'{VECTORS}' … : 32, … : 16) … vectors … on_config_mismatch='ignore'"),
    ),
    "nothing-loaded": (
        lms.LMStudioModelNotFoundError,
        ((*EACH, "LMStudioEmbeddings"), served(model=None), "No models loaded … name a model … `lmsi ls`"),
    ),
    "not-loaded": (
        lms.LMStudioModelNotFoundError,
        (CHAT, served(load_policy="require_loaded"), f"\"{LLM}\" … `lms load {LLM}` … load_policy='get_or_load'"),
        (VECTOR, served(load_policy="require_loaded"), f"`lms load {VECTORS}` … load_policy='get_or_load'"),
    ),
    "not-downloaded": (
        lms.LMStudioModelNotFoundError,
        (CHAT, served(model="gpt-oss-20b"), f'"gpt-oss-20b" … downloaded are scripted/{LLM} … `lms get gpt-oss-20b`'),
        (NATIVE, served(model="gema-3-4b"), f"Did you mean 'scripted/{LLM}'? … `lms get gema-3-4b`"),
    ),
    "wrong-kind": (
        lms.LMStudioWrongModelKindError,
        (NATIVE, served(model=VECTORS), f'is not an LLM … use client.embedding.model("{VECTORS}")'),
        (("ChatLMStudio", "LMStudioLLM"), served(model=VECTORS), f'use LMStudioEmbeddings(model="{VECTORS}")'),
        (LLAMA, served(model=VECTORS), f'use LMStudioEmbedding(model="{VECTORS}")'),
        (("Client.embedding",), served(model=LLM), f'is not an embedding model … use client.llm.model("{LLM}")'),
        (VECTORS_OF_LANGCHAIN, served(model=LLM), f'use ChatLMStudio(model="{LLM}")'),
        (VECTOR, served(model=LLM), f'use LMStudio(model="{LLM}")'),
    ),
    "cross-encoder": (
        lms.LMStudioUnsupportedError,
        (NATIVE, _rerank("bge-reranker-v2-m3", "llm"), "'bge-reranker-v2-m3' is a cross-encoder … Qwen3-Reranker"),
    ),
    "no-reranker": (
        lms.LMStudioWrongModelKindError,
        (NATIVE, _rerank("qwen3-embedding", "embedding"), "'qwen3-embedding' is no language model … Qwen3-Reranker"),
    ),
    "evicted": (
        lms.LMStudioEvictionWarning,
        (NATIVE + CHAT, in_turn(), f"'{OTHER}' evicted '{LLM}' … load_policy='explicit' … Auto-Evict"),
        (CHAT, in_turn(in_memory(2), load_policy="fit"), f"'{OTHER}' evicted '{LLM}' … `lmsi plan` … context_length"),
    ),
    "unloaded": (lms.LMStudioModelUnloadedError, (CHAT, _unloaded, f"'{LLM}' was unloaded … TTL")),
    "other-settings": (
        lms.LMStudioConfigWarning,
        (NATIVE, loaded(context_length=16), "requested 16, actual 64 … client.llm.unload( … on_config_mismatch="),
        (VECTOR, loaded(context_length=16), "requested 16, actual 32 … client.embedding.unload( … on_config_mismatch="),
        (CHAT, loaded(LARGER, context_length=8192), "requested 8192, actual 4096 … auto_fit_min_context_length=8192"),
        (CHAT, loaded({"maximum": 64}, context_length=8192), "requested 8192, actual 64 … maximum is 64 tokens"),
        (NATIVE, served(members=FITTED_UP, context_length=16), "requested 16, actual 32 … `lmsi plan`"),
    ),
    "no-memory": (
        lms.LMStudioInsufficientResourcesError,
        (CHAT, load_of({"fault": "out_of_memory"}), "insufficient … context_length … load_policy='fit'"),
        (EACH, load_of({"error": "unable to allocate CUDA0 buffer"}), "CUDA0 … context_length … load_policy='fit'"),
    ),
    "unknown-architecture": (
        lms.LMStudioModelLoadError,
        (EACH, load_of({"error": "unknown model architecture: 'qwen4'"}), "'qwen4' … update its runtime"),
    ),
    "does-not-fit": (
        lms.LMStudioInsufficientResourcesError,
        (ANY, fitted_into(2), f"does not fit into the memory of 127.0.0.1: … {OTHER} … load_policy='fit_any'"),
        (CHAT, fitted_into(3, context_length=32768), f"'{LLM}' … context_length=17664 … load_policy='fit_any'"),
    ),
    "load-failed": (
        lms.LMStudioModelLoadError,
        (ADAPTED, load_of({"error": "Failed to load model"}), "Failed … context_length … `lms log stream`"),
    ),
    "crashed": (
        lms.LMStudioModelCrashedError,
        (EACH, served(prompt="crash"), "Exit code: 139 … the next call … context_length … `lms log stream`"),
    ),
    "engine-lost": (
        lms.LMStudioEngineLostError,
        (EACH, served(prompt="lose"), "fetch failed … the next call … restart LM Studio … `lms log stream`"),
    ),
    "context-overflow": (
        lms.LMStudioContextOverflowError,
        (EACH, served(prompt=LONG), "the prompt has 103 tokens … of 64 … context_length=256 … client.llm.unload("),
        (CHAT, served(prompt=LONG, members={"maximum": 64}), "103 tokens … shorten the prompt … at most 64 tokens"),
    ),
    "dropped-tokens": (
        lms.LMStudioTruncationWarning,
        (CHATS, served(prompt=f"cut {LONG}"), f"dropped 41 of the 104 tokens … '{LLM}' … context_length=256"),
    ),
    "no-profile": (ValueError, (CHAT, _summarized, "Model profile information is required … max_input_tokens")),
    "text-too-long": (
        lms.LMStudioContextOverflowError,
        (VECTORS_OF_LANGCHAIN, served(prompt=LONG, length_policy="error"), "104 tokens … 32 … length_policy='average'"),
    ),
    "long-texts": (
        lms.LMStudioConfigWarning,
        (VECTOR, served(prompt=LONG, length_policy="average"), f"longer than the 32 tokens … '{VECTORS}' … chunk_size"),
    ),
    "all-reasoning": (LOGGED, (CHATS, served(prompt="muse"), f"'{LLM}' is all reasoning … enable_thinking=False")),
    "repetition": (
        lms.LMStudioConfigWarning,
        (CHAT, long_enough("loop"), f"'{LLM}' … reasoning only repeated 'I look at … stop_on_repetition=False"),
    ),
    "reasoning-budget": (
        lms.LMStudioConfigWarning,
        (NATIVE, long_enough("think", reasoning_budget=10), f"'{LLM}' ignores reasoning_budget=10 … max_tokens"),
    ),
    "draft-not-downloaded": (
        lms.LMStudioModelNotFoundError,
        (PREDICTING, drafted_by("nope"), "draft_model='nope' … `lmsi ls`"),
    ),
    "draft-kind": (
        lms.LMStudioWrongModelKindError,
        (PREDICTING, drafted_by(VECTORS), f"draft_model='{VECTORS}' must name a language model … `lmsi ls`"),
    ),
    "preset": (
        lms.LMStudioPresetNotFoundError,
        (EACH, served(preset="mine"), '"mine" … the server has no presets … save one'),
        (NATIVE, served(preset="mine", catalog=WITH_PRESET), '"mine" … available are poet'),
    ),
    "timeouts": (
        lms.LMStudioTimeoutError,
        (EACH, served(prompt="stall", idle_timeout=0.2), "idle_timeout expired after 0.2 s … raise idle_timeout"),
        (CHAT, served(prompt="stall", total_timeout=0.5), "total_timeout expired after 0.5 s … raise total_timeout"),
        (CHAT, load_of({"fault": "stall"}, load_timeout=0.2), "load_timeout expired after 0.2 s … raise load_timeout"),
        (NATIVE, native(_queued), "not begun … queue_timeout expired after 0.2 s … raise queue_timeout"),
    ),
    "slow-first-token": (
        lms.LMStudioTimeoutError,
        (CHAT, served(prompt="slow", first_token_timeout=0.2), "first_token_timeout expired … shorten the prompt"),
    ),
    "seconds": (
        lms.LMStudioValueError,
        (ANY, served(ttl="5m"), "'5m' … seconds … write ttl=300"),
        (COMPLETING, served(idle_timeout="30s"), "'30s' … seconds … write idle_timeout=30"),
        (COMPLETING, served(keepalive=-1), "-1 … seconds … keepalive=30"),
    ),
    "units": (
        lms.LMStudioValueError,
        (ANY, served(context_length="8k"), "context_length='8k' … write context_length=8192"),
        (ANY, served(load_config={"gpu": {"ratio": "50%"}}), "gpu.ratio='50%' … write ratio=0.5"),
    ),
    "unknown-setting": (
        lms.LMStudioValueError,
        (EACH, served(temprature=0.5), "unknown setting 'temprature' … 'temperature'"),
        (ANY, served(load_config={"gpu_offload": 0.5}), "unknown setting 'gpu_offload' … 'gpu'"),
        (VECTOR, served(temperature=0.5), "unknown setting 'temperature' … remove it … embedding model"),
        (("LMStudioReranker",), served(zzz=1), "unknown setting 'zzz' … help(LMStudioReranker)"),
        (CHAT, direct("127.0.0.1", port=7777), "unknown setting 'port' … host='HOST:PORT'"),
        (NATIVE, responding(config={"context_length": 8192}), "unknown setting 'context_length' … client.llm.model"),
        (NATIVE, loading(config={"temperature": 0.5}), "unknown setting 'temperature' … not of loading … each call"),
    ),
    "unknown-argument": (
        lms.LMStudioValueError,
        (NATIVE, lambda _: lms.Client("127.0.0.1", port=7777), "unknown argument 'port' … api_host='HOST:PORT'"),  # type: ignore[call-arg]
        (NATIVE, lambda _: lms.Client(host="localhost:1234"), "unknown argument 'host' … 'api_host'"),  # type: ignore[call-arg]
        (NATIVE, responding(temperature=0.5), "unknown argument 'temperature' … config={'temperature': …}"),
        (NATIVE, responding(temprature=1), "unknown argument 'temprature' … config={'temperature': …}"),
        (NATIVE, responding(maxTokens=1), "unknown argument 'maxTokens' … config={'max_tokens': …}"),
        (NATIVE, responding(context_length=1), "unknown argument 'context_length' … client.llm.model"),
        (NATIVE, responding(tools=1), "unknown argument 'tools' … act()"),
        (NATIVE, loading(contxt_length=8192), "unknown argument 'contxt_length' … config={'context_length': …}"),
        (NATIVE, loading(temperature=1), "unknown argument 'temperature' … not of loading … each call"),
    ),
    "positional": (
        TypeError,
        (CHAT, lambda _: ChatLMStudio("gemma-3-4b"), "keyword arguments … ChatLMStudio(model='gemma-3-4b')"),  # type: ignore[call-arg]
    ),
    "schema-text": (
        lms.LMStudioValueError,
        (EACH, served(response_format="json"), "response_format … 'json' … json.loads(…) … {'type': 'object'}"),
        (CHAT, lambda _: _structured("Person", "json_schema"), "a schema … 'Person' … the class itself"),
    ),
    "no-schema": (
        lms.LMStudioValueError,
        (EACH, served(response_format=NO_SCHEMA), f"{NO_SCHEMA} … write {{'type': 'object', 'properties': {{'name':"),
        (CHAT, lambda _: _structured(NO_SCHEMA, "json_schema"), f"{NO_SCHEMA} is not a JSON schema … write"),
        (CHAT, lambda _: _structured(NO_SCHEMA, "function_calling"), f"{NO_SCHEMA} is not a JSON schema … write"),
        (NATIVE, served(response_format=FUNCTION), f"{FUNCTION} is not a JSON schema … pass its parameters alone"),
    ),
    "schema-reference": (
        lms.LMStudioValueError,
        (EACH, served(response_format=BROKEN), "the response … '#/$defs/Address' … add that definition"),
        (CHAT, lambda _: _structured(BROKEN, "json_schema"), "'#/$defs/Address' … add that definition"),
        (CHAT, lambda _: _structured(BROKEN, "function_calling"), "tool 'Person' … '#/$defs/Address' … add that"),
    ),
    "bare-tool": (
        lms.LMStudioConfigWarning,
        (CHATS, bound(weather), "tool 'weather' … a description and a type for 'city', so the model has to guess"),
        (CHAT, bound(tool(forecast)), "tool 'forecast' lacks a type for 'city' … type hints"),
    ),
    "bare-native-tool": (
        lms.LMStudioValueError,
        (NATIVE, acting(weather), "tool 'weather' has no docstring … description="),
        (NATIVE, acting(forecast), "tool 'forecast' … 'city' has no type hint … city: str"),
    ),
    "lambda": (
        lms.LMStudioValueError,
        (CHATS, bound(LAMBDA), "a lambda has no name … def"),
        (CHAT, bound(StructuredTool.from_function(LAMBDA, description="It is so.")), "a lambda has no name … def"),
        (NATIVE, acting(LAMBDA), "a lambda has no name … def"),
    ),
    "not-a-tool": (
        lms.LMStudioValueError,
        (CHAT, bound("weather"), "'weather' cannot be a tool … a str … give functions"),
        (LLAMA, _bare_function, "got <function weather … FunctionTool.from_defaults(weather)"),
    ),
    "no-call": (
        LOGGED,
        (NATIVE, responding("silent", config={"tool_choice": REQUIRED}), NO_CALL),
        (CHAT, forced(1, required_tool_fallback=False), NO_CALL),
    ),
    "forced-call": (
        LOGGED,
        (CHAT, forced(1), f"'{LLM}': a required tool call did not come … once more, by grammar"),
        (CHAT, forced(3), f"'{LLM}' … by grammar at once"),
    ),
    "call-in-text": (
        LOGGED,
        (CHAT, _written(_CALL), f"'{LLM}': read 1 tool call that the server left in the text … Hermes"),
    ),
    "call-shown": (
        LOGGED,
        (CHAT, _written(f"{_EXAMPLE}{_CALL}"), f"'{LLM}': left 1 tool call in the text that may be an example"),
    ),
    "broken-call": (LOGGED, (CHAT, _written(_CALL[:-35]), f"'{LLM}': a tool call failed … the call was cut off")),
    "engine-parser": (
        lms.LMStudioToolCallError,
        (EACH, served(prompt="unread"), f"{UNREAD} … update its runtime"),
    ),
    "truncated": (
        lms.LMStudioStructuredOutputError,
        (CHAT, cut_off(ChatLMStudio, lambda chat: chat.with_structured_output(Person).invoke("half")), TRUNCATED),
        (LLAMA, cut_off(LMStudio, lambda llm: llm.structured_predict(Person, PromptTemplate("half"))), TRUNCATED),
        (NATIVE, native(_truncated), TRUNCATED),
    ),
    "missing-package": (
        ModuleNotFoundError,
        (CHAT, _missing_package(langchain, "langchain_core", "ChatLMStudio"), "run: … integrations[langchain]"),
        (LLAMA, _missing_package(llama_index, "llama_index", "LMStudio"), "run: … integrations[llama-index]"),
    ),
    "unreadable": (
        lms.LMStudioProtocolError,
        (NATIVE, _unreadable, "'identifier' … update LM Studio and this package"),
    ),
    "plugin-unknown": (
        lms.LMStudioPluginError,
        (EACH, with_plugin(plugin="mcp/file"), f'"mcp/file" … {FILES} … check the identifier … mcp.json'),
        (NATIVE, with_plugin(plugin="mcp/My Files"), f"\"mcp/My Files\" … did you mean '{FILES}'?"),
    ),
    "plugin-permission": (
        lms.LMStudioPluginError,
        (NATIVE, with_plugin(*DENY), f"Permission denied to use plugin '{FILES}' … token … `lms log stream`"),
    ),
    "tool-lost": (
        lms.LMStudioToolConnectionLostError,
        (EACH, with_plugin(*LOSE_CALL), f"the session ended while the tool 'read_text_file' of '{FILES}' ran"),
    ),
    "tool-session-lost": (
        lms.LMStudioToolSessionWarning,
        (EACH, with_plugin(*LOSE_SESSION, calls=2), f"the session with the tools of '{FILES}' was lost … a new one"),
    ),
}
"""What shows each message, by its anchor on the page Troubleshooting if that explains it."""
