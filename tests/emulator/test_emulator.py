"""Starting, stopping and waiting for the emulator, on a thread and in the foreground."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from lmstudio_integrations import Client, LMStudioServerError
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine
from lmstudio_integrations.emulator.server import server as listening
from lmstudio_integrations.emulator.server.tcp import netloc
from lmstudio_integrations.errors import LMStudioOSError, LMStudioRuntimeError, LMStudioTimeoutError, LMStudioValueError
from tests.emulator.bare_client import TIMEOUT, Wire, prediction_request, wire
from tests.emulator.server.hostile import CLOSE, frame, lazy, raw_websocket
from tests.emulator.stalling_model import LONG, MODEL, credentials, stalling
from tests.support.signals import ctrl_c


@pytest.fixture
def server() -> Iterator[Emulator]:
    with stalling() as emulator:
        yield emulator


def test_the_server_stops_with_open_streams(server: Emulator, me: Wire) -> None:
    me.open("predict", prediction_request(MODEL, "Wait"))
    me.receive()
    server.stop()
    with pytest.raises(ConnectionClosed) as caught:
        me.receive_until_closed()
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1001


@pytest.mark.slow
def test_the_server_stops_though_a_client_does_not_read() -> None:
    with Emulator([LONG]) as server, lazy(server) as other:
        other.open("predict", prediction_request(MODEL))
        server.wait_for(lambda: [each.state for each in server.predictions] == ["ended"], TIMEOUT)
        server.stop()


def test_the_server_stops_though_a_client_has_closed_its_websocket_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_PING_INTERVAL", None)  # else that ends the connection, half a minute later
    with Emulator([MODEL]) as server, raw_websocket(server) as line:
        line.sendall(frame(b"", opcode=CLOSE))
        assert line.recv(4096) == bytes([0x80 | CLOSE, 0])
        server.stop()


def test_a_taken_port_is_a_clear_error(server: Emulator) -> None:
    with pytest.raises(LMStudioOSError, match="choose another port"):
        Emulator([MODEL], port=server.port).start()
    with Emulator([MODEL], port=[server.port, 0]) as other:
        assert other.port not in {0, server.port}, "of several, the first free one is taken"


@pytest.mark.parametrize("port", ["21950", "1234x", -1, 65536, 1.0, True, None, [0, "1"]])
def test_an_invalid_port_is_an_error_that_names_it(port: Any) -> None:
    with pytest.raises(LMStudioValueError, match=f"port must be a number .*; got {re.escape(repr(port))}"):
        Emulator([MODEL], port=port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_a_host_that_is_not_this_machine_is_named(host: str) -> None:
    with pytest.raises(LMStudioOSError, match=f"cannot listen on {host}, port 0: .*; set host to one"):
        Emulator([MODEL], host=host).start()


async def test_an_emulator_that_runs_is_not_started_again(server: Emulator) -> None:
    with pytest.raises(LMStudioRuntimeError, match="already running"):
        server.start()
    with pytest.raises(LMStudioRuntimeError, match="already running"):
        server.serve_forever()
    with pytest.raises(LMStudioRuntimeError, match="already running"):
        await server.__aenter__()


def test_an_emulator_starts_again_after_a_stop() -> None:
    emulator = Emulator([MODEL])
    for _ in range(2):
        with emulator as server, wire(server) as me:
            assert me.result("listLoaded") == []


def loading(on_load: Callable[[], object]) -> Emulator:
    """Return a server whose start does something while a model loads, and then waits for ever."""

    async def wait(_seconds: float) -> None:
        on_load()
        await asyncio.get_running_loop().create_future()

    slow = ModelEntry(key=MODEL, preload=True, rules=({"when": {"load": True}, "then": [{"wait": 1.0}]},))
    return Emulator([slow], engines={"scripted": ScriptedEngine(wait)})


def emulators() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "lmstudio-emulator"]


@pytest.mark.skipif(os.name != "posix", reason="sends a signal to a thread")
def test_ctrl_c_during_the_start_ends_the_server() -> None:
    begun = threading.Event()
    with pytest.raises(KeyboardInterrupt), ctrl_c(begun.wait):
        loading(begun.set).start()
    assert emulators() == []


async def test_a_start_that_is_cancelled_ends_the_server() -> None:
    async def enter() -> None:
        async with emulator:
            raise AssertionError("it started")

    loop = asyncio.get_running_loop()
    emulator = loading(lambda: loop.call_soon_threadsafe(entering.cancel))
    entering = loop.create_task(enter())
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert emulators() == []


def test_stopping_a_server_while_it_starts_is_an_error() -> None:
    emulator = loading(lambda: threading.Thread(target=emulator.stop).start())
    with pytest.raises(LMStudioRuntimeError, match="stopped while it started"):
        emulator.start()
    assert emulators() == []


def test_an_emulator_starts_once_and_is_used_while_it_runs(server: Emulator) -> None:
    for start in (server.start, server.serve_forever):
        with pytest.raises(LMStudioRuntimeError, match="already running"):
            start()
    with pytest.raises(LMStudioRuntimeError, match="already running"):
        asyncio.run(server.__aenter__())
    stopped = Emulator([MODEL])
    stopped.stop()
    with pytest.raises(LMStudioRuntimeError, match="is not running"):
        stopped.loaded()


async def test_an_emulator_is_an_async_context_manager() -> None:
    async with Emulator([MODEL]) as server:
        assert server.address == netloc("127.0.0.1", server.port) == f"127.0.0.1:{server.port}"
    assert netloc("::1", 1) == "[::1]:1"


def test_waiting_for_a_condition_may_use_the_server_and_times_out(server: Emulator) -> None:
    server.wait_for(lambda: server.load(MODEL).identifier == f"{MODEL}:3", TIMEOUT)
    with pytest.raises(LMStudioTimeoutError, match="did not hold"):
        server.wait_for(lambda: False, timeout=0.05)


FOREGROUND = """
from lmstudio_integrations import Client, LMStudioServerError
from lmstudio_integrations.emulator import Emulator, ModelEntry

