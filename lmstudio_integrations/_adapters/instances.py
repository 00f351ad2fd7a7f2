"""What the server knows of the instance that a handle means, also after that has gone.

A handle gets its model again for predictions and the like, but tells of the instance that it had. LM Studio unloads a
model to make room for another, so between two calls of an adapter the instance may well have changed.
"""

from typing import TYPE_CHECKING

from lmstudio_integrations.errors import LMStudioModelUnloadedError

if TYPE_CHECKING:
    from lmstudio_integrations.client.asynchronous import AsyncEmbeddingModel, AsyncLLM
    from lmstudio_integrations.client.sync import LLM, EmbeddingModel
    from lmstudio_integrations.types.models import ModelInstanceInfo

_ANYTHING = "a"
"""A text whose tokens may be counted, which gets the model again if it has gone."""


def info_of(model: "LLM | EmbeddingModel") -> "ModelInstanceInfo":
    """Return what the server knows of a model's instance, getting or loading it if need be."""
    try:
        return model.get_info()
    except LMStudioModelUnloadedError:
        model.count_tokens(_ANYTHING)
        return model.get_info()


async def ainfo_of(model: "AsyncLLM | AsyncEmbeddingModel") -> "ModelInstanceInfo":
    """Return what the server knows of a model's instance, getting or loading it if need be."""
    try:
        return await model.get_info()
    except LMStudioModelUnloadedError:
        await model.count_tokens(_ANYTHING)
        return await model.get_info()
