"""Whether a model is loaded with the settings that the user wants."""

from collections.abc import Mapping
from typing import Any

from lmstudio_integrations._support.typeguards import is_count, is_object
from lmstudio_integrations.client.models.queries import get_load_config
from lmstudio_integrations.client.models.state import (
    Instance,
    ModelState,
    WireInfo,
    identifier_of,
    max_context_length,
    specifier_of_instance,
)
from lmstudio_integrations.client.support.tracebacks import warn_user
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import LMStudioConfigMismatchError, LMStudioConfigWarning
from lmstudio_integrations.types.config import ModelKind


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
    listed = ", ".join(f"{name}: requested {value!r}, actual {real!r}" for name, (value, real) in differences.items())
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
        advice.append(f"unload it first with `lms unload {identifier_of(info)}`, or set on_config_mismatch='ignore'")
    return "; ".join(advice) or "set on_config_mismatch='ignore' to use it as it is"


def _is_off(value: object) -> bool:
    """Whether a setting is switched off; it may then have [any value](docs/protocol.md#value-encodings)."""
    return is_object(value) and value.get("checked", value.get("enabled")) is False
