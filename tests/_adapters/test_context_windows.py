"""A prompt that does not fit into the context window is never cut in silence, on any way to generate."""

import asyncio
import pickle
import threading
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from langchain_core.exceptions import ContextOverflowError
from langchain_core.runnables import ConfigurableField

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.base import EngineError, LoadRequest, Progress
from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine, ScriptedModel
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioLLM
from lmstudio_integrations.llama_index import LMStudio
from lmstudio_integrations.types.results import LlmPredictionFragment
from tests._adapters.ways import METHODS, Method, messages_of, metadata_of, whole
from tests.client.both import sync_client
from tests.support.adapters import LANGUAGE_MODELS, covering
from tests.support.virtual_time import in_virtual_time, serving

WINDOW = 300
TURNS = [f"Turn {number}: " + "all of it matters " * 5 for number in range(41)]
"""Far more than the context window, and a multiple of what the model reads if it is cut."""

FITS = ["Hello"]

Metadata = Mapping[str, Any]
Way = Callable[[Any, Sequence[str], dict[str, Any]], Metadata]


def conversation(turns: Sequence[str]) -> list[tuple[str, str]]:
    return [("assistant" if number % 2 else "user", turn) for number, turn in enumerate(turns)]


def native(turns: Sequence[str]) -> Any:
    return {"messages": [{"role": role, "content": text} for role, text in conversation(turns)]}


def look_up(city: str) -> str:
    """Look the weather up."""
    return city


def chatting(method: Method) -> Way:
    return lambda llm, turns, given: metadata_of(
        whole(method(llm, messages_of(type(llm), conversation(turns)), **given))
    )


def info(result: Any) -> Metadata:
    found: Metadata = result.generations[0][0].generation_info
    return found


TEXT: dict[str, Way] = {
    "generate": lambda llm, turns, given: info(llm.generate(["\n".join(turns)], **given)),
    "agenerate": lambda llm, turns, given: info(asyncio.run(llm.agenerate(["\n".join(turns)], **given))),
    "streaming": lambda llm, turns, given: info(llm.generate(["\n".join(turns)], streaming=True, **given)),
}
COMPLETE: dict[str, Way] = {
    "complete": lambda llm, turns, given: metadata_of(llm.complete("\n".join(turns), formatted=True, **given)),
    "acomplete": lambda llm, turns, given: metadata_of(
        asyncio.run(llm.acomplete("\n".join(turns), formatted=True, **given))
    ),
}
WAYS: dict[str, tuple[Any, Way]] = {
    **{name: (make, chatting(method)) for name, (make, method) in METHODS.items()},
    **{name: (LMStudioLLM, way) for name, way in TEXT.items()},
    **{name: (LMStudio, way) for name, way in COMPLETE.items()},
}
every_way = pytest.mark.parametrize(("make", "way"), WAYS.values(), ids=WAYS)
SOME = ("astream", "generate", "chat", "acomplete")
some_ways = pytest.mark.parametrize(("make", "way"), [WAYS[name] for name in SOME], ids=SOME)


def rule(fault: dict[str, Any], **when: Any) -> dict[str, Any]:
    return {"when": when, "then": [fault, {"text": "An answer."}]}


MODELS = [
    ModelEntry(key="honest", context_length=WINDOW, max_context_length=8192),
    ModelEntry(key="cuts", vision=True, context_length=WINDOW, rules=(rule({"fault": "truncate"}),)),
    ModelEntry(key="empty", context_length=WINDOW, rules=(rule({"fault": "empty"}),)),
    ModelEntry(key="mute", context_length=8192, rules=({"then": [{"text": "so it goes on and on " * 100}]},)),
    ModelEntry(key="endless", context_length=WINDOW, rules=({"then": [{"text": "on and on " * 200}]},)),
    ModelEntry(key="strict", rules=(rule({"fault": "template"}, late_system=True),)),
    ModelEntry(key="lenient"),
]


