"""The worker's process and its HTTP client, with processes and responses that are made up."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from lmstudio_integrations.emulator.engines.base import EngineError
from lmstudio_integrations.emulator.engines.llama_cpp import worker_client, worker_main
from lmstudio_integrations.emulator.engines.llama_cpp.weights import install_hint
from lmstudio_integrations.emulator.engines.llama_cpp.worker_client import Worker, encode, read_line
from tests.emulator.engines.llama_cpp.http_server import Request, Respond, chunked, responding, response
from tests.emulator.engines.llama_cpp.models import FULL

pytestmark = pytest.mark.slow


def test_lines_of_a_stream_are_chunks_or_nothing() -> None:
    assert read_line('data: {"a": 1}') == {"a": 1}
    assert [read_line(line) for line in ("data: [DONE]", "", ": ping")] == [None] * 3


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ('data: {"error": {"message": "bad"}}', "bad"),
        ('error: {"message": "bad"}', "bad"),
        ('data: {"content": "to', "unreadable chunk"),
        ("data: [1]", "unreadable chunk"),
        ("data: [DONE] ", "unreadable chunk"),
    ],
)
def test_an_error_or_a_chunk_that_is_no_object_is_no_gap_in_the_response(line: str, error: str) -> None:
    with pytest.raises(EngineError, match=error):
        read_line(line)


def test_halves_of_characters_do_not_stop_a_request() -> None:
    assert encode({"a": "\u00e9"}) == '{"a": "\u00e9"}'.encode()
    assert json.loads(encode({"a": "x\ud83d", "b": "\ud83d\ude00"})) == {"a": "x\ufffd", "b": "\U0001f600"}


Start = Callable[..., Awaitable[Worker]]


@pytest.fixture
async def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Start]:
    """Start a process that runs another script than the worker's."""
    async with AsyncExitStack() as stack:

        async def start_script(script: str, *, seconds: float = 600, grace: float = 0.1, slots: int = 1) -> Worker:
            path = tmp_path / "fake_worker.py"
            path.write_text(script, encoding="utf-8")
            monkeypatch.setattr(worker_main, "__file__", str(path))
            monkeypatch.setattr(worker_client, "GRACE_SECONDS", grace)
            worker = await Worker.start(replace(FULL, slots=slots), seconds=seconds)
            stack.push_async_callback(worker.close)
            return worker

        yield start_script


def reply(**members: str) -> str:
    return f"print({json.dumps(members)!r}, flush=True)"


@pytest.mark.parametrize(
    ("script", "seconds", "words"),
    [
        ("import sys; sys.stderr.write('boom' * 9000 + 'LAST'); sys.exit(7)", 600, r"(?s)\(Exit code: 7\).*boomLAST$"),
        ("import sys; sys.stdin.read()", 0.5, r"within 0\.5 s"),
        (reply(error="Failed to init", kind="load_failed"), 600, "Failed to init"),
        (reply(error="no module", kind="engine_missing"), 600, "no module"),
    ],
    ids=["exits", "sends nothing", "fails", "lacks the engine"],
)
async def test_a_worker_that_cannot_load_its_model_says_why(
    start: Start, script: str, seconds: float, words: str
) -> None:
    with pytest.raises(EngineError) as caught:
        await start(script, seconds=seconds, grace=600)
    assert re.search(words, str(caught.value.cause))
    assert caught.value.title.endswith(install_hint()) == ("engine_missing" in script)
    assert ("the template in llm.load.promptTemplate" in str(caught.value.suggestion)) == ("load_failed" in script)


