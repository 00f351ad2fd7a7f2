"""Secrets are never shown: not by errors about settings, objects, traces, or what models and servers wrote."""

import ast
import copy
import inspect
import json
import pickle
import re
import sysconfig
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import cycle, product
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumps
from langchain_core.messages import HumanMessage
from langchain_core.prompt_values import StringPromptValue
from langchain_core.runnables import ConfigurableField, RunnableLambda
from llama_index.core.callbacks import CallbackManager
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.span_handlers import NullSpanHandler
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index_instrumentation import root_dispatcher
from pydantic import BaseModel, SecretStr, TypeAdapter, ValidationError, field_validator

import lmstudio_integrations as lms
from lmstudio_integrations._support.environment import HOST_VARIABLE, TOKEN_VARIABLES
from lmstudio_integrations._support.secrets import (
    holds_secret,
    is_secret_name,
    redact,
    redact_address,
    redact_members,
    redact_received,
    redact_values,
    without_secrets,
)
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from lmstudio_integrations.types.config import EmbeddingLoadModelConfig, LlmLoadModelConfig, LlmPredictionConfig
from lmstudio_integrations.types.functions import ToolFunctionDef
from tests._adapters.test_numbers import assigned
from tests.langchain.conftest import CHAT, EMBEDDING, Server
from tests.support.adapters import ADAPTERS, LANGUAGE_MODELS, classes, covering
from tests.support.leaks import ASSIGNED, PASSWORD, TOKEN, error_of, shown_by, shows_token
from tests.support.served import served
from tests.support.telemetry import Telemetry, telemetry

__all__ = ["telemetry"]

KEY = TOKEN[15:]
"""A secret that nothing but its place tells: it has no prefix."""

OTHER_TOKEN = f"sk-lm-zyxwvuts{TOKEN[14:]}"
ADDRESS = f"user:{KEY}@localhost:1234"
FIELDS: dict[str, Any] = {"api_token": TOKEN, "headers": {"X-Key": KEY}}
HIDDEN: dict[str, Any] = {"api_token": SecretStr(TOKEN), "headers": {"X-Key": SecretStr(KEY)}}
CONFIGS: list[Any] = [LlmLoadModelConfig, LlmPredictionConfig, EmbeddingLoadModelConfig]


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TOKEN_VARIABLES:
        monkeypatch.delenv(name, raising=False)


server = served(make=Server)

guarded = served(make=Server, tokens=[TOKEN])
"""A server that needs the token."""


# Wrong settings -----------------------------------------------------------------------------------------------------

MISTAKES: dict[str, dict[str, Any]] = {
    "another name": {"token": TOKEN},
    "a mistyped name": {"api_tokn": TOKEN},
    "a list": {"api_token": [TOKEN]},
    "a dict": {"api_key": {"value": [TOKEN]}},
    "a token as a host": {"api_key": {TOKEN: "x"}},
    "bytes": {"api_token": TOKEN.encode()},
    "a header": {"Authorization": f"Bearer {TOKEN[6:]}"},
    "an unknown name": {"colour": TOKEN},
    "a name of something else": {"password": KEY},
    "credentials in the host": {"host": f"http://user:{KEY}@localhost:1234"},
    "credentials without a scheme": {"host": f"user:{KEY}@localhost:99999"},
    "credentials in a list": {"host": [ADDRESS]},
    "credentials in another address": {"openai_proxy": ADDRESS},
    "a slash in a password": {"host": f"http://user:pass/{KEY}@localhost"},
    "a slash in a password in a list": {"hosts": [f"user:pass/{KEY}@localhost"]},
    "a query in the host": {"base_url": f"http://localhost:99999?token={KEY}"},
    "the token as host": {"base_url": TOKEN},
    "a token by both names": {"api_token": TOKEN, "api_key": TOKEN},
    "headers as a list": {"headers": [KEY]},
    "headers as a string": {"headers": f"X-Key: {KEY}"},
    "headers with a control character": {"headers": {"X-Key": f"{KEY}\n"}},
    "headers with a name that cannot be sent": {"headers": {"X Key": KEY}},
    "headers with a value that is a list": {"headers": {"X-Key": [KEY]}},
    "headers by another name": {"default_headers": {"X-Key": KEY}},
    "headers by a mistyped name": {"heders": {"X-Key": SecretStr("x"), "X-Other": KEY}},
    "headers of another library": {"client_kwargs": {"headers": {"X-Key": KEY}}},
    "a header beside a file that is missing": {"headers": {"X-Key": KEY}, "ca_file": "/nowhere"},
    "hosts by a list": {"base_url": [TOKEN]},
    "a token as the name of a header": {"headers": {f"{TOKEN}\n": "x"}},
    "a header whose name is a number": {"headers": {5: KEY}},
}
"""Wrong settings by what is wrong with them."""

WRONG_VALUES: dict[str, dict[str, Any]] = {
    "the token as a number": {"ttl": TOKEN},
    "the token as model, in a list": {"model": [TOKEN]},
    "the token among load settings": {"load_config": {"api_token": TOKEN}},
    "the token as load settings": {"load_config": TOKEN},
    "two names of one setting": {"model": TOKEN, "model_name": "b"},
    "something else is wrong": {"api_token": TOKEN, "tempature": 1},
    "a value of something else is wrong": {"api_key": TOKEN, "max_retries": -1},
    "a value beside headers is wrong": {"headers": {"X-Key": KEY}, "max_retries": -1},
}
"""More of them, which only adapters have."""

