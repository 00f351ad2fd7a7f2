"""Endpoints that load, find, list and unload models, and that use them for texts: tokens, templates, vectors.

See docs/protocol.md#model-endpoints and docs/protocol.md#llm-endpoints.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from lmstudio_integrations.emulator.engines.base import EngineModel
from lmstudio_integrations.emulator.errors import WireError, model_unloaded
from lmstudio_integrations.emulator.models.cancel_scope import CancelScope
from lmstudio_integrations.emulator.models.instance import Activity, tools_of
from lmstudio_integrations.emulator.models.request_log import EmbeddingRecord
from lmstudio_integrations.emulator.server.context import Context, OpenChannel
from lmstudio_integrations.protocol.kv_config import PREDICTION, effective, fields_of
from lmstudio_integrations.protocol.requests import (
    ApplyPromptTemplate,
    BasePredictionConfig,
    EmbedString,
    GetOrLoad,
    LoadModel,
    Lookup,
    PreloadDraftModel,
    Specified,
    Tokenize,
    UnloadModel,
)
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.models import ModelSpecifier

LOAD_CANCELLED = "Model loading was cancelled."


async def load_model(context: Context, channel: OpenChannel, parameter: LoadModel) -> None:
    """Load a new instance, even if the model is loaded."""
    devices = context.registry.devices(parameter)
    device, entries = context.registry.find_entries(context.kind, parameter["modelKey"], devices)
    await context.registry.read_metadata(entries[:1])
    resolved: dict[str, Any] = {"type": "resolved", "info": context.registry.info(entries[0], device)}
    if len(entries) > 1:
        resolved["ambiguous"] = [entry.key for entry in entries]
    with channel.cancellable(LOAD_CANCELLED):
        instance = await context.registry.load(
            entries[0],
            device,
            name=parameter["modelKey"],
            identifier=parameter.get("identifier"),
            ttl_ms=parameter.get("ttlMs"),
            settings=parameter["loadConfigStack"].collapse(),
            on_start=lambda _identifier: channel.send(resolved),
            on_progress=lambda progress: channel.send({"type": "progress", "progress": progress}),
        )
        channel.send({"type": "success", "info": instance.describe()})


async def get_or_load(context: Context, channel: OpenChannel, parameter: GetOrLoad) -> None:
    """Return a loaded instance, or load one just in time."""
    # No await between the search and the load: another client might load the model meanwhile.
    devices = context.registry.devices(parameter)
    loaded = context.registry.instances(context.kind, devices)
    named = context.registry.instances_named(loaded, parameter["identifier"])
    if named:
        instance = named[0]
        with instance.hold(channel.scope):  # restarts its idle TTL
            channel.send({"type": "alreadyLoaded", "info": instance.describe()})
        return
    device, entries = context.registry.find_entries(context.kind, parameter["identifier"], devices)
    with channel.cancellable(LOAD_CANCELLED):
        instance = await context.registry.load_just_in_time(
            entries[0],
            device,
            parameter["identifier"],
            channel.send,
            ttl_ms=parameter.get("loadTtlMs"),
            settings=parameter["loadConfigStack"].collapse(),
        )
        channel.send({"type": "loadSuccess", "info": instance.describe()})


async def unload_model(context: Context, parameter: UnloadModel) -> None:
    """Unload an instance."""
    devices = context.registry.devices(parameter)
    await context.registry.unload(context.registry.find_unambiguous(context.kind, parameter["identifier"], devices))


async def list_loaded(context: Context, _parameter: None) -> list[dict[str, Any]]:
    """List the loaded instances of this kind."""
    return [instance.describe() for instance in context.registry.instances(context.kind)]


async def get_model_info(context: Context, parameter: Lookup) -> dict[str, Any] | None:
    """Return a loaded instance; the client decides whether its absence is an error."""
    try:
        return context.registry.find(context.kind, parameter["specifier"]).describe()
    except WireError:
        if parameter["throwIfNotFound"]:
            raise
        return None


async def get_load_config(context: Context, parameter: Specified) -> dict[str, Any]:
    """Return the load settings in effect."""
    return fields_of(context.registry.find(context.kind, parameter["specifier"]).request.fields)


async def get_base_prediction_config(context: Context, parameter: BasePredictionConfig) -> dict[str, Any]:
    """Return the default settings of predictions."""
    model = context.registry.find(context.kind, parameter["specifier"]).model
    if context.kind != "llm":
        return fields_of({})
    fields = effective(PREDICTION, model.base_fields, {})
    if model.chat_template:
        jinja = {"template": model.chat_template}
        fields["llm.prediction.promptTemplate"] = {"type": "jinja", "jinjaPromptTemplate": jinja, "stopStrings": []}
    return fields_of(fields)


async def get_instance_processing_state(context: Context, parameter: Lookup) -> dict[str, Any]:
    """Return the current activity of an instance, and how many requests wait; its absence is always an error."""
    # The result has no form for "not found" (docs/protocol.md#get-instance-processing-state).
    return context.registry.find(context.kind, parameter["specifier"]).state()


T = TypeVar("T")

_ADDED_TOKENS = 2
"""Start and end token that an embedding model adds to a text."""


async def _use(
    context: Context,
    specifier: ModelSpecifier,
    work: Callable[[EngineModel], Awaitable[T]],
    activity: Activity | None = None,
) -> T:
    """Use a loaded model; with an activity, wait for a slot first."""
    instance = context.registry.find(context.kind, specifier)
    with CancelScope() as scope:
        if activity is None:
            with instance.hold(scope):
                return await work(instance.model)
        async with instance.use(scope, activity):
            return await work(instance.model)
    raise model_unloaded()


async def tokenize(context: Context, parameter: Tokenize) -> dict[str, Any]:
    """Return the tokens of a text."""
    tokens = await _use(context, parameter["specifier"], lambda model: model.tokenize(parameter["inputString"]))
    return {"tokens": tokens}


async def count_tokens(context: Context, parameter: Tokenize) -> dict[str, Any]:
    """Return the number of tokens; the start and end token of an embedding model do not count."""
    added = _ADDED_TOKENS if context.kind == "embedding" else 0
    result = await tokenize(context, parameter)
    return {"tokenCount": max(len(result["tokens"]) - added, 0)}


async def embed_string(context: Context, parameter: EmbedString) -> dict[str, Any]:
    """Return the vector of a text."""
    instance = context.registry.find(context.kind, parameter["modelSpecifier"])
    client, text = context.client.identifier, parameter["inputString"]
    context.state.request_log.embeddings.add(EmbeddingRecord(model=instance.identifier, client=client, text=text))
    vector = await _use(
        context,
        parameter["modelSpecifier"],
        lambda model: model.embed(text),
        "computingEmbedding",
    )
    return {"embedding": vector}


async def apply_prompt_template(context: Context, parameter: ApplyPromptTemplate) -> dict[str, Any]:
    """Return a conversation as the model would read it. Its files need not exist."""
    model = context.registry.find(context.kind, parameter["specifier"]).model
    fields = effective(PREDICTION, model.base_fields, parameter["predictionConfigStack"].collapse())
    config = LlmPredictionConfig.from_fields(fields)
    tools = parameter["opts"].get("toolDefinitions") or tools_of(fields)
    formatted = await _use(
        context,
        parameter["specifier"],
        lambda model: model.apply_template(parameter["history"], tools, config),
    )
    return {"formatted": formatted}


async def preload_draft_model(context: Context, parameter: PreloadDraftModel) -> None:
    """Check that a draft model exists; a prediction that requests it loads it."""
    instance = context.registry.find(context.kind, parameter["specifier"])
    context.registry.check_draft_model(parameter["draftModelKey"], instance.device)
