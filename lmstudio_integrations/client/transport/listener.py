"""The listeners of a client: what its operations report on the way.

`client/telemetry.py` makes spans and metrics of it, and is imported once the program has a provider of OpenTelemetry.

`client_context.py` has the listener of a client, `operation.py` that of an operation. Without a provider, both are
`NOBODY`.
"""

import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import Any, Protocol

from lmstudio_integrations._support.leaves import MissingLeafError, door
from lmstudio_integrations.client.transport.connect.addresses import Address, Target


class ConnectionReport(Protocol):
    """Receives how the connection of a call is made, if the call has to wait for that."""

    def begin(self) -> None:
        """Called when a socket is being opened (on the I/O thread)."""

    def end(self, make_error: Callable[[], BaseException] | None = None) -> None:
        """Called when the server has accepted the client, or with what happened instead (on the I/O thread)."""

    def report(self, error: BaseException | None) -> None:
        """Report the connection, with the error of the call. Only the first report counts (in the caller)."""


class Listener:
    """Called with what happens in the operations of a client, where their caller runs. This one ignores it."""

    def on_start(self, name: str, target: Target, model_key: str | None, *, is_stream: bool = False) -> "Listener":  # noqa: ARG002 - subclasses use them
        """Called when an operation on a model begins; return the listener of its parts.

        Args:
            name: The operation, for error messages.
            target: The server.
            model_key: The model that the caller has named.
            is_stream: Whether the caller reads a stream.
        """
        return self

    def on_attempt(self, target: Target, model_key: str | None) -> None:
        """Called with the one of several hosts on which the next attempt of the operation runs."""

    def on_connect(self, address: Address | None) -> ConnectionReport | None:  # noqa: ARG002 - subclasses use it
        """Called when a call is started; return what receives the report of its connection, if anything does."""
        return None

    def on_request(self, parameter: Mapping[str, Any]) -> None:
        """Called with what a prediction requests."""

    def on_load(self, target: Target, model_key: str | None, seconds: float, error: BaseException | None) -> None:
        """Called when a load has ended, with the seconds that it took."""

    def on_retry(self, error: Exception) -> None:
        """Called when an attempt has failed, and another one follows."""

    def on_warm_again(self, target: Target, model_key: str | None) -> None:
        """Called when a prefix is processed again, because the instance of the model is a new one."""

    def on_first_chunk(self) -> None:
        """Called when the caller gets a part of the response. Only the first one counts."""

    def on_end(self, outcome: object, model_key: str | None = None) -> None:
        """Called when the operation has ended. Only the first end counts.

        Args:
            outcome: The result or the error; `None` if the operation was given up.
            model_key: The key of the model that has responded, if the result does not have it.
        """


NOBODY = Listener()

_TELEMETRY = "lmstudio_integrations.client.telemetry"
"""The room above this one that makes spans and metrics."""

_TRACES, _METRICS = "opentelemetry.trace", "opentelemetry.metrics._internal"


def default_listener() -> Listener:
    """Return the listener of operations that are no parts of others: that of telemetry, once there is a provider.

    The program may configure one of traces or of metrics at any time. A look into `sys.modules` is cheap.
    """
    if _TRACES not in sys.modules:
        return NOBODY
    # Read as attributes: every operation asks, and the public getters cost ten times as much.
    try:
        has_provider = sys.modules[_TRACES]._TRACER_PROVIDER is not None or (  # noqa: SLF001
            _METRICS in sys.modules and sys.modules[_METRICS]._METER_PROVIDER is not None  # noqa: SLF001
        )
    except AttributeError:  # another version of OpenTelemetry; its providers are used, configured or not
        has_provider = True
    return _spans() if has_provider else NOBODY


@cache
def _spans() -> Listener:
    try:
        with door("telemetry"):
            spans: Listener = import_module(_TELEMETRY).SPANS
    except MissingLeafError:  # nothing but spans and metrics is missing
        return NOBODY
    return spans
