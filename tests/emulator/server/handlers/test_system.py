"""The endpoints of the server itself."""

from lmstudio_integrations.emulator import Emulator
from tests.emulator.bare_client import wire


def test_the_system_reports_version_and_process(server: Emulator) -> None:
    with wire(server, "system") as me:
        version, info = me.result("version"), me.result("info")
        assert version == {"version": info["version"], "build": 1}
        assert type(info["pid"]) is int
        assert info["isDaemon"] is True


def test_alive_stays_open_without_packets(server: Emulator) -> None:
    with wire(server, "system") as me:
        me.open("alive")
        assert me.result("getExperimentFlags") == []


def test_experiments_are_switched(server: Emulator) -> None:
    with wire(server, "system") as me:
        for code, value in (("b", True), ("a", True), ("b", False), ("c", False)):
            assert me.call("setExperimentFlag", {"code": code, "value": value}) == {"type": "rpcResult"}
        assert me.result("getExperimentFlags") == ["a"]


def test_unsupported_system_endpoints_fail(server: Emulator) -> None:
    with wire(server, "system") as me:
        assert me.rpc_error("startHttpServer", {})
        assert me.rpc_error("requestShutdown")
        assert "variants" in me.rpc_error("listDownloadedModelVariants", {"modelKey": "chat"})["title"]
        assert me.rpc_error("listDownloadedModelVariants", {"modelKey": "x"})["displayData"]["totalModels"] == 3
        assert me.call("stopHttpServer") == {"type": "rpcResult"}
