"""Faults as users have them: which they choose, when they happen, and what they leave behind."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import FAULTS, Emulator, FaultProxy
from lmstudio_integrations.emulator.testing.faults import KINDS, PHASES, choose_faults, read_injections
from lmstudio_integrations.emulator.testing.proxy import Injection, Proxy, ProxyThread
from lmstudio_integrations.langchain import ChatLMStudio
from tests.emulator.bare_client import TIMEOUT

MODEL = "a-model"
RESET = "connection-reset-before-response"


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server with a scripted model, loaded."""
    with Emulator([MODEL], load=[MODEL]) as emulator:
        yield emulator


@contextmanager
def proxied(server: Emulator, *injections: Injection) -> Iterator[Proxy]:
    """Run a proxy as `serve` does."""
    with ProxyThread() as thread, Proxy(thread, server.address, injections) as proxy:
        yield proxy


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


# Which ---------------------------------------------------------------------------------------------------------------


def test_without_a_choice_those_of_the_list_are_chosen_and_a_finer_one_by_its_name() -> None:
    assert len(FAULTS) > 60
    assert 35 <= len(choose_faults([])) <= 45
    for choice in (*KINDS, *PHASES):
        chosen = choose_faults([choice])
        assert chosen
        assert all(choice in {fault.kind, fault.phase.word} for fault in chosen)
    assert choose_faults([]) == choose_faults(KINDS) == choose_faults(PHASES)
    assert all(choose_faults([name]) == [fault] for name, fault in FAULTS.items())
    assert [fault.name for fault in choose_faults(["load-fails", RESET])] == ["load-fails", RESET]


@pytest.mark.parametrize(
    ("reject", "complaint"),
    [
        (lambda: choose_faults(["conection"]), r"'conection'; did you mean 'connection'\?$"),
        (lambda: choose_faults(["foo"]), r"'foo'; there are the kinds connection, .* `lmsi serve --fault list` lists "),
        (lambda: FaultProxy("localhost:1", "load-fail"), r"unknown fault 'load-fail'; did you mean 'load-fails'\?$"),
        (lambda: read_injections("no-such:0.5"), "unknown fault 'no-such'; `lmsi serve --fault list` lists the faults"),
        (lambda: read_injections("load-fails:2"), "the probability '2' .* write 0.1"),
        (lambda: read_injections("load-fails:often"), "the probability 'often'"),
        (lambda: read_injections("load-fails:"), "the probability ''"),
        (lambda: read_injections("load-fails@predict"), "unknown fault 'load-fails@.*; did you mean 'load-fails'"),
        (lambda: read_injections("connection-refused"), "cannot recur .*connection-reset-on-connect"),
    ],
)
def test_a_wrong_choice_is_an_error_that_leads_to_the_right_ones(reject: Callable[[], object], complaint: str) -> None:
    with pytest.raises(lms.LMStudioValueError, match=complaint):
        reject()


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


def test_a_recurring_fault_happens_at_each_opportunity_or_with_its_probability_the_same_in_each_run(
    server: Emulator,
) -> None:
    with proxied(server, *read_injections(RESET)) as proxy:
        assert not any(outcomes(proxy.address, 3))
    drawn = []
    for _ in range(2):
        with proxied(server, *read_injections(f"{RESET}:0.5")) as proxy:
            drawn.append(outcomes(proxy.address, 8))
    assert drawn[0] == drawn[1]
    assert {*drawn[0]} == {True, False}


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


def test_a_limit_ends_a_wait(server: Emulator) -> None:
    with (
        FaultProxy(server.address, "engine-stalls-mid-response", limit=0.1) as proxy,
        lms.Client(proxy.address, idle_timeout=None) as client,
    ):
        with pytest.raises((lms.LMStudioConnectionLostError, lms.LMStudioUnreachableError)):
            client.llm.model(MODEL).respond("Hello!")  # on a slow machine, the limit may end it before it connects
        assert proxy.has_expired


def test_a_request_that_the_server_never_gets_is_not_unfinished(server: Emulator) -> None:
    with (
        proxied(server, *read_injections("engine-fails-before-response")) as proxy,
        lms.Client(proxy.address) as client,
    ):
        model = client.llm.model(MODEL)
        for _ in range(3):
            with pytest.raises(lms.LMStudioServerError):
                model.respond("Hello!")
        assert not any(connection.tracker.predictions for connection in proxy.connections)
    assert server.predictions == ()
