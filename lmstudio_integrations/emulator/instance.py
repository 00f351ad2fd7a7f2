"""One loaded model: who uses it, when it was last used, how long it may idle.

Everything here belongs to the emulator's event loop.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from copy import copy
from typing import Any, Literal

from lmstudio_integrations.emulator.catalog import ModelEntry
from lmstudio_integrations.emulator.clock import Clock, Timer
from lmstudio_integrations.emulator.engines.base import LoadedModel
from lmstudio_integrations.emulator.engines.errors import EngineError
from lmstudio_integrations.emulator.errors import model_unloaded
from lmstudio_integrations.emulator.records import Entry, LoadRecord, LoadState
from lmstudio_integrations.emulator.scheduling import CancelScope, FairQueue

Activity = Literal["processingPrompt", "generating", "computingEmbedding"]
MODEL_UNLOADED = "modelUnloaded"
"""Why work ends when its model goes away."""


class Instance:
    """A loaded model.

    Args:
        entry: What was loaded.
        identifier: Its name among the loaded ones.
        model: The engine's side of it.
        info: What clients are told of the model.
        fields: The load settings in effect, by their full keys.
        context_length: Tokens that one prediction may use.
        slots: How many predictions run at once.
        ttl_ms: How long it may idle; `None` for ever.
        jit: Whether it was loaded just in time, so that the next such load evicts it.
        load: The load that it came by, in the ledger.
        clock: The time.
    """

    def __init__(
        self,
        *,
        entry: ModelEntry,
        identifier: str,
        model: LoadedModel,
        info: dict[str, Any],
        fields: dict[str, Any],
        context_length: int,
        slots: int,
        ttl_ms: int | None,
        jit: bool,
        load: Entry[LoadRecord],
        clock: Clock,
    ) -> None:
        self.entry = entry
        self.identifier = identifier
        self.reference: str = secrets.token_urlsafe(18)
        self.model = model
        self.fields = fields
        self.context_length = context_length
        self.ttl_ms = ttl_ms
        self.jit = jit
        self.load = load
        self.last_used_ms: int | None = None
        self.unloading: asyncio.Task[None] | None = None
        """What unloads it, as soon as it is to go; nobody can use it from then on."""
        self.on_end: Callable[[LoadState], object] = lambda _state: None
        """Called when its TTL has expired, or it has crashed."""
        self._crash: EngineError | None = None
        self._info = info
        self._clock = clock
        self._queue = FairQueue(slots)
        self._users: dict[CancelScope, Activity | None] = {}
        self._timer: Timer | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    def describe(self) -> dict[str, Any]:
        """Return what clients are told (protocol §6.6)."""
        return self._info | {
            "identifier": self.identifier,
            "instanceReference": self.reference,
            "ttlMs": self.ttl_ms,
            "lastUsedTime": self.last_used_ms,
            "contextLength": self.context_length,
        }

    def state(self) -> dict[str, Any]:
        """Return what it does, and for how many it works or is to work."""
        doing = set(self._users.values())
        for activity in ("generating", "processingPrompt", "computingEmbedding"):
            if activity in doing:
                break
        else:
            activity = "idle"
        return {"status": activity, "queued": self._queue.queued + self._queue.running}

    @asynccontextmanager
    async def use(self, client: str, scope: CancelScope, activity: Activity) -> AsyncGenerator[None, None]:
        """Wait for a turn and hold it; unloading stops the scope.

        Raises:
            RefusedError: If the model is gone.
        """
        with self.hold(scope):
            await self._queue.enter(client)
            try:
                self._users[scope] = activity
                yield
            finally:
                self._queue.leave()

    def hold(self, scope: CancelScope) -> "_Hold":
        """Keep the model from idling, without a turn: for what costs no time. Unloading stops the scope."""
        return _Hold(self, scope)

    def doing(self, scope: CancelScope, activity: Activity) -> None:
        """Take note of what a user of it does now."""
        self._users[scope] = activity

    def begin(self, scope: CancelScope) -> None:
        """Count a user in.

        Raises:
            RefusedError: If the model is gone.
        """
        if self.unloading is not None:
            raise model_unloaded()
        self.last_used_ms = self._clock.unix_ms()
        self._users[scope] = None
        self._idle.clear()
        self._disarm()

    def end(self, scope: CancelScope) -> None:
        """Count a user out."""
        del self._users[scope]
        self.last_used_ms = self._clock.unix_ms()
        if not self._users:
            self._idle.set()
            self.arm()

    def crash(self, error: EngineError) -> None:
        """Take note that the model is gone, and why; all who still use it, or wait for it, fail with that."""
        self._crash = self._crash or error
        self.on_end("crashed")

    def raise_crash(self) -> None:
        """Fail if the model is gone because it has crashed.

        Raises:
            RefusedError: With the error of the crash.
        """
        if self._crash is not None:
            raise copy(self._crash)

    def arm(self) -> None:
        """Start the time to live, if there is one and nobody uses the model."""
        self._disarm()
        if self.ttl_ms is not None and self.unloading is None and not self._users:
            self._timer = self._clock.call_later(self.ttl_ms / 1000, self._expire)

    async def dismiss(self) -> None:
        """Stop all users, wait until they have left, and give the model back to its engine."""
        self._disarm()
        for scope in list(self._users):
            scope.stop(MODEL_UNLOADED)
        await self._idle.wait()
        await self.model.close()

    def _expire(self) -> None:
        self.on_end("expired")

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Hold:
    """Counts a user in and out."""

    def __init__(self, instance: Instance, scope: CancelScope) -> None:
        self._instance = instance
        self._scope = scope

    def __enter__(self) -> None:
        self._instance.begin(self._scope)

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._instance.end(self._scope)
        if isinstance(error, EngineError) and error.fatal:
            self._instance.crash(error)
        elif isinstance(error, asyncio.CancelledError) and self._scope.reason == MODEL_UNLOADED:
            self._instance.raise_crash()
