"""A model on several hosts: each operation gets a host, and moves to another one if that fails.

The handles of the adapters use it (`api/base.py`). `choice.py` is the policy, `host.py` knows the hosts, `route.py` is
the way of one operation over them.
"""

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias, TypeVar

from lmstudio_integrations.client.embeddings.long_texts import embed_texts
from lmstudio_integrations.client.hosts.choice import choose
from lmstudio_integrations.client.hosts.embedding import BATCH, batches_of
from lmstudio_integrations.client.hosts.host import Host, begin_load, begin_surveys, first_survey
from lmstudio_integrations.client.hosts.route import Route
from lmstudio_integrations.client.models.binding import Binding
from lmstudio_integrations.client.models.gates import in_gate
from lmstudio_integrations.client.models.queries import get_info
from lmstudio_integrations.client.models.retries import pause
from lmstudio_integrations.client.support.progress_bars import ProgressBar
from lmstudio_integrations.client.support.user_warnings import warn_user
from lmstudio_integrations.client.transport.concurrent_flows import MakeWaiter, run_concurrently
from lmstudio_integrations.client.transport.connect.addresses import Address
from lmstudio_integrations.client.transport.dispatcher import Dispatcher
from lmstudio_integrations.client.transport.flows import Flow, wait_for
from lmstudio_integrations.errors import LMStudioConfigMismatchError, LMStudioConfigWarning, LMStudioError
from lmstudio_integrations.types.embedding_request import EmbeddingRequest
from lmstudio_integrations.types.hosts import SAME_FILE, HostStatus, describe_values, differences_of
from lmstudio_integrations.types.models import ModelInstanceInfo

T = TypeVar("T")
Work: TypeAlias = Callable[[Dispatcher[Any], Binding], Flow[T]]
"""An operation on a model on one host."""


