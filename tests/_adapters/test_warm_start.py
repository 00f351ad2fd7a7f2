"""A warm start: after it, the first question processes only its own tokens, on every path of both frameworks."""

import asyncio
import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool

from lmstudio_integrations import AsyncClient, Chat, Client, LlmPredictionConfigDict
from lmstudio_integrations.client.models.state import KeptWarm
from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine
from lmstudio_integrations.errors import (
    LMStudioConnectionLostError,
    LMStudioError,
    LMStudioEvictionWarning,
    LMStudioPromptTemplateError,
    LMStudioTimeoutError,
    LMStudioValueError,
)
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from tests._adapters.hosts.servers import CHAT, addresses, chat_model, handle_of, known, servers
from tests.support.adapters import covering
from tests.support.gate import AT_THE_GATE
from tests.support.ports import free_port

SYSTEM, QUESTION = "You answer questions about the ferries of a small harbor.", "Where is pier 7?"


def pier(destination: str) -> str:
    """Return the pier of the ferries to a destination."""
    return f"Pier 7, {destination}."


PIER = FunctionTool.from_defaults(pier)
LIST = [("system", SYSTEM), ("user", "Hello"), ("assistant", "Hello!")]


@dataclass(frozen=True)
class Surface:
    """How one of the interfaces processes a prefix, and asks a question after it.

    Attributes:
        make: Makes the object.
        warm: Processes the prefix; the last argument is whether tools are part of it.
        ask: Asks the question; returns how many of its tokens were cached.
    """

    make: Callable[..., Any]
    warm: Callable[[Any, Any, bool], Any]
    ask: Callable[[Any, Any, bool], Any]


def cached_of(response: Any) -> int:
    """Return how many tokens of the prompt were cached, of a response of either framework."""
    if hasattr(response, "usage_metadata"):
        return int(response.usage_metadata["input_token_details"]["cache_read"])
    return int(response.raw["usage"]["prompt_tokens_details"]["cached_tokens"])


def _langchain(ainvoke: bool) -> Surface:
    def conversation(prefix: Any) -> list[Any]:
        return [*([SystemMessage(prefix)] if isinstance(prefix, str) else prefix or []), ("user", QUESTION)]

    def ask(model: Any, prefix: Any, has_tools: bool) -> int:
        bound = model.bind_tools([pier]) if has_tools else model
        messages = conversation(prefix)
        return cached_of(asyncio.run(bound.ainvoke(messages)) if ainvoke else bound.invoke(messages))

    def warm(model: Any, prefix: Any, has_tools: bool) -> None:
        given = {"warm": prefix, "tools": [pier] if has_tools else ()}
        assert (asyncio.run(model.aload(**given)) if ainvoke else model.load(**given)) is model

    return Surface(ChatLMStudio, warm, ask)


def _llama_index(is_async: bool) -> Surface:
    def messages_of(prefix: Any) -> list[ChatMessage]:
        if isinstance(prefix, str):
            return [ChatMessage(prefix, role="system")]
        return [ChatMessage(text, role=role) for role, text in prefix or ()]

    def ask(llm: Any, prefix: Any, has_tools: bool) -> int:
        messages = [*messages_of(prefix), ChatMessage(QUESTION)]
        tools = [PIER] if has_tools else []
        if is_async:
            return cached_of(asyncio.run(llm.achat_with_tools(tools, chat_history=messages)))
        return cached_of(llm.chat_with_tools(tools, chat_history=messages))

    def warm(llm: Any, prefix: Any, has_tools: bool) -> None:
        given = {
            "warm": prefix if prefix is None or isinstance(prefix, str) else messages_of(prefix),
            "tools": [PIER] if has_tools else (),
        }
        assert (asyncio.run(llm.aload(**given)) if is_async else llm.load(**given)) is llm

    return Surface(LMStudio, warm, ask)


