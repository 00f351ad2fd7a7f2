"""A program finds the same when a cassette of it is replayed, and the replay sends the same packets.

Programs run on a server that is recorded, and again on the replay of that cassette, which is recorded as well.
"""

import asyncio
import base64
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.cassettes import Recording, Replay
from lmstudio_integrations.cassettes.cassette import Interaction, read
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.types.functions import ToolCallContext
from tests.cassettes.recorded_wire import recorded_wire as wire
from tests.emulator.bare_client import Wire, prediction_request

CHAT, VECTORS = "chat", "vectors"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
TEXTS = ["Grass is green.", "Snow is white.", "The sky is blue."]
MODELS = (
    ModelEntry(
        key=CHAT,
        vision=True,
        load_seconds=0.01,
        rules=(
            {"when": {"image": True}, "then": [{"text": "A picture."}]},
            {"when": {"last": "^Wait"}, "then": [{"text": "One"}, {"fault": "stall"}]},
            {"when": {"last": "^Fail"}, "then": [{"text": "One"}, {"error": "It went wrong", "cause": "A rule"}]},
            {"when": {"last": "^Vanish"}, "then": [{"text": "One"}, {"fault": "drop"}]},
        ),
    ),
    ModelEntry(key="slow", load_seconds=600),
    ModelEntry(key=VECTORS, kind="embedding", embedding_length=8),
    ModelEntry(key="absent", downloaded=False, size_bytes=10),
)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def report(context: ToolCallContext, text: str) -> str:
    """Report something."""
    context.status("reporting")
    context.warn("as it is")
    return text


def failing() -> None:
    """Fail."""
    raise LookupError("nothing there")


# With the native client, whose sync form sends the same --------------------------------------------------------------


async def cancel(client: Any) -> Any:
    prediction = (await client.llm.model(CHAT)).respond_stream("Wait")
    async for _ in prediction:
        prediction.cancel()
    result = prediction.result()
    return result.content, result.stats.stop_reason


async def fail(client: Any) -> Any:
    model, texts = await client.llm.model(CHAT), list[str]()
    for text in ("Fail", "Vanish"):
        with pytest.raises(lms.LMStudioError) as caught:
            await model.respond(text)
        texts.append(str(caught.value))
    with pytest.raises(lms.LMStudioModelNotFoundError) as missing:
        await client.llm.model("no-such-model")
    return [*texts, str(missing.value).replace(client.api_host, "HOST")]


async def ask_about_files(client: Any) -> Any:
    chat = lms.Chat()
    chat.add_user_message("What is this?", images=[await client.files.prepare_image(PIXEL, "pixel.png")])
    await client.embedding.model(VECTORS)
    file = await client.files.prepare_file("\n\n".join(TEXTS).encode(), "facts.md")
    found = await client.files.retrieve("Which colour is snow?", [file], embedding_model=VECTORS, limit=1)
    result = await (await client.llm.model(CHAT)).respond(chat, config={"temperature": 0, "logProbs": 2})
    return (
        (result.content, result.tokens),
        (await client.files.parse_document(file)).content,
        [(entry.content, entry.score) for entry in found.entries],
    )


async def use_a_plugin(client: Any) -> Any:
    reports: list[str] = []
    async with client.plugins.tools("mcp/sums") as session:
        adder, reporter, failer = session.tools
        with pytest.raises(lms.LMStudioError) as caught:
            await failer.call()
        text = await reporter.call({"text": "it"}, on_status=reports.append, on_warning=reports.append)
        return await adder.call({"a": 1, "b": 2}), text, reports, str(caught.value)


async def use_the_native_client(server: Any) -> Any:
    async with lms.AsyncClient(server.address) as client:
        programs = (cancel, fail, ask_about_files, use_a_plugin)
        return [await program(client) for program in programs]


# With bare sockets ----------------------------------------------------------------------------------------------------


def received(socket: Wire, count: int) -> list[Any]:
    return [socket.receive() for _ in range(count)]


async def read_the_log(server: Any) -> Any:
    with wire(server, "diagnostics") as log, wire(server, "system") as system:
        channel = log.open("streamLogs")
        log.send_frame({"type": "keepAlive"})
        before = received(log, 1)
        system.result("notify", {"title": "Hello"})
        frames = [*before, *received(log, 2)]
        log.send(channel, {"type": "stop"})
        logged = [frame for frame in frames if frame["type"] == "channelSend"]  # and one is the reply to the keep-alive
        return logged[-1], list(log.packets(channel))


async def download(server: Any) -> Any:
    with wire(server, "repository") as shop:
        identifier = {"type": "catalog", "identifier": "absent"}
        (option,) = shop.result("getModelDownloadOptions", {"modelSearchResultIdentifier": identifier})["results"]
        return shop.stream("downloadModel", {"downloadIdentifier": option["downloadIdentifier"]})


async def ask_what_nobody_takes(server: Any) -> Any:
    with wire(server) as socket:
        socket.send_frame({"type": "rpcCall", "endpoint": "noSuchEndpoint", "callId": 1})
        socket.send_frame({"type": "rpcCall", "endpoint": "unloadModel", "callId": 2, "parameter": {"identifier": 5}})
        return received(socket, 2)


async def cancel_a_load(server: Any) -> Any:
    with wire(server) as socket:
        channel = socket.open("loadModel", {"modelKey": "slow", "loadConfigStack": {"layers": []}})
        packets = socket.packets(channel)
        begun = [next(packets), next(packets)]
        socket.send(channel, {"type": "cancel"})
        return [*begun, *packets]


async def hang_up(server: Any) -> Any:
    """End the connection while a response is generated, and another that waits for nothing."""
    with wire(server) as socket:
        info = socket.load(CHAT)
        channel = socket.open("predict", prediction_request(info["identifier"], "Wait"))
        return next(frame for frame in iter(socket.receive, None) if "One" in str(frame))["channelId"] == channel


async def use_bare_sockets(server: Any) -> Any:
    programs = (read_the_log, download, ask_what_nobody_takes, cancel_a_load, hang_up)
    return [await program(server) for program in programs]


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server with models of each kind and a plugin, nothing loaded."""
    with Emulator(MODELS, plugins={"mcp/sums": [add, report, failing]}, auto_evict=False) as running:
        yield running


def said(interaction: Interaction) -> Any:
    """Return all that belongs to a request."""
    events = [(event.kind, event.body) for event in interaction.events]
    return interaction.kind, interaction.namespace, interaction.endpoint, interaction.parameter, events


@pytest.mark.parametrize("use", [use_the_native_client, use_bare_sockets])
def test_a_program_gets_the_same_packets_from_a_replay(
    use: Callable[[Any], Coroutine[Any, Any, Any]], server: Emulator, tmp_path: Path
) -> None:
    live = tmp_path / "live"
    with Recording(live, server.address) as recording:
        found = asyncio.run(use(recording))
    recorded = list(map(said, read(live)))
    assert recorded
    with Replay(live) as replay, Recording(tmp_path / "again", replay.address) as again:
        assert asyncio.run(use(again)) == found
        assert replay.unmatched == ()
    assert list(map(said, read(again.path))) == recorded