WAYS_IN: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "constructor": lambda adapter, values: adapter(**{"model": "m", **values}),
    "model_validate": lambda adapter, values: adapter.model_validate({"model": "m", **values}),
    "model_copy": lambda adapter, values: adapter(model="m").model_copy(update=values),
    "assignment": lambda adapter, values: assigned(adapter(model="m"), values),
}


@pytest.mark.parametrize("values", (MISTAKES | WRONG_VALUES).values(), ids=MISTAKES | WRONG_VALUES)
def test_a_wrong_setting_does_not_show_a_secret(values: dict[str, Any]) -> None:
    for way, make in product(WAYS_IN, classes()):
        if way != "assignment" or "model_name" not in values:  # it is no second name where each is assigned by itself
            assert not shows_token(shown_by(error_of(partial(WAYS_IN[way], make, values)))), (way, make)


@pytest.mark.parametrize("client", [lms.Client, lms.AsyncClient])
def test_a_wrong_argument_of_a_client_does_not_show_a_secret(client: Any) -> None:
    for given in (*MISTAKES.values(), {"timeout": TOKEN}):
        values = {"api_host" if name in {"host", "base_url"} else name: value for name, value in given.items()}
        assert not shows_token(shown_by(error_of(partial(client, **values)))), given


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("values", [{"api_tokn": TOKEN}, {"raw": TOKEN}, {"raw": [{"api_key": KEY}]}], ids=str)
@pytest.mark.parametrize("way", ["constructor", "from_dict", "parse"])
def test_a_wrong_native_setting_does_not_show_a_secret(config: Any, values: dict[str, Any], way: str) -> None:
    make = {"constructor": lambda given: config(**given)}.get(way) or getattr(config, way)
    with pytest.raises(lms.LMStudioValueError) as caught:
        make(values)
    assert not shows_token(shown_by(caught.value))


def test_of_several_problems_only_the_secret_ones_are_hidden() -> None:
    wrong = {"temperature": -1, "seed": TOKEN}
    with pytest.raises(LMStudioValueError, match=r"^temperature=-1: .*; seed='\*+': [^*]+$"):
        ChatLMStudio.model_validate(wrong)
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(ChatLMStudio).validate_python(wrong)
    inputs = {each["loc"][0]: each["input"] for each in caught.value.errors()}
    assert inputs == {"temperature": -1, "seed": "**********"}
    assert {each["type"] for each in caught.value.errors()} == {"greater_than_equal", "int_parsing"}


# What shows an object -----------------------------------------------------------------------------------------------

SHOWING: dict[str, Callable[[Any], object]] = {
    "repr": repr,
    "str": str,
    "pickle": pickle.dumps,
    "pickle of a copy": lambda made: pickle.dumps(made.model_copy()),
    "pickle of a deep copy": lambda made: pickle.dumps(copy.deepcopy(made)),
    "dumps": dumps,
    "to_dict": lambda made: hasattr(made, "to_dict") and made.to_dict(),
    "to_json": lambda made: hasattr(made, "to_json") and made.to_json(),
    "to_payload": lambda made: hasattr(made, "to_payload") and made.to_payload(),
    "model_dump": lambda made: made.model_dump(),
    "model_dump_json": lambda made: made.model_dump_json(exclude={"callback_manager", "rate_limiter"}),
    "fields": vars,
    "private": lambda made: made.__pydantic_private__,
}


def text_of(shown: object) -> str:
    return shown.decode("latin-1") if isinstance(shown, bytes) else repr(shown)


@pytest.mark.parametrize("adapter", classes())
@pytest.mark.parametrize("secrets", [FIELDS, HIDDEN], ids=["plain", "hidden"])
def test_what_shows_an_adapter_does_not_show_its_secrets(adapter: Any, secrets: dict[str, Any]) -> None:
    assigned_later = assigned(adapter(model="m"), secrets)
    updated = adapter(model="m").model_copy(update=secrets)
    for made in (adapter(model="m", **secrets), assigned_later, updated):
        assert not [name for name, show in SHOWING.items() if shows_token(text_of(show(made)))]
        assert "headers" not in made.model_dump()
        for same in (made, copy.copy(made), copy.deepcopy(made), made.model_copy()):
            assert same.api_token.get_secret_value() == TOKEN
            assert same.headers["X-Key"].get_secret_value() == KEY
    assigned_later.api_token = None
    assert assigned_later.api_token is None


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_pickle_has_no_secrets_and_gets_the_token_of_its_process_or_misses_it_by_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = ADAPTERS[name]
    lost = adapter.make(model="m", host="127.0.0.1:9", **HIDDEN)
    for _ in range(2):
        lost = pickle.loads(pickle.dumps(lost))
    assert lost.api_token is lost.headers is None
    lost.headers = FIELDS["headers"]
    with pytest.raises(
        lms.LMStudioAuthenticationError,
        match=f"left out when this {adapter.name} was pickled; set LM_API_TOKEN",
    ):
        adapter.call(lost, "Hello")
    monkeypatch.setenv("LM_API_TOKEN", OTHER_TOKEN)
    assert pickle.loads(pickle.dumps(lost)).api_token.get_secret_value() == OTHER_TOKEN


