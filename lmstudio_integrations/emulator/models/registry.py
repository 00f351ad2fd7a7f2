"""The models of the emulator: the entries of the catalog, their instances, and when these are loaded and unloaded.

See docs/protocol.md#model-specifiers and docs/protocol.md#product-behavior. Used by the handlers; built on `instance`
and the engines. Everything here runs on the emulator's event loop, unless stated otherwise.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NoReturn

from lmstudio_integrations._support.version import __version__
from lmstudio_integrations.emulator import errors
from lmstudio_integrations.emulator.engines import weights
from lmstudio_integrations.emulator.engines.base import Engine, LoadRequest, ModelMetadata, Progress
from lmstudio_integrations.emulator.engines.errors import EngineError, without_directories
from lmstudio_integrations.emulator.models.catalog import Catalog, ModelEntry, describe
from lmstudio_integrations.emulator.models.clock import Clock
from lmstudio_integrations.emulator.models.instance import ModelInstance
from lmstudio_integrations.emulator.testing.request_log import LoadMode, LoadRecord, LoadState, RecordEntry, RequestLog
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol import defaults
from lmstudio_integrations.types.config import LOAD_CONFIGS, LlmLoadModelConfig, ModelKind
from lmstudio_integrations.types.models import InstanceSpecifier, ModelQuery, ModelSpecifier, by_identifier

logger: logging.Logger = logging.getLogger(__name__)

OnPacket = Callable[[Mapping[str, Any]], None]
"""Called with each packet of a just-in-time load (docs/protocol.md#get-or-load)."""


@dataclass(eq=False)
class _SharedLoad:
    """A just-in-time load and its waiting clients; it is cancelled when the last one cancels.

    The client has a form of its own for this, because its callers wait in threads and in several event loops. All of
    these wait in one loop, where a task does, and each of them receives the packets of the load.
    """

    task: "asyncio.Task[ModelInstance]" = field(init=False)
    packets: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    listeners: list[OnPacket] = field(default_factory=list[OnPacket])

    @property
    def joinable(self) -> bool:
        """Whether a client can join: it has not ended, and is not being cancelled."""
        return not self.task.done() and not self.task.cancelling()

    def send(self, **packet: Any) -> None:
        self.packets.append(packet)
        for listener in self.listeners:
            listener(packet)

    async def wait(self, listener: OnPacket) -> ModelInstance:
        """Wait for the model; earlier packets are sent first."""
        for packet in self.packets:
            listener(packet)
        self.listeners.append(listener)
        try:
            return await asyncio.shield(self.task)
        finally:
            # No await between removing and cancelling: a client that joins meanwhile would wait for a cancelled load.
            self.listeners.remove(listener)
            if not self.listeners:
                self.task.cancel()


class ModelRegistry:
    """All models of one server.

    Args:
        catalog: The models that exist.
        engines: The engines by name.
        clock: The time.
        offline: Never fetch bundled weights.
        auto_evict: Whether a just-in-time load unloads models that were loaded just in time.
        max_loaded: How many models may be loaded at once; `None` for no limit.
        request_log: Where loads are recorded.
    """

    def __init__(
        self,
        catalog: Catalog,
        engines: Mapping[str, Engine],
        clock: Clock,
        *,
        offline: bool = False,
        auto_evict: bool = True,
        max_loaded: int | None = None,
        request_log: RequestLog,
    ) -> None:
        self.catalog = catalog
        self._engines = engines
        self._clock = clock
        self._offline = offline
        self._auto_evict = auto_evict
        self._max_loaded = max_loaded
        self._request_log = request_log
        self._metadata: dict[str, ModelMetadata] = {}
        self._downloaded = {entry.key for entry in catalog.models if entry.downloaded}
        self._instances: dict[str, ModelInstance] = {}
        self._reserved: set[str] = set()
        self._shared: dict[str, _SharedLoad] = {}
        self._jit_lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.on_log: Callable[[Mapping[str, Any]], None] = lambda _entry: None
        """Called with each entry of the engines' log (docs/protocol.md#diagnostics-endpoints)."""

    def instances(self, kind: ModelKind | None = None) -> list[ModelInstance]:
        """Return the instances of loaded models, in the order of loading. Any thread may call this."""
        instances = list(self._instances.values())  # one step while the GIL is held, so nothing changes meanwhile
        return [instance for instance in instances if kind in {None, instance.entry.kind}]

    def downloaded_entries(self) -> list[ModelEntry]:
        """Return the entries that can be loaded."""
        return [entry for entry in self.catalog.models if entry.key in self._downloaded]

    async def download(self, entry: ModelEntry, on_bytes: weights.OnBytes) -> None:
        """Download the weights of an entry, so that it can be loaded.

        Raises:
            WireError: If that fails.
        """
        try:
            await weights.download(entry.weights if entry.needs_weights else None, on_bytes, offline=self._offline)
        except (OSError, weights.WeightsError) as error:
            cause = without_directories(str(error))
            raise errors.WireError(f'The weights of "{entry.key}" cannot be downloaded', cause=cause) from error
        self._downloaded.add(entry.key)
        self._metadata.pop(entry.key, None)
        self._request_log.notify()

    async def read_metadata(self, entries: Iterable[ModelEntry]) -> None:
        """Read and cache the metadata of weights, in a thread: a large header takes long."""
        for entry in entries:
            if entry.key not in self._metadata:
                await asyncio.to_thread(self.metadata, entry)

    def info(self, entry: ModelEntry) -> dict[str, Any]:
        """Return the wire form of an entry."""
        return describe(entry, self.metadata(entry))

    def metadata(self, entry: ModelEntry) -> ModelMetadata:
        """Return the metadata of weights; empty metadata if they cannot be read. Any thread may call this."""
        metadata = self._metadata.get(entry.key)
        if metadata is None:
            try:
                metadata = self._metadata[entry.key] = self._engine(entry).metadata(entry.weights, entry.kind)
            except EngineError:
                return ModelMetadata()
        return metadata

    def find(self, kind: ModelKind, specifier: ModelSpecifier) -> ModelInstance:
        """Return the instance of a specifier.

        Raises:
            WireError: If there is none.
        """
        if isinstance(specifier, InstanceSpecifier):
            for instance in self.instances(kind):
                if instance.reference == specifier.instance_reference:
                    return instance
            raise errors.model_unloaded()
        query = specifier.query
        matching = [instance for instance in self.instances(kind) if _matches(instance, query)]
        if query.identifier is not None:
            matching = self._instances_named(matching, query.identifier)
        if not matching:
            self._raise_nothing_loaded(kind, query.to_dict())
        return matching[0]

    def find_unambiguous(self, kind: ModelKind, name: str) -> ModelInstance:
        """Return the instance with this identifier, else the only instance of the model with this name.

        Raises:
            WireError: If there is none, or there are several.
        """
        instances = self._instances_named(self.instances(kind), name)
        if not instances or (len(instances) > 1 and instances[0].identifier != name):
            self._raise_nothing_loaded(kind, {"identifier": name})
        return instances[0]

    def instance_named(self, kind: ModelKind, name: str) -> ModelInstance | None:
        """Return the instance of an identifier, or else one of a key, an alias or a path."""
        return next(iter(self._instances_named(self.instances(kind), name)), None)

    def find_entries(self, kind: ModelKind, name: str) -> list[ModelEntry]:
        """Return the entries that a name may stand for, the best first.

        Raises:
            WireError: If there is none, or none of this kind.
        """
        entries = self._downloaded_named(name)
        matching = [entry for entry in entries if entry.kind == kind]
        if not entries:
            self._reject_other_kind(kind, name)
            paths = [entry.full_path for entry in self.downloaded_entries() if entry.kind == kind]
            raise errors.path_not_found(name, paths)
        if not matching:
            raise errors.domain_mismatch(entries[0].full_path, entries[0].kind, kind)
        return matching

    def check_draft_model(self, name: str) -> None:
        """Check that a language model can serve as a draft model.

        Raises:
            WireError: If there is none with this name.
        """
        if not self._downloaded_named(name):
            raise errors.draft_model_not_found(name)
        self.find_entries("llm", name)

    async def load(
        self,
        entry: ModelEntry,
        *,
        name: str | None = None,
        identifier: str | None = None,
        ttl_ms: int | None = None,
        settings: Mapping[str, Any] | None = None,
        jit: bool = False,
        on_start: Callable[[str], None] = lambda _identifier: None,
        on_progress: Progress = lambda _progress: None,
    ) -> ModelInstance:
        """Load a new instance. Without an `identifier`, the requested `name` decides on one.

        Raises:
            WireError: If the identifier is taken or invalid, or too many models are loaded.
            EngineError: If the engine cannot load it.
        """
        settings = settings or {}
        default = entry.full_path if name == entry.full_path else entry.key
        with self._record_load(entry, default, identifier, settings, jit=jit) as load:
            await self.read_metadata([entry])
            on_start(load.record.identifier)
            request = self.load_request(entry, settings)
            model = await self._engine(entry).load(request, on_progress)
            instance = ModelInstance(
                entry=entry,
                identifier=load.record.identifier,
                model=model,
                info=self.info(entry),
                request=request,
                ttl_ms=ttl_ms,
                jit=jit,
                load=load,
                clock=self._clock,
            )
            # No await from here on: the identifier is reserved until the instance has it.
            instance.on_end = lambda state: self.discard(instance, state)
            self._instances[instance.identifier] = instance
            instance.start_ttl()
            load.update(state="loaded")
            self._log(entry, "loaded", instance)
        return instance

    @contextmanager
    def _record_load(
        self, entry: ModelEntry, default: str, identifier: str | None, settings: Mapping[str, Any], *, jit: bool
    ) -> Generator[RecordEntry[LoadRecord]]:
        """Record a load, and reserve its identifier until the instance has it."""
        config = LOAD_CONFIGS[entry.kind].describe(settings)
        identifier = self._reserve(default, identifier)
        mode: LoadMode = "just_in_time" if jit else "explicit"
        load = self._request_log.loads.add(LoadRecord(key=entry.key, identifier=identifier, mode=mode, config=config))
        self._log(entry, "loading")
        try:
            yield load
        except asyncio.CancelledError:
            load.update(state="cancelled")
            self._log(entry, "cancelled")
            raise
        except BaseException as error:
            load.update(state="failed")
            self._log(entry, "failed", error=error)
            raise
        finally:
            self._reserved.discard(identifier)

    async def load_just_in_time(
        self, entry: ModelEntry, name: str, listener: OnPacket, *, ttl_ms: int | None, settings: Mapping[str, Any]
    ) -> ModelInstance:
        """Load a model on first use; clients that request it meanwhile share the load.

        Raises:
            EngineError: If the engine cannot load it.
        """
        # No await up to `shared.wait`: a second client must find the load, and nobody may cancel it meanwhile.
        shared = self._shared.get(entry.key)
        if shared is None or not shared.joinable:
            shared = self._shared[entry.key] = _SharedLoad()
            ttl = defaults.JIT_TTL_MS if ttl_ms is None else ttl_ms
            shared.task = self._spawn(self._load_shared(shared, entry, name, ttl, settings))
        try:
            return await shared.wait(listener)
        finally:
            if not shared.listeners and self._shared.get(entry.key) is shared:
                del self._shared[entry.key]

    async def unload(self, instance: ModelInstance, state: LoadState = "unloaded") -> None:
        """Unload an instance after its predictions were stopped."""
        await asyncio.shield(self.discard(instance, state))

    def discard(self, instance: ModelInstance, state: LoadState = "unloaded") -> "asyncio.Task[None]":
        """Unload an instance in the background, once; it is no longer found. `state` is the reason."""
        if instance.unloading is None:
            del self._instances[instance.identifier]
            instance.unloading = self._spawn(instance.unload())
            instance.load.update(state=state)
            instance.log_embedded()
            self._log(instance.entry, state, instance)
        return instance.unloading

    def _log(
        self,
        entry: ModelEntry,
        state: LoadState,
        instance: ModelInstance | None = None,
        error: BaseException | None = None,
    ) -> None:
        text = f"{entry.key}: {state}" if error is None else f"{entry.key}: {state}: {error}"
        logger.log(logging.DEBUG if state == "loading" else logging.INFO, "%s", text)
        loaded = instance and {"modelIdentifier": instance.identifier, "instanceReference": instance.reference}
        self.on_log(
            {
                "type": "runtime.log",
                "level": "error" if state in {"failed", "crashed"} else "info",
                "message": text,
                # The engines are part of the emulator.
                "engineName": entry.engine,
                "engineVersion": __version__,
                "engineType": entry.engine,
                **(loaded or {}),
            }
        )

    async def close(self) -> None:
        """Stop all loads and unload everything."""
        for shared in list(self._shared.values()):
            shared.task.cancel()
        for instance in self.instances():
            self.discard(instance)
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _load_shared(
        self, shared: _SharedLoad, entry: ModelEntry, name: str, ttl_ms: int, settings: Mapping[str, Any]
    ) -> ModelInstance:
        async with self._jit_lock if self._auto_evict else nullcontext():
            for other in [instance for instance in self.instances() if instance.jit and self._auto_evict]:
                shared.send(type="unloadingOtherJITModel", info=other.describe())
                await self.unload(other, "evicted")
            return await self.load(
                entry,
                name=name,
                ttl_ms=ttl_ms,
                settings=settings,
                jit=True,
                on_start=lambda identifier: shared.send(
                    type="startLoading", identifier=identifier, info=self.info(entry)
                ),
                on_progress=lambda progress: shared.send(type="loadProgress", progress=progress),
            )

    def _reserve(self, default: str, identifier: str | None) -> str:
        """Reserve and return the identifier of a new instance.

        Raises:
            WireError: If the requested one is taken or invalid, or too many models are loaded.
        """
        taken = self._instances.keys() | self._reserved
        if self._max_loaded is not None and len(taken) >= self._max_loaded:
            raise errors.too_many_loaded(self._max_loaded)
        if identifier is None:
            identifier, number = default, 1
            while identifier in taken:
                number += 1
                identifier = f"{default}:{number}"
        elif identifier in taken:
            raise errors.identifier_exists(identifier)
        try:
            by_identifier(identifier)
        except LMStudioValueError as error:
            raise errors.WireError("The identifier cannot name a model", cause=str(error)) from error
        self._reserved.add(identifier)
        return identifier

    def load_request(self, entry: ModelEntry, settings: Mapping[str, Any]) -> LoadRequest:
        """Return what the engine loads: the requested settings over those of the entry and the defaults."""
        requested = LOAD_CONFIGS[entry.kind].from_fields(settings)
        limit = entry.max_context_length or self.metadata(entry).max_context_length
        context_length = min(requested.context_length or entry.context_length or defaults.CONTEXT_LENGTH, limit)
        slots = entry.slots or defaults.PARALLEL_SESSIONS
        if isinstance(requested, LlmLoadModelConfig) and requested.max_parallel_predictions:
            slots = requested.max_parallel_predictions
        actual: dict[str, Any] = {f"{entry.kind}.load.contextLength": context_length}
        if entry.kind == "llm":
            actual["llm.load.numParallelSessions"] = slots
        return LoadRequest(
            key=entry.key,
            kind=entry.kind,
            weights=entry.weights,
            fields=defaults.effective(defaults.LOAD[entry.kind], settings, actual),
            context_length=context_length,
            slots=slots,
            engine_settings=entry.engine_settings(),
        )

    def _downloaded_named(self, name: str) -> list[ModelEntry]:
        return [entry for entry in self.catalog.find(name) if entry.key in self._downloaded]

    def _instances_named(self, instances: list[ModelInstance], name: str) -> list[ModelInstance]:
        """Return the instances that a name may stand for, the best first: by identifier, then as in the catalog."""
        exact = [instance for instance in instances if instance.identifier == name]
        return exact + [
            instance for entry in self.catalog.find(name) for instance in instances if instance.entry is entry
        ]

    def _raise_nothing_loaded(self, kind: ModelKind, query: Mapping[str, Any]) -> NoReturn:
        """Raise the error for a query that no loaded model matches; one of the other kind has its own error."""
        if query.get("identifier"):
            self._reject_other_kind(kind, query["identifier"])
        raise errors.no_model_matching(query, [each.identifier for each in self.instances(kind)])

    def _reject_other_kind(self, kind: ModelKind, name: str) -> None:
        """Raise an error if the requested model is loaded, but of the other kind."""
        other = next(iter(self._instances_named(self.instances(), name)), None)
        if other is not None and other.entry.kind != kind:
            raise errors.domain_mismatch(other.entry.full_path, other.entry.kind, kind)

    def _engine(self, entry: ModelEntry) -> Engine:
        engine = self._engines.get(entry.engine)
        if engine is None:
            raise EngineError(f"This server has no engine {entry.engine!r}, which the model {entry.key!r} needs.")
        return engine

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.debug("a model could not be loaded or unloaded: %r", error)


def _matches(instance: ModelInstance, query: ModelQuery) -> bool:
    """Return whether an instance matches a query, apart from the identifier."""
    entry, path = instance.entry, (query.path or "").casefold().rstrip("/")
    return (
        query.domain in {None, entry.kind}
        and query.device_identifier is None
        and (query.vision is None or query.vision == instance.describe().get("vision", False))
        and (query.path is None or f"{entry.full_path.casefold()}/".startswith(f"{path}/"))
    )
