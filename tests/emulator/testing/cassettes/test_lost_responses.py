"""A replayed response is used when it has arrived, not when a fault or the network has cut it."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from socket import SHUT_RDWR
from typing import Any

import pytest
from websockets.exceptions import WebSocketException

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.testing.cassettes.cassette import Event, Interaction, save
from tests.emulator.bare_client import Wire, wire

PROMPT = {"rawPrompt": "Hi!"}
END = {"type": "success", "stats": {"stopReason": "eosFound"}}
PACKETS = [*({"type": "fragment", "fragment": {"content": text}} for text in "abcdef"), END]


def interaction(packets: list[dict[str, Any]], number: int = 1) -> Interaction:
    events = [*(Event("received", 0.0, packet) for packet in packets), Event("closed", 0.0)]
    return Interaction(number, 0.0, "channel", "llm", "predict", PROMPT, events)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Emulator]:
    save(tmp_path / "one.lms.jsonl", [interaction(PACKETS)])
    with Emulator.replay(tmp_path / "one.lms.jsonl") as running:
        yield running


def received(socket: Wire) -> list[Any]:
    """Ask for the response; return its packets, as far as they come, and an error as the last."""
    found: list[Any] = []
    with suppress(WebSocketException):
        channel = socket.open("predict", PROMPT)
        with suppress(TimeoutError):
            while len(found) < 3 * len(PACKETS):
                match frame_of(socket):
                    case {"type": "channelSend", "channelId": number, "message": packet} if number == channel:
                        found.append(packet)
                    case {"type": "channelError", "error": error}:
                        return [*found, error]
                    case {"type": "channelClose", "channelId": number} if number == channel:
                        return found
                    case _:
                        pass
        socket.send(channel, {"type": "cancel"})
    return found


def frame_of(socket: Wire) -> Any:
    try:
        return socket.receive()
    except ValueError:
        return "no JSON"


def lose(socket: Wire, channel: int) -> None:
    socket.socket.socket.shutdown(SHUT_RDWR)


def close(socket: Wire, channel: int) -> None:
    socket.socket.close()


def cancel(socket: Wire, channel: int) -> None:
    socket.send(channel, {"type": "cancel"})


@pytest.mark.parametrize(("go", "is_used"), [(lose, False), (close, True), (cancel, True)])
def test_only_a_client_uses_up_a_response_that_it_has_not_read(
    tmp_path: Path, go: Callable[[Wire, int], None], is_used: bool
) -> None:
    first = Event("received", 0.0, PACKETS[0])
    slow = Interaction(1, 0.0, "channel", "llm", "predict", PROMPT, [first, Event("closed", 600.0)])
    save(tmp_path / "slow.lms.jsonl", [slow])
    with Emulator.replay(tmp_path / "slow.lms.jsonl", pace="recorded") as server:
        with wire(server) as socket:
            channel = socket.open("predict", PROMPT)
            assert next(socket.packets(channel)) == PACKETS[0]
            go(socket, channel)
        with wire(server) as socket:
            packet = next(socket.packets(socket.open("predict", PROMPT)))
            assert (packet["type"] == "error") is is_used


def test_a_loss_that_was_recorded_is_used(tmp_path: Path) -> None:
    lost = Interaction(1, 0.0, "channel", "llm", "predict", PROMPT, [Event("lost", 0.0)])
    save(tmp_path / "lost.lms.jsonl", [lost, interaction(PACKETS, 2)])
    with Emulator.replay(tmp_path / "lost.lms.jsonl") as server:
        for packets in ([], PACKETS):
            with wire(server) as socket:
                assert received(socket) == packets
