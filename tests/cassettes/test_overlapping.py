"""Recordings that overlap, and servers that clients name in another way: no request is lost in silence."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.cassettes import Recording, use_cassette
from lmstudio_integrations.cassettes.cassette import read
from lmstudio_integrations.cassettes.modes import Mode
from lmstudio_integrations.client.concurrency.io_thread import IOThread
from lmstudio_integrations.client.transport.connect import discovery
from lmstudio_integrations.client.transport.connect.addresses import Address
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.errors import LMStudioOSError
from tests.cassettes.test_cassette_modes import CHAT, say, texts_of

BARRIER = 60.0
"""Seconds that no test waits for."""


@pytest.fixture
def server() -> Iterator[Emulator]:
    with Emulator([CHAT]) as running:
        yield running


def say_async(address: str, text: str) -> str:
    async def respond() -> str:
        async with lms.AsyncClient(address) as client:
            return (await (await client.llm.model(CHAT)).respond(text)).content

    return asyncio.run(respond())


@pytest.mark.parametrize("say", [say, say_async], ids=["sync", "async"])
def test_the_outer_of_two_recordings_has_what_the_inner_one_has(
    server: Emulator, tmp_path: Path, say: Callable[[str, str], str]
) -> None:
    before = IOThread.current()
    with use_cassette(tmp_path / "outer", "once", server=server.address):
        say(server.address, "a")
        with use_cassette(tmp_path / "inner", "once", server=server.address):
            say(server.address, "b")
        say(server.address, "c")
    assert IOThread.current() is before
    assert texts_of(tmp_path / "outer") == ["a", "b", "c"]
    assert texts_of(tmp_path / "inner") == ["b"]
    inner, outer = (read(tmp_path / name) for name in ("inner", "outer"))
    assert len(outer) > len(inner) > 1
    for name, texts in (("outer", "abc"), ("inner", "b")):
        with use_cassette(tmp_path / name) as replayed:
            assert [say(replayed.address, text) for text in texts]


def test_recordings_of_two_threads_have_what_both_say_while_they_are_open(server: Emulator, tmp_path: Path) -> None:
    """The first one opens first, and ends first."""
    before = IOThread.current()
    turns = [threading.Event() for _ in range(3)]

    def first() -> None:
        with Recording(tmp_path / "first", server.address), lms.Client(server.address) as client:
            model = client.llm.model(CHAT)
            model.respond("a")
            turns[0].set()
            assert turns[1].wait(BARRIER)
            model.respond("b")
        turns[2].set()

    def second() -> None:
        assert turns[0].wait(BARRIER)
        with Recording(tmp_path / "second", server.address), lms.Client(server.address) as client:
            model = client.llm.model(CHAT)
            model.respond("c")
            turns[1].set()
            assert turns[2].wait(BARRIER)
            model.respond("d")

    with ThreadPoolExecutor() as pool:
        for each in [pool.submit(first), pool.submit(second)]:
            each.result()
    assert texts_of(tmp_path / "first") == ["a", "c", "b"]
    assert texts_of(tmp_path / "second") == ["c", "b", "d"]
    assert IOThread.current() is before
    assert [record.messages[-1]["content"] for record in server.predictions] == ["a", "c", "b", "d"]


def test_a_stream_that_goes_on_while_another_recording_opens_is_recorded_to_its_end(
    server: Emulator, tmp_path: Path
) -> None:
    with Recording(tmp_path / "outer", server.address), lms.Client(server.address) as client:
        stream = client.llm.model(CHAT).respond_stream("a b c")
        first = next(stream).content
        with Recording(tmp_path / "inner", server.address):
            rest = "".join(fragment.content for fragment in stream)
    (outer,) = (each for each in read(tmp_path / "outer") if each.endpoint == "predict")
    fragments = [packet["fragment"]["content"] for packet in outer.packets() if packet["type"] == "fragment"]
    assert "".join(fragments) == first + rest
    assert read(tmp_path / "inner") == []


@pytest.mark.parametrize("name", ["localhost:{port}", "http://127.0.0.1:{port}/v1", "[::1]:{port}", None])
def test_a_client_that_names_the_recorded_server_in_another_way_is_recorded(
    server: Emulator, tmp_path: Path, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "session.lms.jsonl"
    recorded, used = server.address, f"localhost:{server.port}"
    if name is None:  # a client that names no server finds it
        monkeypatch.delenv("LMSTUDIO_HOST", raising=False)
        monkeypatch.setattr(discovery, "local_candidates", lambda: (Address.parse(recorded),))
        with Recording(path, recorded), lms.Client() as client:
            client.llm.model(CHAT).respond("a")
    else:
        if "::1" in name:  # nothing listens there
            recorded, used = name, server.address
        else:
            used = name
        with Recording(path, recorded.format(port=server.port)):
            say(used.format(port=server.port), "a")
    assert texts_of(path) == ["a"]


def test_a_recording_without_a_request_says_so_and_names_the_servers_that_were_asked(
    server: Emulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Emulator([CHAT]) as other, use_cassette(tmp_path / "x", "once", server=server.address):
        used = other.address
        say(used, "a")
    assert read(tmp_path / "x") == []
    (warning,) = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert f"no request to {server.address} was recorded" in warning
    assert used in warning


@pytest.mark.parametrize("mode", ["once", "rewrite"])
def test_of_two_recordings_of_one_file_the_second_is_an_error(server: Emulator, tmp_path: Path, mode: Mode) -> None:
    """Also in another process, or through a link: the file beside the cassette says that it is recorded."""
    path = tmp_path / "session.lms.jsonl"
    link = tmp_path / "link" / "other.lms.jsonl"
    link.parent.mkdir()
    link.symlink_to(path)
    with use_cassette(link, mode, server=server.address):
        with (
            pytest.raises(LMStudioOSError, match=r"session\.lms\.jsonl' is being recorded .*delete '.*\.recording-ses"),
            use_cassette(path, mode, server=server.address),
        ):
            pass
        say(server.address, "a")
    assert texts_of(path) == ["a"]


def test_a_file_that_another_program_saved_meanwhile_is_kept(server: Emulator, tmp_path: Path) -> None:
    path = tmp_path / "session.lms.jsonl"
    with (  # noqa: PT012 - the block fails at its end
        pytest.raises(LMStudioOSError, match=r"session\.lms\.jsonl' was saved .*'rewrite'"),
        use_cassette(path, "once", server=server.address),
    ):
        say(server.address, "a")
        with Recording(path, server.address):
            say(server.address, "b")
    assert texts_of(path) == ["b"]
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
