"""A program that ends in the middle of a call ends silently, with its own exit code."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.support.endless import ENDLESS
from tests.support.served import served

pytestmark = pytest.mark.slow

STALL = ({"when": {"last": "^(on|stall)"}, "then": ENDLESS},)
MODELS = [
    ModelEntry(key="chatty", preload=True, slots=20, rules=STALL),
    ModelEntry(key="vectors", preload=True, kind="embedding", embedding_length=4, rules=({"then": [{"wait": 600}]},)),
]

OPEN_STREAMS = {
    "native": """
        import lmstudio_integrations as lms

        model = lms.Client(host).llm.model("chatty")
        opened = [iter(model.respond_stream("on")), iter(model.complete_stream("on"))]
        opened += [model.respond_stream("on").events(), model.respond_stream("on").batches()]

        async def streams():
            model = lms.AsyncClient(host).llm.lazy_model("chatty")
            return [aiter(model.respond_stream("on")), model.respond_stream("on").batches()]
        """,
    "adapters": """
        from lmstudio_integrations.langchain import ChatLMStudio, LMStudioLLM
        from lmstudio_integrations.llama_index import LMStudio

        made = {"model": "chatty", "host": host}
        chat, llm, llama = ChatLMStudio(**made), LMStudioLLM(**made), LMStudio(**made)
        opened = [chat.stream("stall"), llm.stream("stall"), llama.stream_complete("stall")]

        async def streams():
            return [chat.astream("stall"), llm.astream("stall"), await llama.astream_complete("stall")]
        """,
}

READ = """
for each in opened:
    next(each)

async def read():
    read = await streams()
    for each in read:
        await anext(each)
    return read

read_in_a_closed_loop = asyncio.run(read())
loop = asyncio.new_event_loop()
read_in_an_open_loop = loop.run_until_complete(read())
"""

CALLS = """
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
        """

IN_DAEMONS = """
threads = [threading.Thread(target=call, daemon=True) for call in calls]
for thread in threads:
    thread.start()
print(len(calls), flush=True)
sys.stdin.readline()
"""

LATE = """
        import atexit
        import lmstudio_integrations as lms

        client = lms.Client(host.replace("127.0.0.1", "localhost"))

        @atexit.register
        def call():
            print(client.llm.model("chatty").identifier, client.prepare_image(path).file_type)
        """

LOOKS_UP_FOR_EVER = """
        import socket
        import lmstudio_integrations as lms

        looks_up = threading.Event()

        def look_up(*_, **__):
            looks_up.set()
            threading.Event().wait()

        socket.getaddrinfo = look_up
        threading.Thread(target=lms.Client("a-name:1234").list_loaded_models, daemon=True).start()
        looks_up.wait()
        """

server = served(MODELS, scope="function")


def _program(address: str, *parts: str) -> subprocess.Popen[str]:
    """Start a program that ends with exit code 3."""
    body = "\n".join(map(textwrap.dedent, parts))
    code = f"import asyncio, sys, threading\nhost = {address!r}\n{body}\nsys.exit(3)"
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize("surface", ["native", pytest.param("adapters", marks=pytest.mark.exhaustive)])
def test_streams_that_are_open_at_the_end_end_silently(server: Emulator, surface: str) -> None:
    process = _program(server.address, OPEN_STREAMS[surface], READ)
    _, errors = process.communicate(timeout=600)
    assert (errors, process.returncode) == ("", 3)


def test_daemon_threads_in_a_call_end_silently(server: Emulator) -> None:
    process = _program(server.address, CALLS, IN_DAEMONS)
    assert process.stdout is not None
    calls = int(process.stdout.readline())
    server.wait_for(lambda: len(server.predictions) + len(server.embedded_texts) >= calls, 600)
    assert process.communicate("\n", timeout=600) == ("", "")
    assert process.returncode == 3


def test_a_call_works_when_the_main_thread_has_ended(server: Emulator, tmp_path: Path) -> None:
    """As in threads that go on, a host name is looked up then, and a file is read."""
    path = tmp_path / "an-image.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\npicture")
    process = _program(server.address, f"path = {str(path)!r}", LATE)
    assert process.communicate(timeout=600) == ("chatty image\n", "")


def test_the_end_does_not_wait_until_a_name_is_looked_up(server: Emulator) -> None:
    process = _program(server.address, LOOKS_UP_FOR_EVER)
    assert process.communicate(timeout=600) == ("", "")
    assert process.returncode == 3