# Hosts --------------------------------------------------------------------------------------------------------------


def _assign_host(model: Any, host: str) -> Any:
    model.host = host
    return model


MOVES: dict[str, Callable[[Any, str], Any]] = {
    "copy": lambda model, host: model.model_copy(update={"host": host}),
    "deep copy": lambda model, host: model.model_copy(update={"base_url": host}, deep=True),
    "assignment": _assign_host,
    "fields": lambda model, host: type(model)(**{**{name: vars(model)[name] for name in FIELDS}, "host": host}),
    "hosts": lambda model, host: model.model_copy(update={"host": [host, "127.0.0.1:9"]}),
}
"""How an object gets another host; LangChain's `configurable_fields` makes one of the fields."""


def _problem(model: Any, server: Server) -> str | None:
    """Return what a server says to a model; `None` if it accepts it."""
    (error,) = [status.error for status in model.hosts() if status.host.endswith(f":{server.port}")]
    return None if error is None else str(error)


@pytest.mark.leaf("hosts")
@pytest.mark.parametrize(("name", "way"), covering(ADAPTERS, MOVES))
def test_a_token_stays_with_the_host_that_it_was_given_for(guarded: Server, name: str, way: str) -> None:
    made = ADAPTERS[name].make(model="m", host="127.0.0.1:9", api_token=SecretStr(TOKEN))
    moved = MOVES[way](made, guarded.address)
    assert "no API token was sent" in (_problem(moved, guarded) or "")
    assert _problem(moved.model_copy(update={"api_token": SecretStr(TOKEN)}), guarded) is None
    moved.api_token = TOKEN
    assert _problem(moved.model_copy(update={"host": guarded.address}), guarded) is None


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_a_call_to_another_host_has_a_token_of_its_own(guarded: Server, name: str) -> None:
    adapter = LANGUAGE_MODELS[name]
    llm = adapter.make(model=CHAT, host="127.0.0.1:9", api_token=SecretStr(TOKEN))
    with pytest.raises(lms.LMStudioAuthenticationError, match="no API token was sent"):
        adapter.call(llm, "Hello", host=guarded.address)
    assert adapter.call(llm, "Hello", host=guarded.address, api_token=SecretStr(TOKEN))


