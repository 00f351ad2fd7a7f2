"""The flows of model handles, except predictions, and of the models of a client. Both clients run them."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

from pydantic import ValidationError
from pydantic_core import SchemaValidator, core_schema

from lmstudio_integrations._support.typeguards import is_count, is_list
from lmstudio_integrations.client.models import loading
from lmstudio_integrations.client.models.binding import Binding, Specifier
from lmstudio_integrations.client.models.operations import inspect_instance, resolve, use_model
from lmstudio_integrations.client.support.arguments import list_of, text_of, texts_of
from lmstudio_integrations.client.support.progress_bars import ProgressBar
from lmstudio_integrations.client.telemetry.spans import may_trace, trace_embeddings
from lmstudio_integrations.client.transport.dispatcher import Dispatcher
from lmstudio_integrations.client.transport.flows import Flow, T, call_rpc, call_rpcs, decode_errors
from lmstudio_integrations.client.transport.telemetry import API, LOADED
from lmstudio_integrations.errors import LMStudioProtocolError
from lmstudio_integrations.protocol.kv_config import stack_of
from lmstudio_integrations.protocol.requests import (
    EmbedString,
    EstimateModelUsage,
    Lookup,
    Tokenize,
    UnloadModel,
)
from lmstudio_integrations.types.config import LoadSettings, ModelKind
from lmstudio_integrations.types.models import (
    INSTANCE_INFO_TYPES,
    InstanceProcessingState,
    ModelInfo,
    ModelInstanceInfo,
    ModelUsageEstimate,
    ServerVersion,
    parse_infos,
)
from lmstudio_integrations.types.references import ModelReference, specifier_of

Texts: TypeAlias = list[str] | tuple[str, ...]


BATCH = 64
"""Texts between two moves of a progress bar."""


def list_loaded(dispatcher: Dispatcher[Any], kind: ModelKind) -> Flow[list[ModelInstanceInfo]]:
    """Return the loaded instances."""
    infos = yield from loading.list_loaded(dispatcher, kind)
    with decode_errors("Model list"):
        return [INSTANCE_INFO_TYPES[kind].from_dict(info) for info in infos]


def list_downloaded(dispatcher: Dispatcher[Any], kind: ModelKind | None) -> Flow[list[ModelInfo]]:
    """Return the downloaded models, of one kind or of both."""

    def read(items: Any) -> list[ModelInfo]:
        return [info for info in parse_infos(items) if kind in {None, info.type}]

    return call_rpc(dispatcher, "system", "listDownloadedModels", None, read, operation="Model list")


def unload(dispatcher: Dispatcher[Any], kind: ModelKind, identifier: str) -> Flow[None]:
    """Unload an instance."""
    yield from call_rpc(dispatcher, kind, "unloadModel", UnloadModel(identifier=identifier), operation="Model unload")


def unload_bound(dispatcher: Dispatcher[Any], binding: Binding) -> Flow[None]:
    """Unload the handle's instance; the handle does not load it again automatically."""
    binding.unloaded_by_user = True
    if binding.identifier is None and binding.policy == "new_instance":
        yield from unload_own(dispatcher, binding)  # a loaded instance with this key may belong to another program
        return
    if binding.identifier is None and binding.key is None:
        yield from resolve(dispatcher.for_operation(), binding)
    yield from unload(dispatcher, binding.kind, binding.name)


def unload_own(dispatcher: Dispatcher[Any], binding: Binding) -> Flow[None]:
    """Unload the instance that the handle loaded, if it is still loaded; one that the handle found stays."""
    for info in (yield from list_loaded(dispatcher, binding.kind)) if binding.own_reference else ():
        if info.instance_reference == binding.own_reference:
            yield from unload(dispatcher, binding.kind, info.identifier)


def get_info(dispatcher: Dispatcher[Any], binding: Binding, *, load: bool = False) -> Flow[ModelInstanceInfo]:
    """Return the info of the instance; with `load`, load the model first if it was unloaded."""
    return (use_model if load else inspect_instance)(
        dispatcher, binding, lambda dispatcher, specifier: look_up(dispatcher, binding.kind, specifier)
    )


def look_up(dispatcher: Dispatcher[Any], kind: ModelKind, specifier: ModelReference) -> Flow[ModelInstanceInfo]:
    """Return the info of the loaded instance that matches a description."""
    lookup = Lookup(specifier=specifier_of(specifier).to_dict(), throwIfNotFound=True)
    read: Callable[[Any], ModelInstanceInfo] = INSTANCE_INFO_TYPES[kind].from_dict
    return (yield from call_rpc(dispatcher, kind, "getModelInfo", lookup, read, operation="Model info"))


def get_load_fields(dispatcher: Dispatcher[Any], binding: Binding) -> Flow[dict[str, Any]]:
    """Return the settings that the instance was loaded with, by their wire keys."""
    return inspect_instance(
        dispatcher, binding, lambda dispatcher, specifier: loading.get_load_config(dispatcher, binding.kind, specifier)
    )


def get_processing_state(dispatcher: Dispatcher[Any], binding: Binding) -> Flow[InstanceProcessingState]:
    """Return what the instance is doing."""

    def work(dispatcher: Dispatcher[Any], specifier: Specifier) -> "Flow[InstanceProcessingState]":
        lookup, read = Lookup(specifier=specifier, throwIfNotFound=True), InstanceProcessingState.from_dict
        return call_rpc(
            dispatcher, binding.kind, "getInstanceProcessingState", lookup, read, operation="Processing state"
        )

    return inspect_instance(dispatcher, binding, work)


