"""What the sync and the async client share: arguments, settings and properties, everything that does not wait.

`sync.py` and `asynchronous.py` subclass these classes and add the methods that run flows.
"""

import math
import ssl
from abc import ABC, abstractmethod
from collections import ChainMap
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Self,
    TypedDict,
    cast,
    get_args,
)

from pydantic import SecretStr
from typing_extensions import TypeVar, Unpack

from lmstudio_integrations._support.leaves import door
from lmstudio_integrations._support.text import shown
from lmstudio_integrations._support.typeguards import SAFE_INTEGER
from lmstudio_integrations.client.concurrency.mailboxes import Mailbox
from lmstudio_integrations.client.models.model import Model
from lmstudio_integrations.client.models.state import ModelState, OnProgress, ServerModels
from lmstudio_integrations.client.support.arguments import (
    TIMEOUTS,
    check_names,
    checked_timeouts,
    optional_text,
    seconds_of,
    whole_number,
    with_named_keywords,
)
from lmstudio_integrations.client.support.progress_bars import ShowProgress, check_show_progress
from lmstudio_integrations.client.transport.base_namespace import BaseNamespace
from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.client.transport.connect.addresses import MAX_MESSAGE_BYTES, Target
from lmstudio_integrations.errors import LMStudioProtocolError, LMStudioRuntimeError, LMStudioValueError
from lmstudio_integrations.types.config import (
    LOAD_CONFIGS,
    EmbeddingLoadModelConfig,
    LlmLoadModelConfig,
    LoadPolicy,
    LoadSettings,
    ModelKind,
    OnConfigMismatch,
)
from lmstudio_integrations.types.config_dicts import (
    EmbeddingLoadModelConfigDict,
    LlmLoadModelConfigDict,
    TimeoutParameters,
)
from lmstudio_integrations.types.machines import LOCAL
from lmstudio_integrations.types.models import (
    LlmInfo,
    ModelInfo,
    ModelInstanceInfo,
)

if TYPE_CHECKING:
    from lmstudio_integrations.client.hosts.hosts import Hosts

ModelT_co = TypeVar("ModelT_co", bound=Model, covariant=True, default=Model)
HandleT = TypeVar("HandleT", bound="BaseModelHandle")
InfoT = TypeVar("InfoT", bound=ModelInfo)
DownloadedT = TypeVar("DownloadedT", bound="BaseDownloaded[Any, Any]")
LoadConfig = LlmLoadModelConfig | EmbeddingLoadModelConfig | LlmLoadModelConfigDict | EmbeddingLoadModelConfigDict
ChoiceT = TypeVar("ChoiceT")


def checked_choice(value: ChoiceT, choices: Any, name: str) -> ChoiceT:
    """Return an argument that must be one of several.

    Raises:
        LMStudioValueError: If it is not.
    """
    if value not in get_args(choices):
        raise LMStudioValueError(f"{name} must be one of {', '.join(get_args(choices))}; got {value!r}")
    return value


MAX_TTL = SAFE_INTEGER // 1000
"""The longest TTL in seconds, which is sent in milliseconds."""


def _checked_ttl(ttl: float | None, policy: LoadPolicy) -> float | None:
    seconds = seconds_of(ttl, "ttl")
    if seconds is not None and MAX_TTL < seconds < math.inf:
        raise LMStudioValueError(f"ttl must be at most {MAX_TTL:,} seconds, or None; got {shown(ttl)}")
    if seconds == math.inf and policy not in {"explicit", "fit", "fit_any", "new_instance"}:
        raise LMStudioValueError(
            f"ttl={ttl!r} cannot be sent under load_policy={policy!r}; load_policy='explicit' keeps a model for ever, "
            "and None leaves the server's default"
        )
    return ttl


class ModelParameters(TypedDict, total=False):
    """The keyword arguments that say how to get or load a model.

    Attributes:
        ttl: Unload the model after this many idle seconds, if this call loads it. The default is 3,600. `None` leaves
            it to the server under `get_or_load`, and never unloads it under `new_instance`. `math.inf` never unloads
            it either, under `explicit` as well.
        config: How to load the model, if this call loads it.
        load_policy: How the model is found or loaded. `get_or_load`, the default, uses a loaded instance or loads one
            just in time, which other just-in-time loads evict while Auto-Evict is on. `explicit` does the same, but
            no just-in-time load evicts what it loads. `fit` is like `explicit`, but first it evicts what must go for
            the model, of what is idle and has a TTL, the least recently used first; `fit_any` evicts what has no TTL as
            well. `require_loaded` never loads, and is the policy of every call without a key. `new_instance` always
            loads.
        device: The machine that the model is used on: `local` for the server's own, or the name or the identifier of a
            linked device (LM Link). If unset, the server chooses: its preferred device, then its own machine, then any
            other that has the model. Under `fit`, that is `local`.
        on_config_mismatch: What to do if the loaded model's settings differ from `config`: `warn` (the default),
            `raise` or `ignore`.
        on_load_progress: Called with the progress of a load, from 0.0 to 1.0.
        on_progress: An alias of `on_load_progress`.
        show_progress: Whether to show a progress bar while the model loads, which needs tqdm. By default, `"auto"`, a
            load of more than two seconds shows a line on a terminal, unless there is a callback for the progress.
    """

    ttl: float | None
    config: "LoadConfig | None"
    load_policy: LoadPolicy
    device: str | None
    on_config_mismatch: OnConfigMismatch
    on_load_progress: OnProgress | None
    on_progress: OnProgress | None
    show_progress: ShowProgress