rule = {"when": {"last": "^Wait"}, "then": [{"text": "One"}, {"fault": "stall"}]}
emulator = Emulator([ModelEntry(key="chat", rules=(rule,), preload=True)])
emulator.serve_forever(lambda: print(emulator.port, flush=True))
print("stopped", flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends a signal to a process")
def test_a_server_in_the_foreground_stops_with_a_signal() -> None:
    command = [sys.executable, "-c", FOREGROUND]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with connect(f"ws://127.0.0.1:{port}/llm", compression=None) as opened:
            me = Wire(opened)
            me.send_frame(credentials())
            assert me.receive() == {"success": True}
            me.open("predict", prediction_request(MODEL, "Wait"))
            me.receive()
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as caught:
                me.receive_until_closed()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1001
        assert process.stdout.read() == "stopped\n"
        assert process.wait(TIMEOUT) == 0


def test_a_rule_applies_as_often_as_it_says_also_after_the_model_was_loaded_again() -> None:
    rules = [{"when": {"times": 2, "last": "^a"}, "then": [{"error": "Not now"}]}, {"then": "Fine"}]
    only_fails = [{"when": {"times": 1}, "then": [{"error": "Not now"}]}]
    models: list[Any] = [{"key": "m", "rules": rules}, {"key": "v", "kind": "embedding", "rules": only_fails}]
    with Emulator(models, auto_evict=False) as server, Client(server.address) as client:
        for text, expected in (("b", "Fine"), ("a", None), ("b", "Fine"), ("a", None), ("a", "Fine")):
            model = client.llm.model("m")
            if expected is None:
                with pytest.raises(LMStudioServerError, match="Not now"):
                    model.respond(text)
                model.unload()
            else:
                assert model.respond(text).content == expected
        vectors = client.embedding.model("v")
        with pytest.raises(LMStudioServerError, match="Not now"):
            vectors.embed("a")
        assert vectors.embed("a")