def _native(is_async: bool) -> Surface:
    class Native:
        def __init__(self, model: str, host: str, **_: Any) -> None:
            self.model, self.host = model, host

        def run(self, use: Callable[[Any], Any]) -> Any:
            if not is_async:
                with Client(self.host) as client:
                    return use(client.llm.lazy_model(self.model))

            async def run() -> Any:
                async with AsyncClient(self.host) as client:
                    return await use(client.llm.lazy_model(self.model))

            return asyncio.run(run())

    def chat_of(prefix: Any) -> Chat | None:
        if prefix is None:
            return None
        turns = [("system", prefix)] if isinstance(prefix, str) else prefix
        return Chat.from_history({"messages": [{"role": role, "content": text} for role, text in turns]})

    def ask(model: Native, prefix: Any, has_tools: bool) -> int:
        chat = chat_of(prefix) or Chat()
        chat.add_user_message(QUESTION)
        tools = {"raw_tools": {"type": "toolArray", "tools": [PIER_DEFINITION]}} if has_tools else {}
        return int(model.run(lambda handle: handle.respond(chat, config=tools)).cached_tokens)

    def warm(model: Native, prefix: Any, has_tools: bool) -> None:
        given = prefix if isinstance(prefix, str) else chat_of(prefix)
        model.run(lambda handle: handle.warm(given, [pier] if has_tools else ()))

    return Surface(Native, warm, ask)


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

SURFACES = {
    f"{name}, {path}": make(path == "async")
    for name, make in (("native", _native), ("LangChain", _langchain), ("LlamaIndex", _llama_index))
    for path in ("sync", "async")
}
every_surface = pytest.mark.parametrize("surface", SURFACES.values(), ids=SURFACES)


@pytest.fixture
def server() -> Iterator[Emulator]:
    with Emulator([ModelEntry(key=CHAT)]) as emulator:
        yield emulator


def prompt_tokens(server: Emulator) -> list[int]:
    return [each.stats["promptTokensCount"] for each in server.predictions]


PREFIXES: dict[str, tuple[Any, bool]] = {
    "system prompt and tools": (SYSTEM, True),
    "system prompt": (SYSTEM, False),
    "messages and tools": (LIST, True),
    "tools": (None, True),
}


@pytest.mark.parametrize(("name", "what"), covering(SURFACES, PREFIXES))
def test_the_first_question_processes_only_its_own_tokens(name: str, what: str, server: Emulator) -> None:
    surface, (prefix, has_tools) = SURFACES[name], PREFIXES[what]
    model = surface.make(model=CHAT, host=server.address)
    surface.warm(model, prefix, has_tools)
    (warm,) = server.predictions
    assert (warm.config["maxTokens"], warm.stop_reason) == (1, "maxPredictedTokensReached")
    cached = surface.ask(model, prefix, has_tools)
    surface.ask(surface.make(model=CHAT, host=server.address), "Something else.", False)
    surface.ask(model, None, False)
    warmed, asked, _, alone = prompt_tokens(server)
    assert asked - cached == alone
    assert 0 < cached <= warmed
    assert server.predictions[0].tools == server.predictions[1].tools


@every_surface
def test_a_template_that_needs_a_question_gets_a_short_one(surface: Surface) -> None:
    rules = ({"when": {"role": "user"}, "then": [{"text": "Yes."}]}, {"then": [{"fault": "template"}]})
    with Emulator([ModelEntry(key=CHAT, rules=rules)]) as server:
        model = surface.make(model=CHAT, host=server.address)
        surface.warm(model, SYSTEM, True)
        assert [len(each.messages) for each in server.predictions] == [1, 2]
        assert surface.ask(model, SYSTEM, True) > 0


