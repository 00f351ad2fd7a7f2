"""The program of a seed: some clients that make calls, while things go wrong, and what must hold afterwards."""

import asyncio
import contextlib
import gc
import logging
import random
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, TypeVar

import lmstudio_integrations as lms
from lmstudio_integrations.client.concurrency.cancel_scope import CancelScope
from lmstudio_integrations.client.embeddings import EmbeddingRequest
from lmstudio_integrations.emulator.engines.scripted.words import embed
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings
from lmstudio_integrations.llama_index import LMStudio
from lmstudio_integrations.types.config import LoadPolicy
from tests.client.both import Awaited, at_once, finish
from tests.simulation.session import ViolationError, WatchedSession
from tests.simulation.threads import InterruptibleFuture, sleep_in_thread
from tests.simulation.world import AT_LENGTH, DIMENSIONS, FAULTS, World, count_events, response_to, simulation
from tests.support.embedding import embed_texts
from tools.leaves import has_leaf

T = TypeVar("T")

DEADLINE = 3_600.0
"""Virtual seconds after which a call is stuck. Its own limits end it far earlier."""

MOST_OPERATIONS = 30
TIMEOUTS: dict[str, tuple[float, ...]] = {
    "connect_timeout": (10.0,),
    "load_timeout": (30.0,),
    "queue_timeout": (60.0, 60.0, 8.0),
    "first_token_timeout": (60.0,),
    "idle_timeout": (30.0, 30.0, 3.0),
    "total_timeout": (300.0, 300.0, 15.0),
    "keepalive": (1.0, 2.0, 20.0),
}
"""The shortest ones are longer than the pauses of a response, and shorter than some responses, and than a queue."""

IN_ONE_OPERATION = {"respond", "count", "load", "list"}
"""Calls that the total timeout ends."""
HOSTS = (1, 1, 2, 3) if has_leaf("hosts") else (1,)

OF_NETWORKS = (lms.LMStudioConnectionLostError, lms.LMStudioUnreachableError, lms.LMStudioTimeoutError)
"""What faults of the network may cause."""
RELOADS = 3
"""How often a call loads a model again that was unloaded."""

_FIT: LoadPolicy = "fit" if has_leaf("planning") else "explicit"
POLICIES: tuple[LoadPolicy, ...] = ("get_or_load", "get_or_load", "explicit", _FIT, "new_instance")

KINDS = (
    *("respond", "stream", "leave", "stop", "cancel", "act", "embed", "rerank", "count", "list", "load", "unload"),
    *("close", "close_in_a_call", "together", "scope", "langchain", "llama_index", "vectors"),
)
IN_THE_LOOP = {"cancel", "embed", "together", "scope", "close", "close_in_a_call"}
"""Kinds that begin calls, and wait for them as coroutines in each case."""
_LEAF_OF = {"act": "tool_loop", "rerank": "decisions"}


@dataclass
class Call:
    """What decides on the errors that a call may have.

    Attributes:
        since: When it began.
        ports: The servers that it may use.
        keys: The models that it uses.
        ends: How many instances of these must have ended since before it fails because of that: the one that it has
            found, and each one that it has loaded again. Once a response has begun, and without a reload, one suffices.
        earlier: How many that ended earlier it may still try to use.
    """

    since: float
    ports: list[int]
    keys: set[str] = field(default_factory=set[str])
    ends: int = 1 + RELOADS
    earlier: int = 0


