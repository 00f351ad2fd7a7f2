"""The identities of clients without a token, against servers that release an identity with its last socket."""

import asyncio

import pytest
from websockets.asyncio.server import serve
from websockets.http11 import Request, Response

import lmstudio_integrations as lms
from lmstudio_integrations.client.transport.connect.addresses import Target
from lmstudio_integrations.client.transport.socket_session import Guests, SocketSession
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.protocol.exchange import InstanceQueues
from tests.client.conftest import MODELS
from tests.client.fake import Socket, authenticate, fake_server, receive, send, send_result
from tests.support.releasing import RELEASED, releasing
from tests.support.virtual_time import in_virtual_time

TOKEN = "sk-lm-abcdefgh:0123456789abcdefghij"


async def test_all_sockets_to_a_server_share_an_identity_whoever_opens_them(server: Emulator) -> None:
    async with (
        lms.AsyncClient(server.address) as client,
        lms.AsyncClient(server.address, headers={"X-Proxy": "yes"}) as other,
    ):
        await asyncio.gather(
            client.llm.list_loaded(),
            client.embedding.list_loaded(),
            client.files.prepare_file(b"text", "a.txt"),
            client.system.get_version(),
            other.llm.list_loaded(),
        )
        assert len(server.connections) == 5
        assert len({each.client for each in server.connections}) == 1


async def test_an_identity_is_used_until_its_last_socket_begins_to_close() -> None:
    guests, target = Guests(), Target.of("127.0.0.1:9", None)
    sockets = [SocketSession(target, "llm", InstanceQueues(), guests, on_ended=lambda _ended: None) for _ in range(4)]
    first, second, elsewhere, last = sockets
    identity = guests.join(target.address, first)
    assert guests.join(target.address, second) is identity
    assert guests.join(None, elsewhere) is not identity
    first.close()
    second.close()
    assert guests.join(target.address, last) is not identity
    elsewhere.close()
    last.close()
    await asyncio.wait([socket.task for socket in sockets])


@in_virtual_time
async def test_a_socket_that_authenticates_after_the_end_of_all_others_has_a_new_identity() -> None:
    identities: dict[str, str] = {}
    closing = asyncio.Event()

    async def hold(_socket: Socket, request: Request) -> Response | None:
        if request.path == "/embedding":
            await closing.wait()
        return None

    async def behave(socket: Socket) -> None:
        assert socket.request is not None
        identities[socket.request.path] = (await receive(socket))["clientIdentifier"]
        await send(socket, {"success": True})
        await send_result(socket, [])
        await socket.wait_closed()
        closing.set()

    async with serve(behave, "127.0.0.1", 0, process_request=hold) as listening:
        address = f"127.0.0.1:{next(iter(listening.sockets)).getsockname()[1]}"
        async with lms.AsyncClient(address, keep_idle=1) as client:
            await client.llm.list_loaded()
            await client.embedding.list_loaded()
    assert identities["/llm"] != identities["/embedding"]


async def test_a_server_that_has_seen_the_end_of_every_connection_first_gets_a_new_identity() -> None:
    """After sleep, or behind NAT, a connection may be dead for the server only."""
    server = Emulator(MODELS)
    authenticator = releasing(server)
    async with server, lms.AsyncClient(server.address) as client:
        fragments = aiter((await client.llm.model("chatty")).respond_stream("stall"))
        await anext(fragments)
        [before] = {each.client for each in server.connections}
        assert before is not None
        authenticator.released.add(before)
        await client.embedding.list_loaded()
        with pytest.raises(lms.LMStudioConnectionLostError, match="the next call uses the new one"):
            async for _fragment in fragments:
                pass
        await client.llm.list_loaded()
        await asyncio.to_thread(server.wait_for, lambda: before not in {each.client for each in server.connections})
        assert len({each.client for each in server.connections}) == 1


@pytest.mark.parametrize("token", [None, TOKEN])
async def test_a_server_that_releases_every_identity_at_once_rejects_each_call_once(token: str | None) -> None:
    identities: list[str] = []

    async def behave(socket: Socket) -> None:
        identities.append((await receive(socket))["clientIdentifier"])
        await send(socket, {"success": False, "error": RELEASED})

    async with fake_server(behave) as address, lms.AsyncClient(address, token) as client:
        for _ in range(2):
            with pytest.raises(lms.LMStudioAuthenticationError, match=RELEASED):
                await client.llm.list_loaded()
    assert len(identities) == 2
    assert len(set(identities)) == (2 if token is None else 1)


async def test_a_client_that_is_rejected_for_another_reason_keeps_its_identity() -> None:
    identities: list[str] = []

    async def behave(socket: Socket) -> None:
        assert socket.request is not None
        if socket.request.path == "/llm":
            await authenticate(socket)
            await send_result(socket, [])
        else:
            identities.append((await receive(socket))["clientIdentifier"])
            await send(socket, {"success": False, "error": "too many connections"})

    async with fake_server(behave) as address, lms.AsyncClient(address) as client:
        await client.llm.list_loaded()
        for _ in range(2):
            with pytest.raises(lms.LMStudioAuthenticationError, match="too many"):
                await client.system.get_version()
    assert len(identities) == 2
    assert len(set(identities)) == 1
