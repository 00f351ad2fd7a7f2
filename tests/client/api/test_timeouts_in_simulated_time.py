"""No call outlives its timeouts, whatever packets come and however often a model is loaded again."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmstudio_integrations.client.embeddings.embedder import Embedder
from lmstudio_integrations.client.models import attempts, queries
from lmstudio_integrations.client.models.model import Model
from lmstudio_integrations.client.models.state import Instance, ModelState
from lmstudio_integrations.client.predictions.language_model import LanguageModel
from lmstudio_integrations.client.transport.flows import Flow, run
from lmstudio_integrations.client.transport.io_thread import IOThread
from lmstudio_integrations.errors import LMStudioError
from tests.client.simulation import Frames, SimulatedContext, SimulatedOperation, World
from tests.protocol.samples import SUCCESS, fragment, progress

UNLOADED = {"title": "No model", "displayData": {"code": "generic.noModelMatchingQuery"}}
INFO = {"identifier": "m1", "modelKey": "m1"}
DELAYS = st.sampled_from([0.0, 0.05, 0.9, 1.9, 2.1, 3.1, 4.9, 5.1, 30.0])
"""Seconds between packets, shorter and longer than the timeouts."""

TIMEOUTS = st.fixed_dictionaries(
    {
        "load_timeout": st.just(3.0),
        "queue_timeout": st.just(5.0),
        "first_token_timeout": st.just(4.0),
        "idle_timeout": st.just(2.0),
        "timeout": st.sampled_from([None, 1.0, 7.0, 20.0]),
    }
)

_RPC_RESULTS: dict[str, Any] = {
    "embedString": {"embedding": [1.0]},
    "countTokens": {"tokenCount": 1},
    "listLoaded": [],
    "getInstanceProcessingState": {"status": "generating", "queued": 2},
}
_LOAD = [{"type": "startLoading", "identifier": "m1"}, *({"type": "loadProgress", "progress": n / 3} for n in range(3))]
_LOADED = [*_LOAD, {"type": "loadSuccess", "info": INFO}]
_PREDICTED = [progress(0.0), progress(0.5), fragment("a"), fragment("b"), {"type": "unheardOf"}, SUCCESS]


_UNTIL_THE_FIRST_PACKET = {
    "getOrLoad": "load_timeout",
    "predict": "queue_timeout",
    "embedString": "queue_timeout",
    "countTokens": "queue_timeout",
}


def running_timeout(endpoint: str, packet: str | None, before: str | None) -> str | None:
    """Return the timeout that runs after a request or a packet, according to the documentation."""
    if packet is None:
        return _UNTIL_THE_FIRST_PACKET.get(endpoint, "idle_timeout")
    if endpoint != "predict" or packet == "unheardOf":
        return before
    if packet == "promptProcessingProgress":
        return "first_token_timeout" if before == "queue_timeout" else before
    return "idle_timeout"


class Server:
    """Responds to each request with some valid packets at drawn intervals, or reports that the model is unloaded."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def react(self, endpoint: str) -> Frames:
        if endpoint != "getOrLoad" and self._data.draw(st.integers(0, 3), "unloaded") == 0:
            return self._some([self._error(endpoint)])
        if endpoint in _RPC_RESULTS:
            return self._some([{"type": "rpcResult", "result": _RPC_RESULTS[endpoint]}])
        packets = _LOADED if endpoint == "getOrLoad" else _PREDICTED
        frames = [{"type": "channelSend", "message": packet} for packet in packets]
        return self._some([*frames, {"type": "channelClose"}])

    def _error(self, endpoint: str) -> dict[str, Any]:
        kind = "rpcError" if endpoint in _RPC_RESULTS else "channelError"
        return {"type": kind, "error": UNLOADED}

    def _some(self, frames: list[dict[str, Any]]) -> Frames:
        draw = self._data.draw
        kept = [frame for frame in frames if draw(st.integers(0, 5), "lost") > 0]
        return [(draw(DELAYS, "delay"), frame) for frame in kept]


OPERATIONS: dict[str, Callable[[SimulatedContext, ModelState], Flow[Any]]] = {
    "respond": lambda context, state: LanguageModel(context, state).prepare_response("Hi", {}).to_end(),
    "embed": lambda context, state: Embedder(context, state).vectors_of(["a", "b", "c"]),
    "count": lambda context, state: Model(context, state).count_tokens(["a", "b"]),
    "model": lambda context, state: Model(context, state).load(),
    "list": lambda context, _: queries.list_loaded(SimulatedOperation(context), "llm"),
}


@pytest.fixture(scope="module", autouse=True)
def simulated_operations() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attempts, "Operation", SimulatedOperation)
        patch.setattr(IOThread, "started", lambda: None)  # what it would do is done here
        yield


@pytest.mark.slow
@pytest.mark.requirement("C-BOUNDED")
@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data(), timeouts=TIMEOUTS, name=st.sampled_from(sorted(OPERATIONS)), known=st.booleans())
def test_every_call_ends_within_its_timeouts(
    data: st.DataObject, timeouts: dict[str, float | None], name: str, *, known: bool
) -> None:
    world = World(Server(data).react, running_timeout)
    state = ModelState("embedding" if name == "embed" else "llm", "m1", instance=Instance("m1") if known else None)
    began = world.now
    with contextlib.suppress(LMStudioError):
        run(OPERATIONS[name](SimulatedContext(world, timeouts), state))
    total = timeouts["timeout"]
    if total is not None:
        assert world.now <= began + total + 1.0
    for record in world.records:
        assert record.ended_at is not None, "nobody is left to wait"
        assert record.limit is not None
        assert record.ended_at <= record.fed_at + record.limit + 1.0
