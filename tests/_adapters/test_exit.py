"""A program that ends in the middle of a call ends silently, with its own exit code."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from lmstudio_integrations.emulator import Emulator, ModelEntry

pytestmark = pytest.mark.slow

ENDLESS = ({"when": {"last": "^on"}, "then": [{"text": "on and on " * 100_000}]},)
STALL = ({"when": {"last": "^stall"}, "then": [{"text": "so far "}, {"fault": "stall"}]},)
MODELS = [
    ModelEntry(key="chatty", preload=True, slots=16, rules=(*ENDLESS, *STALL)),
    ModelEntry(key="vectors", preload=True, kind="embedding", embedding_length=4, rules=({"then": [{"wait": 600}]},)),
]

OPEN_STREAMS = {
    "native": """
        import lmstudio_integrations as lms

        model = lms.Client(host).llm.model("chatty")
        opened = [model.respond_stream("on"), model.complete_stream("on")]
        opened += [iter(opened[0]), iter(opened[1]), model.respond_stream("on").events()]
        opened += [model.respond_stream("on").batches()]
        for each in opened[2:]:
            next(each)

        async def read():
            model = lms.AsyncClient(host).llm.lazy_model("chatty")
            opened = [aiter(model.respond_stream("on")), model.respond_stream("on").batches()]
            for each in opened:
                await anext(each)
            return opened
        """,
    "langchain": """
        from lmstudio_integrations.langchain import ChatLMStudio, LMStudioLLM

        chat, llm = ChatLMStudio(model="chatty", host=host), LMStudioLLM(model="chatty", host=host)
        opened = [chat.stream("on"), llm.stream("on")]
        for each in opened:
            next(each)

        async def read():
            opened = [chat.astream("on"), llm.astream("on")]
            for each in opened:
                await anext(each)
            return opened
        """,
    "llama_index": """
        from llama_index.core.base.llms.types import ChatMessage
        from lmstudio_integrations.llama_index import LMStudio

        llm, messages = LMStudio(model="chatty", host=host), [ChatMessage(role="user", content="on")]
        opened = [llm.stream_complete("on"), llm.stream_chat(messages)]
        for each in opened:
            next(each)

        async def read():
            opened = [await llm.astream_complete("on"), await llm.astream_chat(messages)]
            for each in opened:
                await anext(each)
            return opened
        """,
}

READ = """
read_in_a_closed_loop = asyncio.run(read())
loop = asyncio.new_event_loop()
read_in_an_open_loop = loop.run_until_complete(read())
"""

CALLS = {
    "native": """
        import lmstudio_integrations as lms

        client = lms.Client(host)
        model, vectors = client.llm.lazy_model("chatty"), client.embedding.lazy_model("vectors")

        async def respond():
            async with lms.AsyncClient(host) as async_client:
                await async_client.llm.lazy_model("chatty").respond("stall")

        async def several():
            await asyncio.gather(respond(), respond())

        calls = [
            lambda: model.respond("stall"),
            lambda: list(model.respond_stream("stall")),
            lambda: vectors.embed(["a", "b"]),
            lambda: asyncio.run(several()),
        ]
        """,
    "langchain": """
        from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings

        chat, vectors = ChatLMStudio(model="chatty", host=host), LMStudioEmbeddings(model="vectors", host=host)

        async def stream():
            async for _ in chat.astream("stall"):
                pass

        calls = [
            lambda: chat.invoke("stall"),
            lambda: list(chat.stream("stall")),
            lambda: vectors.embed_documents(["a", "b"]),
            lambda: asyncio.run(chat.ainvoke("stall")),
            lambda: asyncio.run(stream()),
        ]
        """,
    "llama_index": """
        from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding

        llm, vectors = LMStudio(model="chatty", host=host), LMStudioEmbedding(model="vectors", host=host)

        async def stream():
            async for _ in await llm.astream_complete("stall"):
                pass

        calls = [
            lambda: llm.complete("stall"),
            lambda: list(llm.stream_complete("stall")),
            lambda: vectors.get_text_embedding_batch(["a", "b"]),
            lambda: asyncio.run(llm.acomplete("stall")),
            lambda: asyncio.run(stream()),
        ]
        """,
}

IN_DAEMONS = """
threads = [threading.Thread(target=call, daemon=True) for call in calls]
for thread in threads:
    thread.start()
print(len(calls), flush=True)
sys.stdin.readline()
"""

JOINED = """
import atexit

def join():
    for thread in threads:
        thread.join()
    print("joined", flush=True)

atexit.register(join)  # before the client's own, so it is called after that
"""


@pytest.fixture
def server() -> Iterator[Emulator]:
    with Emulator(MODELS) as running:
        yield running


def _program(address: str, *parts: str) -> subprocess.Popen[str]:
    """Start a program that ends with exit code 3."""
    body = "\n".join(map(textwrap.dedent, parts))
    code = f"import asyncio, sys, threading\nhost = {address!r}\n{body}\nsys.exit(3)"
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize("surface", OPEN_STREAMS)
def test_streams_that_are_open_at_the_end_end_silently(server: Emulator, surface: str) -> None:
    process = _program(server.address, OPEN_STREAMS[surface], READ)
    _, errors = process.communicate(timeout=30)
    assert (errors, process.returncode) == ("", 3)


@pytest.mark.parametrize("surface", CALLS)
def test_daemon_threads_in_a_call_end_silently(server: Emulator, surface: str) -> None:
    process = _program(server.address, CALLS[surface], IN_DAEMONS)
    assert _end_within_calls(process, server) == ""


def test_a_daemon_thread_that_is_joined_at_exit_ends(server: Emulator) -> None:
    process = _program(server.address, JOINED, CALLS["native"], "calls = calls[:3]", IN_DAEMONS)
    assert _end_within_calls(process, server) == "joined\n"


def _end_within_calls(process: subprocess.Popen[str], server: Emulator) -> str:
    """Let a program end once the server has all of its requests; return what it still prints."""
    assert process.stdout is not None
    calls = int(process.stdout.readline())
    server.wait_for(lambda: len(server.predictions) + len(server.embedded_texts) >= calls, 40.0)
    output, errors = process.communicate("\n", timeout=30)
    assert (errors, process.returncode) == ("", 3)
    return output
