"""Requests about models, each a part of an operation: what there is, what is loaded, what an instance makes of texts.

None of them finds or loads a model; `model.py` does that first where it is necessary.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from lmstudio_integrations._support.typeguards import is_count, is_list
from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.models.state import Specifier, WireInfo, identifier_of
from lmstudio_integrations.client.support.arguments import (
    optional_text,
    text_of,
)
from lmstudio_integrations.client.transport.operation import Operation, decode_errors, read_each
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol.envelope import ensure_writable
from lmstudio_integrations.protocol.kv_config import KvConfig
from lmstudio_integrations.protocol.prediction import model_info
from lmstudio_integrations.protocol.requests import (
    BasePredictionConfig,
    EstimateModelUsage,
    Lookup,
    OnDevice,
    Specified,
    Tokenize,
    UnloadModel,
)
from lmstudio_integrations.types.config import ModelKind
from lmstudio_integrations.types.machines import LOCAL, LinkStatus
from lmstudio_integrations.types.models import (
    INSTANCE_INFO_TYPES,
    InstanceProcessingState,
    ModelInfo,
    ModelInstanceInfo,
    ModelReference,
    ModelUsageEstimate,
    ServerVersion,
    read_info,
    specifier_of,
)

_LIST = "Model list"

# The server ---------------------------------------------------------------------------------------------------------


def version(operation: Operation) -> Flow[ServerVersion]:
    return (yield from operation.call("system", "version", None, ServerVersion.from_dict, label="Version"))


def link_status(operation: Operation) -> Flow[LinkStatus]:
    """Return what the server knows of linked devices."""
    return (yield from operation.call("repository", "lmLinkStatus", None, LinkStatus.read, label="Device list"))


def on_device(operation: Operation, device: str | None) -> Flow[OnDevice]:
    """Return how requests name a device.

    Args:
        operation: Asks the server for its linked devices, if the device may be one.
        device: `local`, or the name or identifier of a device; `None` leaves the choice to the server.

    Raises:
        LMStudioModelNotFoundError: If it is not linked, or not connected.
    """
    device = optional_text(device, "device")
    if device is None:
        return OnDevice()
    if device == LOCAL:
        return OnDevice(deviceIdentifier=None)
    return OnDevice(deviceIdentifier=(yield from link_status(operation)).identifier_of(device))


def list_downloaded(operation: Operation, kind: ModelKind | None) -> Flow[list[ModelInfo]]:
    """Return the downloaded models, or those of one kind."""
    infos = yield from list_downloaded_infos(operation)
    with decode_errors(_LIST):
        found: list[ModelInfo] = read_each(infos, read_info, _LIST)
    return [info for info in found if kind in {None, info.type}]


def list_downloaded_infos(operation: Operation) -> Flow[list[WireInfo]]:
    """Return the info of the downloaded models, in wire form; each has a key."""
    return (
        yield from operation.call(
            "system", "listDownloadedModels", None, _infos_with(itemgetter("modelKey")), label=_LIST
        )
    )


def list_loaded(operation: Operation, kind: ModelKind) -> Flow[list[ModelInstanceInfo]]:
    infos = yield from list_wire_infos(operation, kind)
    read: Callable[[Any], ModelInstanceInfo] = INSTANCE_INFO_TYPES[kind].read
    with decode_errors(_LIST):
        return read_each(infos, read, _LIST)


def list_wire_infos(operation: Operation, kind: ModelKind) -> Flow[list[WireInfo]]:
    """Return the info of the loaded instances of one kind, in wire form; each has an identifier."""
    return (yield from operation.call(kind, "listLoaded", None, _infos_with(identifier_of), label=_LIST))


def _infos_with(name_of: Callable[[WireInfo], object]) -> Callable[[Any], list[WireInfo]]:
    """Return what reads the infos of a list that have a name."""

    def read(item: Any) -> WireInfo:
        info: WireInfo = model_info(item)
        name_of(info)
        return info

    return lambda items: read_each(items, read, _LIST)


def list_all_loaded(operation: Operation) -> Flow[list[tuple[ModelKind, WireInfo]]]:
    """Return the info of all loaded instances in wire form, each with its kind."""
    loaded: list[tuple[ModelKind, WireInfo]] = []
    for kind in (yield from kinds(operation)):
        infos = yield from list_wire_infos(operation, kind)
        loaded.extend((kind, info) for info in infos)
    return loaded


def kinds(operation: Operation) -> Flow[list[ModelKind]]:
    """Return the kinds of models that the server has.

    Decision models are one of them only if one is downloaded: an older server may not respond to questions about them.
    """
    listed: list[ModelKind] = ["llm", "embedding"]
    return [*listed, "decision"] if (yield from list_downloaded(operation, "decision")) else listed


def look_up(
    operation: Operation, kind: ModelKind, reference: ModelReference, device: str | None = None
) -> Flow[ModelInstanceInfo]:
    """Return the info of the loaded instance that matches a description."""
    specifier = specifier_of(reference).to_dict()
    if device is not None:
        if "query" not in specifier:
            raise LMStudioValueError(
                f"{reference!r} is one instance, which has its device; leave out device={device!r}"
            )
        specifier["query"] |= yield from on_device(operation, device)
    lookup = Lookup(specifier=specifier, throwIfNotFound=True)
    read: Callable[[Any], ModelInstanceInfo] = INSTANCE_INFO_TYPES[kind].read
    return (yield from operation.call(kind, "getModelInfo", lookup, read, label="Model info"))


def unload(operation: Operation, kind: ModelKind, identifier: str, device: OnDevice) -> Flow[None]:
    """Unload an instance.

    Raises:
        LMStudioModelNotFoundError: If there is none with this identifier; it says what is loaded.
    """
    parameter = UnloadModel(identifier=text_of(identifier, "model_identifier"), **device)
    yield from operation.call(kind, "unloadModel", parameter, label="Model unload")


def estimate_usage(
    operation: Operation, kind: ModelKind, key: str, stack: Mapping[str, Any], device: OnDevice
) -> Flow[ModelUsageEstimate]:
    """Return how much memory loading a model would take."""
    parameter = EstimateModelUsage(modelKey=text_of(key, "model_key"), loadConfigStack=stack, **device)
    read = ModelUsageEstimate.read
    return (yield from operation.call(kind, "estimateModelUsage", parameter, read, label="Usage estimate"))


# An instance ----------------------------------------------------------------------------------------------------------


def get_load_config(operation: Operation, kind: ModelKind, specifier: Specifier) -> Flow[dict[str, Any]]:
    """Return the settings that an instance was loaded with, by their wire keys."""
    parameter = Specified(specifier=specifier)
    return (yield from operation.call(kind, "getLoadConfig", parameter, _fields, label="Load config"))


def get_base_config(operation: Operation, specifier: Specifier) -> Flow[dict[str, Any]]:
    """Return the settings of a prediction that sends none, by their wire keys. Servers of 2025 do not know them."""
    parameter = BasePredictionConfig(specifier=specifier)
    return (
        yield from operation.call("llm", "getBasePredictionConfig", parameter, _fields, label="Prediction defaults")
    )


def _fields(config: Any) -> dict[str, Any]:
    return KvConfig.from_dict(ensure_writable(config)).as_mapping()


def get_processing_state(operation: Operation, kind: ModelKind, specifier: Specifier) -> Flow[InstanceProcessingState]:
    """Return what an instance is doing."""
    lookup, read = Lookup(specifier=specifier, throwIfNotFound=True), InstanceProcessingState.from_dict
    return (yield from operation.call(kind, "getInstanceProcessingState", lookup, read, label="Processing state"))


def tokenize(
    operation: Operation, kind: ModelKind, specifier: Specifier, texts: Sequence[str]
) -> Flow[list[list[int]]]:
    parameters = [Tokenize(specifier=specifier, inputString=text) for text in texts]
    return (yield from operation.call_all(kind, "tokenize", parameters, _tokens, label="Tokenization"))


def count_tokens(operation: Operation, kind: ModelKind, specifier: Specifier, texts: Sequence[str]) -> Flow[list[int]]:
    """Return the number of tokens of each text."""
    parameters = [Tokenize(specifier=specifier, inputString=text) for text in texts]
    return (yield from operation.call_all(kind, "countTokens", parameters, _token_count, label="Tokenization"))


def _tokens(result: Any) -> list[int]:
    tokens = result["tokens"]
    # Arrays may be long: checking the set of types is several times faster than checking each item.
    if not is_list(tokens) or not {int}.issuperset(map(type, tokens)):
        raise TypeError("expected an array of int")
    return tokens


def _token_count(result: Any) -> int:
    count = result["tokenCount"]
    if not is_count(count):
        raise TypeError(f"expected a number of tokens; got {type(count).__name__}")
    return count
