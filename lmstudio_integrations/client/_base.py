"""What the sync and the async client share: everything that does not wait."""

from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

from typing_extensions import Unpack

from lmstudio_integrations.client._address import Target
from lmstudio_integrations.client._binding import Binding, LoadPolicy, OnConfigMismatch, OnProgress
from lmstudio_integrations.client._link import FOR_EVER, Link
from lmstudio_integrations.client._prediction import Prediction
from lmstudio_integrations.client._requests import CLOCKS, ClockOptions, check_names, checked_clocks
from lmstudio_integrations.client._waiters import Waiter
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.config import EmbeddingLoadModelConfig, LlmLoadModelConfig, LlmPredictionConfig
from lmstudio_integrations.types.models import LlmInstanceInfo, ModelKind
from lmstudio_integrations.types.results import LlmPredictionStats, PredictionResult

HandleT = TypeVar("HandleT", bound="BaseHandle")
LoadConfig = LlmLoadModelConfig | EmbeddingLoadModelConfig | Mapping[str, Any]

_LOAD_CONFIGS: dict[ModelKind, type[LlmLoadModelConfig] | type[EmbeddingLoadModelConfig]] = {
    "llm": LlmLoadModelConfig,
    "embedding": EmbeddingLoadModelConfig,
}
_POLICIES = ("get_or_load", "require_loaded", "new_instance")
_MISMATCH = ("warn", "raise", "ignore")


class BaseClient:
    """The settings of a client, and its way to the server.

    Nothing is sent before the first call; sockets are shared with all clients of the process that have the same
    server and the same credentials.

    Args:
        api_host: `host:port` or a URL of http, https, ws or wss. Without one: `LMSTUDIO_HOST`, else the LM Studio that
            is found on this machine.
        api_token: An LM Studio API token. Without one: `LM_API_TOKEN`, else `LMSTUDIO_API_TOKEN`, else a guest.
        headers: Further HTTP headers of the WebSocket handshake, for proxies.
        keep_idle: Seconds for which idle sockets are kept for this client.
        clocks: `connect_timeout`, `load_timeout`, `first_token_timeout`, `idle_timeout`, `timeout`: see `ClockOptions`.

    Raises:
        LMStudioValueError: If an argument cannot be.
    """

    make_waiter: ClassVar[type[Waiter]]
    _default_clocks: ClassVar[Mapping[str, float | None]] = CLOCKS

    def __init__(
        self,
        api_host: str | None = None,
        api_token: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        keep_idle: float = FOR_EVER,
        **clocks: Unpack[ClockOptions],
    ) -> None:
        check_names(clocks, CLOCKS)
        target = Target.of(api_host, api_token, headers)
        limits = {**self._default_clocks, **checked_clocks(clocks)}
        self._link: Link[Any] = Link(target, limits, self.make_waiter, keep_idle)

    @property
    def api_host(self) -> str | None:
        """The server's address; `None` if it is looked for when connecting."""
        address = self._link.target.address
        return address.netloc if address else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(api_host={self.api_host!r})"


class BaseHandle:
    """A model, as a handle of either kind sees it."""

    def __init__(self, link: Link[Any], binding: Binding) -> None:
        self._link = link
        self.binding = binding
        """Which model it is, and how it is got."""

    @property
    def identifier(self) -> str:
        """The identifier of the loaded instance, or the key that was named while none is known."""
        return self.binding.name

    def __repr__(self) -> str:
        return f"{type(self).__name__}(identifier={self.identifier!r})"


class BaseNamespace(Generic[HandleT]):
    """The models of one kind, as a client of either kind sees them."""

    kind: ClassVar[ModelKind]
    _handle: type[HandleT]

    def __init__(self, link: Link[Any]) -> None:
        self._link = link

    def lazy_model(
        self,
        model_key: str | None = None,
        /,
        *,
        ttl: float | None = None,
        config: LoadConfig | None = None,
        load_policy: LoadPolicy = "get_or_load",
        on_config_mismatch: OnConfigMismatch = "warn",
        on_load_progress: OnProgress | None = None,
    ) -> HandleT:
        """Return a handle that gets or loads its model at its first use. Nothing is sent now.

        Args:
            model_key: Key or identifier; `None` is any loaded model.
            ttl: Seconds of idle time after which the model goes, if this loads it. `None` sends none: the server's
                default then applies to `get_or_load`, and a new instance stays.
            config: Load settings, if this loads it.
            load_policy: `get_or_load`; `require_loaded` never loads; `new_instance` always does.
            on_config_mismatch: Whether to `warn`, `raise` or `ignore` when it is loaded with other settings.
            on_load_progress: Takes growing values from 0.0 to 1.0.

        Raises:
            LMStudioValueError: If an argument cannot be.
        """
        if model_key is not None and not model_key.strip():
            raise LMStudioValueError("the model key is empty; name one, or pass None for any loaded model")
        if load_policy not in _POLICIES:
            raise LMStudioValueError(f"load_policy must be one of {', '.join(_POLICIES)}; got {load_policy!r}")
        if on_config_mismatch not in _MISMATCH:
            raise LMStudioValueError(
                f"on_config_mismatch must be one of {', '.join(_MISMATCH)}; got {on_config_mismatch!r}"
            )
        binding = Binding(
            self.kind,
            model_key,
            policy=load_policy,
            ttl=ttl,
            config=None if config is None else _LOAD_CONFIGS[self.kind].parse(config),  # type: ignore[arg-type]  # by kind
            on_config_mismatch=on_config_mismatch,
            on_load_progress=on_load_progress,
        )
        return self._handle(self._link, binding)

    def _new_instance(
        self,
        model_key: str,
        identifier: str | None,
        ttl: float | None,
        config: LoadConfig | None,
        on_progress: OnProgress | None,
    ) -> HandleT:
        handle = self.lazy_model(
            model_key, ttl=ttl, config=config, load_policy="new_instance", on_load_progress=on_progress
        )
        handle.binding.wanted_identifier = identifier
        return handle

    def _loaded(self, identifier: str) -> HandleT:
        """Return a handle to an instance that is known to be loaded."""
        return self._handle(self._link, Binding(self.kind, identifier, identifier, policy="require_loaded"))


class BaseStream:
    """The stream of a prediction, but for the waiting."""

    def __init__(self, prediction: Prediction) -> None:
        self._prediction = prediction

    def cancel(self) -> None:
        """Ask the server to stop. Does not wait; go on reading to get what has come, then `result()`."""
        self._prediction.cancel()

    def result(self) -> PredictionResult:
        """Return the result of a stream that was read to its end; never waits.

        Raises:
            LMStudioRuntimeError: If it was not.
            LMStudioCancelledError: If it was left early.
        """
        return self._prediction.result()

    @property
    def stats(self) -> LlmPredictionStats:
        """Figures of the finished prediction."""
        return self.result().stats

    @property
    def model_info(self) -> LlmInstanceInfo:
        """The instance that answered."""
        return self.result().model_info

    @property
    def load_config(self) -> LlmLoadModelConfig:
        """The settings that the instance was loaded with."""
        return self.result().load_config

    @property
    def prediction_config(self) -> LlmPredictionConfig:
        """The settings that the prediction ran with."""
        return self.result().prediction_config