def checked_kind(kind: ModelKind | None) -> ModelKind | None:
    """Return a kind of models, or `None` for all.

    Raises:
        LMStudioValueError: If it is invalid.
    """
    return None if kind is None else checked_choice(kind, ModelKind, "namespace")


class BaseClient:
    """The settings of a client, including those of its connections.

    Nothing is sent before the first call. All clients of the process with the same server, credentials, headers,
    certificates and largest message share their connections.

    Args:
        api_host: Address of the server: `host:port` or a URL of http, https, ws or wss. If unset, `LMSTUDIO_HOST`
            applies, else LM Studio on this machine.
        api_token: API token of LM Studio. If unset, `LM_API_TOKEN` or `LMSTUDIO_API_TOKEN` is read, for the hosts in
            `LMSTUDIO_HOST` if that is set. Without them, the client is a guest.
        headers: Extra HTTP headers for the connection, for example for a proxy.
        ssl_context: Checks the server's certificate, for wss and https hosts that the system does not trust.
        keep_idle: How many seconds to keep idle connections open. They stay open by default.
        max_message_bytes: The largest message to accept from the server, in bytes. A larger one fails the calls on its
            connection. The default is 256 MiB; `None` accepts any size.
        timeouts: The timeouts of all calls; see `TimeoutParameters`.

    Raises:
        LMStudioValueError: If an argument is invalid.
    """

    _mailbox_type: ClassVar[type[Mailbox]]
    default_timeouts: ClassVar[dict[str, float | None]]

    @with_named_keywords(TimeoutParameters, TIMEOUTS)
    def __init__(
        self,
        api_host: str | None = None,
        api_token: str | SecretStr | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        keep_idle: float = math.inf,
        max_message_bytes: int | None = MAX_MESSAGE_BYTES,
        **timeouts: Unpack[TimeoutParameters],
    ) -> None:
        known = (*TIMEOUTS, "api_host", "api_token", "headers", "ssl_context", "keep_idle", "max_message_bytes")
        check_names({"api_host": api_host, **timeouts}, known)
        if seconds_of(keep_idle, "keep_idle", or_zero=True) is None:
            raise LMStudioValueError("keep_idle must be a number of seconds, or math.inf; got None")
        token = api_token.get_secret_value() if isinstance(api_token, SecretStr) else api_token
        limit = whole_number(max_message_bytes, "max_message_bytes")
        target = Target.of(api_host, token, headers, ssl_context, limit)
        # Not a merged dict: later changes of `default_timeouts` (`set_sync_api_timeout`) must reach existing clients.
        own, defaults = checked_timeouts(timeouts), self.default_timeouts
        all_timeouts = ChainMap(dict(own), defaults) if own else defaults
        self._context: ClientContext = ClientContext(target, all_timeouts, self._mailbox_type, keep_idle)

    @property
    def api_host(self) -> str | None:
        """The server's address; `None` if it is found when the client connects."""
        address = self._context.target.address
        return address.netloc if address else None

    def with_timeouts(self, **timeouts: Unpack[TimeoutParameters]) -> Self:
        """Return this client with other timeouts. Both are closed together.

        The other timeouts of the new client stay as they are now, even if the defaults change later.

        Args:
            timeouts: See `TimeoutParameters`; in seconds, and `None` switches one off.

        Raises:
            LMStudioValueError: If a timeout is unknown, or not positive.
        """
        check_names(timeouts, TIMEOUTS)
        like = copy(self)
        like._context = self._context.with_timeouts(checked_timeouts(timeouts))  # noqa: SLF001 - same class
        return like

    def __repr__(self) -> str:
        return f"{type(self).__name__}(api_host={self.api_host!r})"


