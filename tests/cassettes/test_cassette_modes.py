"""When a cassette is recorded and when it is replayed, mode by mode; and what a recording does with a connection."""

import base64
import errno
import os
import ssl
import stat
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.cassettes import Recording, use_cassette
from lmstudio_integrations.cassettes import recording as recording_module
from lmstudio_integrations.cassettes.cassette import read, save
from lmstudio_integrations.cassettes.modes import Mode, cassette_name
from lmstudio_integrations.client.concurrency.io_thread import IOThread
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioOSError, LMStudioServerError, LMStudioValueError
from lmstudio_integrations.langchain import ChatLMStudio
from tests.cassettes.recorded_wire import recorded_wire as wire
from tests.emulator.bare_client import prediction_request
from tests.faults.proxy import Proxy, ProxyThread
from tests.support.certificates import LOCALHOST
from tests.support.leaks import ASSIGNED, PASSWORD, TOKEN, shows_token

CHAT, VECTORS = "chat", {"key": "vectors", "kind": "embedding"}


@pytest.fixture
def server() -> Iterator[Emulator]:
    with Emulator([CHAT, VECTORS]) as running:
        yield running


def say(address: str, text: str) -> str:
    with lms.Client(address) as client:
        return client.llm.model(CHAT).respond(text).content


def texts_of(path: Path) -> list[str]:
    """Return the last texts of the predictions of a cassette."""
    found = (each.parameter for each in read(path) if each.endpoint == "predict")
    return [parameter["history"]["messages"][-1]["content"][0]["text"] for parameter in found]


@pytest.mark.parametrize(
    ("mode", "said", "asked", "kept"),
    [("none", ["a"], [], ["a", "b"]), ("once", ["a"], [], ["a", "b"]), ("rewrite", ["c"], ["c"], ["c"])],
)
def test_a_mode_decides_what_is_recorded_and_replayed(
    server: Emulator, tmp_path: Path, mode: Mode, said: list[str], asked: list[str], kept: list[str]
) -> None:
    path = tmp_path / "deep" / "session.lms.jsonl"
    with use_cassette(path, "once", server=server.address) as recorded:
        answers = {text: say(recorded.address, text) for text in ("a", "b")}
    before = len(server.predictions)
    with use_cassette(path, mode, server=server.address) as used:
        heard = {text: say(used.address, text) for text in said}
    assert all(heard[text] == answers[text] for text in answers.keys() & heard.keys())
    assert [record.messages[-1]["content"] for record in server.predictions[before:]] == asked
    assert texts_of(path) == kept
    server.unload(CHAT)
    with use_cassette(path) as replayed:
        assert {text: say(replayed.address, text) for text in heard} == heard
    assert len(server.predictions) == before + len(asked)
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_a_file_is_found_again_by_its_hash(server: Emulator, tmp_path: Path) -> None:
    path = tmp_path / "session.lms.jsonl"
    with use_cassette(path, "once", server=server.address) as recorded, lms.Client(recorded.address) as client:
        found = client.files.prepare_file(b"hello", "notes.txt").identifier
    assert base64.b64encode(b"hello").decode() not in path.read_text(encoding="utf-8")
    with use_cassette(path) as replayed, lms.Client(replayed.address) as client:
        assert client.files.prepare_file(b"hello", "notes.txt").identifier == found
        with pytest.raises(LMStudioServerError, match="no such request"):
            client.files.prepare_file(b"hallo", "notes.txt")


def test_the_name_of_a_cassette_is_that_of_its_test() -> None:
    for test, name in (
        ("test_größe", "test_größe"),
        ("TestIt::TestMore::test_it", "TestIt-TestMore-test_it"),
        ("test_it[2-a_b=0.5]", "test_it-2-a_b=0.5"),
        ("test_it[Why?]", "test_it-Why~c2ba2363"),
    ):
        assert cassette_name(test.split("::")) == f"{name}.lms.jsonl"


SIMILAR = ["", "x", "X", "x?", "x-", "-x", "a-b", "a b", "a/b", "a::b", "a\nb", "[a-b]", "é", "e\u0301", "CON", "con"]
LONG = ["x" * 300, "x" * 301, "日" * 300, "日" * 301]


