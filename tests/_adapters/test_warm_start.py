"""A warm start: after it, the first question processes only its own tokens, on every path of both frameworks."""

import asyncio
import contextlib
import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from llama_index.core.tools import FunctionTool

from lmstudio_integrations import AsyncClient, Chat, Client, LlmPredictionConfigDict
from lmstudio_integrations.client.concurrency.flows import Flow, run
from lmstudio_integrations.client.models.state import KeptWarm
from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine
from lmstudio_integrations.errors import (
    LMStudioConnectionLostError,
    LMStudioError,
    LMStudioEvictionWarning,
    LMStudioPromptTemplateError,
    LMStudioValueError,
)
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from tests._adapters.hosts.servers import CHAT, addresses, chat_model, known, native_model_of, servers
from tests._adapters.ways import METHODS, Turns, messages_of, metadata_of, whole
from tests.client.both import sync_client
from tests.support.adapters import covering
from tests.support.gate import AT_THE_GATE
from tests.support.ports import free_port
from tests.support.served import served

SYSTEM, QUESTION = "You answer questions about the ferries of a small harbor.", "Where is pier 7?"
LIST = [("system", SYSTEM), ("user", "Hello"), ("assistant", "Hello!")]


def pier(destination: str) -> str:
    """Return the pier of the ferries to a destination."""
    return f"Pier 7, {destination}."


PIER = FunctionTool.from_defaults(pier)
PIER_DEFINITION = {
    "type": "function",
    "function": {
        "name": "pier",
        "description": "Return the pier of the ferries to a destination.",
        "parameters": {
            "type": "object",
            "properties": {"destination": {"title": "Destination", "type": "string"}},
            "required": ["destination"],
            "additionalProperties": False,
        },
    },
}


def chat_of(turns: Turns) -> Chat:
    return Chat.from_history({"messages": [{"role": role, "content": text} for role, text in turns]})


class Native:
    """Processes a prefix with a handle, and asks a question after it."""

    def __init__(self, make_client: Any, host: str) -> None:
        self.model: Any = make_client(host).llm.lazy_model(CHAT)

    async def warm(self, prefix: str | Turns | None = SYSTEM, *, tools: bool = False, keep: bool = False) -> None:
        given = prefix if prefix is None or isinstance(prefix, str) else chat_of(prefix)
        await self.model.warm(given, [pier] if tools else (), keep_warm=keep)

    async def ask(self, turns: Turns = (("system", SYSTEM),), *, tools: bool = False) -> int:
        """Ask the question; return how many of its tokens were cached."""
        config = {"raw_tools": {"type": "toolArray", "tools": [PIER_DEFINITION]}} if tools else {}
        result = await self.model.respond(chat_of([*turns, ("user", QUESTION)]), config=config)
        return int(result.cached_tokens)


class Framework:
    """Does the same with a model of a framework."""

    def __init__(self, name: str, host: str) -> None:
        self.make, self.method = METHODS[name]
        self.is_async = name.startswith("a")
        self.model = self.make(model=CHAT, host=host)
        self.tool: Any = pier if self.make is ChatLMStudio else PIER

    async def warm(self, prefix: str | Turns | None = SYSTEM, *, tools: bool = False, keep: bool = False) -> None:
        warm = prefix if prefix is None or isinstance(prefix, str) else messages_of(self.make, prefix)
        given = {"warm": warm, "tools": [self.tool] if tools else (), "keep_warm": keep}
        loaded = await self.model.aload(**given) if self.is_async else await asyncio.to_thread(self.model.load, **given)
        assert loaded is self.model

    async def ask(self, turns: Turns = (("system", SYSTEM),), *, tools: bool = False) -> int:
        model, given, messages = self.model, dict[str, Any](), messages_of(self.make, [*turns, ("user", QUESTION)])
        if tools and self.make is ChatLMStudio:
            model = model.bind_tools([pier])
        elif tools:
            given = {"tools": [PIER.metadata.to_openai_tool()]}
        chunks = await asyncio.to_thread(self.method, model, messages, **given)
        return int(metadata_of(whole(chunks))["cached_tokens"])


SURFACES: dict[str, Callable[[str], Any]] = {
    "native": lambda host: Native(sync_client, host),
    "native, async": lambda host: Native(AsyncClient, host),
    **{name: partial(Framework, name) for name in ("invoke", "ainvoke", "chat", "achat")},
}
every_surface = pytest.mark.parametrize("make", SURFACES.values(), ids=SURFACES)

server = served([ModelEntry(key=CHAT)], scope="function")


