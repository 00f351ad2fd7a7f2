"""What an adapter is besides a model: copied, pickled, cached, serialised, configured, imported."""

import asyncio
import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableConfig, RunnableLambda
from pydantic import SecretStr

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioError, LMStudioValueError
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioLLM
from tests.langchain.conftest import CHAT, COUNTED, MODELS, OTHER, Invoke, Server
from tests.support.adapters import classes, covering

TOKEN = "sk-lm-abcdefgh:abcdefghijklmnopqrst"
COPIES = [copy.copy, copy.deepcopy, lambda llm: llm.model_copy(), lambda llm: pickle.loads(pickle.dumps(llm))]


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take tokens and hosts out of the environment."""
    for name in ("LM_API_TOKEN", "LMSTUDIO_API_TOKEN", "LMSTUDIO_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("duplicate", COPIES)
def test_a_copy_after_use_works_and_shares_nothing(server: Server, duplicate: Any) -> None:
    llm = server.chat(temperature=0.5, load_config={"flashAttention": True})
    stream = llm.stream("count")
    begun = next(stream)
    other = duplicate(llm)
    assert other.invoke("count").content == COUNTED
    other.close()
    assert begun.text + "".join(chunk.text for chunk in stream) == COUNTED
    assert other.temperature == 0.5
    assert other.load_config == llm.load_config


@pytest.mark.parametrize("adapter", classes("LangChain"))
def test_a_copy_takes_other_adapters_names_of_our_settings(adapter: Any) -> None:
    copied = adapter(model="m").model_copy(update={"model_name": "n", "base_url": "h:1", "api_key": TOKEN})
    assert (copied.model, copied.host, copied.api_token.get_secret_value()) == ("n", "h:1", TOKEN)


BIAS: dict[Any, float] = {7: float("-inf"), " yes": 2.0}
NUMBERS: dict[str, Any] = {
    "max_tokens": False,
    "top_p": 0,
    "temperature": 0,
    "timeout": 5,
    "timeouts": {"connect_timeout": None},
}


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
@pytest.mark.parametrize("adapter", [ChatLMStudio, LMStudioLLM])
def test_a_model_and_a_chain_are_loaded_as_documented(adapter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(tokens=[TOKEN]) as server:
        settings = {**NUMBERS, "load_config": {"seed": 3}, "api_token": TOKEN, "headers": {"X-Key": "hush-hush"}}
        made = adapter(model=CHAT, host=server.address, **settings)
        path, chain = tuple(adapter.lc_id()), ChatPromptTemplate.from_template("count {topic}") | made
        text, chain_text = dumps(made), dumps(chain)
        assert not any(secret in text + chain_text for secret in (TOKEN, TOKEN[15:], "hush"))
        namespaces: Any = {"valid_namespaces": ["lmstudio_integrations"]}
        biased = made.model_copy(update={"prediction_config": {"logit_bias": BIAS}, "headers": None})
        assert biased == loads(
            dumps(biased),
            allowed_objects=[adapter],
            secrets_map={"LM_API_TOKEN": TOKEN},
            **namespaces,
        )
        loaded = loads(text, allowed_objects=[adapter], **namespaces)
        assert {name: getattr(loaded, name) for name in NUMBERS} == NUMBERS
        assert loaded.max_tokens is False
        assert loaded.load_config.to_dict() == {"seed": 3}
        monkeypatch.setenv("LM_API_TOKEN", TOKEN)
        assert loaded.invoke("count")
        monkeypatch.delenv("LM_API_TOKEN")
        again = loads(
            chain_text,
            allowed_objects="core",
            additional_import_mappings={path: path},
            secrets_map={"LM_API_TOKEN": TOKEN},
            **namespaces,
        )
        assert again.invoke({"topic": "it"})


# The cache's key ------------------------------------------------------------------------------------------------------


def test_a_cached_response_is_not_given_to_another_model_or_setting(server: Server) -> None:
    llm = server.chat(cache=InMemoryCache(), temperature=0.5)
    count = len(server.predictions)

    def is_new(model: Any, **given: Any) -> bool:
        nonlocal count
        before, _ = count, model.invoke("Hello", **given)
        count = len(server.predictions)
        return count > before

    assert is_new(llm)
    assert not is_new(llm)
    assert is_new(llm.model_copy(update={"model": OTHER}))
    assert is_new(llm.bind(temperature=0.1))
    assert is_new(llm, stop=["x"])
    assert is_new(llm, response_format={"type": "json_object"})
    duplicate = copy.copy(llm)
    assert not is_new(duplicate)
    duplicate.temperature = 0.9
    assert is_new(duplicate)
    llm.seed = 4
    assert is_new(llm)
    llm.output_version = "v1"
    assert is_new(llm)
    llm.ttl = 9
    assert not is_new(llm)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_raw_completion_is_cached_by_the_settings_of_the_call(server: Server, *, asynchronous: bool) -> None:
    def response(llm: Any, **given: Any) -> str:
        return str(asyncio.run(llm.ainvoke("count", **given)) if asynchronous else llm.invoke("count", **given))

    llm = server.llm(cache=InMemoryCache())
    assert response(llm, max_tokens=2) == response(llm.bind(max_tokens=2)) == "0 1"
    assert response(llm, max_tokens=3) == "0 1 2"
    assert response(llm, model=OTHER) != response(llm)
    assert response(llm, stop=["3"]) == response(server.llm(cache=llm.cache, stop=["3"])) == "0 1 2 "
    assert response(server.llm(cache=llm.cache, stop=["2"])) == "0 1 "
    assert len(server.predictions) == 6


@pytest.fixture(params=["per-instance", "global", "required"])
def caching(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Each way to have a cache, as the settings of an adapter."""
    if request.param == "per-instance":
        yield {"cache": InMemoryCache()}
        return
    set_llm_cache(InMemoryCache())
    yield {"cache": True} if request.param == "required" else {}
    set_llm_cache(None)