def test_no_two_tests_share_a_cassette_on_any_file_system() -> None:
    names = [cassette_name(["test_it", f"{test}[{each}]"]) for test in ("test_it", "test_x") for each in SIMILAR + LONG]
    names += [cassette_name([f"test_{'x' * length}"]) for length in (300, 301)]
    assert len({unicodedata.normalize("NFC", name).casefold() for name in names}) == len(names)
    assert max(len(f".recording-{name}".encode()) for name in names) < 200
    assert not any(set(name) & set('<>:"/\\|?*\n') for name in names)


def test_a_tool_call_with_a_password_is_replayed_without_it(tmp_path: Path) -> None:
    def log_in(password: str) -> dict[str, Any]:
        """Log in."""
        return {"access_token": f"of {password}", "ok": True}

    def act(address: str) -> str:
        with lms.Client(address) as client:
            messages: list[str] = []
            client.llm.model(CHAT).act("Log in", [log_in], on_message=lambda each: messages.append(str(each)))
            return messages[-1]

    call = {"tool": "log_in", "arguments": {"password": 'x"hunter2\\é'}}
    rules = ({"when": {"role": "user"}, "then": [call]}, {"then": [{"text": "Got {last}"}]})
    path = tmp_path / "session.lms.jsonl"
    with (
        Emulator([ModelEntry(key=CHAT, rules=rules)]) as server,
        use_cassette(path, "once", server=server.address) as at,
    ):
        live = act(at.address)
    with use_cassette(path) as at:
        replayed = act(at.address)
    assert ("hunter2" in live, "hunter2" in path.read_text(encoding="utf-8")) == (True, False)
    assert r"Got {\"access_token\":\"**********\",\"ok\":true}" in replayed


def test_what_others_wrote_for_a_secret_is_not_recorded(tmp_path: Path) -> None:
    texts = "\n".join(ASSIGNED)
    quote = {"when": {"last": "quote"}, "then": [{"text": texts}]}
    crash = {"then": [{"error": f"The model has crashed: {texts}"}]}
    path = tmp_path / "session.lms.jsonl"
    with Emulator([ModelEntry(key=CHAT, rules=(quote, crash))]) as server, Recording(path, server.address) as recording:
        assert say(recording.address, f"quote\n{texts}") == texts
        with pytest.raises(lms.LMStudioServerError):
            say(recording.address, "crash")
    recorded = path.read_text(encoding="utf-8")
    assert "password = **********" in recorded
    assert PASSWORD not in recorded


