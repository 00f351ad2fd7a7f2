"""HTTP requests, namespaces and sockets."""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from websockets.exceptions import InvalidStatus

from lmstudio_integrations.emulator import Emulator, FaultProxy, ModelEntry
from tests.emulator.bare_client import TIMEOUT, Wire, bare, wire
from tests.emulator.stalling_model import MODEL, WAITING, get

NAMESPACES = ("llm", "embedding", "system", "files", "repository", "diagnostics", "runtime", "plugins")


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server with one scripted model, loaded, that stalls on request."""
    with Emulator([ModelEntry(key=MODEL, rules=(WAITING,), preload=True)]) as emulator:
        yield emulator


def test_the_greeting_is_that_of_lm_studio(server: Emulator) -> None:
    assert get(server, "/lmstudio-greeting") == (200, "application/json", '{"lmstudio":true}')


def test_the_status_names_package_and_version(server: Emulator) -> None:
    status, _, body = get(server, "/lms-status")
    found = json.loads(body)
    assert (status, found["package"]) == (200, "lmstudio")
    assert isinstance(found["version"], str)


def test_an_unknown_path_is_not_found(server: Emulator) -> None:
    assert get(server, "/nothing")[0] == 404
    with pytest.raises(InvalidStatus) as caught, bare(server, "nothing"):
        pass
    assert caught.value.response.status_code == 404


def test_only_get_finds_anything(server: Emulator) -> None:
    request = urllib.request.Request(f"http://{server.address}/v1/chat/completions", data=b"{}", method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=TIMEOUT)
    with caught.value as error:
        assert error.code == 404


def test_a_namespace_requires_a_websocket(server: Emulator) -> None:
    assert get(server, "/llm")[0] == 426


def test_browsers_are_rejected_unless_their_origin_is_allowed() -> None:
    with Emulator([MODEL], origins=["http://good.example"]) as server:
        assert get(server, "/lmstudio-greeting", Origin="http://bad.example")[0] == 403
        with pytest.raises(InvalidStatus) as caught, bare(server, origin="http://bad.example"):
            pass
        assert caught.value.response.status_code == 403
        with wire(server, origin="http://good.example") as me:
            assert me.result("listLoaded") == []


@pytest.fixture(params=["directly", "through a proxy"])
def raw_address(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    with Emulator([MODEL], origins=["http://good.example"]) as server, FaultProxy(server.address) as proxy:
        host, _, port = (server if request.param == "directly" else proxy).address.rpartition(":")
        yield host, int(port)


def response_to(address: tuple[str, int], head: str) -> str:
    with socket.create_connection(address, timeout=TIMEOUT) as opened:
        opened.sendall(f"{head}\r\n\r\n".encode("latin-1"))
        response = ""
        while " 101 " not in response and (data := opened.recv(4096)):
            response += data.decode()
        return response


@pytest.mark.parametrize("head", ["", "GET", "\xff\xfe", "GET /llm"])
def test_what_is_no_request_closes_the_connection(raw_address: tuple[str, int], head: str) -> None:
    assert response_to(raw_address, head) == ""


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_a_namespace_accepts_a_client(server: Emulator, namespace: str) -> None:
    with wire(server, namespace):
        assert [(each.namespace, each.client) for each in server.connections] == [(namespace, "guest:me")]


def test_binary_frames_are_read_as_text(me: Wire) -> None:
    me.send_frame(json.dumps({"type": "keepAlive"}).encode())
    assert me.receive() == {"type": "keepAliveAck"}


def test_frames_of_the_server_are_text(me: Wire) -> None:
    me.send_frame({"type": "keepAlive"})
    assert isinstance(me.socket.recv(TIMEOUT), str)