class Player:
    """One client and its calls.

    Args:
        world: Where it plays.
        name: Stands for it in the trace, and is a part of what it says.
        in_threads: Whether its calls are made in threads, by the sync client, or by coroutines.
    """

    def __init__(self, world: World, name: str, *, in_threads: bool) -> None:
        self._world = world
        self._name = name
        self._in_threads = in_threads
        self._random = random.Random(world.random.random())
        self._calls = 0
        self._port = 0
        self._timeouts: Any = {name: self._random.choice(seconds) for name, seconds in TIMEOUTS.items()}
        self.client: Any = self._new_client()
        self._call = Call(world.loop.time(), [self._port])
        settings: dict[str, Any] = {"host": [f"127.0.0.1:{port}" for port in world.ports], "timeouts": self._timeouts}
        self._max_retries = self._random.choice([0, 2])
        self._adapters = [
            ChatLMStudio(model="chat", max_retries=self._max_retries, **settings),
            LMStudio(model="other", **settings),
            LMStudioEmbeddings(model="vectors", **settings),
        ]
        self._chat, self._llm, self._embeddings = map(self._dressed, self._adapters)
        self._kinds: dict[str, Callable[[str], Coroutine[Any, Any, str]]] = {
            kind: getattr(self, f"_{kind}") for kind in KINDS if kind not in _LEAF_OF or has_leaf(_LEAF_OF[kind])
        }

    async def play(self, operations: int) -> None:
        for _ in range(operations):
            await asyncio.sleep(self._random.choice([0, 0.01, 1, 10]))
            await self.call(self._random.choice([*self._kinds]))

    async def call(self, kind: str, *, must_work: bool = False) -> None:
        """Make a call, and check how it ends."""
        self._calls += 1
        said = f"{self._name}-{self._calls}" + ("" if must_work else self._random.choice(["", "", "", AT_LENGTH]))
        self._call = Call(self._world.loop.time(), [self._port])
        try:
            async with asyncio.timeout(DEADLINE):
                outcome = await self._begin_kind(kind, said)
        except lms.LMStudioError as error:
            outcome = type(error).__name__
            if must_work or not self._may_fail_with(error):
                raise ViolationError(f"{kind} {said} failed with {error!r}") from error
        except TimeoutError as error:
            raise ViolationError(f"{kind} {said} is stuck") from error
        if kind in IN_ONE_OPERATION and self._elapsed > self._timeouts["total_timeout"] + 2:
            raise ViolationError(f"{kind} {said} has taken {self._elapsed} s")
        self._world.note(f"{said} {kind}: {outcome}")

    @property
    def _elapsed(self) -> float:
        return self._world.loop.time() - self._call.since

    def _may_fail_with(self, error: lms.LMStudioError) -> bool:
        world, call = self._world, self._call
        is_blamed = world.is_network_to_blame(call.ports, call.since)
        if isinstance(error, lms.LMStudioTimeoutError) and error.timeout_name == "total_timeout":
            return bool(self._elapsed >= self._timeouts["total_timeout"])
        if isinstance(error, lms.LMStudioTimeoutError) and error.timeout_name == "queue_timeout":
            return is_blamed or count_events(world.substitutes, call.ports, call.keys, call.since) > 0
        if isinstance(error, OF_NETWORKS):
            return is_blamed
        if not isinstance(error, lms.LMStudioModelUnloadedError | lms.LMStudioModelNotFoundError):
            return False
        # Each server to which a call moves may have lost the instance that its adapter used there.
        earlier = call.earlier * (len(call.ports) * (1 + self._max_retries) if is_blamed else 1)
        since = count_events(world.ends, call.ports, call.keys, call.since)
        before = count_events(world.ends, call.ports, call.keys, 0) - since
        return since + min(before, earlier) >= call.ends

    async def close(self) -> None:
        await self._begin(self.client.aclose())
        for adapter in (self._chat, self._llm, self._embeddings):
            await self._begin(adapter.aclose())

    def _new_client(self) -> Any:
        self._port = self._random.choice(self._world.ports)
        make = lms.Client if self._in_threads else lms.AsyncClient
        return self._dressed(make(f"127.0.0.1:{self._port}", **self._timeouts))

    def _dressed(self, used: Any) -> Any:
        """Give what is used in threads the interface of coroutines."""
        return Awaited(used, at_once) if self._in_threads else used

    def _method(self, adapter: Any, name: str) -> Any:
        return getattr(adapter, name if self._in_threads else f"a{name}")

    def _begin(self, body: Coroutine[Any, Any, T], context: Context | None = None) -> "asyncio.Future[T]":
        """Begin what makes calls, in a task or in a thread; whoever cancels a thread raises an exception into it."""
        if not self._in_threads:
            return asyncio.create_task(body, context=context)
        within = context or copy_context()
        return InterruptibleFuture.of(self._world.loop, lambda: within.run(finish, body))

    def _begin_kind(self, kind: str, said: str) -> "asyncio.Future[str]":
        body = self._kinds[kind](said)
        return asyncio.ensure_future(body) if kind in IN_THE_LOOP else self._begin(body)

    async def _sleep(self, seconds: float) -> None:
        if self._in_threads:
            sleep_in_thread(self._world.loop, seconds)
        else:
            await asyncio.sleep(seconds)

    def _model(self) -> Any:
        key, policy = self._random.choice(["chat", "other"]), self._random.choice(POLICIES)
        if policy == "new_instance":
            self._call.ends = 1
        self._call.keys = {key}
        ttl = self._random.choice([None, 5.0]) if policy == "get_or_load" else 5.0
        return self.client.llm.lazy_model(key, ttl=ttl, load_policy=policy)

    def _use_adapter(self, key: str) -> None:
        self._call.ports, self._call.keys, self._call.earlier = self._world.ports, {key}, 1

    async def _respond(self, said: str) -> str:
        result = await self._model().respond(said)
        return _checked(result.content, response_to(said))

    async def _stream(self, said: str) -> str:
        pause, parts = self._random.choice([0, 0, 0.2, 40]), []
        async with self._model().respond_stream(said) as stream:
            async for fragment in stream:
                self._call.ends = 1
                parts.append(fragment.content)
                if pause and self._random.random() < 0.2:
                    await self._sleep(pause)
            result = stream.result()
        _checked("".join(parts), result.content)
        return _checked(result.content, response_to(said))

    async def _leave(self, said: str) -> str:
        most, parts = self._random.randrange(4), []
        async with self._model().respond_stream(said) as stream:
            async for fragment in stream:
                self._call.ends = 1
                parts.append(fragment.content)
                if len(parts) > most:
                    break
        return _checked_beginning("".join(parts), said)

    async def _stop(self, said: str) -> str:
        """Ask the server to stop, perhaps several times, and read what has arrived by then."""
        most, parts = self._random.randrange(4), []
        async with self._model().respond_stream(said) as stream:
            async for fragment in stream:
                self._call.ends = 1
                parts.append(fragment.content)
                if len(parts) > most:
                    for _ in range(self._random.choice([1, 2])):
                        stream.cancel()
            result = stream.result()
        if result.end.stop_reason not in {"userStopped", "eosFound"}:
            raise ViolationError(f"a stream that was stopped ended by {result.end.stop_reason}")
        _checked("".join(parts), result.content)
        return _checked_beginning(result.content, said)

    async def _cancel(self, said: str) -> str:
        kind = self._random.choice(sorted(self._kinds.keys() - {"cancel", "close", "close_in_a_call"}))
        task = self._begin_kind(kind, said)
        await self._wait_for_something()
        task.cancel()
        try:
            return f"{kind}, too late: {await task}"
        except asyncio.CancelledError:
            return kind

    async def _wait_for_something(self) -> None:
        """Wait until something happens, or soon after."""
        for _ in range(self._random.choice([0, 1, 3, 10, 40])):
            await asyncio.sleep(min(self._world.loop.seconds_to_next_timer(), 1))
        for _ in range(self._random.randrange(6)):
            await asyncio.sleep(0)

    async def _act(self, said: str) -> str:
        calls: list[str] = []

        def look_up(word: str) -> str:
            """Look up a word."""
            calls.append(word)
            return f"<{word}>"

        messages: list[Any] = []
        await self._model().act(said, [look_up], on_message=messages.append)
        if calls != [said]:
            raise ViolationError(f"the tool was called with {calls}")
        return _checked(str(messages[-1].content[0].text), f'Found "<{said}>"')

    async def _together(self, said: str) -> str:
        """Use one handle in several calls at once; some of them are cancelled, also the one that loads the model."""
        model, count = self._model(), self._random.choice([2, 4, 6])
        calls = [self._begin(model.respond(said)) for _ in range(count)]
        try:
            for call in calls[self._random.randrange(count) :: 2]:
                await self._wait_for_something()
                call.cancel()
            results = await asyncio.gather(*calls, return_exceptions=True)
        finally:
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
        errors = [result for result in results if isinstance(result, Exception)]
        if len(set(map(id, errors))) < len(errors):
            raise ViolationError(f"several calls have raised one exception: {errors}")
        for result in results:
            if isinstance(result, Exception):
                raise result
            if not isinstance(result, BaseException):
                _checked(result.content, response_to(said))
        return f"{count} calls"

    async def _scope(self, said: str) -> str:
        """Cancel a scope with calls in it, perhaps in one inside of it; what is called there later fails at once."""
        scope = CancelScope("a scope")
        inside = self._random.choice([scope, scope.context().run(CancelScope, "a scope inside of it")])
        model = self._model()
        calls = [self._begin(model.respond(said), inside.context()) for _ in range(2)]
        try:
            await self._wait_for_something()
            scope.cancel()
            cancelled_at = self._world.loop.time()
            calls.append(self._begin(model.respond(said), inside.context()))
            await asyncio.wait(calls)
        finally:
            for call in calls:
                call.cancel()
        if self._world.loop.time() > cancelled_at + 1:
            raise ViolationError("calls of a scope that was cancelled went on")
        *errors, late = [call.exception() for call in calls]
        if not isinstance(late, lms.LMStudioCancelledError):
            raise ViolationError("a scope that was cancelled was called in")
        for call, error in zip(calls, errors, strict=False):
            if error is None:
                _checked(call.result().content, response_to(said))
            elif not isinstance(error, lms.LMStudioCancelledError):
                raise error
        return f"{sum(error is not None for error in errors)} calls cancelled"

    async def _embed(self, said: str) -> str:
        self._call.keys = {"vectors"}
        model = self.client.embedding.lazy_model("vectors")
        one, two = await self._begin(model.embed([said, "the same"]))
        request, limit = EmbeddingRequest([said], "pass", "chunk_size"), self._random.choice([1, 2])
        count = self._random.choice([1, 4])
        calls = [self._begin(self._embed_texts(model, request, limit)) for _ in range(count)]
        try:
            for call in calls[1::2]:
                await self._wait_for_something()
                call.cancel()
            again = {tuple(vector) for call in calls[::2] for vector in await call}
        finally:
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
        if again != {tuple(one)} or one == two or len(one) != DIMENSIONS:
            raise ViolationError("a vector is wrong")
        return "vectors"

    async def _embed_texts(self, model: Any, request: EmbeddingRequest, limit: int) -> list[Any]:
        if self._in_threads:
            return list(embed_texts(model.sync, request, max_concurrency=limit))
        return list(await embed_texts(model, request, max_concurrency=limit))

    async def _rerank(self, said: str) -> str:
        self._call.keys = {"chat"}
        found = await self.client.llm.lazy_model("chat").rerank(said, [f"a {said}", "another text", f"{said} b"])
        if sorted(each.index for each in found) != [0, 1, 2]:
            raise ViolationError(f"texts are missing: {found}")
        return "sorted"

    async def _count(self, said: str) -> str:
        return str(await self._model().count_tokens(f"{said} and more"))

    async def _list(self, _said: str) -> str:
        return str(len(await self.client.list_loaded_models()))

    async def _load(self, _said: str) -> str:
        handle = await self.client.llm.model(
            self._random.choice(["chat", "other"]), ttl=self._random.choice([3.0, None])
        )
        return str(handle.identifier)

    async def _unload(self, _said: str) -> str:
        loaded = await self.client.llm.list_loaded()
        if loaded:
            handle = self._random.choice(loaded)
            self._call.keys, self._call.ends = {handle.identifier.partition(":")[0]}, 1
            await handle.unload()
        return f"one of {len(loaded)}"

    async def _langchain(self, said: str) -> str:
        self._use_adapter("chat")
        parts: list[str] = []
        async for chunk in self._method(self._chat, "stream")(said):
            self._call.ends = 1
            parts.append(chunk.text)
        return _checked("".join(parts), response_to(said))

    async def _llama_index(self, said: str) -> str:
        self._use_adapter("other")
        return _checked((await self._method(self._llm, "complete")(said)).text, response_to(said))

    async def _vectors(self, said: str) -> str:
        self._use_adapter("vectors")
        texts = [f"{said} {number}" for number in range(self._random.choice([1, 5, 40]))]
        if await self._method(self._embeddings, "embed_documents")(texts) != [
            embed(text, DIMENSIONS) for text in texts
        ]:
            raise ViolationError("vectors are missing, double or of other texts")
        return "vectors"

    async def _close(self, _said: str) -> str:
        await self._begin(self.client.aclose())
        self.client = self._new_client()
        return "closed"

    async def _close_in_a_call(self, said: str) -> str:
        """Close the client while it makes a call, which ends at once."""
        task, ended_at = self._begin(self._model().respond(said)), list[float]()
        task.add_done_callback(lambda _: ended_at.append(self._world.loop.time()))
        await self._wait_for_something()
        closed_at = self._world.loop.time()
        await self._close(said)
        await asyncio.wait([task])
        if ended_at[0] > closed_at + 1:
            raise ViolationError(f"a call of a closed client ended {ended_at[0] - closed_at} s later")
        try:
            return f"in a call, too late: {_checked(task.result().content, response_to(said))}"
        except (lms.LMStudioClientClosedError, lms.LMStudioConnectionLostError):
            return "closed in a call"