@every_surface
def test_errors_are_those_of_a_question(surface: Surface) -> None:
    with Emulator([ModelEntry(key=CHAT, rules=({"then": [{"fault": "template"}]},))]) as server:
        model = surface.make(model=CHAT, host=server.address)
        with pytest.raises(LMStudioPromptTemplateError):
            surface.warm(model, SYSTEM, False)
        with pytest.raises(LMStudioValueError, match="the system prompt is empty"):
            surface.warm(model, " ", False)
        assert all(len(each.messages) <= 2 for each in server.predictions)
    with pytest.raises(LMStudioError, match="is not reachable"):
        surface.warm(surface.make(model=CHAT, host=f"127.0.0.1:{free_port()}"), SYSTEM, False)


@pytest.mark.parametrize("count", [1, 2])
def test_of_several_hosts_those_that_have_the_model_loaded_are_warm(count: int) -> None:
    with servers((chat_model(preload=True),), (chat_model(preload=count == 2),)) as pair:
        ChatLMStudio(model=CHAT, host=addresses(pair)).load(warm=SYSTEM)
        assert [len(server.predictions) for server in pair] == [1, count - 1]


MODEL = ModelEntry(key=CHAT, slots=2, preload=True)


def failing(fault: str) -> ModelEntry:
    return ModelEntry(key=CHAT, slots=2, preload=True, rules=({"then": [{"fault": fault}]},))


def test_a_host_that_was_switched_off_since_it_was_asked_is_left_out() -> None:
    with servers((MODEL,), (MODEL,)) as pair:
        model = ChatLMStudio(model=CHAT, host=addresses(pair)).load()
        pair[1].stop()
        assert [status.loaded for status in known(model)] == [True, True]
        handle_of(model).warm(SYSTEM)
        assert [status.available for status in known(model)] == [True, False]
        assert len(pair[0].predictions) == 1
        model.load(warm=SYSTEM)


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        (["crash", None], None),
        (["template", None], None),
        (["template", "template"], LMStudioPromptTemplateError),
        (["crash", "template"], LMStudioError),
    ],
)
def test_an_error_of_one_host_is_raised_if_no_host_is_warm(
    faults: list[str | None], expected: type[Exception] | None
) -> None:
    with servers(*((failing(fault) if fault else MODEL,) for fault in faults)) as pair:
        model = ChatLMStudio(model=CHAT, host=addresses(pair))
        with pytest.raises(expected) if expected else contextlib.nullcontext():
            model.load(warm=SYSTEM)
        assert all(server.predictions for server in pair)