@pytest.mark.parametrize("mode", ["once", "rewrite"])
def test_a_block_that_fails_saves_nothing_and_says_so(server: Emulator, tmp_path: Path, mode: Mode) -> None:
    path = tmp_path / "session.lms.jsonl"
    if mode != "once":
        save(path, [])
    before = {each: each.read_bytes() for each in tmp_path.iterdir()}
    with (  # noqa: PT012 - the block fails at its end
        pytest.raises(ZeroDivisionError) as caught,
        use_cassette(path, mode, server=server.address) as used,
    ):
        say(used.address, "a")
        _ = 1 / 0
    assert caught.value.__notes__ == [
        f"The cassette {str(path)!r} is not saved, because its block did not end without an error."
    ]
    assert {each: each.read_bytes() for each in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("mode", "error", "message"),
    [
        ("none", LMStudioOSError, "record it with the mode 'once'"),
        ("once", LMStudioValueError, "name the server to record"),
        ("often", LMStudioValueError, "none, once, rewrite; got 'often'"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, mode: Mode, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message), use_cassette(tmp_path / "x.lms.jsonl", mode):
        pass


@pytest.mark.parametrize("mode", ["none", "once", "rewrite"])
def test_a_folder_is_no_cassette(tmp_path: Path, mode: Mode) -> None:
    with pytest.raises(LMStudioOSError, match="is not a file"), use_cassette(tmp_path, mode, server="localhost:1234"):
        pass


def test_a_file_that_cannot_be_written_is_an_error_before_the_recording(server: Emulator, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    for path, message in ((tmp_path / "mine", "exists; delete it"), (tmp_path / "mine" / "below", "cannot write")):
        with pytest.raises(LMStudioOSError, match=message):
            Recording(path, server.address)
    assert [each.name for each in tmp_path.iterdir()] == ["mine"]


@pytest.mark.skipif(sys.platform == "win32", reason="files have no such modes")
def test_a_cassette_that_is_recorded_again_is_still_for_those_who_might_read_it(
    server: Emulator, tmp_path: Path
) -> None:
    path = tmp_path / "session.lms.jsonl"
    path.touch(mode=0o600)
    with use_cassette(path, "rewrite", server=server.address) as recording:
        (new,) = tmp_path.glob(".recording-*")
        assert stat.S_IMODE(new.stat().st_mode) == 0o600  # before there is anything to read
        say(recording.address, "a")
    assert texts_of(path) == ["a"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_cassette_that_is_read_only_is_not_recorded_again(server: Emulator, tmp_path: Path) -> None:
    path = tmp_path / "session.lms.jsonl"
    path.touch()
    path.chmod(0o444)
    with pytest.raises(LMStudioOSError, match="is read-only"), use_cassette(path, "rewrite", server=server.address):
        pass
    assert list(tmp_path.iterdir()) == [path]
    path.chmod(0o644)  # or Windows cannot delete it


def test_a_disk_that_is_full_is_an_error_after_the_recording(
    server: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_path: Path, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", fail)
    with (
        pytest.raises(LMStudioOSError, match=r"cannot write the cassette '.*x\.lms.*': .*No space left"),
        Recording(tmp_path / "x.lms.jsonl", server.address) as recording,
    ):
        say(recording.address, "a")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_a_recording_ends_leaves_no_file_and_records_nothing_more(
    server: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: Recording) -> None:
        raise KeyboardInterrupt

    before = IOThread.current()
    monkeypatch.setattr(Recording, "_finish", interrupt)
    with pytest.raises(KeyboardInterrupt), Recording(tmp_path / "x.lms.jsonl", server.address) as recording:
        pass
    say(recording.address, "a")
    assert recording.requests == 0
    assert IOThread.current() is before
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_replayed_is_forwarded_but_not_recorded(
    server: Emulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.lms.jsonl"
    deep: Any = []
    for _ in range(450):
        deep = [{"x": deep}]
    with Recording(path, server.address) as recording, wire(recording) as socket:
        for frame in (
            {"type": "rpcCall", "endpoint": "unloadModel", "callId": 1, "parameter": {"identifier": deep}},
            {"type": "rpcCall", "endpoint": "listLoaded", "callId": [1]},
            {"type": "rpcCall", "endpoint": "listLoaded"},
            {"type": "channelSend", "channelId": {}, "message": {}},
        ):
            socket.send_frame(frame)
        socket.send_frame({"type": "rpcCall", "endpoint": "listLoaded", "callId": 2})
        while socket.receive().get("callId") != 2:
            pass
    assert caplog.messages == ["a request of llm.unloadModel is not recorded: it is nested too deeply"]
    assert {each.endpoint for each in read(path)} == {"listLoaded"}


@pytest.mark.parametrize("server", ["localhost:x", "ftp://localhost", f"user:{TOKEN[15:]}@localhost:1234"])
def test_the_server_to_record_is_an_address(tmp_path: Path, server: str) -> None:
    with pytest.raises(LMStudioValueError) as caught:
        Recording(tmp_path / "x.lms.jsonl", server)
    assert not shows_token(str(caught.value))
    assert list(tmp_path.iterdir()) == []


def test_a_client_that_was_connected_before_is_recorded_in_the_block_and_works_after_it(
    server: Emulator, tmp_path: Path
) -> None:
    path = tmp_path / "session.lms.jsonl"
    with lms.Client(server.address) as client, Emulator([CHAT]) as other:
        model = client.llm.model(CHAT)
        model.respond("a")
        with Recording(path, server.address) as recording:
            model.respond("b")
            say(recording.address, "c")
            say(other.address, "d")
        model.respond("e")
    assert texts_of(path) == ["b", "c"]
    assert [record.messages[-1]["content"] for record in server.predictions] == ["a", "b", "c", "e"]


def test_each_recording_has_what_its_program_asked_although_the_one_before_has_asked_it(
    server: Emulator, tmp_path: Path
) -> None:
    requests = []
    for name in ("first", "second"):
        with Recording(tmp_path / name, server.address) as recording:
            ChatLMStudio(model=CHAT, host=recording.address).invoke("a")
        requests.append([each.name for each in read(tmp_path / name)])
    assert requests[0] == requests[1]


def test_a_server_with_tls_is_recorded(server: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(LOCALHOST))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(LOCALHOST)
    with (
        ProxyThread() as thread,
        Proxy(thread, server.address, tls=tls) as proxy,
        Recording(tmp_path / "session.lms.jsonl", f"wss://{proxy.address}") as recording,
    ):
        say(recording.address, "a")
    assert texts_of(recording.path) == ["a"]


@pytest.mark.parametrize("is_lost", [True, False], ids=["with the connection", "with the recording"])
def test_a_channel_that_ends_after_its_last_packet_was_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_lost: bool
) -> None:
    monkeypatch.setattr(recording_module, "LAST_MOMENT", 0.0)
    with Recording(tmp_path / "x", "localhost:1234") as recording:
        socket = recording.conversation("llm")
        socket.add("client", '{"type":"channelCreate","endpoint":"predict","channelId":1,"creationParameter":{}}')
        socket.add("server", '{"type":"channelSend","channelId":1,"message":{"type":"success"}}')
        if is_lost:
            socket.end()
    (interaction,) = read(recording.path)
    assert [event.kind for event in interaction.events] == ["received", "closed"]


def test_a_warning_belongs_to_the_newest_request_of_its_endpoint_to_which_nothing_has_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording_module, "LAST_MOMENT", 0.0)
    with Recording(tmp_path / "x", "localhost:1234") as recording:
        socket = recording.conversation("llm")
        for number in (1, 2):
            socket.add("client", f'{{"type":"rpcCall","endpoint":"tokenize","callId":{number}}}')
        socket.add("client", '{"type":"channelCreate","endpoint":"predict","channelId":3}')
        socket.add("server", '{"type":"channelSend","channelId":3,"message":{"type":"fragment"}}')
        for endpoint in ("tokenize", "predict"):
            socket.add("server", f'{{"type":"communicationWarning","warning":"about {endpoint}","kind":"x"}}')
    assert [[event.kind for event in each.events] for each in read(recording.path)] == [[], ["warning"], ["received"]]


def test_a_recording_has_sections_and_pauses(tmp_path: Path, server: Emulator) -> None:
    with Recording(tmp_path / "x", server.address) as recording:
        for section in ("first", None, "second"):
            recording.section = section
            say(recording.address, str(section))
    requests = read(recording.path)
    assert {each.section for each in requests} == {"first", "second"}
    assert len(requests) == recording.requests
    assert texts_of(recording.path) == ["first", "second"]


def test_what_is_still_on_its_way_at_the_end_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_module, "LAST_MOMENT", 600.0)
    stalling = {"key": CHAT, "rules": [{"then": [{"text": "One"}, {"fault": "stall"}]}]}
    with (
        Emulator([stalling]) as server,
        lms.Client(server.address) as client,
        Recording(tmp_path / "x", server.address) as recording,
    ):
        prediction = client.llm.model(CHAT).respond_stream("a")
        next(prediction)
        prediction.cancel()
    *_, sent, last, end = read(recording.path)[-1].events
    assert (sent.body, last.body["stats"]["stopReason"], end.kind) == ({"type": "cancel"}, "userStopped", "closed")


def test_what_is_under_way_is_recorded_as_far_as_it_came(tmp_path: Path) -> None:
    path = tmp_path / "session.lms.jsonl"
    stalling = {"key": CHAT, "preload": True, "rules": [{"then": [{"text": "One"}, {"fault": "stall"}]}]}
    with Emulator([stalling]) as server, ExitStack() as sockets:
        with Recording(path, server.address) as recording:
            socket = sockets.enter_context(wire(recording))
            packets = socket.packets(socket.open("predict", prediction_request(CHAT)))
            kinds = [next(packets)["type"] for _ in range(3)]
        (interaction,) = read(path)
    assert interaction.end is None
    assert [packet["type"] for packet in interaction.packets()] == kinds
    assert recording.requests == 1
