"""Programs that gevent has patched: sync and async calls work beside each other, in any order."""

import subprocess
import sys

import pytest

from lmstudio_integrations.emulator import Emulator

pytestmark = pytest.mark.leaf("gevent")

_PROGRAM = """
from gevent import monkey

monkey.patch_all()

import asyncio
import sys

import gevent

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio

host = sys.argv[2]
model = ChatLMStudio(model="chatty", host=host)


def sync_calls():
    assert model.invoke("hi").text
    assert next(model.stream("count"))
    jobs = [gevent.spawn(model.invoke, "hi") for _ in range(4)]
    gevent.joinall(jobs, raise_error=True)
    assert all(job.value.text for job in jobs)
    assert len(model.batch(["hi"] * 3)) == 3
    with lms.Client(host) as client:
        stream = client.llm.model("chatty").respond_stream("for ever")
        next(stream)
        stream.cancel()
        assert stream.wait_for_result().stats.stop_reason == "userStopped"


def async_calls():
    async def calls():
        await asyncio.gather(*[model.ainvoke("hi") for _ in range(3)])
        assert [chunk async for chunk in model.astream("hi")]

    for _ in range(2):
        asyncio.run(calls())


def open_streams():
    streams = [model.stream("for ever"), LMStudio(model="chatty", host=host).stream_complete("for ever")]
    return [stream for stream in streams if next(stream)]


order = [sync_calls, async_calls]
for function in order if sys.argv[1] == "sync" else order[::-1]:
    function()
collected_at_exit = open_streams()
print("done")
"""


@pytest.mark.leaf("stop_on_repetition")  # without it, the log says so
@pytest.mark.sampled(1)
@pytest.mark.slow
@pytest.mark.parametrize("first", ["sync", "async"])
def test_sync_and_async_calls_work(server: Emulator, first: str) -> None:
    pytest.importorskip("gevent")
    host = server.address.replace("127.0.0.1", "localhost")
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM, first, host], capture_output=True, text=True, timeout=600, check=False
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("done\n", "", 0)