def test_the_settings_of_the_object_shape_the_prompt(server: Emulator) -> None:
    seen: list[float] = []
    model = ChatLMStudio(
        model=CHAT,
        host=server.address,
        max_tokens=50,
        enable_thinking=False,
        required_tool_fallback=True,
        on_prompt_progress=seen.append,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.load(warm=[HumanMessage("Hello")])
    (record,) = server.predictions
    assert record.config["maxTokens"] == 1
    assert record.messages == [{"role": "user", "content": "Hello"}]
    assert model.max_tokens == 50


@pytest.mark.parametrize("client_class", [Client, AsyncClient])
async def test_callbacks_of_questions_get_nothing_of_what_is_generated(server: Emulator, client_class: Any) -> None:
    progress: list[float] = []
    called: list[str] = []
    callbacks = ("on_message", "on_first_token", "on_prediction_fragment")
    warmed = (
        client_class(server.address)
        .llm.lazy_model(CHAT)
        .warm(
            SYSTEM,
            on_prompt_processing_progress=progress.append,
            **{name: lambda *_, name=name: called.append(name) for name in callbacks},
        )
    )
    if client_class is AsyncClient:
        await warmed
    assert not called
    assert progress[-1] == 1.0


def test_nothing_is_processed_unless_it_is_asked_for(server: Emulator) -> None:
    ChatLMStudio(model=CHAT, host=server.address).load()
    LMStudio(model=CHAT, host=server.address).load()
    assert not server.predictions


# Kept warm ------------------------------------------------------------------------------------------------------------


class _Kept:
    """Warms an object, or a native handle, and asks a question after the same system prompt, on one path."""

    def __init__(self, kind: str, server: Emulator | str, *, is_async: bool, **fields: Any) -> None:
        host = server if isinstance(server, str) else server.address
        self._is_async = is_async
        if kind == "native":
            self._model: Any = (AsyncClient if is_async else Client)(host).llm.lazy_model(CHAT, **fields)
            self._warm, self._ask = "warm", "respond"
            self._given = {"prefix": SYSTEM}
            self._question: Any = _chat_of(SYSTEM)
        else:
            self._model = (ChatLMStudio if kind == "LangChain" else LMStudio)(model=CHAT, host=host, **fields)
            self._given = {"warm": SYSTEM}
            self._warm = "aload" if is_async else "load"
            if kind == "LangChain":
                self._ask = "ainvoke" if is_async else "invoke"
                self._question = [SystemMessage(SYSTEM), ("user", QUESTION)]
            else:
                self._ask = "achat" if is_async else "chat"
                self._question = [ChatMessage(SYSTEM, role="system"), ChatMessage(QUESTION)]

    def run(self, *steps: Callable[["_Kept"], Any]) -> None:
        """Run steps; those of an async object in one event loop."""

        async def run() -> None:
            for step in steps:
                result = step(self)
                if asyncio.iscoroutine(result):
                    await result

        asyncio.run(run())

    def warm(self, *, keep: bool = True) -> Any:
        return getattr(self._model, self._warm)(**self._given, keep_warm=keep)

    def ask(self) -> Any:
        return getattr(self._model, self._ask)(self._question)


def _chat_of(system: str) -> Chat:
    chat = Chat(system)
    chat.add_user_message(QUESTION)
    return chat


KEPT = [(kind, is_async) for kind in ("native", "LangChain", "LlamaIndex") for is_async in (False, True)]
every_kept = pytest.mark.parametrize(("kind", "is_async"), KEPT)


def turns(server: Emulator) -> list[int]:
    """Return how many messages each prediction had: a prefix alone has one."""
    return [len(each.messages) for each in server.predictions]


@every_kept
@pytest.mark.parametrize("loaded_by", ["the call", "another program"])
def test_a_new_instance_processes_the_prefix_before_the_next_call(
    server: Emulator, kind: str, is_async: bool, loaded_by: str
) -> None:
    def replace(_: _Kept) -> None:
        server.unload(CHAT)
        if loaded_by == "another program":
            server.load(CHAT)

    _Kept(kind, server, is_async=is_async).run(_Kept.warm, _Kept.ask, replace, _Kept.ask, _Kept.ask)
    again = [1, 2, 1, 2, 2] if loaded_by == "the call" else [1, 2, 2, 1, 2]
    assert turns(server) == again  # one that another program has loaded is known by its first response
    (_, *further) = [each for each in server.predictions if len(each.messages) == 2]
    assert further[-1].stats["promptTokensCount"] > 0
    assert len({each.config["maxTokens"] for each in server.predictions if len(each.messages) == 1}) == 1


@every_kept
def test_a_prefix_is_kept_warm_only_where_that_is_asked_for_last(server: Emulator, kind: str, is_async: bool) -> None:
    kept = _Kept(kind, server, is_async=is_async)
    kept.run(_Kept.warm, lambda each: each.warm(keep=False), lambda _: server.unload(CHAT), _Kept.ask)
    assert turns(server) == [1, 1, 2]


def test_a_crash_of_the_model_and_a_restart_of_the_server_are_new_instances() -> None:
    crash = {"when": {"last": "^crash", "round": 1}, "then": [{"fault": "crash"}]}
    with Emulator([ModelEntry(key=CHAT, rules=(crash,))]) as server:
        model = ChatLMStudio(model=CHAT, host=server.address).load(warm=SYSTEM, keep_warm=True)
        with contextlib.suppress(LMStudioError):
            model.invoke("crash")
        model.invoke(QUESTION)
        asked = [each.messages[-1]["content"] for each in server.predictions]
        assert asked.count(SYSTEM) == 2
        assert asked[-2:] == [SYSTEM, QUESTION]


def test_what_a_load_of_this_program_has_evicted_is_not_kept_warm() -> None:
    with Emulator([ModelEntry(key=CHAT), ModelEntry(key="other")]) as emulator:
        model = ChatLMStudio(model=CHAT, host=emulator.address).load(warm=SYSTEM, keep_warm=True)
        other = ChatLMStudio(model="other", host=emulator.address)
        with pytest.warns(LMStudioEvictionWarning):
            other.invoke(QUESTION)
        model.invoke(QUESTION)
        assert [(each.model, len(each.messages)) for each in emulator.predictions] == [
            (CHAT, 1),
            ("other", 1),
            (CHAT, 1),
        ]
        assert emulator.predictions[-1].messages[0]["content"] == QUESTION


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (LMStudioPromptTemplateError("no"), 1),
        (LMStudioConnectionLostError("gone"), 2),
        (LMStudioTimeoutError("slow"), 2),
    ],
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
        model.model.state.kept_warm = KeptWarm(fail, model.model.state.reference)
        server.unload(CHAT)
        for _ in range(2):
            assert model.respond(QUESTION).content
    assert len(tried) == tries