def _checked(text: str, expected: str) -> str:
    if text != expected:
        raise ViolationError(f"got {text!r}, expected {expected!r}")
    return text


def _checked_beginning(text: str, said: str) -> str:
    return _checked(text, response_to(said)[: len(text)])


async def _play(world: World) -> int:
    chance = world.random
    every = chance.choice([0, 0.5, 3, 20])
    world.loop.stops_threads = chance.random() < 0.5
    world.kinds = chance.sample(FAULTS, chance.randint(1, len(FAULTS)))
    async with world.open(chance.choice(HOSTS), auto_evict=chance.random() < 0.5):
        ways = [chance.random() < 0.5 for _ in range(chance.choice([1, 2, 3, 5]))]
        players = [Player(world, f"p{number}", in_threads=way) for number, way in enumerate(ways)]
        lengths = [chance.randrange(1, MOST_OPERATIONS) for _ in players]
        playing = [asyncio.ensure_future(player.play(length)) for player, length in zip(players, lengths, strict=True)]
        faults = asyncio.ensure_future(_harm(world, every))
        try:
            await asyncio.gather(*playing)
        finally:
            for task in (faults, *playing):
                task.cancel()
            await asyncio.wait([faults, *playing])
        if not faults.cancelled():
            faults.result()
        await world.heal()
        await asyncio.sleep(60)
        for player in players:
            await player.call("respond", must_work=True)
        await asyncio.sleep(60)
        left = world.unfinished()
        for player in players:
            await player.close()
        await asyncio.sleep(60)
        left += world.remains() + WatchedSession.found
        if left:
            raise ViolationError(f"there remain {left}")
    return sum(lengths)


