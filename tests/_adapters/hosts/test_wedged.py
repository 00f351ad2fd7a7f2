"""A host that accepts calls and never responds to them, beside one that does: which timeouts move a call and count."""

import asyncio
import contextlib
from collections.abc import Iterator
from itertools import cycle
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.errors import LMStudioModelNotFoundError, LMStudioTimeoutError
from tests._adapters.hosts.servers import addresses, call, chat_model, embedding_model, key_of, known, requests
from tests.support.adapters import ADAPTERS, LANGUAGE_MODELS, Adapter

pytestmark = pytest.mark.slow

SECONDS = 600.0
SHORT = 0.3
"""Seconds of the timeout that expires; the emulator responds within a few milliseconds."""

Steps = tuple[dict[str, Any], ...]

NO_PACKET: Steps = ({"fault": "stall", "packet": 0},)
NO_TOKEN: Steps = ({"fault": "stall"},)
ONE_TOKEN: Steps = ({"text": "so far"}, {"fault": "stall"})

PREDICTS, EMBEDS = ADAPTERS["ChatLMStudio"], ADAPTERS["LMStudioEmbedding"]
WEDGED = [
    *((adapter, "first_token_timeout", NO_TOKEN) for adapter in LANGUAGE_MODELS.values()),
    *((adapter, "queue_timeout", NO_PACKET) for adapter in ADAPTERS.values()),
]

both_kinds = pytest.mark.parametrize(
    ("adapter", "path"), [(PREDICTS, "async"), (EMBEDS, "sync")], ids=["prediction", "embedding"]
)
both_paths = pytest.mark.parametrize("path", ["sync", "async"])


