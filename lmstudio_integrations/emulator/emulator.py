"""The emulator as programs use it: a server on its own thread or in the foreground."""

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from lmstudio_integrations._support.text import counted, shown
from lmstudio_integrations._support.typeguards import is_count, is_mapping, is_number
from lmstudio_integrations.emulator.engines.base import Engine, EngineError
from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine
from lmstudio_integrations.emulator.engines.table import weights_engine
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.emulator.models.cancel_scope import CancelScope
from lmstudio_integrations.emulator.models.catalog import (
    BUNDLED,
    Catalog,
    ModelEntry,
    check_weights,
    leaf_of_catalog,
    parse_model,
)
from lmstudio_integrations.emulator.models.catalog import load as load_catalog
from lmstudio_integrations.emulator.models.clock import Clock, SystemClock
from lmstudio_integrations.emulator.models.registry import ModelRegistry
from lmstudio_integrations.emulator.models.request_log import (
    DecisionRecord,
    EmbeddingRecord,
    LoadRecord,
    PluginCallRecord,
    PredictionRecord,
    RequestLog,
)
from lmstudio_integrations.emulator.server.clients import Authenticator
from lmstudio_integrations.emulator.server.connection_handler import ConnectionHandler
from lmstudio_integrations.emulator.server.context import DEFAULT_LIMITS, Limits, ServerState
from lmstudio_integrations.emulator.server.server import Server
from lmstudio_integrations.emulator.server.sockets import Socket
from lmstudio_integrations.emulator.server.tcp import netloc
from lmstudio_integrations.errors import (
    LMStudioModelLoadError,
    LMStudioRuntimeError,
    LMStudioValueError,
)
from lmstudio_integrations.protocol.endpoints import Namespace
from lmstudio_integrations.types.functions import ToolInput
from lmstudio_integrations.types.models import INSTANCE_INFO_TYPES, ModelInstanceInfo

T = TypeVar("T")

_START_TIMEOUT = 600.0
"""Seconds until the server must listen; models to load at the start may be large."""

_STOP_TIMEOUT = 600.0


@dataclass(frozen=True, slots=True)
class ConnectionRecord:
    """One open socket: its namespace, and its client once it is authenticated."""

    namespace: Namespace
    client: str | None