WAYS_TO_GENERATE: dict[str, Invoke] = {
    "invoke": lambda llm, question, **given: llm.invoke(question, **given),
    "ainvoke": lambda llm, question, **given: asyncio.run(llm.ainvoke(question, **given)),
    "batch": lambda llm, question, **given: llm.batch([question], **given)[0],
    "abatch": lambda llm, question, **given: asyncio.run(llm.abatch([question], **given))[0],
}


@pytest.mark.parametrize(("adapter", "name"), covering([ChatLMStudio, LMStudioLLM], WAYS_TO_GENERATE))
def test_a_cached_response_is_not_given_for_another_server(
    adapter: Any, name: str, caching: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = WAYS_TO_GENERATE[name]
    with Server() as one, Server() as other:
        monkeypatch.setenv("LMSTUDIO_HOST", one.address)
        from_environment, named = adapter(model=CHAT, **caching), adapter(model=CHAT, host=one.address, **caching)
        for llm in (from_environment, named, named.bind(base_url=f"http://{one.address}/v1")):
            generate(llm, "count")
        assert len(one.predictions) == 1
        monkeypatch.setenv("LMSTUDIO_HOST", other.address)
        generate(from_environment, "count")
        assert len(other.predictions) == 1
        generate(named, "count", host=None)
        generate(named, "count", host=other.address)
        assert (len(one.predictions), len(other.predictions)) == (1, 1)


@pytest.mark.parametrize(("adapter", "name"), covering([ChatLMStudio, LMStudioLLM], WAYS_TO_GENERATE))
def test_whichever_model_is_loaded_is_never_cached(
    server: Server, adapter: Any, name: str, caching: dict[str, Any]
) -> None:
    generate = WAYS_TO_GENERATE[name]

    def fresh(**settings: Any) -> Any:
        return adapter(host=server.address, **settings, **caching)

    server.load(CHAT)
    first = generate(fresh(), "count")
    server.unload(CHAT)
    server.load(OTHER)
    assert generate(fresh(), "count") != first
    generate(fresh(model=CHAT), "count", model=None)
    generate(fresh(model=CHAT), "count", model_name=None)
    assert len(server.predictions) == 4
    generate(fresh(), "count", model=OTHER)
    generate(fresh(model=OTHER), "count")
    assert len(server.predictions) == 5


@pytest.mark.parametrize("adapter", [ChatLMStudio, LMStudioLLM])
def test_tracers_see_the_resolved_address(adapter: Any) -> None:
    assert adapter(model=CHAT, host="http://box/v1")._identifying_params["host"] == "ws://box:1234"


def test_what_is_known_of_a_model_is_no_secret_and_stays_with_the_object(server: Server) -> None:
    llm = ChatLMStudio(model=CHAT, host=server.address, headers={"X-Proxy": TOKEN}).load()
    assert TOKEN not in json.dumps(vars(llm), default=str)
    for number in range(20):  # a copy may get the address of an object that is gone
        llm = llm.model_copy(update={"temperature": number / 20})
        assert "max_input_tokens" not in (llm.profile or {})


class Keys(InMemoryCache):
    """A cache that keeps what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def lookup(self, prompt: str, llm_string: str) -> Any:
        self.asked.append(llm_string)
        return super().lookup(prompt, llm_string)


@pytest.mark.parametrize("adapter", [ChatLMStudio, LMStudioLLM])
def test_the_key_of_the_cache_holds_no_secret(adapter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Keys()
    with Server() as server:
        llm = adapter(model=CHAT, host=server.address, headers={"X-Key": "hush-hush"}, cache=cache)
        llm.invoke("count")
        llm.invoke("count", headers={"X-Key": SecretStr("hush-other")})
        assert len(server.predictions) == 1
    with pytest.raises(LMStudioValueError, match="not an address"):
        LMStudioLLM(model=CHAT, host="http://[oops", cache=cache).invoke("count")
    monkeypatch.setenv("LMSTUDIO_HOST", f"ws://user:{TOKEN}@localhost")
    with pytest.raises(LMStudioError):
        adapter(model=CHAT, cache=cache).invoke("count")
    assert len(cache.asked) == 4
    assert not any(secret in key for key in cache.asked for secret in ("hush", TOKEN))


def test_what_identifies_the_object_holds_no_secret_and_no_timeout() -> None:
    llm = ChatLMStudio(model="m", api_token=SecretStr(TOKEN), temperature=0.5, timeout=4, preset="p", context_length=9)
    assert llm.asdict() == {
        "_type": "chat-lmstudio",
        "model": "m",
        "temperature": 0.5,
        "preset": "p",
        "context_length": 9,
        "load_policy": "get_or_load",
        "send_reasoning": "auto",
        "keep_reasoning": False,
        "stop_on_repetition": True,
        "think_first": True,
        "rescue_tool_calls": True,
        "repair_tool_calls": True,
        "required_tool_fallback": True,
    }


# What an object records and keeps ------------------------------------------------------------------------------------


async def test_an_instance_of_its_own_is_loaded_once(server: Server) -> None:
    llm = server.chat(load_policy="new_instance")
    limits: list[dict[str, Any]] = [{}, {"timeout": 10}, {"timeouts": {"idle_timeout": 30}}]
    for timeouts in limits:
        llm.invoke("count", **timeouts)
        await llm.ainvoke("count", **timeouts)
    llm.close()
    await llm.ainvoke("count")
    assert [info.identifier for info in server.loaded()] == [CHAT]
    server.chat(load_policy="new_instance").invoke("count")
    assert [info.identifier for info in server.loaded()] == [CHAT, f"{CHAT}:2"]


def test_the_info_of_a_model_belongs_to_the_model(server: Server, generate: Invoke) -> None:
    llm = server.chat(context_length=1000)
    generate(llm, "count")
    assert (llm.profile or {})["max_input_tokens"] == 1000
    server.unload(CHAT)
    server.load(CHAT)
    generate(llm, "count")
    assert (llm.profile or {})["max_input_tokens"] == 4096


def test_a_call_to_another_host_says_nothing_about_the_model_of_the_object(server: Server, generate: Invoke) -> None:
    llm = server.chat()
    generate(llm, "count")
    with Server([MODELS[0].model_copy(update={"context_length": 2048})], load=[CHAT]) as other:
        generate(llm.bind(host=other.address), "count")
        assert len(other.predictions) == 1
    assert (llm.profile or {})["max_input_tokens"] == 4096


def test_progress_may_be_reported_to_what_cannot_be_a_key(server: Server) -> None:
    @dataclass
    class Display:
        """Cannot be hashed, because it can be compared."""

        last: float = -1.0

        def __call__(self, progress: float) -> None:
            self.last = progress

    display = Display()
    server.chat(on_load_progress=display).invoke("count")
    assert display.last == 1.0


# Many inputs ----------------------------------------------------------------------------------------------------------


class Echo(ChatLMStudio):
    """Reports how many calls may run at once."""

    def invoke(self, input: Any, config: RunnableConfig | None = None, **_: Any) -> AIMessage:  # noqa: A002
        return AIMessage(str((config or {}).get("max_concurrency")))

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **_: Any) -> AIMessage:  # noqa: A002
        return self.invoke(input, config)


QUESTIONS: list[Any] = ["a", "b"]


@pytest.mark.parametrize(
    ("settings", "bound"), [({}, "4"), ({"load_config": {"max_parallel_predictions": 7}}, "7")], ids=["default", "own"]
)
async def test_every_kind_of_batch_is_bounded(settings: dict[str, Any], bound: str) -> None:
    llm = Echo(model="m")
    bounds = [*llm.batch(QUESTIONS, **settings), *await llm.abatch(QUESTIONS, **settings)]
    bounds += [response for _, response in llm.batch_as_completed(QUESTIONS, ({}, {"tags": ["x"]}), **settings)]
    bounds += [response async for _, response in llm.abatch_as_completed(QUESTIONS, **settings)]
    assert [response.content for response in bounds] == [bound] * 8


@pytest.mark.parametrize(
    ("config", "given", "bounds"),
    [
        (None, {}, ["3", "3"]),
        ({"tags": ["x"]}, {"tools": [], "stop": ["x"]}, ["3", "3"]),
        ([{"max_concurrency": 9}, {}], {}, ["9", "3"]),
        (None, {"model": "another"}, ["4", "4"]),
    ],
)
def test_a_batch_is_bounded_by_the_config_or_by_what_the_model_runs_at_once(
    server: Server, config: Any, given: dict[str, Any], bounds: list[str]
) -> None:
    llm = Echo(model=CHAT, host=server.address)
    assert [*llm.stream("count")], "a response says it"
    assert [response.content for response in llm.batch(QUESTIONS, config, **given)] == bounds


@pytest.mark.parametrize("hosts", [1, pytest.param(2, marks=pytest.mark.leaf)])
def test_a_batch_has_no_bound_if_only_the_engine_knows_how_many_calls_it_runs_at_once(hosts: int) -> None:
    entry = ModelEntry(key="m", format="torch_safetensors", slots=2)
    with Emulator([entry]) as first, Emulator([entry]) as second:
        addresses = [first.address, second.address][:hosts]
        llm = Echo(model="m", host=addresses, load_config={"engine_config_file_contents": "max-num-seqs: 256"})
        llm.load()
        if hosts > 1:
            llm.hosts()
        assert [response.content for response in llm.batch(QUESTIONS)] == ["None", "None"]
        assert [response.content for response in llm.batch(QUESTIONS, {"max_concurrency": 3})] == ["3", "3"]


def test_a_batch_keeps_the_bound_of_the_chain_that_it_is_part_of() -> None:
    chain: Any = RunnableLambda(lambda _: Echo(model="m").batch(QUESTIONS))
    assert {response.content for response in chain.invoke(1, {"max_concurrency": 1})} == {"1"}


# Configuration --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", [ChatLMStudio, LMStudioLLM])
def test_traces_carry_the_versions_of_core_and_of_this_package(adapter: Any) -> None:
    made = adapter(model="m", metadata={"mine": 1})
    assert made.metadata["mine"] == 1
    assert {"langchain-core", "lmstudio-integrations"} <= made.metadata["lc_versions"].keys()
    assert pickle.loads(pickle.dumps(made)) == made


# Import ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_embeddings_do_not_pay_for_chat_models() -> None:
    code = (
        "import sys; from lmstudio_integrations.langchain import LMStudioEmbeddings; "
        "print('langchain_core.language_models.chat_models' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout.strip() == "False"
