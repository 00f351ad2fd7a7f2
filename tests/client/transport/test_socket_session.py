"""A socket that fails in an unusual way still wakes every caller."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from websockets.client import ClientProtocol

import lmstudio_integrations as lms
from lmstudio_integrations.client.transport.connect.addresses import Target
from lmstudio_integrations.client.transport.socket_session import Guests, SocketSession
from lmstudio_integrations.protocol.endpoints import rpc
from lmstudio_integrations.protocol.exchange import Exchange, NullReceiver
from lmstudio_integrations.protocol.instance_queue import InstanceQueues
from tests.client.fake import Socket, authenticate, fake_server, send_result


class _Receiver(NullReceiver):
    """Records with which error its call ended."""

    def __init__(self) -> None:
        self.errors: list[BaseException | None] = []

    def finish(self, error: BaseException | None) -> None:
        self.errors.append(error)


def _connecting(receiver: _Receiver, on_ended: Callable[[SocketSession], None]) -> SocketSession:
    """Return a session that connects to a closed port, with one request."""
    made = SocketSession(Target.of("127.0.0.1:9", None), "llm", InstanceQueues(), Guests(), on_ended=on_ended)
    made.session.start(Exchange(rpc("llm", "listLoaded"), None, receiver, {}, 0.0))
    return made


async def test_callers_are_woken_although_the_connection_fails_to_drop_the_socket() -> None:
    def fail(_ended: SocketSession) -> None:
        raise LookupError("no such connection")

    receiver = _Receiver()
    ended = _connecting(receiver, fail)
    with pytest.raises(LookupError):
        await ended.task
    assert [type(error) for error in receiver.errors] == [lms.LMStudioUnreachableError]


async def test_a_socket_that_is_closed_before_it_connects_wakes_its_callers() -> None:
    receiver = _Receiver()
    ended = _connecting(receiver, lambda _ended: None)
    ended.close()
    assert ended.is_closing, "a call that is made before the task ends needs another socket"
    await asyncio.wait([ended.task])
    assert [str(error) for error in receiver.errors] == ["the connection was closed on this side"]


async def test_a_request_that_cannot_be_written_fails_at_once(
    make_client: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        await send_result(socket, [])

    def fail(_protocol: ClientProtocol, _data: bytes) -> None:
        raise ValueError("an extension failed")

    async with fake_server(behave) as address, make_client(address) as client:
        assert await client.llm.list_loaded() == []
        with monkeypatch.context() as patch:
            patch.setattr(ClientProtocol, "send_text", fail)
            with pytest.raises(lms.LMStudioConnectionLostError, match="an extension failed"):
                await client.llm.list_loaded()
        assert await client.llm.list_loaded() == []
