"""The credentials of clients."""

from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed

from lmstudio_integrations.emulator import Emulator, ManualClock, ModelEntry
from lmstudio_integrations.errors import LMStudioValueError
from tests.emulator.bare_client import TIMEOUT, Wire, bare, wire
from tests.emulator.stalling_model import MODEL, WAITING, credentials

TOKEN = "sk-lm-abcdefgh:0123456789abcdefghij"


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server with one scripted model, loaded, that stalls on request."""
    with Emulator([ModelEntry(key=MODEL, rules=(WAITING,), preload=True)]) as emulator:
        yield emulator


def test_a_guest_is_authenticated(server: Emulator) -> None:
    with bare(server) as me:
        me.send_frame(credentials())
        assert me.receive() == {"success": True}


def test_what_does_not_look_like_credentials_is_ignored(server: Emulator) -> None:
    with bare(server) as me:
        for noise in ("{", "[]", {"type": "keepAlive"}, {**credentials(), "authVersion": 2}, credentials(1, "x")):
            me.send_frame(noise)
        me.send_frame(credentials("x" * 257))
        me.send_frame(credentials())
        assert me.receive() == {"success": True}


def test_the_first_socket_fixes_the_passkey(server: Emulator, me: Wire) -> None:
    with bare(server) as other:
        other.send_frame(credentials(passkey="another"))
        assert other.receive() == {
            "success": False,
            "error": 'Failed to validate client: Invalid client passkey for client "guest:me"',
        }
        with pytest.raises(ConnectionClosed):
            other.socket.recv(TIMEOUT)


def test_an_identifier_is_free_again_when_its_client_has_disconnected(server: Emulator) -> None:
    with wire(server), wire(server, "system"):
        pass
    server.wait_for(lambda: not server.connections)
    with wire(server, passkey="another"):
        pass


def test_a_client_without_credentials_times_out() -> None:
    clock = ManualClock()
    with Emulator([MODEL], clock=clock) as server, bare(server) as silent, wire(server) as known:
        clock.advance(10)
        assert silent.receive() == {"success": False, "error": "Authentication timed out"}
        with pytest.raises(ConnectionClosed):
            silent.socket.recv(TIMEOUT)
        assert known.result("listLoaded") == []


def test_only_the_halves_of_a_token_are_accepted() -> None:
    with Emulator([MODEL], tokens=[TOKEN]) as server:
        for client, passkey in (("guest:me", "secret"), ("abcdefgh", "0" * 20), ("zzzzzzzz", "0123456789abcdefghij")):
            with bare(server) as other:
                other.send_frame(credentials(client, passkey))
                assert other.receive()["success"] is False
        with wire(server, client="abcdefgh", passkey="0123456789abcdefghij") as me:
            assert me.result("listLoaded") == []


def test_the_error_does_not_reveal_which_half_of_a_token_is_wrong() -> None:
    with Emulator([MODEL], tokens=[TOKEN]) as server:
        errors: set[object] = set()
        for client, passkey in (("abcdefgh", "0" * 20), ("zzzzzzzz", "0123456789abcdefghij"), ("guest:me", "\ud800")):
            with bare(server) as other:
                other.send_frame(credentials(client, passkey))
                errors.add(other.receive()["error"])
    assert len(errors) == 1


def test_a_malformed_token_is_rejected_without_showing_it() -> None:
    with pytest.raises(LMStudioValueError, match="malformed") as caught:
        Emulator([MODEL], tokens=["sk-lm-hidden"])
    assert "hidden" not in str(caught.value)