PREFIXES: dict[str, tuple[Any, bool]] = {
    "system prompt and tools": (SYSTEM, True),
    "system prompt": (SYSTEM, False),
    "messages and tools": (LIST, True),
    "tools": (None, True),
}


@pytest.mark.parametrize(("name", "what"), covering(SURFACES, PREFIXES))
async def test_the_first_question_processes_only_its_own_tokens(name: str, what: str, server: Emulator) -> None:
    surface, (prefix, tools) = SURFACES[name](server.address), PREFIXES[what]
    await surface.warm(prefix, tools=tools)
    (warm,) = server.predictions
    assert (warm.config["maxTokens"], warm.stop_reason) == (1, "maxPredictedTokensReached")
    cached = await surface.ask([("system", prefix)] if isinstance(prefix, str) else prefix or [], tools=tools)
    await surface.ask([("system", "Something else.")])
    await surface.ask([])
    warmed, asked, _, alone = [each.stats["promptTokensCount"] for each in server.predictions]
    assert asked - cached == alone
    assert 0 < cached <= warmed
    assert server.predictions[0].tools == server.predictions[1].tools


async def test_a_template_that_needs_a_question_gets_a_short_one() -> None:
    rules = ({"when": {"role": "user"}, "then": [{"text": "Yes."}]}, {"then": [{"fault": "template"}]})
    with Emulator([ModelEntry(key=CHAT, rules=rules)]) as server:
        surface = SURFACES["ainvoke"](server.address)
        await surface.warm(tools=True)
        assert [len(each.messages) for each in server.predictions] == [1, 2]
        assert await surface.ask(tools=True) > 0


@every_surface
async def test_errors_are_those_of_a_question(make: Callable[[str], Any]) -> None:
    with Emulator([ModelEntry(key=CHAT, rules=({"then": [{"fault": "template"}]},))]) as server:
        surface = make(server.address)
        with pytest.raises(LMStudioPromptTemplateError):
            await surface.warm()
        with pytest.raises(LMStudioValueError, match="the system prompt is empty"):
            await surface.warm(" ")
        assert all(len(each.messages) <= 2 for each in server.predictions)
    with pytest.raises(LMStudioError, match="is not reachable"):
        await make(f"127.0.0.1:{free_port()}").warm()


@pytest.mark.leaf("hosts")
@pytest.mark.parametrize("count", [1, 2])
def test_of_several_hosts_those_that_have_the_model_loaded_are_warm(count: int) -> None:
    with servers((chat_model(preload=True),), (chat_model(preload=count == 2),)) as pair:
        ChatLMStudio(model=CHAT, host=addresses(pair)).load(warm=SYSTEM)
        assert [len(server.predictions) for server in pair] == [1, count - 1]


MODEL = ModelEntry(key=CHAT, slots=2, preload=True)


@pytest.mark.leaf("hosts")
def test_a_host_that_was_switched_off_since_it_was_asked_is_left_out() -> None:
    with servers((MODEL,), (MODEL,)) as pair:
        model = ChatLMStudio(model=CHAT, host=addresses(pair)).load()
        pair[1].stop()
        assert [status.loaded for status in known(model)] == [True, True]
        run(native_model_of(model).warm(SYSTEM, {}, (), keep_warm=False))
        assert [status.available for status in known(model)] == [True, False]
        assert len(pair[0].predictions) == 1


@pytest.mark.leaf("hosts")
@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        (["crash", None], None),
        (["template", "template"], LMStudioPromptTemplateError),
        (["crash", "template"], LMStudioError),
    ],
)
def test_an_error_of_one_host_is_raised_if_no_host_is_warm(
    faults: list[str | None], expected: type[Exception] | None
) -> None:
    models = [chat_model(preload=True, rules=({"then": [{"fault": each}]},) if each else ()) for each in faults]
    with servers(*((each,) for each in models)) as pair:
        model = ChatLMStudio(model=CHAT, host=addresses(pair))
        with pytest.raises(expected) if expected else contextlib.nullcontext():
            model.load(warm=SYSTEM)
        assert all(server.predictions for server in pair)


