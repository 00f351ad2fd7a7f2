"""One instance of a model: its users, its queue, and its idle TTL.

Everything here belongs to the emulator's event loop.
"""

import asyncio
import logging
import secrets
import string
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from copy import copy
from typing import Any, Literal

from pydantic import ValidationError

from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.emulator.engines.base import EngineError, EngineModel, LoadRequest
from lmstudio_integrations.emulator.errors import WireError, model_unloaded, preset_not_found
from lmstudio_integrations.emulator.models.cancel_scope import CancelScope
from lmstudio_integrations.emulator.models.catalog import Catalog, ModelEntry
from lmstudio_integrations.emulator.models.clock import Clock, Timer
from lmstudio_integrations.emulator.models.device import Device
from lmstudio_integrations.emulator.models.request_log import LoadRecord, LoadState, RecordEntry
from lmstudio_integrations.protocol.kv_config import KvConfigStack
from lmstudio_integrations.types.functions import Tool

ToolMode = Literal["none", "auto", "required"]


def requested(catalog: Catalog, stack: KvConfigStack, preset_name: str | None) -> dict[str, Any]:
    """Return the requested settings: the preset, then the request's layers.

    Raises:
        WireError: If there is no such preset.
    """
    fields: Mapping[str, Any] = {}
    if preset_name is not None:
        preset = catalog.preset(preset_name)
        if preset is None:
            presets = [(each.identifier, each.name or each.identifier) for each in catalog.presets]
            raise preset_not_found(preset_name, presets)
        fields = preset.fields
    return {**fields, **stack.collapse()}


def tools_of(settings: Mapping[str, Any]) -> tuple[Tool, ...]:
    """Return the tools that may be called.

    Raises:
        WireError: If a tool is invalid.
    """
    use = settings["llm.prediction.tools"]
    tools = use.get("tools") if is_object(use) and use.get("type") == "toolArray" else None
    if not is_list(tools):
        return ()
    try:
        return tuple(Tool.model_validate(tool) for tool in tools)
    except ValidationError as error:
        raise WireError("The definition of a tool is invalid", cause=str(error)) from error


def tool_choice_of(settings: Mapping[str, Any]) -> ToolMode:
    """Return whether a tool must be called; older clients set this together with the tools."""
    choice, use = settings["llm.prediction.toolChoice"], settings["llm.prediction.tools"]
    if is_object(use) and use.get("force") is True:
        return "required"
    mode = choice.get("mode") if is_object(choice) else None
    return mode if mode in {"none", "required"} else "auto"


logger: logging.Logger = logging.getLogger(__name__)

Activity = Literal["processingPrompt", "generating", "computingEmbedding"]
MODEL_UNLOADED = "modelUnloaded"
"""The stop reason of a prediction whose model is unloaded."""

_REFERENCE = (string.ascii_letters + string.digits,) * 24
"""The characters of each place of a reference."""


class ModelInstance:
    """A model that is loaded, as LM Studio lists it.

    Args:
        entry: What was loaded.
        device: Where it was loaded.
        identifier: Its name among the instances of the device.
        model: What the engine has loaded.
        info: The wire form of the model.
        request: The settings in effect.
        ttl_ms: How long it may idle; `None` for ever.
        jit: Whether it was loaded just in time, so that the next such load evicts it.
        load: The record of its load.
        clock: The time.
    """

    def __init__(
        self,
        *,
        entry: ModelEntry,
        device: Device,
        identifier: str,
        model: EngineModel,
        info: dict[str, Any],
        request: LoadRequest,
        ttl_ms: int | None,
        jit: bool,
        load: RecordEntry[LoadRecord],
        clock: Clock,
    ) -> None:
        self.entry = entry
        self.device = device
        self.identifier = identifier
        self.reference: str = "".join(map(secrets.choice, _REFERENCE))
        self.model = model
        self.request = request
        self.ttl_ms = ttl_ms
        self.jit = jit
        self.load = load
        self.last_used_ms: int | None = None
        self.unloading: asyncio.Task[None] | None = None
        """The task that unloads it; from then on it cannot be used."""
        self.on_end: Callable[[LoadState], object] = lambda _state: None
        """Called when its TTL has expired, or it has crashed."""
        self._crash: EngineError | None = None
        self._info = info
        self._clock = clock
        self._slots = asyncio.Semaphore(request.slots)  # first come, first served
        self._queued = 0
        self._users: dict[CancelScope, Activity | None] = {}
        self._timer: Timer | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    def describe(self) -> dict[str, Any]:
        """Return the wire form (docs/protocol.md#model-info)."""
        return self._info | {
            "identifier": self.identifier,
            "instanceReference": self.reference,
            "ttlMs": self.ttl_ms,
            "lastUsedTime": self.last_used_ms,
            "contextLength": self.request.context_length,
        }

    def state(self) -> dict[str, Any]:
        """Return its activity, and how many requests run or wait."""
        activities = set(self._users.values())
        order = ("generating", "processingPrompt", "computingEmbedding")
        status = next((activity for activity in order if activity in activities), "idle")
        return {"status": status, "queued": self._queued}

    @asynccontextmanager
    async def use(self, scope: CancelScope, activity: Activity) -> AsyncGenerator[None]:
        """Wait for a slot and keep it; unloading cancels the scope.

        Raises:
            WireError: If the model is unloaded.
        """
        with self.hold(scope):
            self._queued += 1  # it waits for a slot, or runs in one
            try:
                async with self._slots:
                    self._users[scope] = activity
                    yield
            finally:
                self._queued -= 1

    @contextmanager
    def hold(self, scope: CancelScope) -> Generator[None]:
        """Keep the model from being idle, without a slot: for quick calls. Unloading cancels the scope.

        Raises:
            WireError: If the model is unloaded.
            EngineError: If another user of it met a crash.
        """
        if self.unloading is not None:
            raise model_unloaded()
        self.last_used_ms = self._clock.unix_ms()
        self._users[scope] = None
        self._idle.clear()
        self._stop_ttl()
        try:
            yield
        except EngineError as error:
            if error.fatal:
                self._crash = self._crash or error
                self.on_end("crashed")
            raise
        except asyncio.CancelledError:
            if self._crash is not None and scope.reason == MODEL_UNLOADED:
                raise copy(self._crash) from None
            raise
        finally:
            del self._users[scope]
            self.last_used_ms = self._clock.unix_ms()
            if not self._users:
                self._idle.set()
                self.start_ttl()

    def set_activity(self, scope: CancelScope, activity: Activity) -> None:
        """Record the current activity of a user."""
        self._users[scope] = activity

    def start_ttl(self) -> None:
        """Start the idle TTL, if there is one and nobody uses the model."""
        self._stop_ttl()
        if self.ttl_ms is not None and self.unloading is None and not self._users:
            self._timer = self._clock.call_later(self.ttl_ms / 1000, lambda: self.on_end("expired"))

    async def unload(self) -> None:
        """Cancel all users, wait until they have finished, and close the model."""
        self._stop_ttl()
        for scope in list(self._users):
            scope.cancel(MODEL_UNLOADED)
        await self._idle.wait()
        await self.model.close()

    def _stop_ttl(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
