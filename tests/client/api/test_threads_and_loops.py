"""Threads, event loops, forks, signals and the end of the process."""

import asyncio
import copy
import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.concurrency.io_thread import IOThread
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.langchain import ChatLMStudio
from tests.client.conftest import MODELS
from tests.support.adapters import ADAPTERS
from tests.support.signals import ctrl_c
from tests.support.threads import together


def test_many_threads_share_one_client(server: Emulator) -> None:
    with lms.Client(server.address) as client:
        model = client.llm.model("chatty")
        contents = together(8, lambda _: model.respond("count").content)
        assert set(contents) == {" ".join(str(n) for n in range(200))}
        assert len(server.connections) == 1


def test_one_async_client_works_in_successive_loops(server: Emulator) -> None:
    client = lms.AsyncClient(server.address)

    async def request() -> str:
        model = await client.llm.model("chatty")
        return str(await model.respond("hello"))

    assert asyncio.run(request()) == asyncio.run(request())


@pytest.mark.parametrize("closed", [False, True])
def test_a_stream_is_read_in_the_loop_in_which_it_was_begun(server: Emulator, closed: bool) -> None:
    async def begin() -> lms.AsyncPredictionStream:
        stream = (await lms.AsyncClient(server.address).llm.model("chatty")).respond_stream("stall")
        await anext(stream)
        return stream

    async def wait_for_result() -> None:
        await stream.wait_for_result()

    async def cancel_and_wait() -> str:
        stream.cancel()
        return (await stream.wait_for_result()).content

    with asyncio.Runner() as theirs:
        stream = theirs.run(begin())
        if closed:
            theirs.close()
            server.wait_for(lambda: server.predictions[-1].stop_reason == "userStopped")
        with pytest.raises(lms.LMStudioRuntimeError, match="started in another event loop; read it there"):
            asyncio.run(wait_for_result())
        if not closed:
            assert theirs.run(cancel_and_wait()).startswith("so")


def test_a_blocking_call_on_the_io_thread_is_rejected(server: Emulator) -> None:
    client = lms.Client(server.address)
    outcome: Future[None] = Future()

    def on_io_thread() -> None:
        with pytest.raises(lms.LMStudioRuntimeError, match="I/O thread"):
            client.llm.model("chatty")
        outcome.set_result(None)

    IOThread.current().submit(on_io_thread)
    outcome.result(600)


_CHILD = """
import os, sys
import lmstudio_integrations as lms
client = lms.Client(sys.argv[1])
model = client.llm.model("chatty")
stream = client.llm.load_new_instance("slow").respond_stream("hello")
next(stream)
pid = os.fork()
if pid == 0:
    try:
        next(stream), [fragment for fragment in stream]
    except lms.LMStudioConnectionLostError:
        pass
    else:
        os._exit(1)
    ok = model.respond("count").content.endswith("199")
    os._exit(0 if ok else 2)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
next(stream)
stream.close()
assert model.respond("count").content.endswith("199")
print("both fine")
"""


def _python(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Run a program, without measuring its coverage: an interrupt or a fork in the tracer leaves its lock locked."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, *arguments],
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_parent_and_forked_child_continue_independently() -> None:
    # A slow stream: one without pause would keep two processors busy all the while.
    slow = {"key": "slow", "tokens_per_second": 50, "rules": [{"then": [{"text": "on and on " * 10_000}]}]}
    with Emulator([*MODELS, slow]) as server:
        out, err = _python(_CHILD, server.address).communicate(timeout=600)
        assert (out.strip(), err) == ("both fine", "")
        assert len({record.client for record in server.predictions}) == 2


def test_ctrl_c_interrupts_a_wait_and_stops_the_server(server: Emulator) -> None:
    def has_begun() -> None:
        server.wait_for(lambda: any(record.fragments > 0 for record in server.predictions))

    with lms.Client(server.address) as client:
        model = client.llm.model("chatty")
        with ctrl_c(has_begun), pytest.raises(KeyboardInterrupt):
            model.respond("for ever")
        server.wait_for(lambda: server.predictions[-1].stop_reason == "userStopped")


@pytest.mark.leaf
def test_ctrl_c_ends_an_async_tool(server: Emulator) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def wait(**_arguments: str) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    tool = lms.ToolFunctionDef("weather", "Report the weather.", {"city": str}, wait)
    with lms.Client(server.address) as client:
        with ctrl_c(lambda: begun.wait(600)), pytest.raises(KeyboardInterrupt):
            client.llm.lazy_model("chatty").act("weather", [tool], max_parallel_tool_calls=None)
        assert ended.wait(600)


@pytest.mark.slow
def test_ctrl_c_abandons_a_tool_that_blocks_a_thread(server: Emulator) -> None:
    code = """
import asyncio, sys, threading
import lmstudio_integrations as lms

def block(**_arguments):
    print("in the tool", flush=True)
    threading.Event().wait()

async def act():
    tool = lms.ToolFunctionDef("weather", "Report the weather.", {"city": str}, block)
    await lms.AsyncClient(sys.argv[1]).llm.lazy_model("chatty").act("weather", [tool])

try:
    asyncio.run(act())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    process = _python(code, server.address)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "in the tool"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=600)
    assert (out.strip(), err) == ("interrupted", "")


def test_a_handle_of_a_new_instance_loads_one_whoever_is_first(server: Emulator) -> None:
    with lms.Client(server.address) as client:
        handle = client.llm.lazy_model("chatty", load_policy="new_instance")
        assert len(set(together(6, lambda _: handle.respond("hello").content))) == 1
    assert len(server.loaded()) == 1


async def test_coroutines_that_share_a_handle_share_its_failure_and_may_try_again(server: Emulator) -> None:
    async with lms.AsyncClient(server.address) as client:
        handle = client.llm.lazy_model("nonesuch", load_policy="new_instance")
        outcomes = await asyncio.gather(*(handle.respond("hello") for _ in range(4)), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {lms.LMStudioModelNotFoundError}
        handle._model.state.key = "chatty"
        results = await asyncio.gather(*(handle.respond("hello") for _ in range(4)))
        assert len({result.content for result in results}) == 1
    assert [info.identifier for info in server.loaded()] == ["chatty"]


def test_clients_and_handles_are_copied_by_reference_and_explain_why_they_cannot_be_pickled(server: Emulator) -> None:
    with lms.Client(server.address) as client:
        model = copy.deepcopy(client.llm.model("chatty"))
        assert model.respond("hello").content
        for unpicklable in (client, model):
            with pytest.raises(TypeError, match="make a client in the other process"):
                pickle.dumps(unpicklable)


# langchain-core's classifiers make a task before they call ours.
@pytest.mark.parametrize("name", ["native", "astream", *sorted(ADAPTERS.keys() - {"LMStudioClassifier"})])
def test_an_async_call_outside_of_asyncio_says_what_to_do(server: Emulator, name: str) -> None:
    if name == "native":
        call: Any = lms.AsyncClient(server.address).list_downloaded_models()
    elif name == "astream":
        call = anext(ChatLMStudio(host=server.address, model="chatty").astream("Hi"))
    else:
        adapter = ADAPTERS[name]
        call = adapter.acall(adapter.make(host=server.address, model="chatty"), "Hi")
    with pytest.raises(lms.LMStudioRuntimeError, match=r"event loop of asyncio.*trio\.to_thread"):
        call.__await__().send(None)
