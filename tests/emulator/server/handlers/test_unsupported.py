"""What this server does not have gets a response all the same, so that no client hangs."""

from collections.abc import Iterator
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.server.handlers import HANDLERS, SERVED, unsupported
from lmstudio_integrations.protocol.endpoints import ENDPOINTS, NAMED_ENDPOINTS, Namespace, Rpc
from tests.emulator.bare_client import Wire, wire

NAMED = [(namespace, name) for namespace, endpoints in NAMED_ENDPOINTS.items() for name in endpoints]
FAILING = [(namespace, name) for namespace, name in NAMED if name not in unsupported.FIXED_RESULTS.get(namespace, {})]


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    with Emulator(["chat"]) as running:
        yield running


@pytest.fixture
def repository() -> Iterator[Wire]:
    with Emulator(["chat"]) as running, wire(running, "repository") as opened:
        yield opened


def test_every_endpoint_is_served() -> None:
    for namespace, endpoints in ENDPOINTS.items():
        known = endpoints.keys() | NAMED_ENDPOINTS[namespace].keys()
        assert HANDLERS[namespace].keys() == SERVED[namespace].keys() == known
        assert not endpoints.keys() & NAMED_ENDPOINTS[namespace].keys()


@pytest.mark.sampled(20)
@pytest.mark.parametrize("parameter", [None, {"any": ["thing"]}], ids=["void", "any"])
@pytest.mark.parametrize(("namespace", "name"), FAILING)
def test_what_the_server_does_not_have_fails_by_name(
    server: Emulator, namespace: Namespace, name: str, parameter: Any
) -> None:
    with wire(server, namespace) as me:
        if isinstance(SERVED[namespace][name], Rpc):
            error = me.rpc_error(name, parameter)
        else:
            (packet,) = me.stream(name, parameter)
            error = packet["error"]
    assert error["title"] == f"This server does not support {namespace}.{name}"
    assert error["cause"]


@pytest.mark.parametrize(
    ("namespace", "name", "result"),
    [
        (namespace, name, result)
        for namespace, results in unsupported.FIXED_RESULTS.items()
        for name, result in results.items()
    ],
)
def test_endpoints_without_content_return_empty_results(
    server: Emulator, namespace: str, name: str, result: Any
) -> None:
    with wire(server, namespace) as me:
        assert me.result(name, *([{}] if name == "fuzzyFindStaffPicks" else [])) == result


def test_an_unsupported_endpoint_needs_a_reason_before_it_is_called() -> None:
    with pytest.raises(KeyError, match="system"):
        unsupported.handlers("system", ["unheardOf"])


def test_lm_link_is_offline_and_has_no_settings(repository: Wire) -> None:
    status = repository.result("lmLinkStatus")
    assert isinstance(status.pop("deviceName"), str)
    assert status == {"status": "offline", "issues": ["deviceDisabled"], "peers": [], "deviceIdentifier": None}
    assert "lmLinkSetDisabled" in repository.rpc_error("lmLinkSetDisabled", {"disabled": False})["title"]


@pytest.mark.parametrize("kind", ["signal", "writableSignal"])
def test_a_signal_gets_one_warning(server: Emulator, kind: str) -> None:
    with wire(server) as me:
        me.send_frame({"type": f"{kind}Subscribe", "endpoint": "models", "subscribeId": 0})
        assert me.receive()["kind"] == f"{kind}EndpointUnknown"
        me.send_frame({"type": "keepAlive"})
        assert me.receive() == {"type": "keepAliveAck"}
