"""Efforts that a model does not allow: one warning before each is ignored, in LangChain and LlamaIndex."""

import asyncio
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from lmstudio_integrations import LMStudioConfigWarning
from lmstudio_integrations.client.models import efforts
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.server.context import ServerState
from lmstudio_integrations.emulator.server.handlers import model_list
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from tests._adapters.ways import METHODS, messages_of
from tests.support.adapters import covering
from tests.support.virtual_time import in_virtual_time, serving

SWITCHED, ALWAYS, UNLISTED, PLAIN = "acme/switched-4b", "acme/always-8b", "acme/unlisted-1b", "qwen3.8-27b"
OTHER_LEVELS, PLAIN_WITH_LEVELS = "acme/levels-2b", "gpt-oss-20b"
GPT_OSS, QWEN_38 = "openai/gpt-oss-20b", "qwen/qwen3.8-27b"
QWEN_35, OF_A_VARIANT = "qwen/qwen3.5-9b", "qwen/qwen3.8-27b@q4_k_m"
ALLOWED: dict[str, tuple[str, ...]] = {
    SWITCHED: ("off", "on"),
    ALWAYS: ("low", "medium", "high", "xhigh"),
    UNLISTED: (),
    PLAIN: ("off", "on"),
    GPT_OSS: ("low", "medium", "high"),
    QWEN_38: ("low", "on"),
    OF_A_VARIANT: ("off", "low", "medium", "xhigh", "on"),
    QWEN_35: ("off", "on"),
    OTHER_LEVELS: ("max",),
    PLAIN_WITH_LEVELS: ("low", "medium", "high"),
}
"""What each model allows. Those of LM Studio's catalog are as servers listed them, but for the older `QWEN_38`."""

