"""A model on several hosts: what is known of them, and which one gets the next operation.

`choice.py` is the policy, `host.py` knows a host, `failover.py` moves an operation over them.
"""

import time
from collections.abc import Callable, Hashable, Sequence

from lmstudio_integrations.client.hosts.choice import choose
from lmstudio_integrations.client.hosts.host import Host, begin_load, begin_probes, first_probe
from lmstudio_integrations.client.support.user_warnings import warn_user
from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.errors import LMStudioConfigMismatchError, LMStudioConfigWarning
from lmstudio_integrations.protocol.prompt_fingerprint import PromptFingerprint
from lmstudio_integrations.types.hosts import SAME_FILE, HostStatus, describe_values, differences_of


class Hosts:
    """A model on several hosts. Thread-safe.

    Args:
        hosts: The hosts, in the order in which they are preferred. Their contexts do not retry; the operations do.
        max_retries: How often an operation is tried again after it has failed on every host.
        compared: In what the loaded instances differed last, so that it is reported once; the same list for the same
            hosts, called in another way.
    """

    def __init__(self, hosts: Sequence[Host], max_retries: int = 0, compared: list[object] | None = None) -> None:
        self.hosts: list[Host] = list(hosts)
        self.max_retries: int = max_retries
        self._compared: list[object] = [None] if compared is None else compared

    def with_context(self, change: Callable[[ClientContext], ClientContext]) -> "Hosts":
        """Return the same hosts, called in another way."""
        hosts = [Host(host.model.with_context(change)) for host in self.hosts]
        return Hosts(hosts, self.max_retries, self._compared)

    def with_retries(self, max_retries: int) -> "Hosts":
        """Return the same hosts with other retries."""
        return Hosts(self.hosts, max_retries, self._compared)

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
        now = time.monotonic()
        due = [host for host in self.hosts if host.record.is_due(now)]
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
        self, hosts: Sequence[Host], excluded: set[int], call: object, fingerprint: PromptFingerprint | None = None
    ) -> tuple[int, Hashable] | None:
        """Choose a host for a call and take a slot there; start a load elsewhere if no slot is free.

        Return the number of the host and the slot, or `None` if no slot is free and some hosts were not asked yet.

        Args:
            hosts: The hosts to choose from.
            excluded: The numbers of those that the call has tried.
            call: Stands for the call.
            fingerprint: Its prompt, if that is a conversation.
        """
        while True:
            # Before what they have: whether all were asked must not be newer than what is known of them.
            all_known = all(host.record.is_known for host in hosts)
            statuses = [host.status() for host in hosts]
            self.compare(statuses)
            may_load = hosts[0].model.state.policy != "require_loaded"
            saved = (
                [] if fingerprint is None else [host.record.prompt_index.seconds_saved(fingerprint) for host in hosts]
            )
            number, load = choose(statuses, saved=saved, may_load=may_load, excluded=excluded)
            host, status = hosts[number], statuses[number]
            usable = [each for at, each in enumerate(statuses) if at not in excluded]
            has_room = any(each.loaded and each.has_free_slot for each in usable)
            if not has_room and not all_known:
                return None
            slot = host.record.reserve(call, status.parallel if status.has_free_slot else None)
            if slot is None:
                continue  # another thread was faster
            if fingerprint is not None:
                host.record.prompt_index.record_request(fingerprint)
            if may_load and not status.loaded:
                host.record.loads[call] = None
            if load is not None:
                hosts[load].record.loads[hosts[load]] = None
                self.context.submit(begin_load, hosts[load])
            return number, slot

    def compare(self, statuses: Sequence[HostStatus]) -> None:
        """Warn if the hosts have loaded different files of the model, or with different context lengths.

        Raises:
            LMStudioConfigMismatchError: If a mismatch is to raise, or their vectors have different lengths.
        """
        differences = differences_of(statuses)
        if self._compared[0] == differences:
            return
        self._compared[0] = differences
        state = self.hosts[0].model.state
        reaction = "raise" if "dimensions" in differences else state.on_config_mismatch
        if not differences or reaction == "ignore":
            return
        described = {name: describe_values(by_host) for name, by_host in differences.items()}
        listed = "; ".join(f"{name} ({values})" for name, values in described.items())
        remedy = SAME_FILE[state.kind]
        if "dimensions" not in differences:
            remedy += ", or set on_config_mismatch='ignore'"
        text = f"the hosts have {state.name!r} loaded differently: {listed}; {remedy}"
        if reaction == "raise":
            self._compared[0] = None
            raise LMStudioConfigMismatchError(
                text, differences={name: (values, values) for name, values in described.items()}
            )
        warn_user(text, LMStudioConfigWarning)
