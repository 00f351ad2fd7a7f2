"""Endpoints for texts: tokens, templates, vectors (docs/protocol.md#llm-endpoints)."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from lmstudio_integrations.emulator.engines.base import EngineModel
from lmstudio_integrations.emulator.errors import model_unloaded
from lmstudio_integrations.emulator.models import prediction_settings
from lmstudio_integrations.emulator.models.fair_queue import CancelScope
from lmstudio_integrations.emulator.models.instance import Activity
from lmstudio_integrations.emulator.server.context import Context
from lmstudio_integrations.emulator.testing.request_log import EmbeddingRecord
from lmstudio_integrations.protocol.requests import ApplyPromptTemplate, EmbedString, PreloadDraftModel, Tokenize
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.models import ModelSpecifier

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
        async with instance.use(context.client.identifier, scope, activity):
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
    instance.report_embedded(len(text))
    return {"embedding": vector}


async def apply_prompt_template(context: Context, parameter: ApplyPromptTemplate) -> dict[str, Any]:
    """Return a conversation as the model would read it. Its files need not exist."""
    model = context.registry.find(context.kind, parameter["specifier"]).model
    effective = prediction_settings.in_effect(model.base_fields, parameter["predictionConfigStack"].collapse())
    config = LlmPredictionConfig.from_fields(effective)
    tools = parameter["opts"].get("toolDefinitions") or prediction_settings.tools_of(effective)
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
