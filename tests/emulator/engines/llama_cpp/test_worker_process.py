"""The worker's process and its HTTP client."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from lmstudio_integrations.emulator.engines.errors import EngineError
from lmstudio_integrations.emulator.engines.llama_cpp import worker_process
from lmstudio_integrations.emulator.engines.llama_cpp.worker_process import (
    LineDecoder,
    Worker,
    decode,
    encode,
    read_line,
)
from lmstudio_integrations.emulator.weights import install_hint
from tests.emulator.engines.llama_cpp.fake_worker import FULL, fake_worker


def test_a_template_of_ones_own_may_be_what_cannot_be_loaded() -> None:
    response = {"error": "RuntimeError: Failed to init server", "kind": "load_failed"}
    assert "promptTemplate" in str(worker_process._load_error(response, FULL).suggestion)
    assert "promptTemplate" not in str(worker_process._load_error(response, replace(FULL, chat_template="")).suggestion)


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


def test_text_that_is_no_json_stays_text() -> None:
    assert decode("<html>") == "<html>"


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
    monkeypatch.setitem(sys.modules, "httpx", None)
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
    monkeypatch.setattr(worker_process, "GRACE_SECONDS", 0.1)
    stubborn = await fake_worker(STUBBORN, monkeypatch, tmp_path)
    await stubborn.close()
    assert stubborn._process.returncode == -9


async def test_a_worker_whose_close_is_cancelled_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stubborn = await fake_worker(STUBBORN, monkeypatch, tmp_path)
    closing = asyncio.create_task(stubborn.close())
    assert stubborn._process.stdin is not None
    await asyncio.wait_for(stubborn._process.stdin.wait_closed(), 10)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert stubborn._process.returncode == -9


async def test_a_worker_whose_client_cannot_be_closed_is_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def aclose() -> None:
        raise OSError("no")

    stubborn = await fake_worker(STUBBORN, monkeypatch, tmp_path)
    client = stubborn._client
    monkeypatch.setattr(stubborn, "_client", SimpleNamespace(aclose=aclose))
    with pytest.raises(OSError, match="no"):
        await stubborn.close()
    assert stubborn._process.returncode == -9
    await client.aclose()


GRANDCHILD = """
import os, signal, sys
if not os.fork():
    with open({path!r}, "w") as file:
        file.write(str(os.getpid()))
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    signal.pause()
"""


@pytest.fixture
async def grandchild(tmp_path: Path) -> AsyncIterator[str]:
    """A script whose child outlives it and keeps its standard error open."""
    path = tmp_path / "grandchild"
    yield GRANDCHILD.format(path=str(path))
    os.kill(int(path.read_text(encoding="utf-8")), signal.SIGKILL)
    await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()}, timeout=10)  # they read the error output


async def test_a_worker_that_dies_while_its_child_runs_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, grandchild: str
) -> None:
    monkeypatch.setattr(worker_process, "GRACE_SECONDS", 1.0)
    monkeypatch.setattr(worker_process, "KILL_SECONDS", 0.1)
    with pytest.raises(EngineError) as caught:
        await fake_worker(f"{grandchild}\nsys.exit(7)", monkeypatch, tmp_path, seconds=10)
    assert "(Exit code: 7)" in str(caught.value.cause)


async def test_cancelling_what_waits_for_the_last_output_cancels_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, grandchild: str
) -> None:
    worker = await fake_worker(grandchild + STUBBORN, monkeypatch, tmp_path)
    killing = asyncio.create_task(worker._kill())
    await asyncio.wait({killing}, timeout=0.5)
    assert not killing.done()
    killing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await killing
    monkeypatch.setattr(worker_process, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(worker_process, "KILL_SECONDS", 0.1)
    async with asyncio.timeout(10):
        await worker.close()
    assert worker._process.returncode == -9


async def test_a_worker_that_hangs_is_killed_as_crashed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(worker_process, "GRACE_SECONDS", 0.1)
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


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Worker]:
    """A worker whose HTTP responses are made up."""
    fake = await fake_worker(STUBBORN.replace("SIG_IGN", "SIG_DFL"), monkeypatch, tmp_path)
    yield fake
    monkeypatch.setattr(worker_process, "GRACE_SECONDS", 0.1)
    await fake.close()


async def test_an_error_of_the_engine_ends_a_stream(served: Worker) -> None:
    def response(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/refused":
            return httpx.Response(400, json={"error": {"message": "bad field"}})
        return httpx.Response(200, content=b'data: {"n": 1}\n\ndata: {"error": {"message": "too bad"}}\n\n')

    await served._client.aclose()
    served._client = httpx.AsyncClient(transport=httpx.MockTransport(response), base_url="http://fake")
    stream = served.stream("/good", {})
    assert await anext(stream) == {"n": 1}
    with pytest.raises(EngineError, match="too bad"):
        await anext(stream)
    with pytest.raises(EngineError, match="bad field"):
        await anext(served.stream("/refused", {}))
    with pytest.raises(EngineError, match="bad field"):
        await served.call("/refused", {})


async def test_large_calls_wait_for_each_other_before_their_time_runs(served: Worker) -> None:
    inside, most = 0, 0

    async def response(request: httpx.Request) -> httpx.Response:
        nonlocal inside, most
        inside, most = inside + 1, max(most, inside + 1)
        await asyncio.sleep(0)
        inside -= 1
        return httpx.Response(200, json={})

    await served._client.aclose()
    served._client = httpx.AsyncClient(transport=httpx.MockTransport(response), base_url="http://fake")
    large = {"content": "a" * worker_process.LARGE_BODY_BYTES}
    await asyncio.gather(*(served.call("/tokenize", large) for _ in range(3)))
    assert most == 1
    await asyncio.gather(*(served.call("/tokenize", {"content": "a"}) for _ in range(3)))
    assert most == 3


async def test_a_call_that_takes_too_long_ends_the_worker(served: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    async def trickle(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(worker_process, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(worker_process, "CALL_SECONDS", 0.1)
    await served._client.aclose()
    served._client = httpx.AsyncClient(transport=httpx.MockTransport(trickle), base_url="http://fake")
    with pytest.raises(EngineError, match=r"has crashed .* \(Exit code: -9\)") as caught:
        await served.call("/apply-template", {})
    assert caught.value.fatal
    assert served._process.returncode == -9


async def test_the_worker_takes_no_part_in_proxies_and_keeps_no_connection(served: Worker) -> None:
    assert served._client.trust_env is False
    assert served._client._transport._pool._max_keepalive_connections == 0
