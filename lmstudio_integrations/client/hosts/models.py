"""Models on several hosts: what a handle has in place of a model on one server."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self, TypeVar, cast

from lmstudio_integrations.client.embeddings import Embedder, EmbeddingRequest, Vectors
from lmstudio_integrations.client.files.uploads import address_of
from lmstudio_integrations.client.hosts.failover import FailoverAttempts, record_failure
from lmstudio_integrations.client.hosts.host import Host
from lmstudio_integrations.client.hosts.hosts import Hosts
from lmstudio_integrations.client.models.attempts import Attempts
from lmstudio_integrations.client.models.model import Model
from lmstudio_integrations.client.predictions.language_model import LanguageModel
from lmstudio_integrations.client.predictions.plan import Plan
from lmstudio_integrations.client.predictions.prediction import Prediction
from lmstudio_integrations.client.predictions.prefill import Prefix
from lmstudio_integrations.client.predictions.requests import PredictionParameters
from lmstudio_integrations.client.support.arguments import list_of, whole_number
from lmstudio_integrations.client.support.progress_bars import ProgressBar
from lmstudio_integrations.client.transport.client_context import NO_TIMEOUTS, ClientContext
from lmstudio_integrations.client.transport.concurrent_flows import MakeMailbox, run_concurrently
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.operation import MAX_IN_FLIGHT
from lmstudio_integrations.errors import (
    LMStudioCancelledError,
    LMStudioConfigMismatchError,
    LMStudioContextOverflowError,
    LMStudioError,
    LMStudioOSError,
    LMStudioPresetNotFoundError,
    LMStudioPromptTemplateError,
    LMStudioRuntimeError,
    LMStudioUnsupportedError,
    LMStudioValueError,
    LMStudioWrongModelKindError,
)
from lmstudio_integrations.protocol.exchange import Timeouts
from lmstudio_integrations.types.functions import ToolInput
from lmstudio_integrations.types.hosts import SAME_FILE
from lmstudio_integrations.types.models import ModelInstanceInfo

logger: logging.Logger = logging.getLogger(__name__)

ModelT = TypeVar("ModelT", bound=Model)

BATCH = MAX_IN_FLIGHT
"""Texts of one batch: as many as are sent to a host at once."""

_ON_EVERY_HOST = (
    LMStudioCancelledError,
    LMStudioConfigMismatchError,
    LMStudioContextOverflowError,
    LMStudioOSError,
    LMStudioPresetNotFoundError,
    LMStudioPromptTemplateError,
    LMStudioRuntimeError,
    LMStudioUnsupportedError,
    LMStudioValueError,
    LMStudioWrongModelKindError,
)
"""Errors of what the program passes or does; another host does not mend them."""


class _ModelOnHosts(Model):
    """A model on several hosts. Each operation gets the best host, and moves to another one if that fails."""

    def __init__(self, hosts: Hosts) -> None:
        first = hosts.hosts[0].model
        super().__init__(first.context, first.state)
        self.hosts = hosts

    @property
    def model_key(self) -> str | None:
        """The key of the model, once a host has reported it."""
        return next((key for host in self.hosts.hosts if (key := host.model.model_key)), None)

    def with_context(self, change: Callable[[ClientContext], ClientContext]) -> Self:
        return type(self)(self.hosts.with_context(change))

    def with_retries(self, max_retries: int) -> Self:
        """Return the same model, whose operations are tried again after they have failed on every host."""
        return type(self)(self.hosts.with_retries(max_retries))

    def attempts(self, timeouts: Timeouts = NO_TIMEOUTS, *, reload: bool = True) -> Attempts:
        return FailoverAttempts(self.hosts, self.hosts.hosts, timeouts, reload=reload)

    def _on_each(self, hosts: Sequence[Host], work: Callable[[Any], Flow[None]]) -> Flow[None]:
        """Do something with the models of some hosts, on all servers at once. A server that fails is left out.

        Raises:
            LMStudioError: When all ended: an error that the call has on every server, or the first one if no server
                has done all of its work.
        """
        errors: list[tuple[str, LMStudioError]] = []

        def do(of_server: list[Host], make_mailbox: MakeMailbox) -> Flow[None]:
            for host in of_server:
                try:
                    yield from work(host.model.with_context(lambda context: context.with_mailboxes(make_mailbox)))
                except LMStudioError as error:
                    record_failure(host.record, error)
                    logger.info("%s was left out: %s", host.name, error)
                    errors.append((host.address, error))

        by_server: dict[str, list[Host]] = {}
        for host in hosts:
            by_server.setdefault(host.address, []).append(host)
        yield from run_concurrently(self.context, [partial(do, of_server) for of_server in by_server.values()])
        of_call: list[LMStudioError] = [error for _, error in errors if isinstance(error, _ON_EVERY_HOST)]
        if of_call:
            raise of_call[0]
        if errors and by_server.keys() == dict(errors).keys():
            raise errors[0][1]

    def unload(self) -> Flow[None]:
        """Unload the instances of all hosts that have one; the handle does not load these again automatically."""
        yield from self.hosts.probe(of_all=True)
        yield from _each([host.unload() for host in self.hosts.hosts])

    def unload_if_loaded_here(self) -> Flow[None]:
        yield from _each([host.model.unload_if_loaded_here() for host in self.hosts.hosts])

    def slots(self) -> Flow[list[int]]:
        """Return how many calls each host runs at once."""
        yield from self.hosts.probe(of_all=True)
        return self.hosts.slots

    def get_info(self, *, load: bool = False) -> Flow[ModelInstanceInfo]:
        """Return the info of a loaded instance, with the smallest context length of all hosts.

        Args:
            load: Whether to load the model on a host if it is loaded on none.
        """
        yield from self.hosts.probe(of_all=True)
        info = yield from super().get_info(load=load)
        smallest = min(info.context_length, self.hosts.context_length or info.context_length)
        return info if smallest == info.context_length else info.model_copy(update={"context_length": smallest})


class LanguageModelOnHosts(_ModelOnHosts, LanguageModel):
    """A language model on several hosts."""

    def predict(self, plan: Plan) -> Prediction:
        """Return a prediction. One with uploaded files runs on the host that has them."""
        address, hosts = address_of(plan.files), self.hosts.hosts
        pinned = [host for host in hosts if address is not None and host.model.context.target.address == address]
        return Prediction(
            FailoverAttempts(self.hosts, pinned or hosts, plan.timeouts, fingerprint=plan.fingerprint), plan
        )

    def prefill(
        self,
        prefix: Prefix | None,
        parameters: PredictionParameters,
        tools: Iterable[ToolInput] = (),
        *,
        keep_warm: bool = False,
    ) -> Flow[None]:
        """Process what stands before the first question, on every host that has the model loaded."""
        tools = list_of(tools, "tools")
        before = {id(host.model.state): host.model.state.kept_warm for host in self.hosts.hosts}
        yield from self.hosts.probe(of_all=True)
        loaded = [host for host in self.hosts.hosts if host.status().loaded]
        if loaded:
            yield from self._on_each(
                loaded, lambda model: model.prefill(prefix, parameters, tools, keep_warm=keep_warm)
            )
        else:
            yield from super().prefill(prefix, parameters, tools, keep_warm=keep_warm)
        for host in self.hosts.hosts:  # those that load the model later; the others keep what they have processed now
            state = host.model.state
            if state.kept_warm is before[id(state)]:
                model = LanguageModel(host.model.context, state)
                state.kept_warm = model.kept_warm(prefix, parameters, tools) if keep_warm else None


class EmbedderOnHosts(_ModelOnHosts, Embedder):
    """An embedding model on several hosts. `embed` runs on the best one, `embed_texts` in batches on all at once."""

    def vectors_of_long(
        self, request: EmbeddingRequest, *, max_concurrency: int | None = None, show_progress: bool = False
    ) -> Flow[Vectors]:
        """Return the vectors of texts; `max_concurrency` calls run on each host."""
        limit = whole_number(max_concurrency, "max_concurrency")
        limit = limit and limit * len(self.hosts.hosts)
        return (yield from super().vectors_of_long(request, max_concurrency=limit, show_progress=show_progress))

    def vectors_from_one_server(self, request: EmbeddingRequest) -> Flow[tuple[Vectors, str]]:
        """Return the vectors of texts, and the host that made all of them."""
        attempts = self.attempts(reload=False)  # the model on that host loads itself again
        return (
            yield from attempts.run(
                lambda operation: Embedder(operation.child_context(), attempts.state).vectors_from_one_server(request)
            )
        )

    def _embed(self, request: EmbeddingRequest, *, show_progress: bool) -> Flow[Vectors]:
        """Embed texts in batches, at once on all hosts; each batch is an operation of its own."""
        yield from self.hosts.probe(of_all=True)  # a text that is too long for one of the hosts is too long for all
        request = replace(request, context_length=self.hosts.context_length)
        vectors: Vectors = [[] for _ in request.texts]
        starts = iter(range(0, len(vectors), BATCH))  # all flows take from one iterator
        done = 0

        def embed_batches(make_mailbox: MakeMailbox) -> Flow[None]:
            nonlocal done
            model = self.with_context(lambda context: context.with_mailboxes(make_mailbox))
            for start in starts:
                batch, _ = yield from model.vectors_from_one_server(request.part(start, start + BATCH))
                vectors[start : start + len(batch)] = batch
                done += len(batch)
                bar.update(done / len(vectors))

        with ProgressBar(f"Embedding {len(vectors)} texts", shown=show_progress) as bar:
            bar.update(0.0)
            flows = min(self.hosts.parallel, -(-len(vectors) // BATCH))
            yield from run_concurrently(self.context, [embed_batches] * flows)
        lengths = sorted(set(map(len, vectors)))
        if len(lengths) > 1:
            raise LMStudioConfigMismatchError(
                f"the hosts made vectors of {' and '.join(map(str, lengths))} numbers, because one of them has loaded "
                f"another model as {self.state.name!r} meanwhile; {SAME_FILE['embedding']}",
                differences={"dimensions": (lengths[0], lengths[-1])},
            )
        return vectors


def _each(flows: Sequence[Flow[None]]) -> Flow[None]:
    """Run flows one after the other; raise the first error when all have ended."""
    errors: list[LMStudioError] = []
    for flow in flows:
        try:
            yield from flow
        except LMStudioError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def on_hosts(models: Sequence[ModelT], max_retries: int) -> ModelT:
    """Return one model on several hosts, each of which has one of the models."""
    hosts = Hosts([Host(model) for model in models], max_retries)
    made: Any = LanguageModelOnHosts(hosts) if models[0].state.kind == "llm" else EmbedderOnHosts(hosts)
    return cast("ModelT", made)


def hosts_of_model(model: Model) -> Hosts:
    """Return the hosts of a model, also if it is on one only."""
    return model.hosts if isinstance(model, _ModelOnHosts) else Hosts([Host(model)])