def test_hosts_that_load_the_model_later_are_warm_as_well() -> None:
    with servers((chat_model(preload=True),), (chat_model(),)) as pair:
        model = ChatLMStudio(model=CHAT, host=addresses(pair)).load(warm=SYSTEM, keep_warm=True)
        pair[0].stop()
        model.invoke(QUESTION)
        assert [each.messages[-1]["content"] for each in pair[1].predictions] == [SYSTEM, QUESTION]


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
        model.model.state.instance = None
        model.get_processing_state()
        model.get_load_config()
        assert len(server.predictions) == 1


@pytest.mark.parametrize("keep", [True, False])
def test_the_last_prefix_counts_on_every_host(keep: bool) -> None:
    with servers((chat_model(preload=True),), (chat_model(),)) as pair:
        model = ChatLMStudio(model=CHAT, host=addresses(pair)).load(warm="An old prompt.", keep_warm=True)
        model.load(warm=SYSTEM, keep_warm=keep)
        pair[0].stop()
        model.invoke(QUESTION)
        asked = [each.messages[-1]["content"] for each in pair[1].predictions]
        assert asked == ([SYSTEM] if keep else []) + [QUESTION]


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
    held: list[bool] = []

    async def sleep(seconds: float) -> None:
        if held and seconds >= AT_THE_GATE["wait"]:
            await asyncio.Event().wait()

    slow = {"when": {"last": SYSTEM}, "then": [AT_THE_GATE, {"text": "Done."}]}
    with Emulator([ModelEntry(key=CHAT, rules=(slow,))], engines={"scripted": ScriptedEngine(sleep)}) as server:
        async with AsyncClient(server.address) as client:
            model = client.llm.lazy_model(CHAT)
            await model.warm(Chat.from_history({"messages": [{"role": "user", "content": SYSTEM}]}), keep_warm=True)
            await asyncio.to_thread(server.unload, CHAT)
            held.append(True)
            with pytest.raises(LMStudioTimeoutError):
                await model.respond(QUESTION, timeout=0.3)
            held.clear()
            await model.respond(QUESTION)
        assert [each.messages[-1]["content"] for each in server.predictions] == [SYSTEM, SYSTEM, SYSTEM, QUESTION]


@pytest.mark.parametrize("adapter", [ChatLMStudio, LMStudio])
def test_whether_to_keep_warm_is_checked_before_anything_is_loaded(server: Emulator, adapter: Any) -> None:
    for given in ({"keep_warm": True}, {"keep_warm": "no", "warm": SYSTEM}):
        with pytest.raises(LMStudioValueError, match="keep_warm"):
            adapter(model=CHAT, host=server.address).load(**given)
    assert not server.loads
