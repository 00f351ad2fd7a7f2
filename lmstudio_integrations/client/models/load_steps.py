"""What is done during and after a load: read its packets, compare its settings."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from lmstudio_integrations._support.typeguards import is_count, is_object
from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.models.queries import get_load_config
from lmstudio_integrations.client.models.state import (
    Instance,
    ModelState,
    WireInfo,
    identifier_of,
    max_context_length,
    specifier_of_instance,
)
from lmstudio_integrations.client.support.progress_bars import ProgressBar
from lmstudio_integrations.client.support.user_warnings import warn_user
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import (
    LMStudioConfigMismatchError,
    LMStudioConfigWarning,
)
from lmstudio_integrations.protocol.prediction import model_info
from lmstudio_integrations.types._config_base import wire_keys
from lmstudio_integrations.types.config import CONFIG_FILE, LOAD_CONFIGS, ModelKind

logger: logging.Logger = logging.getLogger(__name__)

_FILE = CONFIG_FILE.rpartition(".")[2]
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0
"""Seconds between two checks of what another process does; doubled each time, up to the longest."""


class LoadPackets:
    """Reads the packets of a load; reports strictly growing progress that ends with 1.0.

    A batch is read to its end before its progress is reported, and 1.0 is reported only after the success: otherwise a
    callback that raises would hide an instance that the server has loaded.
    """

    def __init__(self, state: ModelState) -> None:
        self._key = state.key
        self._unreported: list[float] = []
        self._last = -1.0
        self.bar: ProgressBar = ProgressBar(
            f"Loading {state.name}", shown=state.show_progress, on_progress=state.on_load_progress
        )
        self.info: WireInfo | None = None
        """The instance, once it is loaded."""
        self.already_loaded: bool = False
        """Whether the model was already loaded."""
        self.evicted: list[WireInfo] = []
        """The instances that the load evicted."""

    def read(self, batch: Iterable[dict[str, Any]]) -> None:
        """Read packets up to the success."""
        for packet in batch:
            match packet["type"]:
                case "startLoading":
                    self._unreported.append(0.0)
                case "loadProgress" | "progress":
                    self._unreported.append(float(packet["progress"]))
                case "unloadingOtherJITModel":
                    logger.info("loading %r unloads %r", self._key, packet["info"]["modelKey"])
                    self.evicted.append(model_info(packet["info"]))
                case "alreadyLoaded" | "loadSuccess" | "success" as kind:
                    info = model_info(packet["info"])
                    identifier_of(info)
                    self.already_loaded = kind == "alreadyLoaded"
                    if self.already_loaded:
                        self.bar.close()
                    self._unreported.append(1.0)
                    self.info = info
                    return
                case other:
                    logger.debug("skipped a packet of unknown type %r while loading", other)

    def report(self) -> None:
        """Draw each value by which the progress has grown, and call the callback with it."""
        values, self._unreported = self._unreported, []
        for progress in values:
            if progress > self._last and (progress < 1.0 or self.info is not None):
                self._last = progress
                self.bar.report(progress)


def check_config(operation: Operation, state: ModelState, info: WireInfo, *, loaded: bool) -> Flow[None]:
    """Compare the requested config with the actual one.

    A model that was loaded before keeps its config. A model that this call loaded has the requested config, except that
    the server silently fits the context length: it lowers one above the model's maximum, and may raise one as far as
    memory goes, which nobody has asked for.
    """
    if state.config is None or state.on_config_mismatch == "ignore":
        return
    fields = state.config.set_fields()
    requested = {key: value for key, value in fields.items() if not loaded or key.endswith(".contextLength")}
    if not requested:
        return
    instance = Instance.of(info)
    actual = yield from get_load_config(operation, state.kind, specifier_of_instance(info))
    if instance.context_window is not None:  # a server may report the requested length as that of the config
        actual[f"{state.kind}.load.contextLength"] = instance.context_window.length
    # A setting that the server does not report cannot be compared.
    differences = {
        key.rpartition(".")[2]: (value, actual[key])
        for key, value in requested.items()
        if key in actual and actual[key] != value and not (_is_off(actual[key]) and _is_off(value))
    }
    if not differences:
        return
    names = {item.key.rpartition(".")[2]: name for name, item in wire_keys(LOAD_CONFIGS[state.kind]).items()}
    listed = ", ".join(
        # A file is long, and may hold secrets.
        f"{names.get(key, key)}: {'another one' if key == _FILE else f'requested {value!r}, actual {real!r}'}"
        for key, (value, real) in differences.items()
    )
    if actual.get(CONFIG_FILE) and _FILE not in differences:
        advice = "the engine has a configuration file, and ignores other settings: set them there"
    else:
        advice = _mismatch_advice(state.kind, info, differences, loaded=loaded)
    how = "was" if loaded else "is already"
    text = f"model {instance.identifier!r} {how} loaded with other settings ({listed}); {advice}"
    if state.on_config_mismatch == "raise":
        raise LMStudioConfigMismatchError(text, differences=differences)
    warn_user(text, LMStudioConfigWarning)


def _mismatch_advice(
    kind: ModelKind, info: WireInfo, differences: Mapping[str, tuple[Any, Any]], *, loaded: bool
) -> str:
    """Return what helps if a model has other settings than requested. No load exceeds the maximum of the model."""
    maximum, (requested, actual) = max_context_length(info), differences.get("contextLength", (None, None))
    possible = requested
    if maximum is not None and is_count(requested):
        possible = min(requested, maximum)
    is_longest = possible != requested and actual == maximum
    advice: list[str] = []
    if kind == "llm" and is_count(possible) and is_count(actual) and actual < possible:
        advice.append(
            f"load it with auto_fit_min_context_length={possible} in place of context_length, and the server fits it "
            "into memory with no shorter one"
        )
    if loaded and is_count(possible) and is_count(actual) and actual > possible:
        advice.append(
            "the server has fitted it up, into memory that was not asked for (`lmsi plan` shows how much); set the "
            "context length in LM Studio's own settings of the model as well"
        )
    elif maximum is not None and (loaded or possible != requested):
        limit = f"the model's maximum is {maximum} tokens"
        advice.insert(0 if possible != requested else len(advice), limit)
    if not loaded and len(differences) > is_longest:
        line = f"client.{kind}.unload({identifier_of(info)!r})"
        advice.append(f"unload it first, with {line} or an adapter's unload(), or set on_config_mismatch='ignore'")
    return "; ".join(advice) or "set on_config_mismatch='ignore' to use it as it is"


def _is_off(value: object) -> bool:
    """Whether a setting is switched off; it may then have [any value](docs/protocol.md#value-encodings)."""
    return is_object(value) and value.get("checked", value.get("enabled")) is False