@pytest.mark.leaf("hosts")
@pytest.mark.parametrize("name", ADAPTERS)
def test_the_token_of_the_environment_is_for_the_host_of_the_environment(
    guarded: Server, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    make, host = ADAPTERS[name].make, guarded.address
    monkeypatch.setenv("LM_API_TOKEN", TOKEN)
    monkeypatch.setenv(HOST_VARIABLE, "127.0.0.1:9")
    other = "that in LM_API_TOKEN is for the host in LMSTUDIO_HOST"
    assert other in (_problem(make(model="m", host=host), guarded) or "")
    unnamed = make(model="m")
    monkeypatch.setenv(HOST_VARIABLE, f"127.0.0.1:9, {host}")
    assert _problem(make(model="m", host=host), guarded) is None
    assert _problem(unnamed, guarded) is None
    assert _problem(make(model="m", host=host.replace("127.0.0.1", "localhost")), guarded) is None
    monkeypatch.delenv(HOST_VARIABLE)
    assert _problem(make(model="m", host=host), guarded) is None


async def test_a_server_that_rejects_a_token_does_not_have_it_shown() -> None:
    with Emulator([], tokens=[TOKEN]) as server:
        for wrong in (f"{TOKEN[:-1]}x", OTHER_TOKEN):
            async with lms.AsyncClient(server.address, wrong) as client:
                with pytest.raises(lms.LMStudioAuthenticationError) as caught:
                    await client.llm.list_loaded()
            assert not shows_token(shown_by(caught.value))
            assert "zyxwvuts" not in shown_by(caught.value)


@pytest.mark.leaf("telemetry")
def test_the_user_and_the_password_of_a_proxy_are_in_no_error_and_no_span(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ws_proxy", ADDRESS)
    monkeypatch.setenv("no_proxy", "")
    with lms.Client("studio.invalid:1234") as client, pytest.raises(lms.LMStudioUnreachableError) as caught:
        client.list_loaded_models()
    assert "connect" in telemetry.names
    assert not shows_token(shown_by(caught.value) + telemetry.everything())


# What traces a call -------------------------------------------------------------------------------------------------


class Person(BaseModel):
    name: str
    age: int


def weather(city: str) -> str:
    """Return the weather of a city."""
    return city


PERSON = (Person, PromptTemplate("json"))
STRUCTURED = (
    *("structured_predict", "astructured_predict"),
    *("stream_structured_predict", "astream_structured_predict"),
)
"""Methods that take the settings of the call as a dict."""

METHODS: dict[str, dict[str, tuple[Any, ...]]] = {
    "LangChain": {
        **dict.fromkeys(("invoke", "ainvoke", "stream", "astream", "astream_events"), ("count",)),
        **dict.fromkeys(("batch", "abatch", "batch_as_completed"), (["count", "count"],)),
        **dict.fromkeys(("generate_prompt", "agenerate_prompt"), ([StringPromptValue(text="count")],)),
    },
    "LlamaIndex": {
        **dict.fromkeys(("chat", "achat", "stream_chat", "astream_chat"), ([ChatMessage("count")],)),
        **dict.fromkeys(("complete", "acomplete", "stream_complete", "astream_complete"), ("count",)),
        **dict.fromkeys(("predict_and_call", "apredict_and_call"), ([FunctionTool.from_defaults(weather)], "weather")),
        **dict.fromkeys(STRUCTURED, PERSON),
    },
}
"""The methods of language models that make a call, with the arguments of a call."""

CALLS = [(name, method) for name, adapter in LANGUAGE_MODELS.items() for method in METHODS[adapter.framework]]
IN_PLAIN_TEXT: list[dict[str, Any]] = [
    *({name: TOKEN} for name in ("api_token", "api_key")),
    *({"headers": headers} for headers in ({"X-Key": KEY}, {"X-Key": SecretStr("x"), "X-Other": KEY})),
    *(MISTAKES[name] for name in ("a list", "a mistyped name", "a name of something else", "credentials in the host")),
    *(MISTAKES[name] for name in ("headers as a string", "headers by another name")),
    {"colour": {TOKEN: 1}},
]
"""Settings that no call takes, because it is traced."""


class Tracers:
    """Has what traces calls in both frameworks, and records all that it is given."""

    def __init__(self) -> None:
        self.callbacks = Mock(event_starts_to_ignore=[], event_ends_to_ignore=[])
        self.spans, self.events = Mock(spec=NullSpanHandler), Mock(spec=BaseEventHandler)
        self.manager = CallbackManager([self.callbacks])
        self.handler = BaseCallbackHandler()
        for name in dir(self.handler):
            if name.startswith("on_"):
                setattr(self.handler, name, getattr(self.callbacks, name))

    def made(self, name: str, server: Server, **settings: Any) -> Any:
        """Return a model whose calls are traced."""
        adapter = ADAPTERS[name]
        if adapter.framework == "LangChain":
            settings["callbacks"] = [self.handler]
        else:
            settings["callback_manager"] = self.manager
        key = EMBEDDING if adapter.kind == "embedding" else CHAT
        return adapter.make(model=key, host=server.address, **settings)

    def seen(self) -> dict[str, str]:
        """Return what was recorded, by what recorded it."""
        recorders = {name: vars(self)[name].mock_calls for name in ("callbacks", "spans", "events")}
        return {name: repr(calls) for name, calls in recorders.items() if calls}


@pytest.fixture
def tracers(monkeypatch: pytest.MonkeyPatch) -> Tracers:
    made = Tracers()
    monkeypatch.setattr(root_dispatcher, "span_handlers", [*root_dispatcher.span_handlers, made.spans])
    monkeypatch.setattr(root_dispatcher, "event_handlers", [*root_dispatcher.event_handlers, made.events])
    return made


async def finish(name: str, llm: Any, method: str, given: dict[str, Any]) -> None:
    """Make a call, await what is awaited, and read what is a stream."""
    settings = {"llm_kwargs": given} if method in STRUCTURED else given
    result = getattr(llm, method)(*METHODS[ADAPTERS[name].framework][method], **settings)
    if inspect.isawaitable(result):
        result = await result
    if hasattr(result, "__anext__"):
        async for _ in result:
            pass
    elif inspect.isgenerator(result):
        for _ in result:
            pass


@pytest.mark.parametrize(
    ("name", "method", "given"),
    [
        pytest.param(*call, given, id=f"{'-'.join(call)}-{given}")
        for call, given in zip(CALLS, cycle(IN_PLAIN_TEXT), strict=False)
    ],
)
async def test_a_secret_in_a_call_is_rejected_before_it_is_traced_and_a_hidden_one_is_accepted(
    guarded: Server, tracers: Tracers, name: str, method: str, given: dict[str, Any]
) -> None:
    with tracers.made(name, guarded, headers={"X-Other": KEY}) as llm:
        with pytest.raises(lms.LMStudioValueError) as caught:
            await finish(name, llm, method, given)
        assert not tracers.seen()
        assert not shows_token(shown_by(caught.value))
        token = "api_token" if inspect.iscoroutinefunction(getattr(llm, method)) else "api_key"
        await finish(name, llm, method, {token: HIDDEN["api_token"], "headers": HIDDEN["headers"]})
    seen = tracers.seen()
    assert seen.keys() == ({"spans", "events", "callbacks"} if name == "LMStudio" else {"callbacks"})
    assert not shows_token("".join(seen.values()))


def test_an_embedding_model_with_secrets_does_not_have_them_traced(guarded: Server, tracers: Tracers) -> None:
    with tracers.made("LMStudioEmbedding", guarded, **FIELDS) as model:
        assert model.get_text_embedding_batch(["rain", "sun"])
        assert model.get_query_embedding("rain")
    assert tracers.seen().keys() == {"spans", "events", "callbacks"}
    assert not shows_token("".join(tracers.seen().values()))


@pytest.mark.parametrize("name", ["ChatLMStudio", "LMStudioLLM"])
def test_only_hidden_secrets_can_be_bound_and_are_neither_traced_nor_dumped(
    guarded: Server, tracers: Tracers, name: str
) -> None:
    llm = tracers.made(name, guarded)
    for given in IN_PLAIN_TEXT:
        assert not shows_token(shown_by(error_of(partial(llm.bind, **given))))
    bound = llm.bind(**HIDDEN)
    chain = RunnableLambda(str) | bound
    assert chain.invoke("count", {"callbacks": [tracers.handler]})
    assert tracers.seen()
    assert not shows_token("".join(tracers.seen().values()) + dumps(bound) + repr(chain))


@pytest.mark.parametrize("name", ["ChatLMStudio", "LMStudioLLM"])
def test_a_configurable_token_needs_the_identifier_that_is_not_traced(
    guarded: Server, tracers: Tracers, name: str
) -> None:
    llm = tracers.made(name, guarded)
    with pytest.raises(lms.LMStudioValueError, match="api_key"):
        llm.configurable_fields(api_token=ConfigurableField(id="token"))
    configurable = llm.configurable_fields(
        api_token=ConfigurableField(id="api_key"), max_tokens=ConfigurableField(id="max_tokens")
    )
    config = {"callbacks": [tracers.handler], "configurable": {"api_key": TOKEN, "max_tokens": 3}}
    assert configurable.invoke("count", config)
    assert not shows_token("".join(tracers.seen().values()))


def test_settings_of_a_structured_call_are_checked_by_position_too(server: Server, tracers: Tracers) -> None:
    llm = tracers.made("LMStudio", server)
    with pytest.raises(lms.LMStudioValueError, match="SecretStr"):
        llm.structured_predict(*PERSON, {"api_token": TOKEN})
    assert not tracers.seen()
    assert llm.structured_predict(*PERSON).name == "Ann"


def test_texts_and_tools_may_look_like_a_secret(server: Server) -> None:
    tools = [{"type": "function", "function": {"name": "log_in", "description": "Bearer abcdefgh12345"}}]
    assert server.chat().bind(tools=tools).invoke("count", stop=["sk-something-else"]).content
    llm = LMStudio(model=CHAT, host=server.address)
    assert llm.chat(messages=[ChatMessage(f"count {TOKEN}")]).message.content
    assert llm.complete(prompt=f"count {TOKEN}").text
    assert llm.predict(PromptTemplate("count {password}"), password=TOKEN)


@pytest.mark.leaf("telemetry")
@pytest.mark.parametrize(("name", "content"), covering(ADAPTERS, ["true", "false"]))
def test_no_span_and_no_metric_has_a_secret(
    guarded: Server, name: str, content: str, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmstudio_integrations.client.telemetry import CONTENT_VARIABLE

    monkeypatch.setenv(CONTENT_VARIABLE, content)
    adapter = ADAPTERS[name]
    key = EMBEDDING if adapter.kind == "embedding" else CHAT
    attempts: list[dict[str, Any]] = [
        {},
        {"api_token": f"{TOKEN[:-4]}AAAA"},
        {"host": "ws://127.0.0.1:1", "max_retries": 0},
        {"model": TOKEN},
    ]
    given = {"model": key, "host": guarded.address, "api_token": TOKEN, "headers": {"X-Proxy-Key": "proxy-4711-0815"}}
    for settings in attempts:
        with suppress(lms.LMStudioError):
            adapter.call(adapter.make(**{**given, **settings}), "hi")
    exported = telemetry.everything()
    assert "LMStudioAuthenticationError" in exported
    assert "LMStudioUnreachableError" in exported
    assert not shows_token(exported)
    assert "proxy-4711-0815" not in exported


# What a model wrote -------------------------------------------------------------------------------------------------

VALUE = "hunter2-secret"
WRITTEN = {"user": "bob", "password": VALUE}
RULES = (
    {"when": {"structured": True}, "then": [{"text": json.dumps(WRITTEN)}]},
    {"when": {"last": "native", "round": 1}, "then": [{"tool": "log_in", "arguments": WRITTEN}]},
    {"when": {"last": "broken"}, "then": [{"tool": "log_in", "malformed": json.dumps(WRITTEN)[:-1]}]},
    {"when": {"last": ""}, "then": [{"text": "done"}]},
)


class Login(BaseModel):
    user: str
    password: int


LOGIN = Login.model_json_schema()
LOG_IN: dict[str, Any] = {"type": "function", "function": {"name": "log_in", "parameters": LOGIN}}


class Careful(BaseModel):
    password: str

    @field_validator("password")
    @classmethod
    def _check(cls, password: str) -> str:
        raise ValueError(f"{password} is too simple")


def log_in(user: str, password: int) -> str:
    """Log in."""
    return user


writer = served([ModelEntry(key="m", rules=RULES)])
"""A server whose model writes a password that does not fit."""


def printed(call: Callable[[], object]) -> str:
    """Return what is printed of the error of a call. Its attributes have the response, for programs."""
    return shown_by(error_of(call), with_attributes=False)


def acted(host: str, prompt: str, tool: Any) -> str:
    """Return what the model and the program get of a call that does not fit."""
    found: list[Any] = []
    with lms.Client(host) as client:
        client.llm.model("m").act(
            prompt,
            [tool],
            handle_invalid_tool_request=lambda error, _request: found.append(shown_by(error, with_attributes=False)),
            on_tool_call_result=lambda _round, _call, result: found.append(result.content),
        )
    return "\n".join(found)


def read(schema: Any, method: Any, host: str) -> str:
    llm = ChatLMStudio(model="m", host=host).with_structured_output(schema, method=method)
    return printed(lambda: llm.invoke("x"))


LEAKS: dict[str, Callable[[str], str]] = {
    "act, types": lambda host: acted(host, "native", log_in),
    "act, schema": lambda host: acted(host, "native", ToolFunctionDef("log_in", "Log in.", LOGIN, log_in)),
    "LlamaIndex, a broken call": lambda host: printed(
        lambda: LMStudio(model="m", host=host).chat([ChatMessage("broken")], tools=[LOG_IN])
    ),
    "LangChain, class, json_schema": partial(read, Login, "json_schema"),
    "LangChain, class, json_mode": partial(read, Login, "json_mode"),
    "LangChain, class, function_calling": partial(read, Login, "function_calling"),
    "LangChain, schema, function_calling": partial(read, LOGIN, "function_calling"),
    "LangChain, validator, json_mode": partial(read, Careful, "json_mode"),
    "LlamaIndex, class": lambda host: printed(
        lambda: LMStudio(model="m", host=host).structured_predict(Login, PromptTemplate("x"))
    ),
}


@pytest.mark.leaf("calls_in_text")
@pytest.mark.parametrize("leak", LEAKS.values(), ids=LEAKS)
def test_what_a_model_wrote_for_a_secret_is_in_no_error_and_no_log(
    writer: Emulator, leak: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    shown = leak(writer.address)
    assert "password" in shown
    assert VALUE not in shown + caplog.text


@pytest.mark.parametrize("given", [f"password={KEY}", Login(user="Ann", password=4711), {"login": f"pwd: '{KEY}'"}])
def test_an_error_of_pydantic_does_not_show_what_has_a_secret_anywhere(given: object) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(int).validate_python(given)
    hidden = without_secrets(caught.value)
    assert [each["input"] for each in hidden.errors()] == ["**********"]
    assert not re.search(f"{KEY}|4711", shown_by(hidden))


# What others wrote --------------------------------------------------------------------------------------------------


@pytest.mark.leaf("telemetry")
def test_the_value_of_a_secret_in_a_text_of_others_stands_nowhere(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    texts = "\n".join(ASSIGNED)
    crash = {"then": [{"error": f"The model has crashed: {texts}"}]}
    with (
        Emulator([ModelEntry(key="m", rules=(crash,))], load=["m"]) as server,
        lms.Client(server.address) as client,
        pytest.raises(lms.LMStudioModelCrashedError) as caught,
    ):
        client.llm.model("m").respond("crash")
    for text in (shown_by(caught.value), caplog.text, telemetry.everything()):
        assert "password = **********" in text
        assert PASSWORD not in text


def test_an_error_of_this_package_hides_what_is_shaped_like_a_token() -> None:
    error = lms.LMStudioServerError(f"the server says {TOKEN}")
    assert str(error) == "the server says **********"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert lms.LMStudioError(5).args == (5,)


# What looks like a secret -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["api_tken", "apiToken", "tokn", "API-KEY", "api_ky", "hedaers", "pasword", "aws_access_key_id", "hf_token"]
)
def test_a_name_near_that_of_a_secret_is_one(name: str) -> None:
    assert is_secret_name(name)


def test_nothing_and_what_hides_itself_hold_no_secret() -> None:
    for value in (None, HIDDEN["headers"]):
        assert not holds_secret(value, "headers")


PROSE = [
    "headers: Additional HTTP headers to send.",
    "To use a token, write it as token: the one you have got.",
    "The password: It must be long.",
]


@dataclass
class Advice:
    """An object that is shown with what it says."""

    says: str


@pytest.mark.parametrize("text", PROSE)
def test_an_object_that_says_something_of_secrets_holds_none(text: str) -> None:
    for value in (text, [text], {"says": text}, Advice(text), PromptTemplate(text), lambda: text):
        assert not holds_secret(value, "formatter")


@pytest.mark.parametrize(
    "text", [TOKEN, f"Bearer {KEY}", f"http://me:{KEY}@localhost", f"http://localhost?token={KEY}"]
)
def test_an_object_that_is_shown_with_a_token_or_the_credentials_of_a_url_holds_a_secret(text: str) -> None:
    for value in (text, [text], {"says": text}, Advice(text), PromptTemplate(f"Use {text} there.")):
        assert holds_secret(value, "formatter")


def test_no_other_setting_has_the_name_of_a_secret() -> None:
    names = {name for kind in (*classes(), *CONFIGS) for name in kind.model_fields}
    assert {name for name in names if is_secret_name(name)} == {"api_token", "headers"}


LETTERS = "Ab3dEf7hIjKlMnOpQrStUvWxYz0123456789"
TOKENS_OF_OTHERS = [
    *(f"{prefix}{LETTERS}" for prefix in ("ghp_", "gho_", "github_pat_", "glpat-", "hf_", "gsk_", "tvly-", "npm_")),
    *(f"{prefix}{LETTERS}" for prefix in ("lsv2_pt_", "AIza", "ya29.", "xoxb-", "xoxp-", "xapp-", "sk_live_", "pypi-")),
    *(f"{prefix}{LETTERS}" for prefix in ("xai-", "nvapi-", "pplx-", "r8_", "GOCSPX-", "hvs.", "dckr_pat_")),
    f"SG.{LETTERS[:22]}.{LETTERS}",
    "AKIAIOSFODNN7EXAMPLE",
    f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{LETTERS}",
]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"key={TOKEN}, ok", "key=**********, ok"),
        ("sk-proj-4f9a8b7c", "**********"),
        *((f"a {each} b", "a ********** b") for each in TOKENS_OF_OTHERS),
        *((f"我的令牌是{each}, é{each}", "我的令牌是**********, é**********") for each in TOKENS_OF_OTHERS),
        *((f"{each}是我的", "**********是我的") for each in TOKENS_OF_OTHERS),
        ("トークンはsk-proj-4f9a8b7cです", "トークンは**********です"),
        ("令牌Bearer abcdef123456", "令牌Bearer **********"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n", "**********\n"),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQO\n-----END PGP PRIVATE KEY BLOCK-----\n", "**********\n"),
        ("Authorization: Basic dXNlcjpw", "Authorization: Basic **********"),
        ("hf_hub_download(repo_id), AKIAN and eyJ.a.b", "hf_hub_download(repo_id), AKIAN and eyJ.a.b"),
        (TOKEN[6:], "**********"),
        ("Authorization: Bearer abcdef123456", "Authorization: Bearer **********"),
        ("ws://user:pass@word@host:1/llm", "ws://**********@host:1/llm"),
        ("gemma3:4b@latest, bob:hello@example.com", "gemma3:4b@latest, bob:hello@example.com"),
        ("http://host/?a=1&api_key=abc&b=2", "http://host/?a=1&**********&b=2"),
        ("http://host/?pwd=abc&sig=def&design=blue", "http://host/?**********&**********&design=blue"),
        ("https://host/a?X-Amz-Signature=abc", "https://host/a?**********"),
        ("https://host/a#access_token=abc&state=1", "https://host/a#**********&state=1"),
        ("a task-list-of-things, see https://host/a@b", "a task-list-of-things, see https://host/a@b"),
        ("it must be sk-lm-, 8 letters", "it must be sk-lm-, 8 letters"),
    ],
)
def test_what_is_shaped_like_a_secret_is_taken_out_of_a_text(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_in_an_address_user_and_password_need_no_scheme() -> None:
    assert redact_address("'user:pass@host:1', http://a:b@host") == "'**********@host:1', http://**********@host"
    assert redact_address("host:1 and example.com") == "host:1 and example.com"


def test_user_and_password_in_the_url_of_an_image_are_not_shown() -> None:
    image = HumanMessage([{"type": "image_url", "image_url": {"url": ADDRESS}}])
    assert not shows_token(shown_by(error_of(lambda: ChatLMStudio().invoke([image]))))


@pytest.mark.parametrize("model", ["gemma3:4b@latest", "bob:hello@example.com"])
def test_the_name_of_a_model_is_shown(server: Server, model: str) -> None:
    with lms.Client(server.address) as client, pytest.raises(lms.LMStudioModelNotFoundError, match=model):
        client.llm.model(model)
    with pytest.raises(TypeError, match=model):
        ChatLMStudio(model)  # type: ignore[call-arg]  # the mistake


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"password": "a \\" b", "city": "Oslo"}', '{"password": "**********", "city": "Oslo"}'),
        ("{'api_key': 5, 'n': 5}", "{'api_key': '**********', 'n': 5}"),
        ('{"a": {"password" : "cut o', '{"a": {"password" : "**********'),
        ('{"password": "cut o\\', '{"password": "**********\\'),
        ('{"password": null, "token": {"n": 1}}', '{"password": null, "token": "**********"}'),
        ("{'password': {'type': 'string'}}", "{'password': {'type': 'string'}}"),
        ('{"headers": [":)"], "rows": 1}', '{"headers": "**********", "rows": 1}'),
        ('{"headers": ["Qty (pcs"], "rows": 1}', '{"headers": "**********", "rows": 1}'),
        ('{"value": 5, "name": "password"}', '{"value": "**********", "name": "password"}'),
        ('{"value": null, "name": "password"}', '{"value": null, "name": "password"}'),
    ],
)
def test_what_a_model_wrote_is_shown_without_the_values_of_secret_members(text: str, shown: str) -> None:
    assert redact_members(text) == shown