def estimate_usage(
    dispatcher: Dispatcher[Any], kind: ModelKind, key: str, config: LoadSettings | None
) -> Flow[ModelUsageEstimate]:
    """Return how much memory loading a model would take."""
    parameter = EstimateModelUsage(modelKey=text_of(key, "model_key"), loadConfigStack=stack_of(config))
    read = ModelUsageEstimate.from_dict
    return (yield from call_rpc(dispatcher, kind, "estimateModelUsage", parameter, read, operation="Usage estimate"))


def version(dispatcher: Dispatcher[Any]) -> Flow[ServerVersion]:
    """Return the version of the server."""
    return call_rpc(dispatcher, "system", "version", None, ServerVersion.from_dict, operation="Version")


def tokenize(dispatcher: Dispatcher[Any], binding: Binding, texts: str | Texts) -> Flow[list[int] | list[list[int]]]:
    """Return the tokens of a text, or of each of several."""
    return _call_for_each(
        dispatcher, binding, "tokenize", texts, make=_tokenize, read=_tokens, operation="Tokenization"
    )


def tokenize_on(dispatcher: Dispatcher[Any], specifier: Specifier, texts: Texts) -> Flow[list[list[int]]]:
    """Return the tokens of each text, from an instance that is in use already."""
    parameters = [_tokenize(specifier, text) for text in texts]
    return call_rpcs(dispatcher, "llm", "tokenize", parameters, _tokens, operation="Tokenization")


def count_tokens(dispatcher: Dispatcher[Any], binding: Binding, texts: str | Texts) -> Flow[int | list[int]]:
    """Return the number of tokens of a text, or of each of several."""
    return _call_for_each(
        dispatcher, binding, "countTokens", texts, make=_tokenize, read=_token_count, operation="Tokenization"
    )


def embed(
    dispatcher: Dispatcher[Any],
    binding: Binding,
    texts: str | Texts,
    show_progress: bool = False,  # noqa: FBT001, FBT002 - as the caller has it
) -> Flow[list[float] | list[list[float]]]:
    """Return the vector of a text, or of each of several."""
    if API in LOADED and may_trace(dispatcher):
        return trace_embeddings(
            dispatcher, binding, partial(embed, binding=binding, texts=texts, show_progress=show_progress)
        )
    if show_progress and not isinstance(texts, str):
        return _embed_in_batches(dispatcher, binding, list_of(texts, "input"))

    def make(specifier: Specifier, text: str) -> EmbedString:
        return EmbedString(modelSpecifier=specifier, inputString=text)

    def read(result: Any) -> list[float]:
        vector = _vector(result)
        binding.dimensions = len(vector)
        return vector

    return _call_for_each(dispatcher, binding, "embedString", texts, make=make, read=read, operation="Embedding")


def _embed_in_batches(dispatcher: Dispatcher[Any], binding: Binding, texts: list[Any]) -> Flow[list[list[float]]]:
    """Return the vector of each text; a bar moves with every batch."""
    vectors: list[Any] = []
    with ProgressBar(f"Embedding {len(texts)} texts", shown=True) as bar:
        for start in range(0, len(texts), BATCH):
            bar.update(start / len(texts))
            vectors += yield from embed(dispatcher, binding, texts[start : start + BATCH])
        bar.update(1.0)
    return vectors


def count_on(dispatcher: Dispatcher[Any], specifier: Specifier, text: str) -> Flow[int]:
    """Return the number of tokens of a text. The model is not loaded for it."""
    parameter = _tokenize(specifier, text)
    return call_rpc(dispatcher, "llm", "countTokens", parameter, _token_count, operation="Tokenization")


def _call_for_each(
    dispatcher: Dispatcher[Any],
    binding: Binding,
    name: str,
    value: str | Texts,
    *,
    make: Callable[[Specifier, str], Mapping[str, Any]],
    read: Callable[[Any], T],
    operation: str,
) -> Flow[Any]:
    """Make a call for each text; return the result for one text, or a list for a list."""
    texts = texts_of(value, "input")

    def work(dispatcher: Dispatcher[Any], specifier: Specifier) -> "Flow[list[T]]":
        parameters = [make(specifier, text) for text in texts]
        return call_rpcs(dispatcher, binding.kind, name, parameters, read, operation=operation)

    results = yield from use_model(dispatcher, binding, work)
    return results[0] if isinstance(value, str) else results


def _tokenize(specifier: Specifier, text: str) -> Tokenize:
    return Tokenize(specifier=specifier, inputString=text)


def _tokens(result: Any) -> list[int]:
    return _array(result["tokens"], {int})


def _token_count(result: Any) -> int:
    count = result["tokenCount"]
    if not is_count(count):
        raise TypeError(f"expected a number of tokens; got {type(count).__name__}")
    return count


# Several times as fast as a check of each number in Python.
_FLOATS = SchemaValidator(core_schema.list_schema(core_schema.float_schema(strict=True), min_length=1))


def _vector(result: Any) -> list[float]:
    """Return a vector of Python floats; JSON writes whole numbers without a point."""
    vector = result["embedding"]
    try:
        floats: list[float] = _FLOATS.validate_python(vector)
    except ValidationError:
        if vector == []:
            raise LMStudioProtocolError("Embedding: the server sent an empty vector") from None
        raise TypeError("expected an array of numbers") from None
    return floats


def _array(value: object, types: set[type]) -> list[Any]:
    # Arrays may be long: checking the set of types is several times faster than checking each item.
    if not is_list(value) or not types.issuperset(map(type, value)):
        raise TypeError(f"expected an array of {' or '.join(sorted(kind.__name__ for kind in types))}")
    return value