async def test_a_missing_http_library_is_one_sentence(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(EngineError, match=re.escape(f"needs more packages: {install_hint()}")):
        await start(f"open({str(tmp_path / 'started')!r}, 'w')")
    assert not (tmp_path / "started").exists(), "no model is loaded in vain"


READY = reply(url="http://127.0.0.1:1", key="k")
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {READY}; signal.pause()"


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_worker_that_does_not_exit_is_killed(start: Start, is_cancelled: bool) -> None:
    stubborn = await start(STUBBORN, grace=600 if is_cancelled else 0.1)
    closing = asyncio.create_task(stubborn.close())
    if is_cancelled:
        await asyncio.wait([closing], timeout=0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
    else:
        await closing
    assert stubborn._process.returncode == -9


Serve = Callable[[Respond], Awaitable[Worker]]


@pytest.fixture
async def serve(start: Start) -> AsyncIterator[Serve]:
    """Start a worker whose HTTP responses are made up; it has one slot, and exits when its input ends."""
    async with AsyncExitStack() as stack:

        async def serve_with(respond: Respond) -> Worker:
            url = await stack.enter_async_context(responding(respond))
            return await start(f"import sys; {reply(url=url, key='k')}; sys.stdin.read()")

        yield serve_with


async def read_all(worker: Worker) -> object:
    return [chunk async for chunk in worker.stream("/completions", {})]


async def template(worker: Worker) -> object:
    return await worker.call("/apply-template", {})


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


async def test_a_long_line_ends_at_its_line_feed_only(serve: Serve) -> None:
    text = "\u2028\x85 \u00e9" * 50_000
    line = f'data: {{"a": "{text}"}}\r\n'.encode()

    async def respond(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(line[:14], line[14:] + b"\r\n"))

    assert await read_all(await serve(respond)) == [{"a": text}]


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


async def test_large_calls_wait_for_each_other_and_small_ones_for_none(serve: Serve) -> None:
    inside, most = 0, 0
    release = asyncio.Event()

    async def respond(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal inside, most
        if len(request.body) > worker_client.LARGE_BODY_BYTES:
            inside, most = inside + 1, max(most, inside + 1)
            await release.wait()
            inside -= 1
        writer.write(response(b"{}"))

    served = await serve(respond)
    large = {"content": "a" * (worker_client.LARGE_BODY_BYTES + 100_000)}  # aiohttp warns of so many bytes
    calls = [asyncio.create_task(served.call("/tokenize", large)) for _ in range(3)]
    async with asyncio.timeout(600):
        for _ in range(50):  # round trips in which further large calls would arrive
            await served.call("/tokenize", {"content": "a"})
        release.set()
        await asyncio.gather(*calls)
    assert most == 1


@pytest.mark.parametrize(("limit", "use"), [("CALL_SECONDS", template), ("STALL_SECONDS", read_all)])
async def test_a_worker_that_takes_too_long_is_ended(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, limit: str, use: Callable[[Worker], Awaitable[object]]
) -> None:
    async def hang(_: Request, __: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(worker_client, limit, 0.1)
    with pytest.raises(EngineError, match=r"has crashed .* \(Exit code: -9\)") as caught:
        await use(await serve(hang))
    assert caught.value.fatal
    assert "did not respond" in str(caught.value.cause)


@pytest.mark.parametrize(
    ("use", "data"),
    [
        (template, b""),
        (template, response(b"[1]")[:-1]),
        (read_all, chunked(b'data: {"n": 1}\n\n', ends=False)),
        (read_all, b"nonsense\r\n\r\n"),
    ],
)
async def test_a_response_that_breaks_off_ends_the_worker(
    serve: Serve, use: Callable[[Worker], Awaitable[object]], data: bytes
) -> None:
    async def respond(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        writer.close()

    with pytest.raises(EngineError, match="has crashed") as caught:
        await use(await serve(respond))
    assert caught.value.fatal


async def test_cancelling_a_stream_before_its_response_closes_its_connection(serve: Serve) -> None:
    opened, closed = asyncio.Event(), asyncio.Event()

    async def respond(request: Request, _: asyncio.StreamWriter) -> None:
        opened.set()
        with suppress(OSError):
            await request.rest.read()
        closed.set()

    reading = asyncio.create_task(read_all(await serve(respond)))
    async with asyncio.timeout(600):
        await opened.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await closed.wait()


async def test_an_idle_connection_carries_the_next_request_but_not_that_of_a_stream(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports: list[int] = []

    async def respond(request: Request, writer: asyncio.StreamWriter) -> None:
        ports.append(writer.get_extra_info("peername")[1])
        is_stream = "/completions" in request.line
        assert (request.headers.get("connection") == "close") == is_stream
        writer.write(chunked(b"data: {}\n\n") if is_stream else response(b"{}"))

    monkeypatch.setattr(worker_client, "KEEPALIVE_SECONDS", 600)  # a busy machine may pause for longer than usual
    served = await serve(respond)
    for use in (template, template, read_all):
        await use(served)
    assert len(ports) == 3
    assert ports[0] == ports[1]


async def test_closing_a_worker_fails_its_calls_and_what_waits_for_a_connection(serve: Serve) -> None:
    opened = asyncio.Semaphore(0)

    async def respond(request: Request, writer: asyncio.StreamWriter) -> None:
        if "/begun" in request.line:
            writer.write(chunked(b'data: {"n": 1}\n\n', ends=False))
        opened.release()
        await asyncio.Event().wait()

    served = await serve(respond)
    begun = served.stream("/begun", {})
    assert await anext(begun) == {"n": 1}

    async def rest() -> object:
        return [chunk async for chunk in begun]

    waiting = [rest(), read_all(served), *(template(served) for _ in range(20))]
    calls = [asyncio.create_task(each) for each in waiting]
    async with asyncio.timeout(600):
        for _ in range(replace(FULL, slots=1).http_threads):
            await opened.acquire()
        await served.close()
        errors = await asyncio.gather(*calls, return_exceptions=True)
    assert {(type(error), str(error)) for error in errors} == {(EngineError, "Model is unloaded.")}


async def test_the_worker_takes_no_part_in_proxies(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async def respond(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"{}"))

    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert await (await serve(respond)).call("/props") == {}
