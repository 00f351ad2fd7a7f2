"""The credentials of clients, and what a client may do that has shown none."""

import pytest
from websockets.exceptions import ConnectionClosed

from lmstudio_integrations.emulator import Emulator, ManualClock
from lmstudio_integrations.emulator.server.context import MIB
from lmstudio_integrations.errors import LMStudioValueError
from tests.emulator.bare_client import TIMEOUT, Wire, bare, wire
from tests.emulator.server.hostile import measured, process
from tests.emulator.stalling_model import MODEL, credentials

TOKEN = "sk-lm-abcdefgh:0123456789abcdefghij"


@pytest.mark.usefixtures("me")
def test_the_first_socket_fixes_the_passkey(server: Emulator) -> None:
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
    server.wait_for(lambda: not server.connections, TIMEOUT)
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


def test_only_the_halves_of_a_token_are_accepted_and_no_error_reveals_which_is_wrong() -> None:
    rejected = [("guest:me", "\ud800"), ("abcdefgh", "0" * 20), ("zzzzzzzz", "0123456789abcdefghij")]
    errors: set[object] = set()
    with Emulator([MODEL], tokens=[TOKEN]) as server:
        for client, passkey in rejected:
            with bare(server) as other:
                other.send_frame(credentials(client, passkey))
                reply = other.receive()
                assert reply["success"] is False
                errors.add(reply["error"])
        with wire(server, client="abcdefgh", passkey="0123456789abcdefghij") as me:
            assert me.result("listLoaded") == []
    assert len(errors) == 1


def test_a_malformed_token_is_rejected_without_showing_it() -> None:
    with pytest.raises(LMStudioValueError, match="malformed") as caught:
        Emulator([MODEL], tokens=["sk-lm-hidden"])
    assert "hidden" not in str(caught.value)


def objects(size: int) -> str:
    """Return a frame of about so many bytes, of which the parsed form has many times the size."""
    return f'{{"a":[{"{}," * (size // 3)}{{}}]}}'


def close_code(me: Wire, *frames: str) -> int:
    """Send frames, and return the code with which the server closes the socket."""
    try:
        for frame in frames:
            me.send_frame(frame)
        me.receive_until_closed()
    except ConnectionClosed as closed:
        return 0 if closed.rcvd is None else closed.rcvd.code
    raise AssertionError("it ends when the socket is closed")


@pytest.mark.parametrize("frames", [1, 100], ids=["one large frame", "many small ones"])
def test_a_client_without_credentials_may_send_little(frames: int, caplog: pytest.LogCaptureFixture) -> None:
    with Emulator([MODEL], tokens=[TOKEN]) as server, bare(server) as stranger:
        assert close_code(stranger, *[objects(100_000 // frames)] * frames) == 1009
        with wire(server, client="abcdefgh", passkey="0123456789abcdefghij") as me:
            me.send_frame(objects(100_000))
            assert me.result("listLoaded") == []
    assert "before it had authenticated" in caplog.text


@measured
def test_what_a_client_without_credentials_sends_takes_no_memory() -> None:
    with process(TOKEN) as server, bare(server) as stranger:
        before = server.memory()
        assert close_code(stranger, objects(30 * MIB)) == 1009
        assert server.memory(peak=True) - before < 20 * MIB
