"""Models on several hosts: what a handle has in place of a model on one server."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, Self

from lmstudio_integrations.client.concurrency.concurrent_flows import MakeMailbox, run_concurrently
from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.embeddings import Embedder, EmbeddingRequest, Vectors
from lmstudio_integrations.client.files.uploads import PendingHistory, origins
from lmstudio_integrations.client.hosts.host import Host, conversation_of
from lmstudio_integrations.client.hosts.hosts import FailoverOperation, Hosts
from lmstudio_integrations.client.models.kinds import model_class
from lmstudio_integrations.client.models.model import Model, ModelOperation
from lmstudio_integrations.client.predictions.language_model import LanguageModel, Prefix
from lmstudio_integrations.client.predictions.plan import Plan, offered_tools
from lmstudio_integrations.client.predictions.prediction import Prediction
from lmstudio_integrations.client.support.arguments import whole_number
from lmstudio_integrations.client.support.progress_bars import ProgressBar
from lmstudio_integrations.client.transport.client_context import NO_TIMEOUTS, ClientContext
from lmstudio_integrations.client.transport.operation import MAX_IN_FLIGHT
from lmstudio_integrations.errors import LMStudioConfigMismatchError, LMStudioError
from lmstudio_integrations.protocol.exchange import Timeouts
from lmstudio_integrations.protocol.prompt_fingerprint import PromptFingerprint, fingerprint_of
from lmstudio_integrations.types.chat import WireHistory
from lmstudio_integrations.types.config import LlmPredictionConfig, ModelKind
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.hosts import SAME_FILE
from lmstudio_integrations.types.models import ModelInstanceInfo

logger: logging.Logger = logging.getLogger(__name__)

BATCH = MAX_IN_FLIGHT
"""Texts of one batch: as many as are sent to a host at once."""


class ModelOnHosts(Model):
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
        return type(self)(Hosts(self.hosts.hosts, max_retries))

    def operation(self, timeouts: Timeouts = NO_TIMEOUTS, *, reload: bool = True) -> ModelOperation:
        return FailoverOperation(self.hosts, self.hosts.hosts, timeouts, reload=reload)

    def _on_each(self, hosts: Sequence[Host], work: Callable[[Any], Flow[None]]) -> Flow[dict[Host, LMStudioError]]:
        """Do something with the models of some hosts at once; return the errors of those that failed."""
        errors: dict[Host, LMStudioError] = {}

        def do(host: Host, make_mailbox: MakeMailbox) -> Flow[None]:
            try:
                yield from work(host.model.with_context(lambda context: context.with_mailboxes(make_mailbox)))
            except LMStudioError as error:
                host.record.record_error(error)
                logger.info("%s was left out: %s", host.name, error)
                errors[host] = error

        yield from run_concurrently(self.context.new_mailbox(), [partial(do, host) for host in hosts])
        return errors

    def unload(self) -> Flow[None]:
        """Unload the instances of all hosts that have one; the handle does not load these again automatically."""
        yield from self.hosts.probe(of_all=True)
        for host in self.hosts.hosts:
            host.model.state.unloaded_by_user = True
        loaded = [host for host in self.hosts.hosts if host.status().loaded]
        errors = yield from self._on_each(loaded, lambda model: model.unload())
        self._record_unloaded(host for host in loaded if host not in errors)
        _raise_first(errors)

    def unload_if_loaded(self) -> Flow[None]:
        """Unload the instances of all hosts that have one; the next call gets or loads another."""
        errors = yield from self._on_each(self.hosts.hosts, lambda model: model.unload_if_loaded())
        self._record_unloaded(host for host in self.hosts.hosts if host not in errors)
        _raise_first(errors)

    def _record_unloaded(self, hosts: Iterable[Host]) -> None:
        for host in hosts:
            host.record.found = replace(host.record.nothing, downloaded=True)

    def unload_if_loaded_here(self) -> Flow[None]:
        _raise_first((yield from self._on_each(self.hosts.hosts, lambda model: model.unload_if_loaded_here())))

    def slots(self) -> Flow[list[int | None]]:
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


class LanguageModelOnHosts(ModelOnHosts, LanguageModel):
    """A language model on several hosts."""

    def predict(self, plan: Plan) -> Prediction:
        """Return a prediction. One with uploaded files runs on the host that has them."""
        uploads = (handle.origin or origins.get(handle.identifier) for handle in plan.files)
        address, hosts = next((origin.server for origin in uploads if origin is not None), None), self.hosts.hosts
        pinned = [host for host in hosts if address is not None and host.model.context.target.address == address]
        conversation = [] if plan.history is None else conversation_of(_fingerprint(plan.history, plan.settings))
        operation = FailoverOperation(self.hosts, pinned or hosts, plan.timeouts, conversation=conversation)
        return Prediction(operation, plan)

    def prefill(self, prefix: Prefix | None, plan: Plan, *, keep_warm: bool = False) -> Flow[None]:
        """Process what stands before the first question, on every host that has the model loaded."""
        yield from self.hosts.probe(of_all=True)
        if not any(status.loaded for status in self.hosts.statuses()):
            yield from self.load()
        loaded = [host for host in self.hosts.hosts if host.status().loaded]
        errors = yield from self._on_each(loaded, lambda model: model.prefill(prefix, plan, keep_warm=keep_warm))
        if len(errors) == len(loaded):
            _raise_first(errors)
        for host in self.hosts.hosts:  # those that have not processed it do so with their next call
            if host not in loaded or host in errors:
                model = LanguageModel(host.model.context, host.model.state)
                model.state.kept_warm = model.kept_warm(prefix, plan) if keep_warm else None


def _fingerprint(history: WireHistory | PendingHistory, settings: LlmPredictionConfig) -> PromptFingerprint:
    """Return the fingerprint of a conversation. Names of images that are not uploaded yet stand for their contents."""
    if isinstance(history, PendingHistory):
        names = [str(hash(image.source)) for image in history.images]
        files = [FileHandle(name=name, identifier="", size_bytes=0, file_type="image") for name in names]
        history = history.encode(files)
    return fingerprint_of(history.messages, offered_tools(settings))


class EmbedderOnHosts(ModelOnHosts, Embedder):
    """An embedding model on several hosts. `embed` runs on the best one, `embed_texts` in batches on all at once."""

    def vectors_of_long(self, request: EmbeddingRequest, *, max_concurrency: int | None = None) -> Flow[Vectors]:
        """Return the vectors of texts; `max_concurrency` calls run on each host."""
        limit = whole_number(max_concurrency, "max_concurrency")
        limit = limit and limit * len(self.hosts.hosts)
        return (yield from super().vectors_of_long(request, max_concurrency=limit))

    def embed_batch(self, request: EmbeddingRequest) -> Flow[Vectors]:
        """Return the vectors of texts, all made on one host."""
        operation = self.operation(reload=False)  # the model on that host loads itself again
        return (
            yield from operation.run(
                lambda _: Embedder(operation.child_context(), operation.state).vectors_of_long(request)
            )
        )

    def _embed(self, request: EmbeddingRequest) -> Flow[Vectors]:
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
                batch = yield from model.embed_batch(request.part(start, start + BATCH))
                vectors[start : start + len(batch)] = batch
                done += len(batch)
                bar.report(done / len(vectors))

        with ProgressBar(f"Embedding {len(vectors)} texts", shown=request.show_progress) as bar:
            bar.report(0.0)
            batches = -(-len(vectors) // BATCH)
            flows = min(self.hosts.parallel or batches, batches)
            yield from run_concurrently(self.context.new_mailbox(), [embed_batches] * flows)
        lengths = sorted(set(map(len, vectors)))
        if len(lengths) > 1:
            raise LMStudioConfigMismatchError(
                f"the hosts made vectors of {' and '.join(map(str, lengths))} numbers, because one of them has loaded "
                f"another model as {self.state.name!r} meanwhile; {SAME_FILE['embedding']}",
                differences={"dimensions": (lengths[0], lengths[-1])},
            )
        return vectors


def _raise_first(errors: Mapping[Host, LMStudioError]) -> None:
    for error in errors.values():
        raise error


_ON_HOSTS: Mapping[ModelKind, type[ModelOnHosts]] = {"llm": LanguageModelOnHosts, "embedding": EmbedderOnHosts}


@cache
def _class_of(kind: ModelKind) -> type[ModelOnHosts]:
    """Return the class of the models of a kind on several hosts; one without a way of its own is like any model."""
    plain = model_class(kind)
    return _ON_HOSTS.get(kind) or type(f"{plain.__name__}OnHosts", (ModelOnHosts, plain), {})


def on_hosts(models: Sequence[Model], max_retries: int) -> ModelOnHosts:
    """Return one model on several hosts, each of which has one of the models."""
    return _class_of(models[0].state.kind)(Hosts([Host(model) for model in models], max_retries))


def hosts_of(model: Model) -> Hosts:
    """Return the hosts of a model, also if it is on one only."""
    return model.hosts if isinstance(model, ModelOnHosts) else Hosts([Host(model)])