class Emulator:
    """A server that speaks LM Studio's native protocol, without LM Studio.

    A sync and async context manager: inside the block the server listens, on its own thread.

    Args:
        models: The models, as keys or entries. A key is a scripted model; `KEY=WEIGHTS` has real weights. Without
            `models` and `catalog`, the server has the two bundled models.
        catalog: More models, plugins and linked devices: a catalog, its tables, or the path of a TOML file or of a
            folder of GGUF files.
        plugins: More plugins by identifier, such as `mcp/sums`: each a list of functions, which are its tools, or a
            table as in the catalog. A function is called in a thread, an async one on the server's event loop.
        host: The address to listen on.
        port: The port to listen on; 0 takes any free one. Of several, the first free one is taken.
        tokens: API tokens. If there are any, clients must send one of them.
        load: Keys of models to load at the start, in addition to those with `preload` in the catalog.
        engines: Engines by name, instead of the default ones.
        clock: The clock for TTLs and stats.
        auto_evict: Whether a just-in-time load unloads models that were loaded just in time.
        latency: Seconds of network latency to simulate for each request.
        offline: Never fetch weights that are not on this machine.
        origins: Browser origins that may connect.
        limits: What the server accepts from its clients, and how many records of them it keeps.
        worker_memory: The memory limit of one model's process, in bytes, without the weights that it maps from their
            file. The default is three quarters of the machine's memory on Linux; other systems have no limit.

    Raises:
        LMStudioValueError: If the catalog, a plugin, a token, the latency or the memory is not valid.
        ImportError: If a model has weights, and the engine for these is not in this installation.
    """

    def __init__(
        self,
        models: Iterable[str | ModelEntry | Mapping[str, Any]] | None = None,
        *,
        catalog: Catalog | Mapping[str, Any] | str | Path | None = None,
        plugins: Mapping[str, Iterable[ToolInput] | Mapping[str, Any]] | None = None,
        host: str = "127.0.0.1",
        port: int | Sequence[int] = 0,
        tokens: Iterable[str] = (),
        load: Iterable[str] = (),
        engines: Mapping[str, Engine] | None = None,
        clock: Clock | None = None,
        auto_evict: bool = True,
        latency: float = 0.0,
        offline: bool = False,
        origins: Collection[str] = (),
        limits: Limits = DEFAULT_LIMITS,
        worker_memory: int | None = None,
    ) -> None:
        for name, value, content in (
            ("load", load, "keys"),
            ("tokens", tokens, "API tokens"),
            ("origins", origins, "origins"),
        ):
            if isinstance(value, str):  # it would be taken for its letters; it may be a token, so it is not shown
                raise LMStudioValueError(f"{name} must be a list of {content}; got a string; write {name}=[…]")
        ports: Sequence[object] = port if isinstance(port, Sequence) and not isinstance(port, str) else [port]
        if not all(is_count(each) and each <= 65535 for each in ports):
            raise LMStudioValueError(f"port must be a number from 0 to 65535, or a list of them; got {shown(port)}")
        if not (is_number(latency) and latency >= 0):
            raise LMStudioValueError(f"latency must be 0 or more seconds; got {shown(latency)}")
        self.catalog: Catalog = _catalog(models, catalog, plugins)
        self._new_engines = partial(_engines, self.catalog, engines, offline=offline, worker_memory=worker_memory)
        if engines is None:
            check_weights(self.catalog)
            self._new_engines()  # fails now, and not at the start, if there is no such engine or limit of memory
        self.host = host
        self._new_server = partial(
            Server,
            authenticator=Authenticator(tokens),
            host=host,
            port=port,
            origins=origins,
            handle=self._serve_connection,
        )
        self._load = tuple(load)
        self._plugins = {entry.identifier: entry for entry in self.catalog.plugins}
        self._clock = clock or SystemClock()
        self._auto_evict = auto_evict
        self._latency = latency
        self._limits = limits
        self._request_log = RequestLog(limits.records)
        self._thread: threading.Thread | None = None
        self._lifetime: _Lifetime | None = None
        self._running: _Running | None = None

    def __repr__(self) -> str:
        models, running = counted(len(self.catalog.models), "model"), self._running
        if running is None:
            return f"<{type(self).__name__} of {models}, not running>"
        loaded = len(running.state.registry.instances())
        return f"<{type(self).__name__} at {netloc(self.host, running.server.port)}: {models}, {loaded} loaded>"

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        return self._started.server.port

    @property
    def address(self) -> str:
        """Host and port as clients take them, for example `127.0.0.1:41343`."""
        return netloc(self.host, self.port)

    @property
    def predictions(self) -> tuple[PredictionRecord, ...]:
        """The predictions so far, oldest first: the request and the outcome of each.

        The last 10,000 are kept; `limits` sets another number.
        """
        return self._request_log.predictions.all

    @property
    def embedded_texts(self) -> tuple[EmbeddingRecord, ...]:
        """The texts that clients embedded, oldest first; kept like `predictions`."""
        return self._request_log.embeddings.all

    @property
    def decisions(self) -> tuple[DecisionRecord, ...]:
        """What decision models were asked so far, and their answers, oldest first; kept like `predictions`.

        A language model that decides makes predictions.
        """
        return self._request_log.decisions.all

    @property
    def loads(self) -> tuple[LoadRecord, ...]:
        """The loads so far, oldest first; kept like `predictions`."""
        return self._request_log.loads.all

    @property
    def tool_calls(self) -> tuple[PluginCallRecord, ...]:
        """The calls of tools of plugins so far, oldest first; kept like `predictions`."""
        return self._request_log.tool_calls.all

    @property
    def connections(self) -> tuple[ConnectionRecord, ...]:
        """The sockets that are open now."""
        return tuple(ConnectionRecord(each.namespace, each.client) for each in list(self._started.server.connections))

    @property
    def running_plugins(self) -> tuple[str, ...]:
        """The plugins whose tools are in use now, once for each session."""
        return tuple(self._started.state.tool_sessions)

    def loaded(self) -> list[ModelInstanceInfo]:
        """Return the loaded models, in the order of loading."""
        described = [instance.describe() for instance in self._started.state.registry.instances()]
        return [INSTANCE_INFO_TYPES[info["type"]].from_dict(info) for info in described]

    def wait_for(self, predicate: Callable[[], bool], timeout: float = 60.0) -> None:
        """Wait until a condition on this server holds, for example on `predictions` or `loaded()`.

        Raises:
            LMStudioTimeoutError: If it does not hold within `timeout` seconds.
        """
        self._request_log.wait_for(predicate, timeout)

    def load(self, key: str, *, identifier: str | None = None, ttl: float | None = None) -> ModelInstanceInfo:
        """Load a model where a request without a device would, as a user of LM Studio in its window.

        `ttl` is in seconds.

        Raises:
            LMStudioModelLoadError: If that fails.
        """
        info = self._call(self._started.load(key, identifier=identifier, ttl=ttl))
        return INSTANCE_INFO_TYPES[info["type"]].from_dict(info)

    def unload(self, identifier: str) -> None:
        """Unload a model, as a user of LM Studio would in its window.

        Raises:
            LMStudioModelLoadError: If no model has this identifier.
        """
        self._call(self._started.unload(identifier))

    def disconnect_device(self, name: str) -> None:
        """Let a linked device go away, as if its network were lost: predictions and loads on it end.

        Raises:
            LMStudioValueError: If the catalog has no such device.
        """
        self._call(leaf_of_catalog("devices").set_connected(self._started.state.registry, name, connected=False))

    def connect_device(self, name: str) -> None:
        """Let a linked device come back; nothing is loaded there.

        Raises:
            LMStudioValueError: If the catalog has no such device.
        """
        self._call(leaf_of_catalog("devices").set_connected(self._started.state.registry, name, connected=True))

    def start(self) -> Self:
        """Start the server and return when it listens.

        Raises:
            LMStudioOSError: If the port is taken.
            LMStudioModelLoadError: If a model cannot be loaded at the start.
            LMStudioRuntimeError: If the server is already running, or is stopped while it starts.
        """
        self._require_stopped()
        try:
            self._launch().result(_START_TIMEOUT)
        except BaseException:
            self._abort_start()
            raise
        return self

    def stop(self) -> None:
        """Stop the server: close all sockets, cancel all requests, unload all models. Does nothing if it is stopped."""
        if self._lifetime is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, so the server has stopped
                self._lifetime.loop.call_soon_threadsafe(self._lifetime.scope.cancel, "stopped")
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(_STOP_TIMEOUT)
            if thread.is_alive():
                raise LMStudioRuntimeError(f"the emulator did not stop within {_STOP_TIMEOUT} s")

    def serve_forever(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Serve in this thread until SIGINT or SIGTERM.

        Raises:
            LMStudioOSError: If the port is taken.
            LMStudioModelLoadError: If a model cannot be loaded at the start.
            LMStudioRuntimeError: If the server is already running.
        """
        self._require_stopped()
        lifetime = self._lifetime = _Lifetime()
        with contextlib.suppress(NotImplementedError):  # this system has no such signals
            lifetime.loop.add_signal_handler(signal.SIGTERM, lifetime.scope.cancel, "terminated")
        with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=lambda: lifetime.loop) as runner:
            runner.run(self._main(lifetime, on_ready))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        self._require_stopped()
        try:
            await asyncio.wait_for(asyncio.wrap_future(self._launch()), _START_TIMEOUT)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(self._abort_start))
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)

    @property
    def _started(self) -> "_Running":
        if self._running is None:
            raise LMStudioRuntimeError("this emulator is not running; use it in a with block, or call start()")
        return self._running

    def _serve_connection(
        self, socket: Socket, namespace: Namespace, state: ServerState, authenticator: Authenticator
    ) -> ConnectionHandler:
        """Return what serves a connection; a subclass may serve it in another way."""
        return ConnectionHandler(socket, namespace, state, authenticator)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._started.loop).result(_START_TIMEOUT)

    def _require_stopped(self) -> None:
        if self._thread is not None:
            raise LMStudioRuntimeError("this emulator is already running")

    def _launch(self) -> "Future[None]":
        """Start the thread; the future completes when the server listens, or fails with the reason."""
        ready: Future[None] = Future()
        ready.set_running_or_notify_cancel()  # from now on, waiters cannot cancel it
        self._lifetime = _Lifetime()
        self._thread = threading.Thread(
            target=self._run, args=(self._lifetime, ready), name="lmstudio-emulator", daemon=True
        )
        self._thread.start()
        return ready

    def _run(self, lifetime: "_Lifetime", ready: "Future[None]") -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: lifetime.loop) as runner:
                runner.run(self._main(lifetime, lambda: ready.set_result(None)))
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)
        if not ready.done():
            ready.set_exception(LMStudioRuntimeError("this emulator was stopped while it started"))

    def _abort_start(self) -> None:
        """Stop a server that did not start; its own error is already being raised."""
        with contextlib.suppress(LMStudioRuntimeError):
            self.stop()

    async def _main(self, lifetime: "_Lifetime", on_ready: Callable[[], None]) -> None:
        async with self._serving() as running:
            with lifetime.scope:
                for key in (*(entry.key for entry in self.catalog.models if entry.preload), *self._load):
                    await running.load(key)
                self._running = running
                try:
                    on_ready()
                    await lifetime.loop.create_future()
                finally:
                    self._running = None

    @contextlib.asynccontextmanager
    async def _serving(self) -> AsyncGenerator["_Running", None]:
        """Open the registry, then the server; close them in reverse order."""
        new_registry = leaf_of_catalog("devices").LinkedRegistry if self.catalog.names_devices else ModelRegistry
        registry: ModelRegistry = new_registry(
            self.catalog,
            self._new_engines(),
            self._clock,
            auto_evict=self._auto_evict,
            request_log=self._request_log,
        )
        state = ServerState(registry, self._clock, self._request_log, self._latency, self._limits, self._plugins)
        registry.on_log = state.log
        server = self._new_server(state)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(registry.close)
            await server.open()
            stack.push_async_callback(server.close)
            yield _Running(state, server, asyncio.get_running_loop())


class _Lifetime:
    """The event loop of a running server, and the scope that stops it, from any thread and at any time."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop
        if sys.platform == "win32":  # the default may be the other loop, which starts no processes
            self.loop = asyncio.ProactorEventLoop()
        else:
            self.loop = asyncio.new_event_loop()
        self.scope = CancelScope()


@dataclass(frozen=True, slots=True)
class _Running:
    """The parts of a running server; belongs to its event loop."""

    state: ServerState
    server: Server
    loop: asyncio.AbstractEventLoop

    async def load(self, key: str, *, identifier: str | None = None, ttl: float | None = None) -> dict[str, Any]:
        registry = self.state.registry
        entries = registry.catalog.find(key)
        try:
            kind = entries[0].kind if entries else "llm"
            device, found = registry.find_entries(kind, key, registry.devices({}))
            ttl_ms = None if ttl is None else round(ttl * 1000)
            instance = await registry.load(found[0], device, name=key, identifier=identifier, ttl_ms=ttl_ms)
        except WireError as error:
            cause = f": {error.cause}" if isinstance(error, EngineError) and error.cause else ""
            raise LMStudioModelLoadError(f"cannot load {key!r}: {error}{cause}") from error
        return instance.describe()

    async def unload(self, identifier: str) -> None:
        registry = self.state.registry
        instances = registry.instances(devices=registry.devices({}))
        instance = next((each for each in instances if each.identifier == identifier), None)
        if instance is None:
            raise LMStudioModelLoadError(f"no model is loaded with the identifier {identifier!r}")
        await registry.unload(instance)


def _listed(models: object) -> list[object]:
    """Return the models that were given; one alone would be taken for its letters or for its members.

    Raises:
        LMStudioValueError: If they are no list.
    """
    given, table = shown(models), models if is_mapping(models) else None
    is_file = isinstance(models, Path) or (isinstance(models, str) and models.endswith(".toml"))
    if is_file or isinstance(models, Catalog) or (table is not None and "model" in table):
        advice = f"; write catalog={given}"
    elif table is not None or isinstance(models, str | ModelEntry):
        advice = f"; write [{given}]"
    elif isinstance(models, Iterable):
        return list(cast("Iterable[object]", models))
    else:
        advice = ""
    raise LMStudioValueError(f"models must be a list of keys or entries; got {given}{advice}")


def _catalog(
    models: Iterable[str | ModelEntry | Mapping[str, Any]] | None,
    catalog: Catalog | Mapping[str, Any] | str | Path | None,
    plugins: Mapping[str, Any] | None,
) -> Catalog:
    """Return all models and plugins; the two bundled models if neither of the first two arguments is given."""
    if models is None and catalog is None:
        models = [parse_model(name) for name in BUNDLED]
    if isinstance(catalog, str | Path):
        catalog = load_catalog(Path(catalog))
    elif catalog is not None and not isinstance(catalog, Catalog):
        if not is_mapping(catalog):
            raise LMStudioValueError(
                f"catalog must be a table such as {{'model': […]}}, a Catalog or a path; got {shown(catalog)}; pass "
                "models alone as the first argument, as in Emulator([…])"
            )
        catalog = Catalog.parse(catalog)
    more = Catalog.parse({"model": _listed(() if models is None else models), "plugin": plugins or {}})
    if catalog is None:
        return more
    both = {"models": (*catalog.models, *more.models), "plugins": (*catalog.plugins, *more.plugins)}
    return Catalog.parse({**dict(catalog), **both})


def _engines(
    catalog: Catalog, given: Mapping[str, Engine] | None, *, offline: bool, worker_memory: int | None
) -> Mapping[str, Engine]:
    """Return the given engines, or new ones for the models of the catalog, the scripted one first."""
    if given:
        return given
    used: set[str] = {entry.engine for entry in catalog.models} or {ScriptedEngine.name}
    scripted: dict[str, Engine] = {ScriptedEngine.name: ScriptedEngine()} if ScriptedEngine.name in used else {}
    others = sorted(used - {ScriptedEngine.name})
    return scripted | {name: weights_engine(name, offline=offline, worker_memory=worker_memory) for name in others}