def test_the_settings_of_the_object_shape_the_prompt(server: Emulator) -> None:
    model = ChatLMStudio(
        model=CHAT, host=server.address, max_tokens=50, enable_thinking=False, on_prompt_progress=lambda _: None
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.load(warm=[HumanMessage("Hello")])
    (record,) = server.predictions
    assert (record.config["maxTokens"], record.config["enableThinking"]) == (1, False)
    assert record.messages == [{"role": "user", "content": "Hello"}]
    assert model.max_tokens == 50


async def test_callbacks_of_questions_get_nothing_of_what_is_generated(server: Emulator) -> None:
    progress: list[float] = []
    called: list[str] = []
    callbacks: dict[str, Any] = {
        name: lambda *_, name=name: called.append(name)
        for name in ("on_message", "on_first_token", "on_prediction_fragment")
    }
    async with AsyncClient(server.address) as client:
        model = client.llm.lazy_model(CHAT)
        await model.warm(SYSTEM, on_prompt_processing_progress=progress.append, **callbacks)
    assert not called
    assert progress[-1] == 1.0


def test_nothing_is_processed_unless_it_is_asked_for(server: Emulator) -> None:
    ChatLMStudio(model=CHAT, host=server.address).load()
    LMStudio(model=CHAT, host=server.address).load()
    assert not server.predictions


# Kept warm ------------------------------------------------------------------------------------------------------------


def turns(server: Emulator) -> list[int]:
    """Return how many messages each prediction had: a prefix alone has one."""
    return [len(each.messages) for each in server.predictions]


def asked(server: Emulator) -> list[str]:
    """Return the last message of each prediction."""
    return [each.messages[-1]["content"] for each in server.predictions]


@pytest.mark.parametrize(
    ("name", "loaded_by"), [*covering(SURFACES, ["the call", "another program"]), ("achat", "another program")]
)
async def test_a_new_instance_processes_the_prefix_before_the_next_call(
    server: Emulator, name: str, loaded_by: str
) -> None:
    surface = SURFACES[name](server.address)
    await surface.warm(keep=True)
    await surface.ask()
    await asyncio.to_thread(server.unload, CHAT)
    if loaded_by == "another program":
        await asyncio.to_thread(server.load, CHAT)
    await surface.ask()
    await surface.ask()
    again = [1, 2, 1, 2, 2] if loaded_by == "the call" else [1, 2, 2, 1, 2]
    assert turns(server) == again  # one that another program has loaded is known by its first response
    assert len({each.config["maxTokens"] for each in server.predictions if len(each.messages) == 1}) == 1


@every_surface
async def test_a_prefix_is_kept_warm_only_where_that_is_asked_for_last(
    server: Emulator, make: Callable[[str], Any]
) -> None:
    surface = make(server.address)
    await surface.warm(keep=True)
    await surface.warm(keep=False)
    await asyncio.to_thread(server.unload, CHAT)
    await surface.ask()
    assert turns(server) == [1, 1, 2]


def test_a_crash_of_the_model_and_a_restart_of_the_server_are_new_instances() -> None:
    crash = {"when": {"last": "^crash", "round": 1}, "then": [{"fault": "crash"}]}
    with Emulator([ModelEntry(key=CHAT, rules=(crash,))]) as server:
        model = ChatLMStudio(model=CHAT, host=server.address).load(warm=SYSTEM, keep_warm=True)
        with contextlib.suppress(LMStudioError):
            model.invoke("crash")
        model.invoke(QUESTION)
        assert asked(server).count(SYSTEM) == 2
        assert asked(server)[-2:] == [SYSTEM, QUESTION]


def test_what_a_load_of_this_program_has_evicted_is_not_kept_warm() -> None:
    with Emulator([ModelEntry(key=CHAT), ModelEntry(key="other")]) as emulator:
        model = ChatLMStudio(model=CHAT, host=emulator.address).load(warm=SYSTEM, keep_warm=True)
        other = ChatLMStudio(model="other", host=emulator.address)
        with pytest.warns(LMStudioEvictionWarning):
            other.invoke(QUESTION)
        model.invoke(QUESTION)
        assert [each.model for each in emulator.predictions] == [CHAT, "other", CHAT]
        assert asked(emulator) == [SYSTEM, QUESTION, QUESTION]


@pytest.mark.parametrize(
    ("error", "tries"), [(LMStudioPromptTemplateError("no"), 1), (LMStudioConnectionLostError("gone"), 2)]
)
def test_a_prefix_that_cannot_be_processed_again_fails_no_call(
    server: Emulator, error: LMStudioError, tries: int
) -> None:
    tried: list[ClientContext] = []

    def fail(context: ClientContext) -> Flow[None]:
        tried.append(context)
        yield from ()
        raise error

    with Client(server.address) as client:
        model = client.llm.lazy_model(CHAT)
        model.warm(SYSTEM, keep_warm=True)
        model._model.state.kept_warm = KeptWarm(fail, model._model.state.reference)
        server.unload(CHAT)
        for _ in range(2):
            assert model.respond(QUESTION).content
    assert len(tried) == tries


def test_the_progress_of_a_warm_start_is_reported_once(server: Emulator) -> None:
    progress: list[float] = []
    with Client(server.address) as client:
        model = client.llm.lazy_model(CHAT)
        model.warm(SYSTEM, keep_warm=True, on_prompt_processing_progress=progress.append)
        reported = [*progress]
        server.unload(CHAT)
        model.respond(QUESTION)
        assert (progress, len(server.predictions)) == (reported, 3)


def test_a_question_about_the_instance_processes_nothing(server: Emulator) -> None:
    with Client(server.address) as client:
        model = client.llm.model(CHAT)
        model.warm(SYSTEM, keep_warm=True)
        server.unload(CHAT)
        server.load(CHAT)
        model.get_context_length()  # now it knows that the instance is another one
        model._model.state.instance = None
        model.get_processing_state()
        model.get_load_config()
        assert len(server.predictions) == 1


@pytest.mark.leaf("hosts")
@pytest.mark.parametrize("keep", [True, False])
def test_the_last_prefix_counts_on_every_host_also_on_one_that_loads_the_model_later(keep: bool) -> None:
    with servers((chat_model(preload=True),), (chat_model(),)) as pair:
        model = ChatLMStudio(model=CHAT, host=addresses(pair)).load(warm="An old prompt.", keep_warm=True)
        model.load(warm=SYSTEM, keep_warm=keep)
        pair[0].stop()
        model.invoke(QUESTION)
        assert asked(pair[1]) == ([SYSTEM] if keep else []) + [QUESTION]


def test_what_was_a_prefix_then_is_processed_again(server: Emulator) -> None:
    chat, config = Chat(SYSTEM), LlmPredictionConfigDict(temperature=0.5)
    with Client(server.address) as client:
        model = client.llm.lazy_model(CHAT)
        model.warm(chat, keep_warm=True, config=config)
        chat.add_user_message("a secret")
        config["temperature"] = 1.0
        server.unload(CHAT)
        model.respond(QUESTION)
    first, again, _ = server.predictions
    assert (first.messages, first.config) == (again.messages, again.config)


async def test_a_prefix_is_part_of_the_call_and_is_processed_before_the_next_one_if_that_is_cut() -> None:
    is_held, is_reached = threading.Event(), threading.Event()

    async def sleep(seconds: float) -> None:
        if is_held.is_set() and seconds >= AT_THE_GATE["wait"]:
            is_reached.set()
            await asyncio.Event().wait()

    slow = {"when": {"last": SYSTEM}, "then": [AT_THE_GATE, {"text": "Done."}]}
    with Emulator([ModelEntry(key=CHAT, rules=(slow,))], engines={"scripted": ScriptedEngine(sleep)}) as server:
        async with AsyncClient(server.address) as client:
            model = client.llm.lazy_model(CHAT)
            await model.warm(chat_of([("user", SYSTEM)]), keep_warm=True)
            await asyncio.to_thread(server.unload, CHAT)
            is_held.set()
            call = asyncio.create_task(model.respond(QUESTION))
            assert await asyncio.to_thread(is_reached.wait, 600)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            is_held.clear()
            await model.respond(QUESTION)
        assert asked(server) == [SYSTEM, SYSTEM, SYSTEM, QUESTION]


@pytest.mark.parametrize("adapter", [ChatLMStudio, LMStudio])
def test_whether_to_keep_warm_is_checked_before_anything_is_loaded(server: Emulator, adapter: Any) -> None:
    for given in ({"keep_warm": True}, {"keep_warm": "no", "warm": SYSTEM}):
        with pytest.raises(LMStudioValueError, match="keep_warm"):
            adapter(model=CHAT, host=server.address).load(**given)
    assert not server.loads


@pytest.mark.parametrize("make", [ChatLMStudio, LMStudio])
@pytest.mark.parametrize("warm", [5, b"x", {"a": 1}, [5], [{"role": "user"}]], ids=repr)
async def test_what_is_no_prompt_cannot_be_processed_before(make: Any, warm: Any) -> None:
    model = make(model=CHAT, host="127.0.0.1:9")
    with pytest.raises(LMStudioValueError, match=r"^warm must be a string or .*; got "):
        model.load(warm=warm)
    with pytest.raises(LMStudioValueError, match=r"^warm must be a string or .*; got "):
        await model.aload(warm=warm)