UNITS = [
    *("{'", "['a' ", "password=['", "password=a(", "value=a ", 'name="password" {{', '"password" = '),
    *("a", " ", "\n", "\\", "-", "`", "é", "a ", "a.", "a-", "a=", "=", "- ", "\\n", "<", "<a", "{", "&"),
    *("password", "password ", "password=", "password: ", "--password ", "password: str[", "Authorization: \\"),
    *("password=,", "password=a,", "password=a&b", "password={", "password=<a", "password=\\", "password=`\\"),
    *("a='", "password='", "password='\\", 'password=""" ', "#token=", "<password>", "<a>b</a", '"name": "', 'key="'),
    *('"name": "password" ', 'name="password" {', '"value": "', 'value: "x" ', '["password", "', '"--password", "'),
    *(
        "password:\n",
        "password:\n  a",
        "password: |\n  a\n  ",
        "<password a",
        "<arg=password a",
        "://a:",
        "password: bearer ",
        "  - password:\n",
        "- password: |\r\n",
        "password: a ",
        "password:\n  a a\n",
        "password: (",
        "bearer aaaaaaaa) ",
    ),
]
"""Repeated, these could make a search try again what it has tried."""


@pytest.mark.parametrize("unit", UNITS)
def test_secrets_are_found_in_linear_time(unit: str) -> None:
    """With quadratic time, it would be minutes."""
    assert redact_received(unit * (200_000 // len(unit)))


@pytest.mark.parametrize(
    "beginning", ["bearer a", "password: a", "password: a ", "password:\n  a", "password=(", "--key"]
)
@pytest.mark.parametrize("unit", [" ", "-", "_", "a", "a'", "a-", "(", ".", "\\"])
def test_a_long_value_is_read_in_linear_time(beginning: str, unit: str) -> None:
    assert redact_received(f"{beginning}{unit * (200_000 // len(unit))}1")


PAGES = [
    "headers: Additional HTTP headers to send.",
    "headers:\n    An optional dict-like object of headers",
    ":param headers: *(optional)* Dictionary of HTTP headers",
    ":type headers: `~tornado.httputil.HTTPHeaders` or `dict`",
    ":param client_secret: The `client_secret` paired to the `client_id`.",
    "token => category {semantics}",
    "**Accepted credentials:** an organization-level key",
    "auth_password: Password for HTTP authentication",
    "authorization_code: The authorization code to exchange.",
    "cookie: str\n    Cookie value.",
    "token: id:\n    The number of a token",
    "It is based on bearer tokens), or writes f'Bearer {secret}'.",
    "Add headers:\n    raise Invalid(status)\n    and go on",
    "headers: dict[str, bytes]",
    "headers : Union[Dict[str, str], None]",
    "credentials = (\n    service.Credentials\n)",
    "Log in with --token $TOKEN, or --secret SECRET.",
    "with:\n  token: ${{ secrets.TOKEN }}\n",
]
"""What pages and comments of programs say beside the name of a secret."""


@pytest.mark.parametrize("text", PAGES)
def test_what_a_page_says_of_a_secret_stays(text: str) -> None:
    assert redact_received(text) == text


def sentences(count: int) -> list[str]:
    """Return sentences of the comments in installed packages, from files of all of them."""
    files = sorted(Path(sysconfig.get_path("purelib")).rglob("*.py"), key=lambda file: zlib.crc32(file.name.encode()))
    found = dict[str, None]()
    for file in files:
        with suppress(SyntaxError, ValueError):  # templates, and files in other encodings
            for node in ast.walk(ast.parse(file.read_bytes())):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    text = ast.get_docstring(node) or ""
                    found |= dict.fromkeys(re.split(r"(?<=[.!?])\s+(?=[A-Z])|\n\n+", text))
        if len(found) > count:
            break
    return list(found)


def common(first: str, second: str) -> int:
    """Return how many characters both begin with."""
    return next((at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), 0)


def is_assigned(before: str, hidden: str) -> bool:
    """Whether a text has a value there: after `=` or `://`, in quotes, or with a digit."""
    return bool(re.search(r"""["'`\d=]|://""", before[-3:] + hidden) or re.search(r"=\s*$", before))


@pytest.mark.slow
def test_nothing_is_taken_out_of_sentences_but_values() -> None:
    texts = sentences(20_000)
    assert len(texts) > 10_000
    wrong = list[str]()
    for text in texts:
        shown = redact_received(text)
        start = common(text, shown)
        end = len(text) - common(text[start:][::-1], shown[start:][::-1])
        if shown != text and not is_assigned(text[:start], text[start:end]):
            wrong.append(text)
    # Packages change what they say, and a new sentence may be one of a kind that nobody has seen.
    assert len(wrong) <= len(texts) // 10_000, wrong


@pytest.mark.parametrize(
    ("text", "value", "path", "shown"),
    [
        ("'abc' is not of type 'integer'", "abc", ["password"], "********** is not of type 'integer'"),
        ("5 is less than 50", 5, ["login", "pin", "password"], "********** is less than 50"),
        ("['a', 'b'] has 'b'", ["a", "b"], ["passwords"], "[**********, **********] has **********"),
        (
            "{'n': 1, 'password': 'x'} fits not",
            {"n": 1, "password": "x"},
            [],
            "{'n': 1, 'password': **********} fits not",
        ),
        ("'abc' is no integer", "abc", ["city", 0], "'abc' is no integer"),
        ("headers must be a dict; got ['a']", ["a"], ["headers"], "headers must be a dict; got [**********]"),
        ("abcd is no integer", "abcd", ["password"], "********** is no integer"),
    ],
)
def test_what_a_validator_says_is_shown_without_secrets(
    text: str, value: object, path: list[str | int], shown: str
) -> None:
    assert redact_values(text, value, path) == shown
