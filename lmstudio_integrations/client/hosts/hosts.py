"""A model on several hosts: what is known of them, and which one gets the next operation."""

from collections.abc import Callable, Collection, Hashable, Sequence

from lmstudio_integrations.client.hosts.host import Host, begin_load, begin_probes, first_probe
from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.errors import LMStudioConfigMismatchError, LMStudioConfigWarning
from lmstudio_integrations.types.hosts import SAME_FILE, HostStatus, describe_values, differences_of


def choose(
    hosts: Sequence[HostStatus],
    *,
    cached: Sequence[int] = (),
    may_load: bool = True,
    excluded: Collection[int] = (),
) -> tuple[int, int | None]:
    """Choose the host of a call, and one on which the model is loaded meanwhile for later calls, by their numbers.

    Of the hosts that have the model loaded, one with a free slot gets the call; among equals, one that has not failed,
    then the one that has most of the conversation in its cache, then the one with the shortest queue, then the first.

    If no slot is free, the model is also loaded on another host that has it downloaded, unless others must go for it.
    If it is loaded nowhere, the call loads it: first where nothing must go. Hosts that are not available are chosen
    only if no other is left, and nothing is loaded there meanwhile.

    Args:
        hosts: The hosts, at least one of them not excluded.
        cached: For each host, how much of the conversation it has in its cache; by default nothing.
        may_load: Whether calls may load the model.
        excluded: Hosts that must not be chosen, by their numbers.
    """
    allowed = [number for number in range(len(hosts)) if number not in excluded]
    numbers = [number for number in allowed if hosts[number].available] or allowed

    def rank(number: int) -> tuple[bool, bool, int, float]:
        host = hosts[number]
        is_cached = cached[number] if cached else 0
        return not host.has_free_slot, host.has_failed, -is_cached, host.in_flight / host.parallel

    numbers.sort(key=rank)
    loaded = [number for number in numbers if hosts[number].loaded]
    loading = [number for number in numbers if hosts[number].loading and not hosts[number].loaded]
    if any(hosts[number].has_free_slot for number in (*loaded, *loading)) or not may_load:
        return (loaded or loading or numbers)[0], None
    loadable = [number for number in numbers if hosts[number].downloaded and number not in (*loaded, *loading)]
    roomy = [number for number in loadable if not hosts[number].lacks_room]
    if loaded:
        return loaded[0], next((number for number in roomy if hosts[number].available), None)
    return (roomy or loading or loadable or numbers)[0], None


class Hosts:
    """A model on several hosts. Thread-safe.

    Args:
        hosts: The hosts, in the order in which they are preferred. Their contexts do not retry; the operations do.
        max_retries: How often an operation is tried again after it has failed on every host.
    """

    def __init__(self, hosts: Sequence[Host], max_retries: int = 0) -> None:
        self.hosts: list[Host] = list(hosts)
        self.max_retries: int = max_retries

    def with_context(self, change: Callable[[ClientContext], ClientContext]) -> "Hosts":
        """Return the same hosts, called in another way."""
        return Hosts([Host(host.model.with_context(change)) for host in self.hosts], self.max_retries)

    @property
    def context(self) -> ClientContext:
        """Makes the calls that concern no host in particular."""
        return self.hosts[0].model.context

    def refresh(self) -> Flow[list[HostStatus]]:
        """Ask all hosts what they have; return what is known of each."""
        yield from self.probe(again=True)
        return self.statuses()

    def probe(self, *, of_all: bool = False, again: bool = False) -> Flow[None]:
        """Wait until the hosts were asked what they have: until one has a free slot, or until all have responded.

        Only the first operations wait. Hosts that were asked a while ago are asked again in the background.

        Args:
            of_all: Whether to wait for the first response of every host.
            again: Whether to ask all hosts now, and to wait for them.
        """
        unknown = [host for host in self.hosts if again or not host.record.is_known]

        def is_enough() -> bool:
            has_free_slot = any(status.loaded and status.has_free_slot for status in self.statuses())
            return has_free_slot and not (of_all or again)

        if unknown and not is_enough():
            yield from self.context.run_task(lambda: first_probe(unknown, is_enough))
        due = [host for host in self.hosts if host.record.is_due]
        if due:
            self.context.submit(begin_probes, due)

    def statuses(self) -> list[HostStatus]:
        """Return what is known of each host."""
        return [host.status() for host in self.hosts]

    @property
    def slots(self) -> list[int]:
        """How many calls each host runs at once, as far as it is known; hosts that cannot run any do not count."""
        known = [host.record.is_known for host in self.hosts]  # before what they have: never newer
        statuses = self.statuses()
        usable = [status for status, is_known in zip(statuses, known, strict=True) if status.downloaded or not is_known]
        return [status.parallel for status in usable or statuses]

    @property
    def parallel(self) -> int:
        """How many calls the hosts run at once."""
        return sum(self.slots)

    @property
    def context_length(self) -> int | None:
        """The smallest context length of the loaded instances, in tokens, if any is known."""
        return min((status.context_length for status in self.statuses() if status.context_length), default=None)

    def reserve(
        self, hosts: Sequence[Host], excluded: Collection[int], call: object, conversation: Sequence[int] = ()
    ) -> tuple[int, Hashable] | None:
        """Choose a host for a call and take a slot there; start a load elsewhere if no slot is free.

        Return the number of the host and the slot, or `None` if no slot is free and some hosts were not asked yet.

        Args:
            hosts: The hosts to choose from.
            excluded: The numbers of those that the call has tried.
            call: Stands for the call.
            conversation: What stands for its prompt; see `conversation_of`.
        """
        may_load = hosts[0].model.state.policy != "require_loaded"
        while True:
            # Before what they have: whether all were asked must not be newer than what is known of them.
            all_known = all(host.record.is_known for host in hosts)
            statuses = [host.status() for host in hosts]
            self.compare(statuses)
            cached = [host.record.cached_parts(conversation) for host in hosts]
            number, load = choose(statuses, cached=cached, may_load=may_load, excluded=excluded)
            host, status = hosts[number], statuses[number]
            if not (all_known or (status.loaded and status.has_free_slot)):
                return None
            slot = host.record.reserve(call, status.parallel if status.has_free_slot else None)
            if slot is None:
                continue  # another thread was faster
            if may_load and not status.loaded:
                host.record.loads[call] = call
            if load is not None:
                hosts[load].record.loads[hosts[load]] = None
                self.context.submit(begin_load, hosts[load])
            return number, slot

    def compare(self, statuses: Sequence[HostStatus]) -> None:
        """Warn once if the hosts have loaded different files of the model, or with different context lengths.

        Raises:
            LMStudioConfigMismatchError: If a mismatch is to raise, or their vectors have different lengths.
        """
        differences, model = differences_of(statuses), self.hosts[0].model
        reaction = "raise" if "dimensions" in differences else model.state.on_config_mismatch
        if not differences or reaction == "ignore":
            return
        described = {name: describe_values(by_host) for name, by_host in differences.items()}
        listed = "; ".join(f"{name} ({values})" for name, values in described.items())
        remedy = SAME_FILE[model.state.kind]
        if "dimensions" not in differences:
            remedy += ", or set on_config_mismatch='ignore'"
        text = f"the hosts have {model.state.name!r} loaded differently: {listed}; {remedy}"
        if reaction == "raise":
            raise LMStudioConfigMismatchError(
                text, differences={name: (values, values) for name, values in described.items()}
            )
        model.server_models.warn_once(text, text, LMStudioConfigWarning)
