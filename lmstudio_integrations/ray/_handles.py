"""Handles to a model on several hosts: how many calls run at once, and which host made a vector."""

from collections.abc import Sequence

from typing_extensions import Unpack

from lmstudio_integrations.client.api.asynchronous import AsyncClient, AsyncEmbeddingModel, AsyncLLM
from lmstudio_integrations.client.api.base import ModelParameters
from lmstudio_integrations.client.embeddings.long_texts import EmbeddingRequest
from lmstudio_integrations.client.hosts.models import hosts_of_model
from lmstudio_integrations.client.transport.client_context import NO_TIMEOUTS
from lmstudio_integrations.client.transport.connect.addresses import hosts_of
from lmstudio_integrations.client.transport.flows import arun
from lmstudio_integrations.protocol.exchange import Timeouts
from lmstudio_integrations.types.config import ModelKind


def open_async(
    kind: ModelKind,
    model: str,
    hosts: Sequence[str] | None,
    *,
    max_retries: int = 0,
    timeouts: Timeouts = NO_TIMEOUTS,
    **parameters: Unpack[ModelParameters],
) -> AsyncLLM | AsyncEmbeddingModel:
    """Return a handle to a model on whichever host is best for each call. Nothing is sent now.

    Args:
        kind: Its kind.
        model: Its key or identifier.
        hosts: The hosts; `None` is the LM Studio of this machine. Tokens come from the environment.
        max_retries: How often a call is retried after it has failed on every host.
        timeouts: See `TimeoutParameters`.
        parameters: See `ModelParameters`.

    Raises:
        LMStudioValueError: If an argument is invalid.
    """
    clients = [AsyncClient(host).with_timeouts(**dict(timeouts)) for host in hosts_of(hosts)]
    if kind == "llm":
        return AsyncLLM.on_hosts([client.llm.lazy_model(model, **parameters) for client in clients], max_retries)
    handles = [client.embedding.lazy_model(model, **parameters) for client in clients]
    return AsyncEmbeddingModel.on_hosts(handles, max_retries)


async def get_capacity(handle: AsyncLLM | AsyncEmbeddingModel) -> int:
    """Return how many calls the hosts that have the model run at once. Loads nothing."""
    hosts = hosts_of_model(handle.model)
    await arun(hosts.probe(of_all=True))
    return hosts.parallel


async def embed_with_host(handle: AsyncEmbeddingModel, request: EmbeddingRequest) -> tuple[list[list[float]], str]:
    """Return the vectors of texts, and the host that made them."""
    return await arun(handle.model.vectors_from_one_server(request))