@contextlib.contextmanager
def hosts(*steps: Steps, preload: bool = True) -> Iterator[list[Emulator]]:
    """Run a host for each tuple of steps, which it does in place of responding; without steps, it responds."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Emulator(_models(each, preload=preload))) for each in steps]


def _models(steps: Steps, *, preload: bool) -> tuple[Any, Any]:
    rules = [{"then": list(steps)}] if steps else []
    # An embedding sends no packets, so a stall is a stall.
    stalls = [{"then": [{"fault": "stall"}]}] if steps else []
    return chat_model(preload=preload, rules=rules), embedding_model(preload=preload, rules=stalls)


def make(adapter: Adapter, servers: list[Emulator], **settings: Any) -> Any:
    """Return an object whose hosts have been asked, so that its first call goes to the first of them."""
    model = adapter.make(model=key_of(adapter), host=addresses(servers), **settings)
    model.hosts()
    return model


def states(model: Any) -> list[tuple[bool, int]]:
    """Return for each host whether it is known to be available, and its calls in flight."""
    return [(status.available, status.in_flight) for status in known(model)]


@pytest.mark.parametrize(
    ("adapter", "timeout_name", "steps", "path"),
    [(*row, path) for row, path in zip(WEDGED, cycle(["sync", "async"]), strict=False)],
    ids=[f"{each.make.__name__}-{name}" for each, name, _ in WEDGED],
)
def test_calls_move_from_a_wedged_host_and_then_avoid_it(
    adapter: Adapter, timeout_name: str, steps: Steps, path: str
) -> None:
    with hosts(steps, ()) as servers:
        wedged, idle = servers
        model = make(adapter, servers, **{timeout_name: SHORT})
        for _ in range(3):
            assert call(adapter, path, model, "Hello")
        assert states(model) == [(False, 0), (True, 0)]
        model.hosts()  # the wedged host responds to everything but predictions
        assert states(model) == [(True, 0), (True, 0)]
        assert call(adapter, path, model, "Hello")
        assert [requests(wedged), requests(idle)] == [1, 4]
        wedged.wait_for(lambda: all(each.stop_reason == "userStopped" for each in wedged.predictions), SECONDS)


@both_paths
def test_a_batch_loses_no_call_to_a_wedged_host(path: str) -> None:
    with hosts(NO_PACKET, ()) as servers:
        model = make(PREDICTS, servers, queue_timeout=SHORT)
        texts = [f"text {number}" for number in range(12)]
        responses = model.batch(texts) if path == "sync" else asyncio.run(model.abatch(texts))
        assert {each.response_metadata["host"] for each in responses} == {servers[1].address}
        assert states(model) == [(False, 0), (True, 0)]


@both_kinds
def test_the_error_names_every_wedged_host(adapter: Adapter, path: str) -> None:
    with hosts(NO_PACKET, NO_PACKET) as servers:
        model = make(adapter, servers, queue_timeout=SHORT)
        with pytest.raises(LMStudioTimeoutError) as caught:
            call(adapter, path, model, "Hello")
        assert caught.value.timeout_name == "queue_timeout"
        text = str(caught.value)
        assert text.startswith("all 2 hosts failed: ")
        assert all(f"{server.address}: " in text for server in servers)
        assert states(model) == [(False, 0), (False, 0)]


@both_kinds
def test_what_a_host_has_responded_is_raised_rather_than_that_another_one_did_not(adapter: Adapter, path: str) -> None:
    with hosts(NO_PACKET) as (wedged,), Emulator([chat_model(key="other")]) as lacking:
        model = make(adapter, [wedged, lacking], queue_timeout=SHORT)
        with pytest.raises(LMStudioModelNotFoundError, match=r"all 2 hosts failed: .* queue_timeout expired"):
            call(adapter, path, model, "Hello")


@both_kinds
def test_all_attempts_share_the_total_timeout(adapter: Adapter, path: str) -> None:
    with hosts(NO_PACKET, NO_PACKET) as servers:
        model = make(adapter, servers, queue_timeout=0.6, timeout=0.9)
        with pytest.raises(LMStudioTimeoutError, match="took too long in total") as caught:
            call(adapter, path, model, "Hello")
        assert caught.value.timeout_name == "timeout"
        # The second host had too little time to prove anything.
        assert states(model) == [(False, 0), (True, 0)]


@pytest.mark.parametrize(
    ("adapter", "steps", "timeout_name", "available"),
    [
        (PREDICTS, ONE_TOKEN, "idle_timeout", False),
        (PREDICTS, ONE_TOKEN, "timeout", True),
        (PREDICTS, NO_TOKEN, "timeout", True),
        (PREDICTS, NO_PACKET, "timeout", False),
        (EMBEDS, NO_PACKET, "timeout", False),
    ],
    ids=["idle after a token", "total after a token", "total after progress", "total without a packet", "embedding"],
)
def test_a_timeout_counts_against_the_host_unless_the_total_one_expires_after_a_packet(
    adapter: Adapter, steps: Steps, timeout_name: str, available: bool
) -> None:
    with hosts(steps, ()) as servers:
        model = make(adapter, servers, **{timeout_name: SHORT})
        with pytest.raises(LMStudioTimeoutError) as caught:
            call(adapter, "async", model, "Hello")
        assert caught.value.timeout_name == timeout_name
        assert caught.value.unanswered == (steps is NO_PACKET)
        assert states(model) == [(available, 0), (True, 0)]
        assert requests(servers[1]) == 0


@both_kinds
def test_a_load_that_makes_no_progress_is_a_failed_load(adapter: Adapter, path: str) -> None:
    stalls = [{"when": {"load": True}, "then": [{"fault": "stall"}]}]
    broken = (chat_model(rules=stalls), embedding_model(rules=stalls))
    with Emulator(broken) as first, Emulator((chat_model(), embedding_model())) as second:
        model = make(adapter, [first, second], load_timeout=SHORT)
        for _ in range(2):
            assert call(adapter, path, model, "Hello")
        assert len(second.loads) == 1
        assert states(model) == [(True, 0), (True, 0)]
        assert requests(second) == 2