def _without_text(generate: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
    async def generate_none(*args: Any) -> AsyncIterator[Any]:
        async for event in generate(*args):
            if not isinstance(event, LlmPredictionFragment):
                yield event

    return generate_none


class CheckedEngine(ScriptedEngine):
    """Records what it renders and counts besides predictions: the requests of a check.

    Attributes:
        requests: What has been requested.
        before: Is awaited before each one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[str] = []
        self.before: Callable[[str], Awaitable[object]] | None = None

    async def load(self, request: LoadRequest, on_progress: Progress) -> ScriptedModel:
        """Load a model."""
        model: Any = await super().load(request, on_progress)
        if request.key == "mute":
            model.generate = _without_text(model.generate)
        model.apply_template = self._recorded("apply_template", model.apply_template)
        model.tokenize = self._recorded("tokenize", model.tokenize)
        found: ScriptedModel = model
        return found

    def _recorded(self, name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def recorded(*args: Any) -> Any:
            self.requests.append(name)
            if self.before is not None:
                await self.before(name)
            return await method(*args)

        return recorded


ENGINE = CheckedEngine()


def emulator_of(*models: ModelEntry, **settings: Any) -> Emulator:
    return Emulator(models, engines={"scripted": ENGINE}, auto_evict=False, **settings)


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    preset = {"identifier": "mine", "contextOverflowPolicy": "rollingWindow"}
    catalog = {"model": MODELS, "preset": [preset]}
    with Emulator(catalog=catalog, engines={"scripted": ENGINE}, auto_evict=False) as running:
        yield running


@pytest.fixture(autouse=True)
def requests() -> Iterator[list[str]]:
    """The requests that a check makes."""
    ENGINE.requests.clear()
    yield ENGINE.requests
    ENGINE.before = None


@every_way
def test_a_prompt_that_does_not_fit_is_an_error_with_the_numbers(server: Emulator, make: Any, way: Way) -> None:
    llm = make(model="honest", host=server.address)
    with pytest.raises(lms.LMStudioContextOverflowError, match=f"a context length of {WINDOW}") as caught:
        way(llm, TURNS, {})
    assert caught.value.limit == WINDOW
    assert caught.value.used is not None
    assert caught.value.used > WINDOW
    assert isinstance(caught.value, ContextOverflowError) is (make is not LMStudio)
    assert "load the model with context_length=" in str(caught.value)


@every_way
@pytest.mark.parametrize("checks", [True, False])
def test_an_empty_response_to_a_prompt_beyond_the_window_is_an_error_with_the_servers_numbers(
    server: Emulator, make: Any, way: Way, checks: bool, requests: list[str]
) -> None:
    llm = make(model="empty", host=server.address, check_context=checks)
    with pytest.raises(lms.LMStudioContextOverflowError, match=f"a context length of {WINDOW}") as caught:
        way(llm, TURNS, {})
    assert caught.value.used == server.predictions[-1].stats["promptTokensCount"] > WINDOW
    assert requests == [], "nothing is counted again"


@pytest.mark.leaf("context_check")
@every_way
def test_a_server_that_cuts_in_silence_is_noticed(server: Emulator, make: Any, way: Way, requests: list[str]) -> None:
    llm, is_text = make(model="cuts", host=server.address), way in (*TEXT.values(), *COMPLETE.values())
    with pytest.warns(lms.LMStudioTruncationWarning, match=r"the server dropped \d+ of the \d+ tokens of the prompt"):
        metadata = way(llm, TURNS, {})
    assert requests == (["tokenize"] if is_text else ["apply_template", "tokenize"])
    handle = lms.Client(server.address).llm.model("cuts")
    sent = handle.count_tokens("\n".join(TURNS)) if is_text else handle.get_context_use(native(TURNS)).used
    assert metadata["dropped_tokens"] + server.predictions[-1].stats["promptTokensCount"] >= sent
    assert metadata["finish_reason"] == "stop"


@pytest.mark.leaf("context_check")
@every_way
@pytest.mark.parametrize(("limit", "counted", "finish_reason"), [(None, 602, "stop"), (300, 300, "length")])
def test_a_server_that_counts_a_response_and_sends_none_is_noticed(
    server: Emulator, make: Any, way: Way, limit: int | None, counted: int, finish_reason: str
) -> None:
    with pytest.warns(lms.LMStudioTruncationWarning, match=f"has counted {counted} tokens of a response and sent none"):
        metadata = way(make(model="mute", host=server.address, max_tokens=limit), FITS, {})
    assert metadata["finish_reason"] == finish_reason


@some_ways
def test_a_short_response_without_text_is_none_that_is_lost(server: Emulator, make: Any, way: Way) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        way(make(model="mute", host=server.address, max_tokens=99), FITS, {})


@some_ways
def test_a_short_prompt_costs_no_further_request(server: Emulator, make: Any, way: Way, requests: list[str]) -> None:
    for model in ("cuts", "empty"):
        assert "dropped_tokens" not in way(make(model=model, host=server.address), FITS, {})
    assert requests == []


@pytest.mark.leaf("context_check")
@some_ways
@pytest.mark.parametrize("policy", ["truncateMiddle", "rollingWindow"])
def test_a_policy_that_cuts_reports_what_it_dropped_without_a_warning(
    server: Emulator, make: Any, way: Way, policy: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metadata = way(
            make(model="honest", host=server.address), TURNS, {"prediction_config": {"context_overflow_policy": policy}}
        )
    assert metadata["dropped_tokens"] > WINDOW


OWN_POLICIES: dict[str, tuple[dict[str, Any], str | None]] = {
    "the default": ({}, "stopAtLimit"),
    "none": ({"prediction_config": {"context_overflow_policy": None}}, None),
    "chosen": ({"prediction_config": {"context_overflow_policy": "truncateMiddle"}}, "truncateMiddle"),
    "a preset": ({"preset": "mine"}, "rollingWindow"),
    "chosen beside a preset": (
        {"preset": "mine", "prediction_config": {"context_overflow_policy": "stopAtLimit"}},
        "stopAtLimit",
    ),
    "none beside a preset": (
        {"preset": "mine", "prediction_config": {"context_overflow_policy": None}},
        "rollingWindow",
    ),
    "by key": (
        {"prediction_config": {"raw": {"llm.prediction.contextOverflowPolicy": "truncateMiddle"}}},
        "truncateMiddle",
    ),
}


@pytest.mark.parametrize("as_field", [True, False])
@pytest.mark.parametrize(("name", "own"), covering(LANGUAGE_MODELS, OWN_POLICIES))
def test_the_policy_is_the_users_if_there_is_one(server: Emulator, name: str, own: str, as_field: bool) -> None:
    adapter, (settings, policy) = LANGUAGE_MODELS[name], OWN_POLICIES[own]
    fields, given = (settings, {}) if as_field else ({}, settings)
    adapter.call(adapter.make(model="honest", host=server.address, **fields), "Hello", **given)
    assert server.predictions[-1].config.get("contextOverflowPolicy") == policy


RESTORED: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "configured": (
        ChatLMStudio,
        lambda llm: llm.configurable_fields(temperature=ConfigurableField(id="t")).with_config(configurable={"t": 0}),
    ),
    "pickled": (LMStudio, lambda llm: pickle.loads(pickle.dumps(llm))),
}
"""Ways to make an object from all the fields of another one."""


@pytest.mark.parametrize(("make", "restore"), RESTORED.values(), ids=RESTORED)
@pytest.mark.parametrize("preset", ["mine", None])
def test_the_default_policy_stays_the_default_of_an_object_that_is_made_from_another(
    server: Emulator, make: Any, restore: Callable[[Any], Any], preset: str | None
) -> None:
    llm = restore(make(model="honest", host=server.address, preset=preset))
    llm.complete("Hello") if make is LMStudio else llm.invoke("Hello")
    assert server.predictions[-1].config["contextOverflowPolicy"] == ("rollingWindow" if preset else "stopAtLimit")


@some_ways
def test_what_the_server_says_can_be_trusted_on_request(
    server: Emulator, make: Any, way: Way, requests: list[str]
) -> None:
    assert "dropped_tokens" not in way(make(model="cuts", host=server.address), TURNS, {"check_context": False})
    assert requests == []


@some_ways
def test_a_response_that_reaches_the_end_of_the_window_is_of_that_length(server: Emulator, make: Any, way: Way) -> None:
    assert way(make(model="endless", host=server.address), FITS, {})["finish_reason"] == "length"


@pytest.mark.parametrize("name", METHODS)
def test_an_overflow_completes_what_the_object_knows_of_the_model(name: str) -> None:
    make, way = WAYS[name]
    with Emulator([ModelEntry(key="m", context_length=WINDOW)]) as server:
        llm = make(model="m", host=server.address)
        with pytest.raises(lms.LMStudioContextOverflowError):
            way(llm, TURNS, {})
        assert (llm.profile["max_input_tokens"] if make is ChatLMStudio else llm.metadata.context_window) == WINDOW


# A check that fails ---------------------------------------------------------------------------------------------------


async def test_a_check_that_fails_leaves_the_response(server: Emulator) -> None:
    async def fail(_: str) -> None:
        raise EngineError("unknown endpoint")

    ENGINE.before = fail
    response = await ChatLMStudio(model="cuts", host=server.address).ainvoke(conversation(TURNS))
    assert response.text == "An answer."
    assert "dropped_tokens" not in response.response_metadata


@pytest.mark.leaf("context_check")
def test_a_check_loads_no_model(server: Emulator, requests: list[str]) -> None:
    ENGINE.before = lambda _: asyncio.to_thread(server.unload, "cuts")
    assert ChatLMStudio(model="cuts", host=server.address).invoke(conversation(TURNS)).text == "An answer."
    assert requests == ["apply_template"]
    assert "cuts" not in [instance.identifier for instance in server.loaded()]


@pytest.mark.leaf("context_check")
@pytest.mark.parametrize(("seconds", "expected"), [(None, 5.0), (60.0, 5.0), (1.5, 1.5)])
@in_virtual_time
async def test_a_server_that_does_not_answer_the_check_holds_nobody(seconds: float | None, expected: float) -> None:
    asked_at: list[float] = []

    async def wait_for_ever(_: str) -> None:
        asked_at.append(time.monotonic())
        await asyncio.Event().wait()

    ENGINE.before = wait_for_ever
    async with serving(emulator_of(MODELS[1])) as host:
        async with ChatLMStudio(model="cuts", host=host, timeouts={"idle_timeout": seconds}) as llm:
            assert (await llm.ainvoke(conversation(TURNS))).text == "An answer."
        assert time.monotonic() - asked_at[0] == pytest.approx(expected, abs=0.5)


@pytest.mark.leaf("context_check")
@pytest.mark.parametrize("make_client", [sync_client, lms.AsyncClient])
async def test_a_stream_that_is_cancelled_during_the_check_keeps_its_response(
    server: Emulator, make_client: Any
) -> None:
    checking = threading.Event()

    async def wait_for_ever(_: str) -> None:
        checking.set()
        await asyncio.Event().wait()

    ENGINE.before = wait_for_ever
    async with make_client(server.address) as client:
        stream = client.llm.lazy_model("cuts").respond_stream(native(TURNS), check_context=True)
        reading = asyncio.create_task(stream.wait_for_result())
        assert await asyncio.to_thread(checking.wait, 600)
        stream.cancel()
        assert (await reading).content == "An answer."


@pytest.mark.leaf("hosts")
def test_the_host_that_responded_is_asked() -> None:
    with emulator_of(MODELS[1]) as other, emulator_of(MODELS[1]) as server:
        llm = LMStudio(model="cuts", host=[other.address, server.address])
        with pytest.warns(lms.LMStudioTruncationWarning):
            assert WAYS["chat"][1](llm, TURNS, {})["dropped_tokens"]
        assert len(other.predictions) + len(server.predictions) == 1


@pytest.mark.leaf("context_check")
async def test_the_native_client_checks_on_request(server: Emulator) -> None:
    async with lms.AsyncClient(server.address) as client:
        model = await client.llm.model("cuts")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert (await model.respond(native(TURNS))).stats.dropped_tokens is None
        with pytest.warns(lms.LMStudioTruncationWarning):
            assert (await model.respond(native(TURNS), check_context=True)).stats.dropped_tokens
        with pytest.warns(lms.LMStudioTruncationWarning):
            await model.act(lms.Chat.from_history(native(TURNS)), [look_up], check_context=True)


# System messages in the middle of a conversation ---------------------------------------------------------------------

ROLES = ["system", "user", "assistant", "system", "user"]
LATE = [*zip(ROLES, ["Be brief.", "Hello", "Hi.", "Be polite.", "Bye"], strict=True)]


def roles(server: Emulator) -> list[str]:
    return [message["role"] for message in server.predictions[-1].messages]


@pytest.mark.parametrize("name", ["invoke", "astream", "chat", "achat"])
@pytest.mark.parametrize(("model", "stays"), [("lenient", True), ("strict", False)])
def test_a_late_system_message_stays_where_the_template_takes_it(
    server: Emulator, name: str, model: str, stays: bool
) -> None:
    make, method = METHODS[name]
    llm = make(model=model, host=server.address)
    for _ in range(2):
        method(llm, messages_of(make, LATE))
        assert roles(server) == (ROLES if stays else ["system", "user", "assistant", "user"])
    if make is ChatLMStudio:
        assert llm.profile["mid_conversation_system_messages"] is stays
        assert llm.get_num_tokens_from_messages(messages_of(make, LATE)) > 0


def test_another_failure_is_not_taken_for_an_answer_about_the_template() -> None:
    async def fail_once(_: str) -> None:
        ENGINE.before = None
        raise EngineError("the server is busy")

    with emulator_of(ModelEntry(key="lenient")) as server:
        llm = ChatLMStudio(model="lenient", host=server.address)
        ENGINE.before = fail_once
        llm.invoke(LATE)
        assert roles(server) == ["system", "user", "assistant", "user"]
        llm.invoke(LATE)
        assert roles(server) == ROLES
