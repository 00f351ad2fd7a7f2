"""OpenTelemetry: whether a program uses it, its tracer, and the span of a connection.

This package never imports OpenTelemetry by itself: a program that has configured a provider has imported it. So without
it nothing is traced, and a call costs one look into `sys.modules`. `dispatcher.py` and the sockets record how a
connection was made; `client/telemetry/spans.py` makes the spans and metrics of operations.
"""

import sys
import time
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lmstudio_integrations.client.transport.connect.addresses import Address
from lmstudio_integrations.errors import (
    LMStudioAuthenticationError,
    LMStudioCancelledError,
    LMStudioClientClosedError,
    LMStudioConnectionLostError,
    LMStudioContextOverflowError,
    LMStudioInsufficientResourcesError,
    LMStudioModelCrashedError,
    LMStudioModelLoadError,
    LMStudioModelNotFoundError,
    LMStudioPresetNotFoundError,
    LMStudioTimeoutError,
    LMStudioUnreachableError,
    LMStudioWrongModelKindError,
)

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer, TracerProvider

SCOPE = "lmstudio_integrations"
"""The name of the instrumentation scope."""

PROVIDER = {"gen_ai.provider.name": "lm_studio"}
"""The provider. The conventions have no name for LM Studio; this one has the form of theirs."""

API = "opentelemetry.trace"
_METRICS = "opentelemetry.metrics._internal"
LOADED = sys.modules
"""`API in LOADED`: whether the program has imported OpenTelemetry. The check is no call."""

_WITHOUT_CONTENT = (
    LMStudioAuthenticationError,
    LMStudioClientClosedError,
    LMStudioConnectionLostError,
    LMStudioContextOverflowError,
    LMStudioInsufficientResourcesError,
    LMStudioModelCrashedError,
    LMStudioModelLoadError,
    LMStudioModelNotFoundError,
    LMStudioPresetNotFoundError,
    LMStudioTimeoutError,
    LMStudioUnreachableError,
    LMStudioWrongModelKindError,
)
"""Errors whose messages quote neither a prompt nor a response. Spans have no message of others."""


def is_on() -> bool:
    """Whether the program has configured a provider of traces or of metrics. Only for `API in LOADED`."""
    # Read as attributes: every prediction asks, and the public getters cost ten times as much.
    try:
        return LOADED[API]._TRACER_PROVIDER is not None or (  # noqa: SLF001
            _METRICS in LOADED and LOADED[_METRICS]._METER_PROVIDER is not None  # noqa: SLF001
        )
    except AttributeError:  # another version of OpenTelemetry; its providers are used, configured or not
        return True


def get_tracer() -> "Tracer":
    """Return the tracer of the configured provider."""
    from opentelemetry import trace  # noqa: PLC0415 - the program has imported it

    return _tracer_of(trace.get_tracer_provider())


@lru_cache(maxsize=1)
def _tracer_of(provider: "TracerProvider") -> "Tracer":
    return provider.get_tracer(SCOPE)


def server_attributes(address: Address | None) -> dict[str, Any]:
    """Return the server's host and port; nothing for the LM Studio that is found on this machine."""
    return {} if address is None else {"server.address": address.host, "server.port": address.port}


def error_type(error: BaseException | None) -> str | None:
    """Return the name of an error's class; `None` without one, and if the caller has cancelled the operation."""
    if not isinstance(error, Exception) or isinstance(error, LMStudioCancelledError):
        return None
    return type(error).__qualname__


def end_span(span: "Span", error: BaseException | None = None, *, end_time: int | None = None) -> None:
    """End a span. No event has the exception: its stack trace and its causes may show content."""
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 - the program has imported it

    kind = error_type(error)
    if kind is not None:
        span.set_attribute("error.type", kind)
        span.set_status(Status(StatusCode.ERROR, str(error) if isinstance(error, _WITHOUT_CONTENT) else None))
    span.end(end_time)


def run_outside_sdk(function: Callable[..., Any], *args: Any, submit: Callable[..., Any]) -> None:
    """Run a function now; if this thread runs code of the SDK, submit it to the I/O thread.

    Finalizers run anywhere, also while the SDK holds a lock that ending a span needs as well.
    """
    if sys.is_finalizing():
        return
    from inspect import currentframe  # noqa: PLC0415 - lazy: keeps import cheap

    frame = currentframe()
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith("opentelemetry.sdk."):
            submit(function, *args)
            return
        frame = frame.f_back
    function(*args)


class Connecting:
    """How the connection of a call is made, if the call has to wait for that.

    The caller makes it and reports the span; the I/O thread only records times, because exporters may block.
    """

    __slots__ = ("_address", "_unreported", "ended_at", "error", "started_at")

    def __init__(self, address: Address | None, context: "Context") -> None:
        self._address = address
        self._unreported = [context]
        self.started_at: int | None = None
        """When the I/O thread began to open a socket; `None` if there was one."""
        self.ended_at: int | None = None
        self.error: BaseException | None = None

    def begin(self) -> None:
        """Record that a socket is being opened (on the I/O thread)."""
        self.started_at = time.time_ns()

    def end(self, make_error: Callable[[], BaseException] | None = None) -> None:
        """Record that the server has accepted the client, or what happened instead (on the I/O thread)."""
        if self.ended_at is None:
            self.error = make_error and make_error()
            self.ended_at = time.time_ns()

    def report(self, error: BaseException | None) -> None:
        """Make the span, once.

        Args:
            error: The error of the call. If no connection was made, it says why: its timeout may come first.
        """
        from opentelemetry.trace import SpanKind  # noqa: PLC0415 - the program has imported it

        try:
            context = self._unreported.pop()  # in one step: any thread may close a call
        except IndexError:
            return
        if self.started_at is None:
            return
        span = get_tracer().start_span(
            "connect",
            context,
            SpanKind.CLIENT,
            {**PROVIDER, **server_attributes(self._address)},
            start_time=self.started_at,
        )
        ended_at = self.ended_at
        failed = ended_at is None or self.error is not None
        end_span(span, (error or self.error) if failed else None, end_time=ended_at)


def connecting_of(address: Address | None, context: "Context | None") -> Connecting:
    """Return what records the connection of a call.

    Args:
        address: The server.
        context: The context of the operation that the call is part of; `None` is the current one.
    """
    from opentelemetry.context import get_current  # noqa: PLC0415 - the program has imported it

    return Connecting(address, get_current() if context is None else context)