class BaseModelHandle(Generic[ModelT_co]):
    """A handle to a model.

    Handles are equal if they refer to the same instance: the same server, device, kind and identifier, even if their
    clients differ. A lazy handle refers to no instance before its first use. Until then it equals only handles that
    share its state, such as those of `with_timeouts`.
    """

    def __init__(self, model: ModelT_co) -> None:
        self._model: ModelT_co = model
        """The model, on one server or on several. Its methods are the flows that those of the handle run."""

    @property
    def identifier(self) -> str:
        """The identifier of the loaded instance; before it is known, the given key.

        Raises:
            LMStudioRuntimeError: If it means any loaded model, and was not used yet.
        """
        state = self._model.state
        identifier = state.key if state.instance is None else state.instance.identifier
        if identifier is None:
            raise LMStudioRuntimeError("the handle means any loaded model; its identifier is known after its first use")
        return identifier

    def with_timeouts(self, **timeouts: Unpack[TimeoutParameters]) -> Self:
        """Return a handle to the same model with other timeouts.

        Args:
            timeouts: See `TimeoutParameters`; in seconds, and `None` switches one off.

        Raises:
            LMStudioValueError: If a timeout is unknown, or not positive.
        """
        check_names(timeouts, TIMEOUTS)
        changes = checked_timeouts(timeouts)
        return type(self)(self._model.with_context(lambda context: context.with_timeouts(changes)))

    def with_retries(self, max_retries: int) -> Self:
        """Return a handle to the same model, whose calls are retried after a failed connection.

        A call is retried only if the caller has seen nothing of its response. The pauses grow from 0.5 to 8 seconds.
        `start` of a stream is not retried, but reading it is.

        Args:
            max_retries: How often to retry a call if no server responds or the connection is lost.

        Raises:
            LMStudioValueError: If it is not 0 or more.
        """
        if type(max_retries) is not int or max_retries < 0:
            raise LMStudioValueError(f"max_retries must be 0 or more; got {shown(max_retries)}")
        return type(self)(self._model.with_retries(max_retries))

    def __deepcopy__(self, _memo: object) -> Self:
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}(identifier={self._model.state.name!r})"

    @property
    def loaded_explicitly(self) -> bool:
        """Whether this program loaded the instance with `explicit` or `new_instance`, so that it is never evicted."""
        return self._model.server_models.is_explicit(self._model.state.reference)

    @property
    def _server_and_kind(self) -> tuple[object, ModelKind]:
        return self._model.context.target.address, self._model.state.kind

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BaseModelHandle):
            return NotImplemented
        mine, theirs = self._model.state, cast("BaseModelHandle", other)._model.state
        is_same = mine is theirs or (
            mine.instance is not None
            and theirs.instance is not None
            and mine.instance.identifier == theirs.instance.identifier
            and mine.instance.device == theirs.instance.device
        )
        return is_same and self._server_and_kind == cast("BaseModelHandle", other)._server_and_kind

    def __hash__(self) -> int:
        # Not of the identifier, which the first use and a reload may change.
        return hash(self._server_and_kind)


def context_of(client: BaseClient) -> ClientContext:
    """Return what a client and its handles share."""
    return client._context  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - of this module


def model_of(handle: BaseModelHandle[ModelT_co]) -> ModelT_co:
    """Return the model of a handle, on one server or on several. Its methods are the flows that the handle runs."""
    return handle._model  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - of this module


def model_on_hosts(models: Sequence[Model], max_retries: int) -> Model:
    """Return one model on one or several hosts, each of which has one of the models."""
    if len(models) == 1:
        return models[0].with_retries(max_retries)
    with door("several hosts"):
        from lmstudio_integrations.client.hosts.models import on_hosts  # noqa: PLC0415 - a leaf
    return on_hosts(models, max_retries)


def hosts_of_model(model: Model) -> "Hosts":
    """Return the hosts of a model, also if it is on one only."""
    with door("several hosts"):
        from lmstudio_integrations.client.hosts.models import hosts_of  # noqa: PLC0415 - a leaf
    return hosts_of(model)


def handle_on_hosts(handles: Sequence[HandleT], max_retries: int) -> HandleT:
    """Return a handle to one model on one or several hosts, each of which has a handle to it."""
    return type(handles[0])(model_on_hosts([model_of(handle) for handle in handles], max_retries))


