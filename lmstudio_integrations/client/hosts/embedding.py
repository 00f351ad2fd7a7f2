"""Embed many texts on several hosts: in batches, each on the host that has a free slot first."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeAlias

from lmstudio_integrations.client.embeddings.long_texts import embed_texts
from lmstudio_integrations.client.models.binding import Binding
from lmstudio_integrations.client.support.progress_bars import ProgressBar
from lmstudio_integrations.client.transport.dispatcher import Dispatcher
from lmstudio_integrations.client.transport.flows import MAX_IN_FLIGHT, Flow
from lmstudio_integrations.types.embedding_request import EmbeddingRequest

BATCH = MAX_IN_FLIGHT
"""Texts of one batch: as many as are sent to a host at once."""

Vectors: TypeAlias = list[list[float]]
Batch: TypeAlias = tuple[Callable[[Dispatcher[Any], Binding], Flow[Vectors]], Callable[[Vectors], None]]
"""Embeds a batch on a host, and takes its vectors."""


def batches_of(request: EmbeddingRequest, vectors: Vectors, bar: ProgressBar) -> Iterator[Batch]:
    """Yield the batches of a request.

    Args:
        request: The texts.
        vectors: Receives the vectors, in the order of the texts; has as many items as there are texts.
        bar: Moves with every batch.
    """
    done = 0

    def receive(start: int, found: Vectors) -> None:
        nonlocal done
        vectors[start : start + len(found)] = found
        done += len(found)
        bar.update(done / len(vectors))

    for start in range(0, len(request.texts), BATCH):
        part = request.part(start, start + BATCH)
        yield partial(embed_texts, request=part), partial(receive, start)