class HostPool:
    """A model on several hosts. Thread-safe.

    Args:
        hosts: The hosts, in the order in which they are preferred. Their dispatchers do not retry; the pool does.
        max_retries: How often a call is retried after it has failed on every host.
    """

    def __init__(self, hosts: Sequence[Host], max_retries: int = 0) -> None:
        self.hosts: list[Host] = list(hosts)
        self.max_retries = max_retries
        self._compared: object = None

    @property
    def dispatcher(self) -> Dispatcher[Any]:
        """A dispatcher for what concerns no host in particular."""
        return self.hosts[0].dispatcher

    def route(self, pinned: Address | None = None) -> Route:
        """Return the way of one operation over the hosts.

        Args:
            pinned: The host that the operation must run on, because it has what the operation refers to.
        """
        on_pinned = [host for host in self.hosts if pinned is not None and host.dispatcher.target.address == pinned]
        return Route(self, on_pinned or self.hosts)

    def run(self, work: Work[T], make_waiter: MakeWaiter | None = None) -> Flow[T]:
        """Run an operation on the best host; on another one if that fails and the caller has received nothing.

        Args:
            work: The operation.
            make_waiter: Makes the waiters of its calls, if it is one of several concurrent flows.

        Raises:
            LMStudioError: If it failed on every host, with the reason of each, or if the error is not of the host.
        """
        route = self.route()
        try:
            while True:
                dispatcher, binding = yield from route.next(make_waiter)
                try:
                    result = yield from work(dispatcher, binding)
                except LMStudioError as error:
                    seconds = route.delay_after(error)
                    if seconds is None:
                        route.raise_combined(error)
                else:
                    route.succeeded()
                    if binding.kind == "embedding":  # the length of its vectors may be known only now
                        self._compare(self.statuses())
                    return result
                if seconds:
                    yield from pause(dispatcher, seconds)
        finally:
            route.release()

    def run_each(self, works: Iterator[tuple[Work[T], Callable[[T], None]]]) -> Flow[None]:
        """Run many operations, as many at once as the hosts run; each host gets the next one when it has a free slot.

        Args:
            works: The operations, each with what takes its result.
        """

        def work_through(make_waiter: MakeWaiter) -> Flow[None]:
            for work, receive in works:  # all flows take from one iterator
                receive((yield from self.run(work, make_waiter)))

        return run_concurrently(self.dispatcher, [work_through] * self.parallel)

    def embed_texts(
        self,
        request: EmbeddingRequest,
        max_concurrency: int | None = None,
        show_progress: bool = False,  # noqa: FBT001, FBT002 - as the caller has it
    ) -> Flow[list[list[float]]]:
        """Return the vectors of texts, of which each host embeds batches.

        Args:
            request: The texts.
            max_concurrency: How many such calls on a host run at once; the others wait. `None` sets no limit.
            show_progress: Whether to draw a bar.
        """
        start = partial(self._embed_texts, request, show_progress)
        if max_concurrency is None:
            return start()
        first = self.hosts[0]
        return in_gate(first.dispatcher, first.binding, max_concurrency * len(self.hosts), start)

    def _embed_texts(
        self,
        request: EmbeddingRequest,
        show_progress: bool,  # noqa: FBT001 - as the caller has it
    ) -> Flow[list[list[float]]]:
        yield from self.surveyed(of_all=True)  # a text that is too long for one of the hosts is too long for all
        request = replace(request, context_length=self.context_length)
        if len(request.texts) <= BATCH:
            return (yield from self.run(partial(embed_texts, request=request, show_progress=show_progress)))
        vectors: list[list[float]] = [[] for _ in request.texts]
        with ProgressBar(f"Embedding {len(vectors)} texts", shown=show_progress) as bar:
            yield from self.run_each(batches_of(request, vectors, bar))
        lengths = sorted(set(map(len, vectors)))
        if len(lengths) > 1:
            raise LMStudioConfigMismatchError(
                f"the hosts made vectors of {' and '.join(map(str, lengths))} numbers, because one of them has loaded "
                f"another model as {self.hosts[0].binding.name!r} meanwhile; {SAME_FILE['embedding']}",
                differences={"dimensions": (lengths[0], lengths[-1])},
            )
        return vectors

    def embed_on_one(self, request: EmbeddingRequest) -> Flow[tuple[list[list[float]], str]]:
        """Return the vectors of texts, and the host that made all of them."""

        def work(dispatcher: Dispatcher[Any], binding: Binding) -> "Flow[tuple[list[list[float]], str]]":
            return (yield from embed_texts(dispatcher, binding, request)), str(dispatcher.target)

        return self.run(work)

    def get_info(self, *, load: bool = False) -> Flow[ModelInstanceInfo]:
        """Return the info of a loaded instance, with the smallest context length of all hosts.

        Args:
            load: Whether to load the model on a host if it is loaded on none.
        """
        yield from self.surveyed(of_all=True)
        info = yield from self.run(partial(get_info, load=load))
        smallest = min(info.context_length, self.context_length or info.context_length)
        return info if smallest == info.context_length else info.model_copy(update={"context_length": smallest})

    def refreshed(self) -> Flow[list[HostStatus]]:
        """Ask all hosts what they have; return what is known of each."""
        yield from self.surveyed(again=True)
        return self.statuses()

    def surveyed(
        self, make_waiter: MakeWaiter | None = None, *, of_all: bool = False, again: bool = False
    ) -> Flow[None]:
        """Wait until the hosts were asked what they have: until one has a free slot, or until all have responded.

        Only the first calls wait. Hosts that were asked a while ago are asked again in the background.

        Args:
            make_waiter: Makes the waiter of the caller, if it is one of several concurrent flows.
            of_all: Whether to wait for the first response of every host.
            again: Whether to ask all hosts now, and to wait for them.
        """
        unknown = [host for host in self.hosts if again or not host.record.is_known]
        is_enough = _never if of_all or again else self._has_free_slot
        if unknown and not is_enough():
            dispatcher = self.dispatcher if make_waiter is None else self.dispatcher.with_waiters(make_waiter)
            yield from wait_for(dispatcher.run_task(lambda: first_survey(unknown, is_enough)))
        now = time.monotonic()
        due = [host for host in self.hosts if host.record.is_due(now)]
        if due:
            self.dispatcher.submit(begin_surveys, due)

    def statuses(self) -> list[HostStatus]:
        """Return what is known of each host."""
        return [host.status() for host in self.hosts]

    @property
    def parallel(self) -> int:
        """How many calls the hosts run at once, as far as it is known; hosts that cannot run any do not count."""
        statuses = self.statuses()
        known = [host.record.is_known for host in self.hosts]
        usable = [status for status, is_known in zip(statuses, known, strict=True) if status.downloaded or not is_known]
        return sum(status.parallel for status in usable or statuses)

    @property
    def context_length(self) -> int | None:
        """The smallest context length of the loaded instances, in tokens, if any is known."""
        return min((status.context_length for status in self.statuses() if status.context_length), default=None)

    def claim(self, hosts: Sequence[Host], excluded: set[int], token: object) -> tuple[int, Hashable] | None:
        """Choose a host for a call and take a slot there; start a load elsewhere if no slot is free.

        Return the number of the host and the slot, or `None` if no slot is free and some hosts were not asked yet.

        Args:
            hosts: The hosts to choose from.
            excluded: The numbers of those that the call has tried.
            token: Stands for the call.
        """
        while True:
            statuses = [host.status() for host in hosts]
            self._compare(statuses)
            may_load = hosts[0].binding.policy != "require_loaded"
            number, load = choose(statuses, may_load=may_load, excluded=excluded)
            host, status = hosts[number], statuses[number]
            if not (status.loaded and status.has_free_slot) and not all(each.record.is_known for each in hosts):
                return None
            claimed = host.record.claim(token, status.parallel if status.has_free_slot else None)
            if claimed is None:
                continue  # another thread was faster
            if may_load and not status.loaded:
                host.record.loads[token] = None
            if load is not None:
                hosts[load].record.loads[hosts[load]] = None
                self.dispatcher.submit(begin_load, hosts[load])
            return number, claimed

    def _has_free_slot(self) -> bool:
        return any(status.loaded and status.has_free_slot for status in self.statuses())

    def _compare(self, statuses: Sequence[HostStatus]) -> None:
        """Warn if the hosts have loaded different files of the model, or with different context lengths.

        Raises:
            LMStudioConfigMismatchError: If a mismatch is to raise, or their vectors have different lengths.
        """
        differences = differences_of(statuses)
        if self._compared == differences:
            return
        self._compared = differences
        binding = self.hosts[0].binding
        reaction = "raise" if "dimensions" in differences else binding.on_config_mismatch
        if not differences or reaction == "ignore":
            return
        described = {name: describe_values(by_host) for name, by_host in differences.items()}
        listed = "; ".join(f"{name} ({values})" for name, values in described.items())
        remedy = SAME_FILE[binding.kind]
        if "dimensions" not in differences:
            remedy += ", or set on_config_mismatch='ignore'"
        text = f"the hosts have {binding.name!r} loaded differently: {listed}; {remedy}"
        if reaction == "raise":
            self._compared = None
            raise LMStudioConfigMismatchError(
                text, differences={name: (values, values) for name, values in described.items()}
            )
        warn_user(text, LMStudioConfigWarning)


def _never() -> bool:
    return False