def new_state(
    kind: ModelKind, model_key: str | None, parameters: ModelParameters, identifier: str | None = None
) -> ModelState:
    """Return the state of a model that is got or loaded on first use.

    Args:
        kind: The kind of the model.
        model_key: Key or identifier; `None` is any loaded model.
        parameters: How to get or load it; without `ttl`, no TTL is sent.
        identifier: The identifier of a new instance; by default, the server chooses it.

    Raises:
        LMStudioValueError: If an argument is invalid.
    """
    check_names(parameters, ModelParameters.__annotations__, in_config=LOAD_CONFIGS[kind].model_fields)
    optional_text(model_key, "model", "leave it out for any loaded model, or name one that `lmsi ls` lists")
    policy: LoadPolicy = checked_choice(parameters.get("load_policy", "get_or_load"), LoadPolicy, "load_policy")
    ttl = _checked_ttl(parameters.get("ttl"), policy)
    device = optional_text(parameters.get("device"), "device")
    if policy == "new_instance" and model_key is None:
        raise LMStudioValueError("load_policy='new_instance' needs a model")
    if parameters.get("on_load_progress") and parameters.get("on_progress"):
        raise LMStudioValueError("give on_load_progress or on_progress, not both; they are two names of one")
    state = ModelState(
        kind,
        model_key,
        policy=policy,
        ttl=ttl,
        device=LOCAL if device is None and policy in {"fit", "fit_any"} else device,
        config=load_settings(kind, parameters.get("config")),
        on_config_mismatch=checked_choice(
            parameters.get("on_config_mismatch", "warn"), OnConfigMismatch, "on_config_mismatch"
        ),
        on_load_progress=parameters.get("on_load_progress") or parameters.get("on_progress"),
        show_progress=check_show_progress(parameters.get("show_progress", "auto")),
    )
    state.requested_identifier = optional_text(identifier, "instance_identifier")
    return state


def load_settings(kind: ModelKind, config: LoadConfig | None) -> LoadSettings | None:
    """Return how to load a model of a kind; `None` if that is not given.

    Raises:
        LMStudioValueError: If a setting is unknown or invalid.
    """
    return None if config is None else LOAD_CONFIGS[kind].parse(cast("Any", config))


class BaseModelNamespace(BaseNamespace, ABC, Generic[HandleT, DownloadedT]):
    """The models of one kind."""

    _kind: ClassVar[ModelKind]
    _downloaded: type[DownloadedT]

    def lazy_model(self, model_key: str | None = None, /, **parameters: Unpack[ModelParameters]) -> HandleT:
        """Return a handle that gets or loads its model on first use. Nothing is sent now.

        Args:
            model_key: Key or identifier; `None` is any loaded model.
            parameters: See `ModelParameters`; without `ttl`, no TTL is sent.

        Raises:
            LMStudioValueError: If an argument is invalid.
        """
        return self._handle_for(new_state(self._kind, model_key, parameters))

    @abstractmethod
    def _handle_for(self, state: ModelState) -> HandleT:
        """Return a handle that shares the state of another handle, even one of another client.

        An instance that either of them loads is used by both.
        """

    def _loaded(self, info: ModelInstanceInfo, *, names_device: bool) -> HandleT:
        instance = self._context.shared(ServerModels).instance_of(info.to_dict())
        instance.names_device = names_device
        return self._handle_for(ModelState(self._kind, info.identifier, policy="require_loaded", instance=instance))


def downloaded(namespace: BaseModelNamespace[Any, DownloadedT], info: ModelInfo) -> DownloadedT:
    """Return a downloaded model as an object that can load it."""
    return namespace._downloaded(info, namespace)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - of this module


@dataclass(frozen=True, eq=False, slots=True)
class BaseDownloaded(Generic[HandleT, InfoT]):
    """A model on the server's disk."""

    info: InfoT
    """Its info."""
    _namespace: BaseModelNamespace[HandleT, Any] = field(repr=False)

    @property
    def type(self) -> str:
        """Its kind, `llm` or `embedding`."""
        return self.info.type

    @property
    def model_key(self) -> str:
        """The key to load it with."""
        return self.info.model_key

    def _key(self) -> str:
        """Return the key to load it with.

        Raises:
            LMStudioProtocolError: If the server reported an empty one.
        """
        if not self.model_key.strip():
            raise LMStudioProtocolError(f"the server reported a model without a key, at {self.path!r}")
        return self.model_key

    @property
    def path(self) -> str:
        """Its path in the models folder."""
        return self.info.path

    @property
    def display_name(self) -> str:
        """Its display name."""
        return self.info.display_name

    @property
    def architecture(self) -> str | None:
        """For example `llama`, if it is known."""
        return self.info.architecture

    @property
    def size_bytes(self) -> int:
        """Its size on disk."""
        return self.info.size_bytes

    @property
    def vision(self) -> bool:
        """Whether it accepts images."""
        return isinstance(self.info, LlmInfo) and self.info.vision

    @property
    def trained_for_tool_use(self) -> bool:
        """Whether it was trained for tool use."""
        return isinstance(self.info, LlmInfo) and self.info.trained_for_tool_use

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(model_key={self.model_key!r})"