async def _harm(world: World, every: float) -> None:
    while every:
        await asyncio.sleep(world.random.uniform(0, 2 * every))
        await world.harm()


def run(seed: int) -> tuple[int, list[str]]:
    """Play the program of a seed; return the number of operations, and what has happened.

    Raises:
        ViolationError: If something happened that must not; with the end of the trace.
    """
    random.seed(seed)
    with simulation(seed) as loop, warnings.catch_warnings(), _own_garbage():
        warnings.simplefilter("ignore", lms.LMStudioEvictionWarning)
        world = World(loop)
        try:
            return _run(world), world.trace
        except BaseException as error:
            last = "\n".join(world.trace[-20:])
            error.add_note(f"seed {seed}; the last steps:\n{last}")
            raise


def _run(world: World) -> int:
    loop, reported = world.loop, list[str]()
    loop.set_exception_handler(lambda _, context: reported.append(str(context)))
    with _failures_of_connections(reported):
        operations = loop.run_until_complete(_play(world))
        loop.run_until_complete(loop.shutdown_asyncgens())
        gc.collect()
    if reported:
        raise ViolationError(f"the loop or the server has reported {reported}")
    return operations


@contextlib.contextmanager
def _own_garbage() -> Iterator[None]:
    """Let garbage be collected only where the simulation does it, so that a seed always plays the same."""
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


@contextlib.contextmanager
def _failures_of_connections(reported: list[str]) -> Iterator[None]:
    """Add to a list what the emulator's server logs as an error: the handler of a connection has failed."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            reported.append(f"{record.getMessage()}: {record.exc_info and record.exc_info[1]!r}")

    logger, handler = logging.getLogger("websockets.server"), Handler(logging.ERROR)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
