"""What this server does not have gets a response all the same, so that no client hangs."""

import inspect
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.server.handlers import HANDLERS, SERVED
from lmstudio_integrations.emulator.server.handlers import system as handlers
from lmstudio_integrations.protocol.endpoints import ENDPOINTS, NAMED_ENDPOINTS, Namespace, Rpc
from tests.emulator.bare_client import Wire, wire

HANDLERS_PACKAGE = handlers.__name__.rpartition(".")[0]


@pytest.fixture
def system(server: Emulator) -> Iterator[Wire]:
    with wire(server, "system") as opened:
        yield opened


def test_unsupported_system_endpoints_fail(system: Wire) -> None:
    assert system.rpc_error("startHttpServer", {})
    assert system.rpc_error("requestShutdown")
    assert "variants" in system.rpc_error("listDownloadedModelVariants", {"modelKey": "chat"})["title"]
    assert system.rpc_error("listDownloadedModelVariants", {"modelKey": "x"})["displayData"]["totalModels"] == 3
    assert system.call("stopHttpServer") == {"type": "rpcResult"}


def test_the_flags_of_experiments_are_kept(system: Wire) -> None:
    for code, value, flags in (("b", True, ["b"]), ("a", True, ["a", "b"]), ("b", False, ["a"])):
        system.result("setExperimentFlag", {"code": code, "value": value})
        assert sorted(system.result("getExperimentFlags")) == flags


def test_every_endpoint_is_served() -> None:
    for namespace, endpoints in ENDPOINTS.items():
        known = endpoints.keys() | NAMED_ENDPOINTS[namespace].keys()
        assert HANDLERS[namespace].keys() == SERVED[namespace].keys() == known
        assert not endpoints.keys() & NAMED_ENDPOINTS[namespace].keys()


def test_every_handler_of_a_leaf_is_there_if_the_leaf_is() -> None:
    named = {
        (each["module"], each["name"])
        for handlers in HANDLERS.values()
        for each in (inspect.getclosurevars(handler).nonlocals for handler in handlers.values())
        if each.keys() == {"module", "name"}
    }
    assert ("documents", "retrieve") in named
    for module, name in named:
        if find_spec(path := f"{HANDLERS_PACKAGE}.{module}"):
            assert callable(getattr(import_module(path), name))


@pytest.mark.parametrize("namespace", NAMED_ENDPOINTS)
def test_what_the_server_does_not_have_fails_by_name_or_returns_an_empty_result(
    server: Emulator, namespace: Namespace
) -> None:
    results = handlers.FIXED_RESULTS.get(namespace, {})
    with wire(server, namespace) as me:
        for name in NAMED_ENDPOINTS[namespace].keys() - results.keys():
            for parameter in (None, {"any": ["thing"]}):
                error: Any
                if isinstance(SERVED[namespace][name], Rpc):
                    error = me.rpc_error(name, parameter)
                else:
                    (packet,) = me.stream(name, parameter)
                    error = packet["error"]
                assert error["title"] == f"This server does not support {namespace}.{name}"
                assert error["cause"]
        assert {name: me.result(name) for name in results} == results


def test_there_are_no_accounts_engines_or_extensions(server: Emulator) -> None:
    with wire(server, "repository") as me:
        assert me.result("isAuthenticated") == {"authenticated": False}
        assert me.result("getAuthenticationStatus") == {"authenticationStatus": {"type": "none"}}
        assert me.result("getWritableArtifactOwners") == {"owners": []}
    with wire(server, "runtime") as me:
        assert me.result("listEngines") == []
        assert me.result("getEngineSelections") == {"json": [], "meta": {"values": ["map"]}}
        assert me.result("searchRuntimeExtensions") == {"extensions": []}


def test_an_unsupported_endpoint_needs_a_reason_before_it_is_called() -> None:
    with pytest.raises(KeyError, match="system"):
        handlers.handlers("system", ["unheardOf"])


@pytest.mark.parametrize("kind", ["signal", "writableSignal"])
def test_a_signal_gets_one_warning(me: Wire, kind: str) -> None:
    me.send_frame({"type": f"{kind}Subscribe", "endpoint": "models", "subscribeId": 0})
    assert me.receive()["kind"] == f"{kind}EndpointUnknown"
    me.send_frame({"type": "keepAlive"})
    assert me.receive() == {"type": "keepAliveAck"}
