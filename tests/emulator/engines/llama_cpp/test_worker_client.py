"""The worker's process and its HTTP client."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from lmstudio_integrations.emulator.engines.errors import EngineError
from lmstudio_integrations.emulator.engines.llama_cpp import worker_client
from lmstudio_integrations.emulator.engines.llama_cpp.worker_client import (
    LineDecoder,
    Worker,
    encode,
    read_line,
)
from lmstudio_integrations.emulator.engines.weights import install_hint
from tests.emulator.engines.llama_cpp.fake_worker import FULL, fake_worker
from tests.emulator.engines.llama_cpp.http_server import Request, Respond, chunked, responding, response

pytestmark = pytest.mark.slow


def test_a_template_of_ones_own_may_be_what_cannot_be_loaded() -> None:
    response = {"error": "RuntimeError: Failed to init server", "kind": "load_failed"}
    assert "promptTemplate" in str(worker_client._load_error(response, FULL).suggestion)
    assert "promptTemplate" not in str(worker_client._load_error(response, replace(FULL, chat_template="")).suggestion)


def test_lines_end_at_line_feeds_only() -> None:
    lines = LineDecoder()
    text = 'data: {"a":"\u2028\x85 \u00e9"}\n'.encode()
    assert lines.feed(text[:14]) == []
    assert lines.feed(text[14:] + b"\r\nrest") == ['data: {"a":"\u2028\x85 \u00e9"}', ""]


def test_lines_of_a_stream_are_chunks_ends_or_errors() -> None:
    assert read_line('data: {"a": 1}') == {"a": 1}
    assert read_line("data: [DONE]") is None
    assert read_line("") is None
    assert read_line(": ping") is None
    with pytest.raises(EngineError, match="bad"):
        read_line('data: {"error": {"message": "bad"}}')
    with pytest.raises(EngineError, match="bad"):
        read_line('error: {"message": "bad"}')


@pytest.mark.parametrize("data", ['{"content": "to', "", "[1]", "null", "[DONE] "])
def test_a_chunk_that_is_no_object_is_an_error_and_not_a_gap_in_the_response(data: str) -> None:
    with pytest.raises(EngineError, match="unreadable chunk"):
        read_line(f"data: {data}")


def test_halves_of_characters_do_not_stop_a_request() -> None:
    assert encode({"a": "\u00e9"}) == '{"a": "\u00e9"}'.encode()
    assert json.loads(encode({"a": "x\ud83d", "b": "\ud83d\ude00"})) == {"a": "x\ufffd", "b": "\U0001f600"}


async def test_a_worker_that_dies_while_loading_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = "import sys; sys.stderr.write('boom' * 9000 + 'LAST'); sys.exit(7)"
    with pytest.raises(EngineError) as caught:
        await fake_worker(script, monkeypatch, tmp_path)
    assert "(Exit code: 7)" in str(caught.value.cause)
    assert str(caught.value.cause).endswith("LAST")


async def test_a_worker_that_sends_nothing_times_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        await fake_worker("import sys; sys.stdin.read()", monkeypatch, tmp_path, seconds=0.5)
    assert "within 0.5 s" in str(caught.value.cause)


async def test_a_missing_http_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    script = f"open({str(tmp_path / 'started')!r}, 'w')"
    with pytest.raises(EngineError, match=re.escape(f"needs more packages: {install_hint()}")):
        await fake_worker(script, monkeypatch, tmp_path)
    assert not (tmp_path / "started").exists(), "no model is loaded in vain"


STUBBORN = """
import signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('{"url": "http://127.0.0.1:1", "key": "k"}', flush=True)
signal.pause()
"""


async def test_a_worker_that_does_not_exit_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(worker_client, "GRACE_SECONDS", 0.1)
    stubborn = await fake_worker(STUBBORN, monkeypatch, tmp_path)
    await stubborn.close()
    assert stubborn._process.returncode == -9


async def test_a_worker_whose_close_is_cancelled_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stubborn = await fake_worker(STUBBORN, monkeypatch, tmp_path)
    closing = asyncio.create_task(stubborn.close())
    assert stubborn._process.stdin is not None
    await asyncio.wait_for(stubborn._process.stdin.wait_closed(), 600)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert stubborn._process.returncode == -9


async def test_a_worker_that_hangs_is_killed_as_crashed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(worker_client, "GRACE_SECONDS", 0.1)
    mute = await fake_worker(STUBBORN, monkeypatch, tmp_path)
    try:
        with pytest.raises(EngineError, match=r"has crashed .* \(Exit code: -9\)") as caught:
            await mute.call("/props")
        assert caught.value.fatal
        assert "did not respond" in str(caught.value.cause)
    finally:
        await mute.close()
    with pytest.raises(EngineError, match="unloaded"):
        await mute.call("/props")


Serve = Callable[[Respond], Awaitable[Worker]]


@pytest.fixture
async def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Serve]:
    """Start a worker whose HTTP responses are made up; it has one slot."""
    script = STUBBORN.replace("SIG_IGN", "SIG_DFL")
    async with AsyncExitStack() as stack:

        async def start(respond: Respond) -> Worker:
            url = await stack.enter_async_context(responding(respond))
            served = script.replace("http://127.0.0.1:1", url)
            fake = await fake_worker(served, monkeypatch, tmp_path, parameters=replace(FULL, slots=1))
            stack.push_async_callback(fake.close)
            return fake

        yield start
        monkeypatch.setattr(worker_client, "GRACE_SECONDS", 0.1)


async def hang(_: Request, __: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def test_a_request_has_the_key_and_its_content(serve: Serve) -> None:
    requests: list[Request] = []

    async def respond(request: Request, writer: asyncio.StreamWriter) -> None:
        requests.append(request)
        writer.write(response(b"[1]"))

    served = await serve(respond)
    assert await served.call("/props") == [1]
    assert await served.call("/tokenize", {"content": "a"}) == [1]
    assert [request.line for request in requests] == ["GET /props HTTP/1.1", "POST /tokenize HTTP/1.1"]
    assert [request.body for request in requests] == [b"", b'{"content": "a"}']
    for request in requests:
        assert request.headers["authorization"] == "Bearer k"
        assert request.headers["content-type"] == "application/json"
        assert request.headers["accept-encoding"] == "identity", "responses are not decompressed"


async def test_an_error_of_the_engine_ends_a_stream(serve: Serve) -> None:
    async def respond(request: Request, writer: asyncio.StreamWriter) -> None:
        good = chunked(b'data: {"n": 1}\n\nda', b'ta: {"error": {"message": "too bad"}}\n\n')
        bad = response(b'{"error": {"message": "bad field"}}', status=400)
        writer.write(bad if "/rejected" in request.line else good)

    served = await serve(respond)
    stream = served.stream("/good", {})
    assert await anext(stream) == {"n": 1}
    with pytest.raises(EngineError, match="too bad"):
        await anext(stream)
    with pytest.raises(EngineError, match="bad field"):
        await anext(served.stream("/rejected", {}))
    with pytest.raises(EngineError, match="bad field"):
        await served.call("/rejected", {})


async def test_large_calls_wait_for_each_other_before_their_time_runs(serve: Serve) -> None:
    inside, most = 0, 0
    all_inside = asyncio.Event()

    async def respond(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal inside, most
        inside, most = inside + 1, max(most, inside + 1)
        if len(request.body) < worker_client.LARGE_BODY_BYTES:
            if inside == 3:
                all_inside.set()
            await all_inside.wait()
        inside -= 1
        writer.write(response(b"{}"))

    served = await serve(respond)
    large = {"content": "a" * (worker_client.LARGE_BODY_BYTES + 100_000)}  # aiohttp warns of so many bytes
    await asyncio.gather(*(served.call("/tokenize", large) for _ in range(3)))
    assert most == 1
    async with asyncio.timeout(600):
        await asyncio.gather(*(served.call("/tokenize", {"content": "a"}) for _ in range(3)))
    assert most == 3


async def read_all(worker: Worker) -> object:
    return [chunk async for chunk in worker.stream("/completions", {})]


async def template(worker: Worker) -> object:
    return await worker.call("/apply-template", {})


@pytest.mark.parametrize(("limit", "use"), [("CALL_SECONDS", template), ("STALL_SECONDS", read_all)])
async def test_a_worker_that_takes_too_long_is_ended(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, limit: str, use: Callable[[Worker], Awaitable[object]]
) -> None:
    monkeypatch.setattr(worker_client, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(worker_client, limit, 0.1)
    served = await serve(hang)
    with pytest.raises(EngineError, match=r"has crashed .* \(Exit code: -9\)") as caught:
        await use(served)
    assert caught.value.fatal
    assert served._process.returncode == -9


@pytest.mark.parametrize(
    "data", [b"", response(b"[1]")[:-1], chunked(b'data: {"n": 1}\n\n', ends=False), b"nonsense\r\n\r\n"]
)
@pytest.mark.parametrize("use", [template, read_all])
async def test_a_response_that_breaks_off_ends_the_worker(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, use: Callable[[Worker], Awaitable[object]], data: bytes
) -> None:
    async def respond(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        writer.close()

    monkeypatch.setattr(worker_client, "GRACE_SECONDS", 0.1)
    served = await serve(respond)
    with pytest.raises(EngineError, match="has crashed") as caught:
        await use(served)
    assert caught.value.fatal


async def test_closing_a_stream_early_closes_its_connection(serve: Serve) -> None:
    closed = asyncio.Event()

    async def respond(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(b'data: {"n": 1}\n\n', ends=False))
        with suppress(OSError):
            await request.rest.read()
        closed.set()

    served = await serve(respond)
    stream = served.stream("/completions", {})
    assert await anext(stream) == {"n": 1}
    await stream.aclose()
    async with asyncio.timeout(600):
        await closed.wait()


@pytest.mark.parametrize("begin", [b"", chunked(b'data: {"n": 1}\n\n', ends=False)])
async def test_cancelling_a_stream_closes_its_connection(serve: Serve, begin: bytes) -> None:
    opened, closed = asyncio.Event(), asyncio.Event()

    async def respond(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        opened.set()
        with suppress(OSError):
            await request.rest.read()
        closed.set()

    served = await serve(respond)
    reading = asyncio.create_task(read_all(served))
    async with asyncio.timeout(600):
        await opened.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await closed.wait()


class Ports:
    """Responds with a call's or a stream's response, and records which connection each request came on."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.seen.append(writer.get_extra_info("peername")[1])
        data = chunked(b"data: {}\n\n") if "/completions" in request.line else response(b"{}")
        closes = request.headers.get("connection") == "close"
        writer.write(data.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) if closes else data)


async def test_an_idle_connection_carries_the_next_request(serve: Serve) -> None:
    ports = Ports()
    served = await serve(ports)
    for _ in range(3):
        await served.call("/props")
    assert len(ports.seen) == 3
    assert len(set(ports.seen)) == 1


async def test_closing_a_worker_fails_its_calls_and_what_waits_for_a_connection(serve: Serve) -> None:
    opened = asyncio.Semaphore(0)

    async def respond(_: Request, __: asyncio.StreamWriter) -> None:
        opened.release()
        await asyncio.Event().wait()

    served = await serve(respond)
    threads = replace(FULL, slots=1).http_threads
    calls = [asyncio.create_task(read_all(served)), *(asyncio.create_task(template(served)) for _ in range(20))]
    async with asyncio.timeout(600):
        for _ in range(threads):
            await opened.acquire()
        await served.close()
        errors = await asyncio.gather(*calls, return_exceptions=True)
    assert {(type(error), str(error)) for error in errors} == {(EngineError, "Model is unloaded.")}


async def test_the_worker_takes_no_part_in_proxies(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    served = await serve(Ports())
    assert await served.call("/props") == {}
    assert served._session.trust_env is False
