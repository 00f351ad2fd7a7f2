"""No token reaches LangChain's tracers, whichever way a call gets it."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumps
from langchain_core.runnables import ConfigurableField, RunnableBinding, RunnableLambda
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.schemas import Run
from pydantic import SecretStr

from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioLLM
from tests.langchain.conftest import Server
from tests.support.leaks import TOKEN, shown_by, shows_token

Call = Callable[..., Awaitable[object]]


class Tracer(BaseTracer):
    """Records every run, at its start and at its end."""

    def __init__(self) -> None:
        super().__init__(_schema_format="original+chat")
        self.seen: list[str] = []

    def _start_trace(self, run: Run) -> None:
        self.seen.append(repr(run))
        super()._start_trace(run)

    def _persist_run(self, run: Run) -> None:
        self.seen.append(repr(run))


class Handler(BaseCallbackHandler):
    """Records whatever it is given."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def _write(self, *args: Any, **kwargs: Any) -> None:
        self.seen.append(repr((args, kwargs)))

    on_chat_model_start = on_llm_start = on_llm_new_token = on_llm_end = on_llm_error = _write
    on_chain_start = on_chain_end = on_chain_error = _write


async def _drain(stream: Any) -> None:
    async for _ in stream:
        pass


async def _invoke(llm: Any, config: Any, **given: Any) -> object:
    return llm.invoke("count", config, **given)


async def _stream(llm: Any, config: Any, **given: Any) -> object:
    return list(llm.stream("count", config, **given))


async def _batch(llm: Any, config: Any, **given: Any) -> object:
    return llm.batch(["count", "count"], config, **given)


async def _batch_as_completed(llm: Any, config: Any, **given: Any) -> object:
    return list(llm.batch_as_completed(["count", "count"], config, **given))


async def _generate(llm: Any, config: Any, **given: Any) -> object:
    return llm.generate([_prompt(llm)], callbacks=config["callbacks"], **given)


async def _ainvoke(llm: Any, config: Any, **given: Any) -> object:
    return await llm.ainvoke("count", config, **given)


async def _astream(llm: Any, config: Any, **given: Any) -> None:
    await _drain(llm.astream("count", config, **given))


async def _abatch(llm: Any, config: Any, **given: Any) -> object:
    return await llm.abatch(["count", "count"], config, **given)


async def _agenerate(llm: Any, config: Any, **given: Any) -> object:
    return await llm.agenerate([_prompt(llm)], callbacks=config["callbacks"], **given)


async def _astream_events(llm: Any, config: Any, **given: Any) -> None:
    await _drain(llm.astream_events("count", config, version="v2", **given))


def _prompt(llm: Any) -> Any:
    return "count" if isinstance(llm, LMStudioLLM) else llm._convert_input("count").to_messages()


CALLS = [_invoke, _stream, _batch, _batch_as_completed, _generate]
CALLS += [_ainvoke, _astream, _abatch, _agenerate, _astream_events]
SECRETS: list[dict[str, Any]] = [
    {"api_token": TOKEN},
    {"api_key": TOKEN},
    {"api_token": [TOKEN]},
    {"api_tokn": TOKEN},
    {"password": TOKEN[15:]},
    {"host": f"ws://user:{TOKEN[15:]}@localhost"},
    {"headers": {"X-Key": TOKEN[15:]}},
    {"headers": {"X-Key": SecretStr("x"), "X-Other": TOKEN[15:]}},
    {"headers": f"X-Key: {TOKEN[15:]}"},
    {"default_headers": {"X-Key": TOKEN[15:]}},
]


@pytest.mark.parametrize("adapter", [Server.chat, Server.llm])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("given", SECRETS, ids=str)
async def test_a_secret_in_a_call_is_rejected_before_it_is_traced(
    server: Server, adapter: Callable[..., Any], call: Call, given: dict[str, Any]
) -> None:
    tracer, handler = Tracer(), Handler()
    with pytest.raises(LMStudioValueError) as caught:
        await call(adapter(server), {"callbacks": [tracer, handler]}, **given)
    assert tracer.seen == handler.seen == []
    assert not shows_token(shown_by(caught.value))


