"""Hosts that accept calls and never respond to them: which timeouts move a call and count, in virtual time."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.errors import LMStudioModelNotFoundError, LMStudioTimeoutError
from tests._adapters.hosts.servers import chat_model, embedding_model, key_of, known, requests
from tests.support.adapters import ADAPTERS, Adapter
from tests.support.virtual_time import in_virtual_time, serving

pytestmark = pytest.mark.leaf("hosts")

SHORT = 30.0
"""Seconds of the timeout that expires."""

Steps = tuple[dict[str, Any], ...]

NO_PACKET: Steps = ({"fault": "stall", "packet": 0},)
NO_TOKEN: Steps = ({"fault": "stall"},)
ONE_TOKEN: Steps = ({"text": "so far"}, {"fault": "stall"})

PREDICTS, EMBEDS = ADAPTERS["ChatLMStudio"], ADAPTERS["LMStudioEmbedding"]
both_kinds = pytest.mark.parametrize("adapter", [PREDICTS, EMBEDS], ids=["prediction", "embedding"])


class Hosts:
    """Hosts, which may be preloaded, and an object that has asked them, so that its first call goes to the first."""

    def __init__(self, adapter: Adapter, model: Any, emulators: list[Emulator], addresses: list[str]) -> None:
        self.adapter, self.model, self.emulators, self.addresses = adapter, model, emulators, addresses

    async def call(self) -> Any:
        return await self.adapter.acall(self.model, "Hello")

    def states(self) -> list[tuple[bool, int]]:
        """Return for each host whether it is known to be available, and its calls in flight."""
        return [(status.available, status.in_flight) for status in known(self.model)]


@contextlib.asynccontextmanager
async def hosts(adapter: Adapter, *models: tuple[Any, ...], **settings: Any) -> AsyncIterator[Hosts]:
    """Run a host for each tuple of models."""
    async with contextlib.AsyncExitStack() as stack:
        emulators = [Emulator(each) for each in models]
        addresses = [await stack.enter_async_context(serving(each)) for each in emulators]
        async with adapter.make(model=key_of(adapter), host=addresses, **settings) as model:
            await model.ahosts()
            yield Hosts(adapter, model, emulators, addresses)


def stalling(*steps: dict[str, Any]) -> tuple[Any, Any]:
    """Return models that do this in place of responding. An embedding sends no packets, so a stall is a stall."""
    return (
        chat_model(preload=True, rules=[{"then": [*steps]}]),
        embedding_model(preload=True, rules=[{"then": [{"fault": "stall"}]}]),
    )


IDLE = (chat_model(preload=True), embedding_model(preload=True))


@both_kinds
@in_virtual_time
async def test_the_error_names_every_wedged_host(adapter: Adapter) -> None:
    async with hosts(adapter, stalling(*NO_PACKET), stalling(*NO_PACKET), timeouts={"queue_timeout": SHORT}) as both:
        with pytest.raises(LMStudioTimeoutError) as caught:
            await both.call()
        assert caught.value.timeout_name == "queue_timeout"
        text = str(caught.value)
        assert text.startswith("all 2 hosts failed:\n")
        assert all(f"{address}: " in text for address in both.addresses)
        assert both.states() == [(False, 0), (False, 0)]


@both_kinds
@in_virtual_time
async def test_what_a_host_has_responded_is_raised_rather_than_that_another_one_did_not(adapter: Adapter) -> None:
    async with hosts(
        adapter, stalling(*NO_PACKET), (chat_model(key="other"),), timeouts={"queue_timeout": SHORT}
    ) as both:
        with pytest.raises(LMStudioModelNotFoundError, match=r"(?s)all 2 hosts failed:\n.* queue_timeout expired"):
            await both.call()


@both_kinds
@in_virtual_time
async def test_all_attempts_share_the_total_timeout(adapter: Adapter) -> None:
    wedged = stalling(*NO_PACKET)

    async with hosts(
        adapter, wedged, wedged, timeouts={"queue_timeout": 2 * SHORT, "total_timeout": 3 * SHORT}
    ) as both:
        with pytest.raises(LMStudioTimeoutError, match="took too long in total") as caught:
            await both.call()
        assert caught.value.timeout_name == "total_timeout"
        # The second host had too little time to prove anything.
        assert both.states() == [(False, 0), (True, 0)]


@pytest.mark.parametrize(
    ("adapter", "steps", "timeout_name", "available"),
    [
        (PREDICTS, ONE_TOKEN, "idle_timeout", False),
        (PREDICTS, ONE_TOKEN, "total_timeout", True),
        (PREDICTS, NO_TOKEN, "total_timeout", True),
        (PREDICTS, NO_PACKET, "total_timeout", False),
        (EMBEDS, NO_PACKET, "total_timeout", False),
    ],
    ids=["idle after a token", "total after a token", "total after progress", "total without a packet", "embedding"],
)
@in_virtual_time
async def test_a_timeout_counts_against_the_host_unless_the_total_one_expires_after_a_packet(
    adapter: Adapter, steps: Steps, timeout_name: str, available: bool
) -> None:
    limit: dict[str, Any] = {"timeouts": {timeout_name: SHORT}}
    async with hosts(adapter, stalling(*steps), IDLE, **limit) as both:
        with pytest.raises(LMStudioTimeoutError) as caught:
            await both.call()
        assert caught.value.timeout_name == timeout_name
        assert caught.value.unanswered == (steps is NO_PACKET)
        assert both.states() == [(available, 0), (True, 0)]
        assert requests(both.emulators[1]) == 0


@both_kinds
@in_virtual_time
async def test_a_load_that_makes_no_progress_is_a_failed_load(adapter: Adapter) -> None:
    stalls = [{"when": {"load": True}, "then": [{"fault": "stall"}]}]
    broken = (chat_model(rules=stalls), embedding_model(rules=stalls))

    async with hosts(adapter, broken, (chat_model(), embedding_model()), timeouts={"load_timeout": SHORT}) as both:
        for _ in range(2):
            assert await both.call()
        _, second = both.emulators
        assert (len(second.loads), requests(second)) == (1, 2)
        assert both.states() == [(True, 0), (True, 0)]
