"""A proxy with one fault: when that happens, and what it leaves behind."""

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
RESET = "connection-reset-before-response"


@pytest.fixture
def _no_time_passes_before_a_retry() -> None:
    """Let time pass, as it does for applications."""


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server with a scripted model, loaded."""
    with Emulator([MODEL], load=[MODEL]) as emulator:
        yield emulator


def outcomes(address: str, count: int) -> list[bool]:
    """Return which of some calls work."""
    with lms.Client(address) as client:
        model, found = client.llm.model(MODEL), list[bool]()
        for _ in range(count):
            try:
                model.respond("Hello!")
            except lms.LMStudioConnectionLostError:
                found.append(False)
            else:
                found.append(True)
    return found


# When ----------------------------------------------------------------------------------------------------------------


def test_a_fault_that_does_not_last_happens_once(server: Emulator) -> None:
    with FaultProxy(server.address, RESET) as proxy:
        assert not proxy.has_happened()
        assert outcomes(proxy.address, 4) == [False, True, True, True]
        assert proxy.has_happened()
    with FaultProxy(server.address) as proxy:
        assert outcomes(proxy.address, 1) == [True], "without a fault, the proxy only forwards"
        assert not proxy.has_happened()


@pytest.mark.slow
def test_a_fault_that_lasts_ends_after_a_second(server: Emulator) -> None:
    with FaultProxy(server.address, "connection-refused") as proxy:
        model = ChatLMStudio(model=MODEL, host=proxy.address, max_retries=50)
        assert model.invoke("Hello!").text
        assert proxy.has_happened()


# What is left --------------------------------------------------------------------------------------------------------


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