_LEVELS_OF_THE_CATALOG = (
    "only models of LM Studio's catalog have levels of reasoning, by keys such as 'openai/gpt-oss-20b'; name one as "
    "model, or set reasoning_budget"
)
NOT_ALLOWED = {
    (SWITCHED, "high"): f"{SWITCHED!r} does not allow reasoning_effort='high' and ignores it; it allows 'off' and "
    "'on': write reasoning_effort='none', or set enable_thinking=True",
    (ALWAYS, "none"): f"{ALWAYS!r} does not allow reasoning_effort='none' and ignores it; it allows 'low', 'medium', "
    "'high' and 'xhigh': write reasoning_effort='low', 'medium', 'high' or 'xhigh'",
    (OTHER_LEVELS, "high"): f"{OTHER_LEVELS!r} does not allow reasoning_effort='high' and ignores it; it allows 'max': "
    "leave it out",
    (PLAIN, "high"): f"reasoning_effort='high' has no effect on {PLAIN!r}, which allows 'off' and 'on': "
    f"{_LEVELS_OF_THE_CATALOG}",
    (PLAIN_WITH_LEVELS, "high"): f"reasoning_effort='high' has no effect on {PLAIN_WITH_LEVELS!r}: "
    f"{_LEVELS_OF_THE_CATALOG}",
    (GPT_OSS, "none"): f"{GPT_OSS!r} always reasons; write reasoning_effort='low', which is sent in place of 'none'",
    (QWEN_38, "high"): f"{QWEN_38!r} does not allow reasoning_effort='high', which is sent as 'xhigh', and ignores it; "
    "it allows 'low' and 'on': write reasoning_effort='low', or set enable_thinking=True",
}
IS_ALLOWED = [
    (SWITCHED, "none"),
    (ALWAYS, "xhigh"),
    (UNLISTED, "high"),
    (UNLISTED, "none"),
    (PLAIN, "none"),
    *[(GPT_OSS, effort) for effort in ("minimal", "medium", "xhigh")],
    *[(OF_A_VARIANT, effort) for effort in ("none", "minimal", "high", "xhigh")],
    *[(QWEN_35, effort) for effort in ("none", "low")],
]
PATH = "/api/v1/models"
pytestmark = pytest.mark.leaf
SOME = ("invoke", "astream", "chat", "astream_chat")


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    models = [ModelEntry(key=key, reasoning_options=options) for key, options in ALLOWED.items()]
    with Emulator(models, auto_evict=False) as running:
        yield running


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return what gets an item for each request for the list of models."""
    requests: list[object] = []

    async def list_models(state: ServerState) -> dict[str, Any]:
        requests.append(state)
        return await model_list.list_models(state)

    monkeypatch.setattr(model_list, "GETS", {PATH: list_models})
    return requests


def ask(name: str, llm: Any, **given: Any) -> None:
    make, method = METHODS[name]
    method(llm, messages_of(make, [("user", "Hello")]), **given)


@pytest.mark.parametrize("is_field", [True, False])
@pytest.mark.parametrize(("name", "case"), covering(METHODS, NOT_ALLOWED))
def test_an_effort_that_is_not_allowed_is_one_warning_before_the_request(
    server: Emulator, name: str, case: tuple[str, str], is_field: bool
) -> None:
    (make, _), (model, effort) = METHODS[name], case
    before, setting = len(server.predictions), {"reasoning_effort": effort}
    llm = make(model=model, host=server.address, **(setting if is_field else {}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            ask(name, llm, **({} if is_field else setting))
    assert [(each.category, str(each.message)) for each in caught] == [(LMStudioConfigWarning, NOT_ALLOWED[case])]
    with warnings.catch_warnings(action="error"), pytest.raises(LMStudioConfigWarning):
        ask(name, make(model=model, host=server.address), **setting)
    assert len(server.predictions) == before + 2


@pytest.mark.parametrize(("name", "case"), covering(SOME, IS_ALLOWED))
def test_an_effort_that_is_allowed_or_not_known_to_be_otherwise_is_none(
    server: Emulator, name: str, case: tuple[str, str]
) -> None:
    (make, _), (model, effort) = METHODS[name], case
    with warnings.catch_warnings():
        warnings.simplefilter("error", LMStudioConfigWarning)
        ask(name, make(model=model, host=server.address, reasoning_effort=effort))


@pytest.mark.parametrize("name", SOME)
def test_the_server_is_asked_once_for_each_model_and_only_about_an_effort(name: str, listings: list[object]) -> None:
    make = METHODS[name][0]
    models = [ModelEntry(key=SWITCHED, reasoning_options=("off", "on")), ModelEntry(key=PLAIN)]
    with Emulator(models, auto_evict=False) as server:
        ask(name, make(model=SWITCHED, host=server.address))
        assert not listings
        for _ in range(2):
            llm = make(model=SWITCHED, host=server.address)
            ask(name, llm, reasoning_effort="none")
        assert len(listings) == 1
        for effort in ("none", "none"):  # a model of which the server lists nothing
            ask(name, make(model=PLAIN, host=server.address), reasoning_effort=effort)
        assert len(listings) == 2


def test_calls_at_once_ask_the_server_once(listings: list[object]) -> None:
    with Emulator([ModelEntry(key=SWITCHED, reasoning_options=("off", "on"))]) as server:
        llm = ChatLMStudio(model=SWITCHED, host=server.address, reasoning_effort="none")
        llm.batch(["Hello"] * 8)
        assert len(listings) == 1


def test_an_instance_is_found_by_its_identifier(listings: list[object]) -> None:
    with Emulator([ModelEntry(key=SWITCHED, reasoning_options=("off", "on"))]) as server:
        server.load(SWITCHED, identifier="mine")
        for model in ("mine", None):
            with pytest.warns(LMStudioConfigWarning, match="which allows 'off' and 'on': only models of"):
                ChatLMStudio(model=model, host=server.address, reasoning_effort="high").invoke("Hello")
        assert len(listings) == 1


def test_the_token_of_the_user_opens_the_list() -> None:
    token = "sk-lm-abcdefgh:0123456789abcdefghij"
    with Emulator([ModelEntry(key=SWITCHED, reasoning_options=("off", "on"))], tokens=[token]) as server:
        llm = ChatLMStudio(model=SWITCHED, host=server.address, api_token=SecretStr(token), reasoning_effort="high")
        with pytest.warns(LMStudioConfigWarning, match="it allows 'off' and 'on'"):
            llm.invoke("Hello")


NOTHING_KNOWN: dict[str, Any] = {
    "an older server": None,
    "another server": {"data": [{"id": SWITCHED, "object": "model"}]},
    "no object": ["models"],
    "no models": {"models": []},
    "no list": {"models": {SWITCHED: {}}},
    "odd models": {"models": [None, 1, {"key": SWITCHED}, {"key": SWITCHED, "capabilities": []}]},
    "odd efforts": {"models": [{"key": SWITCHED, "capabilities": {"reasoning": {"allowed_options": "off"}}}]},
    "no efforts": {"models": [{"key": SWITCHED, "capabilities": {"reasoning": None}}]},
    "numbers": {"models": [{"key": SWITCHED, "capabilities": {"reasoning": {"allowed_options": [1, None]}}}]},
}


@pytest.mark.parametrize("case", NOTHING_KNOWN)
def test_a_server_that_lists_no_efforts_is_no_error(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def list_models(_state: ServerState) -> Any:
        return NOTHING_KNOWN[case]

    monkeypatch.setattr(model_list, "GETS", {PATH: list_models} if case != "an older server" else {})
    with Emulator([SWITCHED]) as server, warnings.catch_warnings():
        warnings.simplefilter("error")
        ChatLMStudio(model=SWITCHED, host=server.address, reasoning_effort="high").invoke("Hello")


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let requests over HTTP hang, once a model is loaded; return what gets an item for each."""
    requests: list[Any] = []

    async def hang(*arguments: Any) -> Any:
        requests.append(arguments)
        await asyncio.Event().wait()

    monkeypatch.setattr(efforts, "get", hang)
    return requests


@pytest.mark.parametrize("make", [ChatLMStudio, LMStudio])
@in_virtual_time
async def test_a_call_waits_for_the_list_no_longer_than_it_may_take(make: Any, hanging: list[Any]) -> None:
    async with serving(Emulator([SWITCHED])) as host:
        llm = make(model=SWITCHED, host=host, reasoning_effort="high")
        call, loop = llm.ainvoke if make is ChatLMStudio else llm.acomplete, asyncio.get_running_loop()
        began = loop.time()
        await call("Hello", timeouts={"total_timeout": 9})
        assert loop.time() - began == pytest.approx(9, abs=1)
        with warnings.catch_warnings(action="error"):
            await call("Hello")
        assert len(hanging) == 1
        await llm.aclose()


@in_virtual_time
async def test_a_call_that_is_stopped_meanwhile_stops_and_the_next_one_asks_again(hanging: list[Any]) -> None:
    async with serving(Emulator([SWITCHED])) as host:
        llm = ChatLMStudio(model=SWITCHED, host=host, reasoning_effort="high")
        for number in (1, 2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(5):
                    await llm.ainvoke("Hello")
            assert len(hanging) == number
        await llm.aclose()


def test_a_server_that_answers_nothing_over_http_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: Any, **__: Any) -> Any:
        raise ConnectionResetError

    with Emulator([SWITCHED]) as server, warnings.catch_warnings():
        warnings.simplefilter("error")
        llm = ChatLMStudio(model=SWITCHED, host=server.address, reasoning_effort="high")
        llm.load()
        monkeypatch.setattr("asyncio.open_connection", refused)
        llm.invoke("Hello")
