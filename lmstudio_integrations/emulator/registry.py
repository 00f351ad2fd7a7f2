"""The models of the emulator: which there are, which are loaded, and how they come and go (protocol §5.1, §9.3).

Everything here belongs to the emulator's event loop.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lmstudio_integrations.emulator import defaults, errors
from lmstudio_integrations.emulator.catalog import Catalog, ModelEntry, describe
from lmstudio_integrations.emulator.clock import Clock
from lmstudio_integrations.emulator.downloads import Downloads, OnBytes
from lmstudio_integrations.emulator.engines.base import Engine, LoadRequest, ModelMetadata, Progress
from lmstudio_integrations.emulator.engines.errors import EngineError
from lmstudio_integrations.emulator.instance import Instance
from lmstudio_integrations.emulator.records import Entry, LoadMode, LoadRecord, LoadState, Records
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.config import EmbeddingLoadModelConfig, LlmLoadModelConfig, ModelKind
from lmstudio_integrations.types.models import InstanceSpecifier, ModelQuery, ModelSpecifier, by_identifier

logger: logging.Logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelEvicted:
    """A model that was loaded just in time makes way."""

    info: dict[str, Any]


@dataclass(frozen=True, slots=True)
class LoadStarted:
    """The load began."""

    identifier: str
    info: dict[str, Any]


@dataclass(frozen=True, slots=True)
class LoadProgressed:
    """So much of the model is loaded, 0 to 1."""

    progress: float


LoadEvent = ModelEvicted | LoadStarted | LoadProgressed
OnLoadEvent = Callable[[LoadEvent], None]


@dataclass(eq=False)
class _SharedLoad:
    """A just-in-time load, and all who wait for it; the last one to leave stops it."""

    task: "asyncio.Task[Instance] | None" = None
    events: list[LoadEvent] = field(default_factory=list[LoadEvent])
    listeners: list[OnLoadEvent] = field(default_factory=list[OnLoadEvent])

    @property
    def stopping(self) -> bool:
        """Whether nobody can join any more."""
        return self.task is not None and (self.task.done() or self.task.cancelling() > 0)

    def report(self, event: LoadEvent) -> None:
        """Tell all who wait."""
        self.events.append(event)
        for listener in self.listeners:
            listener(event)

    async def wait(self, listener: OnLoadEvent) -> Instance:
        """Wait for the model; who comes late is told what happened before."""
        assert self.task is not None, "the load has been started"
        for event in self.events:
            listener(event)
        self.listeners.append(listener)
        try:
            return await asyncio.shield(self.task)
        finally:
            self.listeners.remove(listener)
            if not self.listeners:
                self.task.cancel()


class ModelRegistry:
    """All models of one server.

    Args:
        catalog: What there is.
        engines: What runs it, by name.
        clock: The time.
        downloads: What brings weights.
        auto_evict: Whether a just-in-time load unloads the models that came by earlier ones.
        max_loaded: How many models may be loaded at once; `None` does not limit them.
        ledger: Where loads are recorded.
    """

    def __init__(
        self,
        catalog: Catalog,
        engines: Mapping[str, Engine],
        clock: Clock,
        *,
        downloads: Downloads,
        auto_evict: bool = True,
        max_loaded: int | None = None,
        records: Records,
    ) -> None:
        self.catalog = catalog
        self._engines = engines
        self._clock = clock
        self._downloads = downloads
        self._auto_evict = auto_evict
        self._max_loaded = max_loaded
        self._records = records
        self._weights: dict[str, str | None] = {entry.key: entry.weights for entry in catalog.models}
        self._metadata: dict[str, ModelMetadata] = {}
        self._downloaded = {entry.key for entry in catalog.models if entry.downloaded}
        self._instances: dict[str, Instance] = {}
        self._reserved: set[str] = set()
        self._shared: dict[str, _SharedLoad] = {}
        self._one_at_a_time = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()

    def loaded(self, kind: ModelKind | None = None) -> list[Instance]:
        """Return the loaded models, in the order of loading. Any thread may ask."""
        instances = list(self._instances.values())  # in one step, so that no load comes between
        return [instance for instance in instances if kind in {None, instance.entry.kind}]

    def downloaded(self) -> list[ModelEntry]:
        """Return the entries that can be loaded."""
        return [entry for entry in self.catalog.models if entry.key in self._downloaded]

    def is_downloaded(self, entry: ModelEntry) -> bool:
        """Return whether an entry can be loaded."""
        return entry.key in self._downloaded

    async def download(self, entry: ModelEntry, on_bytes: OnBytes) -> None:
        """Get the weights of an entry, so that it can be loaded.

        Raises:
            RefusedError: If they cannot be had.
        """
        weights = await self._downloads.fetch(entry, on_bytes)
        self._weights[entry.key] = weights
        self._downloaded.add(entry.key)
        self._metadata.pop(entry.key, None)
        self._records.announce()

    async def read_metadata(self, entries: Iterable[ModelEntry]) -> None:
        """Find out what the weights say, where that is not known yet; large headers keep nobody else waiting."""
        for entry in entries:
            if entry.key not in self._metadata:
                await asyncio.to_thread(self.metadata, entry)

    def info(self, entry: ModelEntry) -> dict[str, Any]:
        """Return what clients are told of an entry."""
        return describe(entry, self.metadata(entry))

    def metadata(self, entry: ModelEntry) -> ModelMetadata:
        """Return what the weights say; nothing, where they cannot be read. Any thread may ask."""
        known = self._metadata.get(entry.key)
        if known is None:
            try:
                known = self._metadata[entry.key] = self._engine(entry).metadata(self._weights[entry.key], entry.kind)
            except EngineError:
                return ModelMetadata()
        return known

    def find(self, kind: ModelKind, specifier: ModelSpecifier) -> Instance:
        """Return the loaded model that a request means.

        Raises:
            RefusedError: If there is none.
        """
        if isinstance(specifier, InstanceSpecifier):
            for instance in self.loaded(kind):
                if instance.reference == specifier.instance_reference:
                    return instance
            raise errors.model_unloaded()
        query = specifier.query
        found = self._query(self.loaded(kind), query)
        if found is None:
            raise self._nothing_loaded(kind, query.to_dict())
        return found

    def find_only(self, kind: ModelKind, name: str) -> Instance:
        """Return the loaded model that a name means and no other: by its identifier, else if it alone fits.

        Raises:
            RefusedError: If there is none, or there are several.
        """
        found = self._all_named(self.loaded(kind), name)
        if not found or (len(found) > 1 and found[0].identifier != name):
            raise self._nothing_loaded(kind, {"identifier": name})
        return found[0]

    def loaded_as(self, kind: ModelKind, name: str) -> Instance | None:
        """Return the loaded model that an identifier, a key, an alias or a path names."""
        return self._named(self.loaded(kind), name)

    def resolve(
        self,
        kind: ModelKind,
        name: str,
        not_found: Callable[[str, Sequence[str]], errors.WireError] = errors.path_not_found,
    ) -> list[ModelEntry]:
        """Return the entries that a name may mean, the best first.

        Raises:
            RefusedError: If there is none, or none of this kind.
        """
        found = [entry for entry in self.catalog.find(name) if self.is_downloaded(entry)]
        fitting = [entry for entry in found if entry.kind == kind]
        if not found:
            self._reject_other_kind(kind, name)
            known = [entry.full_path for entry in self.downloaded() if entry.kind == kind]
            raise not_found(name, known)
        if not fitting:
            raise errors.domain_mismatch(found[0].full_path, found[0].kind, kind)
        return fitting

    def check_draft_model(self, name: str) -> None:
        """Check that a language model can serve as a draft model.

        Raises:
            RefusedError: If there is none of this name.
        """
        self.resolve("llm", name, errors.draft_model_not_found)

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
    ) -> Instance:
        """Load a new instance. Without an `identifier`, the requested `name` decides on one.

        Raises:
            RefusedError: If the identifier is taken or cannot be one, or too many models are loaded.
            EngineError: If the engine cannot load it.
        """
        settings = settings or {}
        default = entry.full_path if name == entry.full_path else entry.key
        with self._recorded(entry, default, identifier, settings, jit=jit) as load:
            await self.read_metadata([entry])
            on_start(load.record.identifier)
            request = self._load_request(entry, settings)
            model = await self._engine(entry).load(request, on_progress)
        instance = Instance(
            entry=entry,
            identifier=load.record.identifier,
            model=model,
            info=self.info(entry),
            fields=dict(request.fields),
            context_length=request.context_length,
            slots=request.slots,
            ttl_ms=ttl_ms,
            jit=jit,
            load=load,
            clock=self._clock,
        )
        instance.on_end = lambda state: self.drop(instance, state)
        self._instances[instance.identifier] = instance
        instance.arm()
        self._enter(load, "loaded")
        return instance

    @contextmanager
    def _recorded(
        self, entry: ModelEntry, default: str, identifier: str | None, settings: Mapping[str, Any], *, jit: bool
    ) -> Generator[Entry[LoadRecord]]:
        """Record a load, and reserve its identifier until the end, when the instance has it."""
        config = _CONFIGS[entry.kind].describe(settings)
        identifier = self._reserve(default, identifier)
        mode: LoadMode = "just_in_time" if jit else "explicit"
        load = self._records.loads.add(LoadRecord(key=entry.key, identifier=identifier, mode=mode, config=config))
        self._records.announce()
        try:
            yield load
        except BaseException as error:
            self._enter(load, "cancelled" if isinstance(error, asyncio.CancelledError) else "failed")
            raise
        finally:
            self._reserved.discard(identifier)

    def _enter(self, load: Entry[LoadRecord], state: LoadState) -> None:
        load.update(state=state)
        self._records.announce()

    async def load_just_in_time(
        self, entry: ModelEntry, name: str, listener: OnLoadEvent, *, ttl_ms: int | None, settings: Mapping[str, Any]
    ) -> Instance:
        """Load a model for whoever asks for it now; all who ask meanwhile share the load.

        Raises:
            EngineError: If the engine cannot load it.
        """
        shared = self._shared.get(entry.key)
        if shared is None or shared.stopping:
            shared = self._shared[entry.key] = _SharedLoad()
            ttl = defaults.JIT_TTL_MS if ttl_ms is None else ttl_ms
            shared.task = self._spawn(self._load_shared(shared, entry, name, ttl, settings))
        try:
            return await shared.wait(listener)
        finally:
            if not shared.listeners and self._shared.get(entry.key) is shared:
                del self._shared[entry.key]

    async def unload(self, instance: Instance, state: LoadState = "unloaded") -> None:
        """Unload an instance; what runs on it ends first."""
        await asyncio.shield(self.drop(instance, state))

    def drop(self, instance: Instance, state: LoadState = "unloaded") -> "asyncio.Task[None]":
        """Unload an instance in the background, once; it can be found no more. `state` says why."""
        unloading = instance.unloading
        if unloading is None:
            del self._instances[instance.identifier]
            unloading = instance.unloading = self._spawn(instance.dismiss())
            self._enter(instance.load, state)
        return unloading

    async def close(self) -> None:
        """Stop all loads and unload everything."""
        for shared in list(self._shared.values()):
            if shared.task is not None:
                shared.task.cancel()
        for instance in self.loaded():
            self.drop(instance)
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._downloads.close()

    async def _load_shared(
        self, shared: _SharedLoad, entry: ModelEntry, name: str, ttl_ms: int, settings: Mapping[str, Any]
    ) -> Instance:
        if not self._auto_evict:
            return await self._load_and_report(shared, entry, name, ttl_ms, settings)
        async with self._one_at_a_time:
            for other in [instance for instance in self.loaded() if instance.jit]:
                shared.report(ModelEvicted(other.describe()))
                await self.unload(other, "evicted")
            return await self._load_and_report(shared, entry, name, ttl_ms, settings)

    async def _load_and_report(
        self, shared: _SharedLoad, entry: ModelEntry, name: str, ttl_ms: int, settings: Mapping[str, Any]
    ) -> Instance:
        return await self.load(
            entry,
            name=name,
            ttl_ms=ttl_ms,
            settings=settings,
            jit=True,
            on_start=lambda identifier: shared.report(LoadStarted(identifier, self.info(entry))),
            on_progress=lambda progress: shared.report(LoadProgressed(progress)),
        )

    def _reserve(self, default: str, identifier: str | None) -> str:
        """Return the identifier of a new instance, so that no other load takes it.

        Raises:
            RefusedError: If the requested one is taken or cannot be requested again, or too many models are loaded.
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

    def _load_request(self, entry: ModelEntry, settings: Mapping[str, Any]) -> LoadRequest:
        asked = _CONFIGS[entry.kind].from_fields(settings)
        limit = entry.max_context_length or self.metadata(entry).max_context_length
        context_length = min(asked.context_length or entry.context_length or defaults.CONTEXT_LENGTH, limit)
        slots = entry.slots or defaults.PARALLEL_SESSIONS
        if isinstance(asked, LlmLoadModelConfig) and asked.max_parallel_predictions:
            slots = asked.max_parallel_predictions
        actual: dict[str, Any] = {f"{entry.kind}.load.contextLength": context_length}
        if entry.kind == "llm":
            actual["llm.load.numParallelSessions"] = slots
        return LoadRequest(
            key=entry.key,
            kind=entry.kind,
            weights=self._weights[entry.key],
            fields=defaults.effective(defaults.LOAD[entry.kind], settings, actual),
            context_length=context_length,
            slots=slots,
            options=entry.options(),
        )

    def _query(self, instances: list[Instance], query: ModelQuery) -> Instance | None:
        fitting = [instance for instance in instances if _fits(instance, query)]
        if query.identifier is not None:
            return self._named(fitting, query.identifier)
        return fitting[0] if fitting else None

    def _named(self, instances: list[Instance], name: str) -> Instance | None:
        """Return the instance that a name means."""
        return next(iter(self._all_named(instances, name)), None)

    def _all_named(self, instances: list[Instance], name: str) -> list[Instance]:
        """Return the instances that a name may mean, best first: by identifier, then as the catalog finds models."""
        exact = [instance for instance in instances if instance.identifier == name]
        return exact + [
            instance for entry in self.catalog.find(name) for instance in instances if instance.entry is entry
        ]

    def _nothing_loaded(self, kind: ModelKind, query: Mapping[str, Any]) -> errors.WireError:
        """Return why no loaded model fits a query.

        Raises:
            RefusedError: If the model is loaded, but of the other kind.
        """
        if query.get("identifier"):
            self._reject_other_kind(kind, query["identifier"])
        return errors.no_model_matching(query, [each.identifier for each in self.loaded(kind)])

    def _reject_other_kind(self, kind: ModelKind, name: str) -> None:
        """Say so if the model that is asked for is loaded, but of the other kind."""
        other = self._named(self.loaded(), name)
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
            logger.debug("a model did not come or go as it should: %r", error)


_CONFIGS: dict[ModelKind, type[LlmLoadModelConfig] | type[EmbeddingLoadModelConfig]] = {
    "llm": LlmLoadModelConfig,
    "embedding": EmbeddingLoadModelConfig,
}


def _fits(instance: Instance, query: ModelQuery) -> bool:
    """Return whether an instance has all that a query asks for, its identifier left aside."""
    entry = instance.entry
    return (
        query.domain in {None, entry.kind}
        and query.device_identifier is None
        and (query.vision is None or query.vision == instance.describe().get("vision", False))
        and (query.path is None or _path_fits(entry.full_path, query.path))
    )


def _path_fits(path: str, requested: str) -> bool:
    path, requested = path.casefold(), requested.casefold().rstrip("/")
    return path == requested or path.startswith(f"{requested}/")