@pytest.mark.parametrize("adapter", [Server.chat, Server.llm])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", ["api_token", "api_key"])
async def test_hidden_secrets_of_a_call_are_accepted_and_not_traced(
    adapter: Callable[..., Any], call: Call, name: str
) -> None:
    tracer, handler = Tracer(), Handler()
    secrets = {name: SecretStr(TOKEN), "headers": {"X-Key": SecretStr(TOKEN[15:])}}
    with Server(tokens=[TOKEN]) as server:
        llm = adapter(server, headers={"X-Other": TOKEN[15:]})
        await call(llm, {"callbacks": [tracer, handler]}, **secrets)
    assert tracer.seen
    assert handler.seen
    assert not shows_token("".join(tracer.seen + handler.seen))


@pytest.mark.parametrize("adapter", [ChatLMStudio, LMStudioLLM])
@pytest.mark.parametrize("given", SECRETS, ids=str)
def test_a_secret_cannot_be_bound(adapter: Any, given: dict[str, Any]) -> None:
    with pytest.raises(LMStudioValueError) as caught:
        adapter(model="m").bind(**given)
    assert not shows_token(shown_by(caught.value))


@pytest.mark.parametrize("adapter", [Server.chat, Server.llm])
def test_hidden_secrets_can_be_bound_and_are_neither_traced_nor_dumped(adapter: Callable[..., Any]) -> None:
    tracer = Tracer()
    with Server(tokens=[TOKEN]) as server:
        bound = adapter(server).bind(api_token=SecretStr(TOKEN), headers={"X-Key": SecretStr(TOKEN[15:])})
        chain = RunnableLambda(str) | bound
        assert chain.invoke("count", {"callbacks": [tracer]})
    assert tracer.seen
    assert not shows_token("".join(tracer.seen) + dumps(bound) + repr(chain))


@pytest.mark.parametrize("adapter", [Server.chat, Server.llm])
def test_a_secret_in_a_binding_that_was_made_by_hand_is_rejected_too(
    server: Server, adapter: Callable[..., Any]
) -> None:
    tracer = Tracer()
    with pytest.raises(LMStudioValueError, match="SecretStr"):
        RunnableBinding(bound=adapter(server), kwargs={"api_token": TOKEN}).invoke("count", {"callbacks": [tracer]})
    assert tracer.seen == []


def test_a_known_setting_that_looks_like_a_secret_is_not_rejected(server: Server) -> None:
    tools = [{"type": "function", "function": {"name": "log_in", "description": "Bearer abcdefgh12345"}}]
    assert server.chat().bind(tools=tools).invoke("count", stop=["sk-something-else"]).content


@pytest.mark.parametrize("adapter", [Server.chat, Server.llm])
def test_a_configurable_token_needs_the_identifier_that_is_not_traced(adapter: Callable[..., Any]) -> None:
    with Server(tokens=[TOKEN]) as server:
        llm = adapter(server)
        with pytest.raises(LMStudioValueError, match="api_key"):
            llm.configurable_fields(api_token=ConfigurableField(id="token"))
        configurable = llm.configurable_fields(
            api_token=ConfigurableField(id="api_key"), max_tokens=ConfigurableField(id="max_tokens")
        )
        tracer = Tracer()
        config = {"callbacks": [tracer], "configurable": {"api_key": TOKEN, "max_tokens": 3}}
        assert configurable.invoke("count", config)
    assert not shows_token("".join(tracer.seen))


def test_a_wrong_value_in_a_configuration_does_not_show_a_secret(server: Server) -> None:
    llm = server.chat().configurable_fields(seed=ConfigurableField(id="seed"))
    with pytest.raises(ValueError, match="seed") as caught:
        llm.with_config(configurable={"seed": TOKEN}).invoke("count")
    assert not shows_token(shown_by(caught.value))
