"""The models of the emulator: the entries of the catalog, their instances, where and when these are loaded or refused.

See docs/protocol.md#model-specifiers and docs/protocol.md#product-behavior. Used by the handlers; built on `device`,
`instance` and the engines. Everything here runs on the emulator's event loop, unless stated otherwise.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NoReturn

from lmstudio_integrations._support.environment import __version__
from lmstudio_integrations.emulator import errors
from lmstudio_integrations.emulator.engines.base import (
    Engine,
    EngineError,
    LoadRequest,
    ModelMetadata,
    Progress,
)
from lmstudio_integrations.emulator.models.catalog import Catalog, ModelEntry, describe
from lmstudio_integrations.emulator.models.clock import Clock
from lmstudio_integrations.emulator.models.device import Device
from lmstudio_integrations.emulator.models.instance import ModelInstance
from lmstudio_integrations.emulator.models.request_log import LoadRecord, LoadState, RequestLog
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol import kv_config
from lmstudio_integrations.protocol.requests import OnDevice
from lmstudio_integrations.types.config import (
    CONFIG_FILE,
    CONFIG_FOLDER,
    LOAD_CONFIGS,
    EmbeddingLoadModelConfig,
    ModelKind,
    slots_of,
)
from lmstudio_integrations.types.models import InstanceSpecifier, ModelSpecifier, by_identifier

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
        auto_evict: Whether a just-in-time load unloads models that were loaded just in time.
        request_log: Where loads are recorded.
    """

    def __init__(
        self,
        catalog: Catalog,
        engines: Mapping[str, Engine],
        clock: Clock,
        *,
        auto_evict: bool = True,
        request_log: RequestLog,
    ) -> None:
        self.catalog = catalog
        self.engines = engines
        self._clock = clock
        self._auto_evict = auto_evict
        self._request_log = request_log
        self.metadata_by_key: dict[str, ModelMetadata] = {}
        self.local: Device = Device(model.key for model in catalog.models if model.downloaded)
        self._instances: dict[str, ModelInstance] = {}
        """The loaded instances by their references."""
        self._shared: dict[tuple[Device, str], _SharedLoad] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.on_log: Callable[[Mapping[str, Any]], None] = lambda _entry: None
        """Called with each entry of the engines' log (docs/protocol.md#diagnostics-endpoints)."""

    def devices(self, request: OnDevice) -> Sequence[Device]:
        """Return the devices that a request means, in the order in which they are tried: this machine.

        Raises:
            WireError: If it names another one.
        """
        identifier = request.get("deviceIdentifier")
        if identifier is not None:
            raise errors.device_not_found(identifier, {})
        return [self.local]

    def instances(self, kind: ModelKind | None = None, devices: Iterable[Device] | None = None) -> list[ModelInstance]:
        """Return the loaded instances, in the order of loading, or of some devices. Any thread may call this."""
        instances = list(self._instances.values())  # in one step, so nothing changes meanwhile
        found = [instance for instance in instances if kind in {None, instance.entry.kind}]
        if devices is None:
            return found
        return [instance for device in devices for instance in found if instance.device is device]

    def downloaded(self, devices: Iterable[Device] | None = None) -> list[tuple[Device, ModelEntry]]:
        """Return the entries that can be loaded, and where."""
        return [
            (device, entry)
            for device in ([self.local] if devices is None else devices)
            for entry in self.catalog.models
            if entry.key in device.downloaded
        ]

    async def read_metadata(self, entries: Iterable[ModelEntry]) -> None:
        """Read and cache the metadata of weights, in a thread: a large header takes long."""
        for entry in entries:
            if entry.key not in self.metadata_by_key:
                await asyncio.to_thread(self.metadata, entry)

    def info(self, entry: ModelEntry, device: Device | None = None) -> dict[str, Any]:
        """Return the wire form of an entry, on this machine or on another device."""
        return describe(entry, self.metadata(entry), (device or self.local).identifier)

    def metadata(self, entry: ModelEntry) -> ModelMetadata:
        """Return the metadata of weights; empty metadata if they cannot be read. Any thread may call this."""
        metadata = self.metadata_by_key.get(entry.key)
        if metadata is None:
            try:
                metadata = self.metadata_by_key[entry.key] = self.engine_of(entry).metadata(entry.weights, entry.kind)
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
        # A device that is null is this machine, and not the same as none.
        is_device_named = "device_identifier" in query.model_fields_set
        devices = self.devices({"deviceIdentifier": query.device_identifier} if is_device_named else {})
        path = (query.path or "").casefold().rstrip("/")
        matching = [
            instance
            for instance in self.instances(kind, devices)
            if query.domain in {None, kind}
            and (query.vision is None or query.vision == instance.describe().get("vision", False))
            and (query.path is None or f"{instance.entry.full_path.casefold()}/".startswith(f"{path}/"))
        ]
        if query.identifier is not None:
            matching = self.instances_named(matching, query.identifier)
        if not matching:
            self._raise_nothing_loaded(kind, query.to_dict(), devices)
        return matching[0]

    def find_unambiguous(self, kind: ModelKind, name: str, devices: Sequence[Device]) -> ModelInstance:
        """Return the instance with this identifier, else the only instance of the model with this name.

        Raises:
            WireError: If there is none, or there are several.
        """
        instances = self.instances_named(self.instances(kind, devices), name)
        if not instances or (len(instances) > 1 and instances[0].identifier != name):
            self._raise_nothing_loaded(kind, {"identifier": name}, devices)
        return instances[0]

    def find_entries(self, kind: ModelKind, name: str, devices: Sequence[Device]) -> tuple[Device, list[ModelEntry]]:
        """Return the first device that has the model of a name, and the entries that this may stand for, best first.

        Raises:
            WireError: If there is none, or none of this kind.
        """
        named = self.catalog.find(name)
        found = [(device, entry) for device in devices for entry in named if entry.key in device.downloaded]
        if not found:
            self._reject_other_kind(kind, name, devices)
            paths = [entry.full_path for _, entry in self.downloaded(devices) if entry.kind == kind]
            raise errors.path_not_found(name, list(dict.fromkeys(paths)))
        device = next((device for device, entry in found if entry.kind == kind), None)
        if device is None:
            raise errors.domain_mismatch(found[0][1].full_path, found[0][1].kind, kind)
        return device, [entry for where, entry in found if where is device and entry.kind == kind]

    def check_draft_model(self, name: str, device: Device) -> None:
        """Check that a language model can serve as a draft model on a device.

        Raises:
            WireError: If there is none with this name.
        """
        if not any(entry.key in device.downloaded for entry in self.catalog.find(name)):
            # For a code, the official SDKs print a text of their own (docs/protocol.md#recorded-answers).
            raise errors.WireError(f'Cannot find model "{name}"')
        self.find_entries("llm", name, [device])

    async def load(
        self,
        entry: ModelEntry,
        device: Device,
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
            WireError: If the identifier is taken or invalid, or the device is not connected, or no longer.
            EngineError: If the engine cannot load it, or it does not fit into the memory.
        """
        settings = settings or {}
        default = entry.full_path if name == entry.full_path else entry.key
        config = LOAD_CONFIGS[entry.kind].describe(settings)
        identifier = self._reserve(device, default, identifier)
        record = LoadRecord(
            key=entry.key,
            identifier=identifier,
            device=device.name,
            mode="just_in_time" if jit else "explicit",
            config=config,
        )
        load = self._request_log.loads.add(record)
        self._log(entry, device, "loading")
        try:
            with device.hold_load():
                await self.read_metadata([entry])
                on_start(identifier)
                request = self.load_request(entry, settings, device)
                info = self.info(entry, device)
                device.reserve_memory(identifier, entry, info["sizeBytes"], request.context_length)
                model = await self.engine_of(entry).load(request, on_progress)
                instance = ModelInstance(
                    entry=entry,
                    device=device,
                    identifier=identifier,
                    model=model,
                    info=info,
                    request=request,
                    ttl_ms=ttl_ms,
                    jit=jit,
                    load=load,
                    clock=self._clock,
                )
                # No await from here on: the identifier is reserved until the instance has it.
                instance.on_end = lambda state: self.discard(instance, state)
                self._instances[instance.reference] = instance
                instance.start_ttl()
                load.update(state="loaded")
                self._log(entry, device, "loaded", instance)
        except BaseException as error:
            device.release_memory(identifier)
            is_cancelled = isinstance(error, asyncio.CancelledError)
            load.update(state="cancelled" if is_cancelled else "failed")
            self._log(entry, device, load.record.state, error=None if is_cancelled else error)
            raise
        finally:
            device.reserved.discard(identifier)
        return instance

    async def load_just_in_time(
        self,
        entry: ModelEntry,
        device: Device,
        name: str,
        listener: OnPacket,
        *,
        ttl_ms: int | None,
        settings: Mapping[str, Any],
    ) -> ModelInstance:
        """Load a model on first use; clients that request it meanwhile share the load.

        Raises:
            WireError: As `load` does.
        """
        # No await up to `shared.wait`: a second client must find the load, and nobody may cancel it meanwhile.
        key = (device, entry.key)
        shared = self._shared.get(key)
        if shared is None or shared.task.done() or shared.task.cancelling():
            shared = self._shared[key] = _SharedLoad()
            ttl = kv_config.JIT_TTL_MS if ttl_ms is None else ttl_ms
            shared.task = self._spawn(self._load_shared(shared, entry, device, name, ttl_ms=ttl, settings=settings))
        try:
            return await shared.wait(listener)
        finally:
            if not shared.listeners and self._shared.get(key) is shared:
                del self._shared[key]

    async def unload(self, instance: ModelInstance, state: LoadState = "unloaded") -> None:
        """Unload an instance after its predictions were stopped."""
        await asyncio.shield(self.discard(instance, state))

    def discard(self, instance: ModelInstance, state: LoadState = "unloaded") -> "asyncio.Task[None]":
        """Unload an instance in the background, once; it is no longer found. `state` is the reason."""
        if instance.unloading is None:
            del self._instances[instance.reference]
            instance.device.release_memory(instance.identifier)
            instance.unloading = self._spawn(instance.unload())
            instance.load.update(state=state)
            self._log(instance.entry, instance.device, state, instance)
        return instance.unloading

    def _log(
        self,
        entry: ModelEntry,
        device: Device,
        state: LoadState,
        instance: ModelInstance | None = None,
        error: BaseException | None = None,
    ) -> None:
        name = entry.key if device.name is None else f"{entry.key} on {device.name}"
        text = f"{name}: {state}" if error is None else f"{name}: {state}: {error}"
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
        self,
        shared: _SharedLoad,
        entry: ModelEntry,
        device: Device,
        name: str,
        *,
        ttl_ms: int,
        settings: Mapping[str, Any],
    ) -> ModelInstance:
        async with device.jit_lock if self._auto_evict else nullcontext():
            others = self.instances(devices=[device])
            for other in [instance for instance in others if instance.jit and self._auto_evict]:
                shared.send(type="unloadingOtherJITModel", info=other.describe())
                await self.unload(other, "evicted")
            return await self.load(
                entry,
                device,
                name=name,
                ttl_ms=ttl_ms,
                settings=settings,
                jit=True,
                on_start=lambda identifier: shared.send(
                    type="startLoading", identifier=identifier, info=self.info(entry, device)
                ),
                on_progress=lambda progress: shared.send(type="loadProgress", progress=progress),
            )

    def _reserve(self, device: Device, default: str, identifier: str | None) -> str:
        """Reserve and return the identifier of a new instance.

        Raises:
            WireError: If the requested one is taken or invalid.
        """
        taken = {instance.identifier for instance in self.instances(devices=[device])} | device.reserved
        if identifier is None:
            identifier, number = default, 1
            while identifier in taken:
                number += 1
                identifier = f"{default}:{number}"
        elif identifier in taken:
            # The official suite matches "Model load error.*already exists" on one line.
            raise errors.WireError(f'A model with the identifier "{identifier}" already exists')
        try:
            by_identifier(identifier)
        except LMStudioValueError as error:
            raise errors.WireError("The identifier cannot name a model", cause=str(error)) from error
        device.reserved.add(identifier)
        return identifier

    def load_request(self, entry: ModelEntry, settings: Mapping[str, Any], device: Device) -> LoadRequest:
        """Return what the engine loads: the requested settings over those of the entry and the defaults."""
        if entry.format != "torch_safetensors":  # only vLLM has them
            settings = {key: value for key, value in settings.items() if key not in {CONFIG_FILE, CONFIG_FOLDER}}
        requested = LOAD_CONFIGS[entry.kind].from_fields(settings)
        limit = entry.max_context_length or self.metadata(entry).max_context_length
        context_length = entry.loaded_context_length or min(
            requested.context_length or entry.context_length or kv_config.CONTEXT_LENGTH, limit
        )
        slots = entry.slots or kv_config.PARALLEL_SESSIONS
        if not isinstance(requested, EmbeddingLoadModelConfig) and requested.max_parallel_predictions:
            slots = requested.max_parallel_predictions
        actual: dict[str, Any] = {f"{entry.kind}.load.contextLength": context_length}
        if slots_of(entry.kind, settings) is None:  # how many run at once is in the file of the engine
            settings = requested.set_fields()
        elif entry.kind != "embedding":
            actual[f"{entry.kind}.load.numParallelSessions"] = slots
        return LoadRequest(
            key=entry.key,
            kind=entry.kind,
            weights=entry.weights,
            fields=kv_config.effective(kv_config.LOAD[entry.kind], settings, actual),
            context_length=context_length,
            slots=slots,
            engine_settings=entry.engine_settings(device.speed),
        )

    def instances_named(self, instances: list[ModelInstance], name: str) -> list[ModelInstance]:
        """Return the instances that a name may stand for, the best first: by identifier, then as in the catalog."""
        exact = [instance for instance in instances if instance.identifier == name]
        return exact + [
            instance for entry in self.catalog.find(name) for instance in instances if instance.entry is entry
        ]

    def _raise_nothing_loaded(self, kind: ModelKind, query: Mapping[str, Any], devices: Sequence[Device]) -> NoReturn:
        """Raise the error for a query that no loaded model matches; one of the other kind has its own error."""
        if query.get("identifier"):
            self._reject_other_kind(kind, query["identifier"], devices)
        raise errors.no_model_matching(query, [each.identifier for each in self.instances(kind, devices)])

    def _reject_other_kind(self, kind: ModelKind, name: str, devices: Sequence[Device]) -> None:
        """Raise an error if the requested model is loaded, but of the other kind."""
        other = next(iter(self.instances_named(self.instances(devices=devices), name)), None)
        if other is not None and other.entry.kind != kind:
            raise errors.domain_mismatch(other.entry.full_path, other.entry.kind, kind)

    def engine_of(self, entry: ModelEntry) -> Engine:
        engine = self.engines.get(entry.engine)
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
