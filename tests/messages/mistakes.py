"""The mistakes, by the entry of their message in `messages.md`: what triggers each, and on which interfaces.

One interface of each kind whose message is made by other code is enough: `tests/_adapters` tests what adapters share.
"""

import socket
import warnings
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

RULES: tuple[Any, ...] = (
    {"when": {"last": "^drop"}, "then": [{"text": "so far "}, {"fault": "drop"}]},
    {"when": {"last": "^crash"}, "then": [{"fault": "crash"}]},
    {"when": {"last": "^lose"}, "then": [{"error": "Engine protocol predict request failed: fetch failed"}]},
    {"when": {"last": "^stall"}, "then": [{"text": "so far "}, {"fault": "stall"}]},
    {"when": {"last": "^slow"}, "then": [{"fault": "stall"}]},
    {"when": {"last": "^muse"}, "then": [{"reasoning": "Let me see."}]},
    {"when": {"last": "^half"}, "then": [{"text": '{"name": "Ann", "age": 7}'}]},
    {"when": {"last": "^silent"}, "then": [{"text": "I will not."}]},
    {"when": {"last": "^cut"}, "then": [{"fault": "truncate"}, {"text": "What?"}]},
    {"when": {"last": "^loop"}, "then": [{"reasoning": "I look at it once more. " * 400}, {"fault": "stall"}]},
    {"when": {"last": "^think"}, "then": [{"text": f"<think>{'Hm ' * 300}</think>Yes."}]},
    {
        "when": {"last": "^call"},
        "then": [{"text": '<tool_call>{"name": "Person", "arguments": {"name": "Ada", "age": 36}}</tool_call>'}],
    },
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


def _structured(schema: dict[str, Any], method: Any) -> Any:
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


def _respond(client: lms.Client, given: Any) -> Any:
    return client.llm.model(LLM).respond("hello", **given)


def _truncated(client: lms.Client) -> Any:
    result = client.llm.model(LLM).respond("half", config={"max_tokens": 2}, response_format=Person)
    return result.parsed_as(Person)


def _bare_native_tool(client: lms.Client) -> Any:
    with pytest.raises(lms.LMStudioValueError) as caught:
        client.llm.model(LLM).act("hello", [weather])
    warnings.warn(str(caught.value), UserWarning, stacklevel=2)
    return client.llm.model(LLM).act("hello", [forecast])


def _broken_tools(case: Case) -> Any:
    for method in ("json_schema", "function_calling"):
        with pytest.raises(lms.LMStudioValueError) as caught:
            ChatLMStudio(model=LLM).with_structured_output(BROKEN, method=method)
    raise caught.value


def _written(text: str) -> Trigger:
    def trigger(_: Case) -> Any:
        with Emulator([ModelEntry(key=LLM, rules=({"when": {"last": ""}, "then": [{"text": text}]},))]) as server:
            return ChatLMStudio(model=LLM, host=server.address).bind_tools([Person]).invoke("hello")

    return trigger


_CALL = '<tool_call>{"name": "Person", "arguments": {"name": "Ada", "age": 36}}</tool_call>'


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
ANY = ("Client.llm", "LMStudioEmbedding")
ADAPTED = ("ChatLMStudio", "LMStudioEmbedding")
NATIVE = ("Client.llm",)

MISTAKES: tuple[tuple[str, tuple[str, ...], Trigger], ...] = (
    ("no-server", ANY, partial(_nothing_listens, host=None)),
    ("nothing-listens", EACH, _nothing_listens),
    ("nothing-listens", NATIVE, partial(_nothing_listens, host="0.0.0.0:{port}")),
    ("wrong-port", CHAT, partial(_nothing_listens, found=True)),
    ("wrong-port", NATIVE, partial(_other_server, response=b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")),
    ("wrong-path", CHAT, served(host="http://{}/lmstudio")),
    ("docker", CHAT, partial(_nothing_listens, in_container=True)),
    ("docker", NATIVE, partial(_nothing_listens, in_container=True, host=None)),
    ("docker", NATIVE, _no_docker_host),
    ("no-name", CHAT, direct("no..such..host:1234")),
    ("no-response", CHAT, _silent),
    ("tls", CHAT, served(host="https://{}")),
    ("tls", NATIVE, partial(_other_server, response=b"HTTP/1.1 400 Bad Request\r\n\r\n", scheme="http://", tls=True)),
    ("tls", CHAT, partial(_other_server, response=b"HTTP/1.1 400 Bad Request\r\n\r\n", scheme="https://", tls=True)),
    ("proxy", CHAT, _no_websocket),
    ("connection-lost", EACH, served(prompt="drop")),
    ("token-missing", ANY, with_token()),
    ("token-missing", CHAT, with_token(LMSTUDIO_API_KEY=TOKEN)),
    ("token-wrong", ANY, with_token(OTHER_TOKEN)),
    ("token-wrong", NATIVE, with_token(LM_API_TOKEN=OTHER_TOKEN, LMSTUDIO_API_TOKEN=TOKEN)),
    ("token-malformed", ("Client.llm", "ChatLMStudio"), served(api_token="sk-lm-abcdefghijklmnop")),
    ("token-malformed", NATIVE, with_token(LM_API_TOKEN="not-needed")),
    ("one-host", NATIVE, direct(SEVERAL)),
    ("one-host", NATIVE, _by_variable),
    ("hosts-without-model", ADAPTED, direct(SEVERAL, model=None)),
    ("hosts-invalid", ADAPTED, direct(["localhost:1234", "http://localhost:1234/v1"])),
    ("hosts-invalid", CHAT, direct([])),
    ("hosts-invalid", CHAT, direct(SEVERAL, api_token={"studio-c:1234": TOKEN})),
    ("hosts-failed", ADAPTED, _all_hosts_failed),
    ("hosts-differ", ADAPTED, _loaded_differently),
    ("nothing-loaded", (*EACH, "LMStudioEmbeddings"), served(model=None)),
    ("not-loaded", ("ChatLMStudio", "LMStudioEmbedding"), served(load_policy="require_loaded")),
    ("not-downloaded", CHAT, served(model="gpt-oss-20b")),
    ("not-downloaded", NATIVE, served(model="gema-3-4b")),
    ("wrong-kind", (*EACH, "LMStudioLLM"), served(model=VECTORS)),
    ("wrong-kind", ("Client.embedding", "LMStudioEmbeddings", "LMStudioEmbedding"), served(model=LLM)),
    ("cross-encoder", NATIVE, _rerank("bge-reranker-v2-m3", "llm")),
    ("cross-encoder", NATIVE, _rerank("qwen3-embedding", "embedding")),
    ("evicted", ("Client.llm", "ChatLMStudio"), in_turn()),
    ("evicted", CHAT, in_turn(in_memory(2), load_policy="fit")),
    ("evicted", CHAT, _unloaded),
    ("other-settings", ANY, served(loaded="own", context_length=16)),
    (
        "other-settings",
        CHAT,
        served(loaded="own", members={"context_length": 4096, "maximum": 16384}, context_length=8192),
    ),
    ("other-settings", CHAT, served(loaded="own", members={"maximum": 64}, context_length=8192)),
    ("other-settings", NATIVE, served(members={"loaded_context_length": 32}, context_length=16)),
    ("no-memory", CHAT, served(members={"load": [{"fault": "out_of_memory"}]})),
    ("does-not-fit", ANY, served(catalog=in_memory(2), loaded=OTHER, load_policy="fit")),
    ("does-not-fit", CHAT, served(catalog=in_memory(3), loaded=OTHER, load_policy="fit", context_length=32768)),
    ("load-failed", ADAPTED, served(members={"load": [{"error": "Failed to load model"}]})),
    ("crashed", EACH, served(prompt="crash")),
    ("engine-lost", EACH, served(prompt="lose")),
    ("context-overflow", EACH, served(prompt=LONG)),
    ("context-overflow", CHAT, served(prompt=LONG, members={"maximum": 64})),
    ("dropped-tokens", ("ChatLMStudio", "LMStudio"), served(prompt=f"cut {LONG}")),
    ("no-profile", CHAT, lambda _: SummarizationMiddleware(ChatLMStudio(model=LLM), trigger=("fraction", 0.8))),
    ("text-too-long", ("LMStudioEmbeddings",), served(prompt=LONG, length_policy="error")),
    ("long-texts", ("LMStudioEmbedding",), served(prompt=LONG, length_policy="average")),
    ("all-reasoning", ("ChatLMStudio", "LMStudio"), served(prompt="muse")),
    ("repetition", CHAT, adapted(ChatLMStudio, lambda chat: chat.invoke("loop"))),
    (
        "reasoning-budget",
        NATIVE,
        native(lambda client: client.llm.model(LLM).respond("think", config={"reasoning_budget": 10})),
    ),
    *(
        (entry, names, served(**settings))
        for entry, key in (
            ("draft-not-downloaded", "nope"),
            ("draft-not-downloaded", LLM[:-1]),
            ("draft-kind", VECTORS),
        )
        for names, settings in (
            (NATIVE, {"draft_model": key}),
            (("ChatLMStudio", "LMStudioLLM", "LMStudio"), {"prediction_config": {"draft_model": key}}),
        )
    ),
    ("preset", EACH, served(preset="mine")),
    (
        "preset",
        NATIVE,
        served(preset="mine", catalog=Catalog(models=tuple(models()), presets=(Preset(identifier="poet", fields={}),))),
    ),
    ("timeouts", EACH, served(prompt="stall", idle_timeout=0.2)),
    ("timeouts", CHAT, served(prompt="stall", total_timeout=0.5)),
    ("timeouts", CHAT, served(members={"load": [{"fault": "stall"}]}, load_timeout=0.2)),
    ("timeouts", NATIVE, native(_queued)),
    ("slow-first-token", CHAT, served(prompt="slow", first_token_timeout=0.2)),
    ("seconds", ANY, served(ttl="5m")),
    ("seconds", ("Client.llm", "LMStudioLLM"), served(idle_timeout="30s")),
    ("seconds", ("Client.llm", "LMStudioLLM"), served(keepalive=-1)),
    ("units", ANY, served(context_length="8k")),
    ("units", ANY, served(load_config={"gpu": {"ratio": "50%"}})),
    ("unknown-setting", EACH, served(temprature=0.5)),
    ("unknown-setting", ANY, served(load_config={"gpu_offload": 0.5})),
    ("unknown-setting", ("LMStudioEmbedding",), served(temperature=0.5)),
    ("unknown-setting", ("LMStudioReranker",), served(zzz=1)),
    ("unknown-setting", CHAT, direct("127.0.0.1", port=7777)),
    ("unknown-setting", NATIVE, lambda _: lms.Client("127.0.0.1", port=7777)),  # type: ignore[call-arg]
    ("unknown-setting", NATIVE, lambda _: lms.Client(host="localhost:1234")),  # type: ignore[call-arg]
    ("unknown-setting", NATIVE, native(lambda client: client.llm.model(LLM).respond("hello", temperature=0.5))),  # type: ignore[call-arg]
    *(
        ("unknown-setting", NATIVE, native(partial(_respond, given={name: 1})))
        for name in ("temprature", "maxTokens", "context_length", "tools")
    ),
    ("unknown-setting", NATIVE, native(lambda client: client.llm.model(LLM, contxt_length=8192))),  # type: ignore[call-arg]
    ("unknown-setting", NATIVE, native(lambda client: client.llm.model(LLM, temperature=1))),  # type: ignore[call-arg]
    (
        "unknown-setting",
        NATIVE,
        native(lambda client: client.llm.model(LLM).respond("hello", config={"context_length": 8192})),  # type: ignore[arg-type]
    ),
    ("unknown-setting", NATIVE, native(lambda client: client.llm.model(LLM, config={"temperature": 0.5}))),  # type: ignore[arg-type]
    ("positional", CHAT, lambda _: ChatLMStudio("gemma-3-4b")),  # type: ignore[call-arg]
    ("schema-text", EACH, served(response_format="json")),
    ("schema-text", CHAT, lambda _: ChatLMStudio(model=LLM).with_structured_output("Person")),  # type: ignore[arg-type]
    ("no-schema", EACH, served(response_format={"name": "str", "age": "int"})),
    *(
        ("no-schema", CHAT, lambda _, method=method: _structured({"name": "str", "age": "int"}, method))
        for method in ("json_schema", "function_calling")
    ),
    ("no-schema", ("Client.llm", "LMStudio"), served(response_format={"name": "Person", "parameters": {}})),
    ("schema-reference", EACH, served(response_format=BROKEN)),
    ("schema-reference", CHAT, _broken_tools),
    ("bare-tool", CHAT, lambda _: ChatLMStudio(model=LLM).bind_tools([weather])),
    ("bare-tool", CHAT, lambda _: ChatLMStudio(model=LLM).bind_tools([tool(forecast)])),
    (
        "bare-tool",
        ("LMStudio",),
        adapted(LMStudio, lambda llm: llm.chat_with_tools([FunctionTool.from_defaults(weather)], "hello")),
    ),
    ("bare-tool", NATIVE, native(_bare_native_tool)),
    *(
        ("lambda", CHAT, lambda _, made=made: ChatLMStudio(model=LLM).bind_tools([made]))
        for made in (LAMBDA, StructuredTool.from_function(LAMBDA, description="It is so."))
    ),
    (
        "lambda",
        ("LMStudio",),
        adapted(LMStudio, lambda llm: llm.chat_with_tools([FunctionTool.from_defaults(LAMBDA)], "hello")),
    ),
    ("lambda", NATIVE, native(lambda client: client.llm.model(LLM).act("hello", [LAMBDA]))),
    ("not-a-tool", CHAT, lambda _: ChatLMStudio(model=LLM).bind_tools(["weather"])),  # type: ignore[list-item]
    ("not-a-tool", ("LMStudio",), lambda _: LMStudio(model=LLM).chat_with_tools([weather], "hello")),  # type: ignore[list-item]
    (
        "no-call",
        NATIVE,
        native(
            lambda client: client.llm.model(LLM).respond(
                "silent", config={"tool_choice": {"type": "generic", "mode": "required"}}
            )
        ),
    ),
    (
        "no-call",
        CHAT,
        adapted(
            ChatLMStudio,
            lambda chat: chat.bind_tools([Person], tool_choice="any").invoke("silent"),
            required_tool_fallback=False,
        ),
    ),
    (
        "forced-call",
        CHAT,
        adapted(
            ChatLMStudio, lambda chat: [chat.bind_tools([Person], tool_choice="any").invoke("silent") for _ in range(3)]
        ),
    ),
    ("call-in-text", CHAT, adapted(ChatLMStudio, lambda chat: chat.bind_tools([Person]).invoke("call"))),
    ("call-shown", CHAT, _written(f"The `<tool_call>` tag opens a call, such as:\n{_CALL}")),
    ("broken-call", CHAT, _written(_CALL[:-35])),
    (
        "truncated",
        CHAT,
        adapted(ChatLMStudio, lambda chat: chat.with_structured_output(Person).invoke("half"), max_tokens=2),
    ),
    (
        "truncated",
        ("LMStudio",),
        adapted(LMStudio, lambda llm: llm.structured_predict(Person, PromptTemplate("half")), max_tokens=2),
    ),
    ("truncated", NATIVE, native(_truncated)),
    ("missing-package", CHAT, _missing_package(langchain, "langchain_core", "ChatLMStudio")),
    ("missing-package", ("LMStudio",), _missing_package(llama_index, "llama_index", "LMStudio")),
    ("unreadable", NATIVE, _unreadable),
    ("plugin-unknown", EACH, with_plugin(plugin="mcp/file")),
    ("plugin-unknown", NATIVE, with_plugin(plugin="mcp/My Files")),
    ("plugin-permission", NATIVE, with_plugin(*at("sessionReady", actions.replace(_denied)))),
    ("tool-lost", EACH, with_plugin(*at("toolCallComplete", actions.reset))),
    ("tool-session-lost", EACH, with_plugin(*at("toolCallComplete", actions.after(actions.reset)), calls=2)),
)
"""What shows each message, and on which interfaces."""
