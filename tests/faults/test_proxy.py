"""What a fault leaves behind on the server, as the proxy sees it."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.langchain import ChatLMStudio
from tests.emulator.bare_client import TIMEOUT
from tests.faults.faults import FAULTS, FaultProxy
from tests.faults.proxy import ALWAYS, Proxy, ProxyThread

MODEL = "a-model"


@pytest.fixture
def _no_time_passes_before_a_retry() -> None:
    """Let time pass, as it does for applications."""


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server with a scripted model, loaded."""
    with Emulator([MODEL], load=[MODEL]) as emulator:
        yield emulator


def test_a_prediction_that_nobody_has_cancelled_is_unfinished(server: Emulator) -> None:
    with (
        FaultProxy(server.address, "response-endless") as proxy,
        closing(ChatLMStudio(model=MODEL, host=proxy.address)) as model,
    ):
        stream = model.stream("Hello!")
        next(stream)
        assert proxy.has_happened(TIMEOUT)
        assert proxy.unfinished(0.0) == ["the prediction for 'Hello!'"]
        model.close()
        assert proxy.unfinished(TIMEOUT) == []
        del stream


def test_a_request_that_the_server_never_gets_is_not_unfinished(server: Emulator) -> None:
    always = (replace(each, times=ALWAYS) for each in FAULTS["engine-fails-before-response"].injections)
    with (
        ProxyThread() as thread,
        Proxy(thread, server.address, (*always,)) as proxy,
        lms.Client(proxy.address) as client,
    ):
        model = client.llm.model(MODEL)
        for _ in range(3):
            with pytest.raises(lms.LMStudioServerError):
                model.respond("Hello!")
        assert not any(connection.tracker.predictions for connection in proxy.connections)
    assert server.predictions == ()
