"""Texts that may be too long for a model, embedded with a handle, as the adapters embed them."""

from typing import Any

from lmstudio_integrations import EmbeddingModel
from lmstudio_integrations.client.api.base import model_of
from lmstudio_integrations.client.concurrency.flows import arun, run
from lmstudio_integrations.client.embeddings import EmbeddingRequest


def embed_texts(handle: Any, request: EmbeddingRequest, **settings: Any) -> Any:
    """Return the vectors of texts; from a handle for coroutines, what gives them when it is awaited."""
    flow = model_of(handle).vectors_of_long(request, **settings)
    return run(flow) if isinstance(handle, EmbeddingModel) else arun(flow)
