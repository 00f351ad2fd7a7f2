"""`record` writes what passes, `cassette` shows and compares it, and `serve --replay` responds with it."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.cli import _record
from lmstudio_integrations.emulator import Emulator, use_cassette
from lmstudio_integrations.emulator.testing.cassettes.cassette import read, save
from tests.cli.managed import Piped
from tests.cli.terminal import started
from tests.support.web import PIXEL

Run = Callable[..., int | str | None]
CHAT = "chat"


@pytest.fixture
def server() -> Iterator[Emulator]:
    with Emulator([CHAT]) as running:
        yield running


def say(address: str, *texts: str) -> list[str]:
    with lms.Client(address) as client:
        model = client.llm.model(CHAT)
        return [model.respond(text).content for text in texts]


def recorded(path: Path, server: Emulator, *texts: str) -> Path:
    with use_cassette(path, "rewrite", server=server.address) as recording:
        say(recording.address, *texts)
    return path


def address_of(process: "subprocess.Popen[str]") -> str:
    """Return the address on the first line of the output."""
    assert process.stdout is not None
    found = re.fullmatch(r"ws://(.*)\n", process.stdout.readline())
    assert found is not None
    return found[1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a process can handle")
@pytest.mark.parametrize("end", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.exhaustive)])
def test_what_is_recorded_is_served_again(server: Emulator, tmp_path: Path, end: signal.Signals) -> None:
    path = tmp_path / "session.lms.jsonl"
    with started("record", "--to", str(path), "--host", server.address, "--redact", "se.ret") as process:
        said = say(address_of(process), "Hi", "My secret")
        process.send_signal(end)
        _, notes = process.communicate(timeout=20)
    assert process.returncode == 0
    assert notes.startswith("Prompts and responses of every program that connects are written to")
    assert notes.endswith(f"3 requests in {path}.\n")
    assert "secret" not in path.read_text(encoding="utf-8")
    with started("serve", "--replay", str(path), "--port", "0", "--redact", "se.ret") as process:
        assert say(address_of(process), "Hi", "My secret") == [said[0], said[1].replace("secret", "**********")]


@pytest.mark.slow
def test_a_probe_is_recorded(server: Emulator, tmp_path: Path, piped: Piped) -> None:
    path = tmp_path / "probe.lms.jsonl"
    status, out, err = piped("certify", CHAT, "--record", str(path), "--host", server.address, "--yes")
    assert status == 0
    assert "tools " in out
    assert re.search(rf"\d+ requests in {re.escape(str(path))}\. Read it before you share it\.\n$", err)
    assert read(path)


def test_a_cassette_is_shown(server: Emulator, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    path = recorded(tmp_path / "x.lms.jsonl", server, "Hi")
    assert run("cassette", "show", str(path)) == 0
    load, prediction = (re.sub(r"\s+", " ", line) for line in capsys.readouterr().out.splitlines())
    assert re.fullmatch(r" 1 llm.getOrLoad chat -> loaded \d\.\d\d s", load)
    pattern = (
        r""" 2 llm.predict chat 'Hi' -> 'You said "Hi". What shall we talk about next\?' \(eosFound\) \d\.\d\d s"""
    )
    assert re.fullmatch(pattern, prediction)


def test_two_cassettes_are_compared(
    server: Emulator, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    one = recorded(tmp_path / "one.lms.jsonl", server, "Hi", "Ho")
    server.unload(CHAT)
    same = recorded(tmp_path / "same.lms.jsonl.gz", server, "Hi", "Ho")
    assert run("cassette", "diff", str(one), str(same)) == 0
    rules = [{"then": [{"text": "Else"}]}]
    with Emulator([{"key": CHAT, "rules": rules}]) as other_server:
        other = recorded(tmp_path / "other.lms.jsonl", other_server, "Hi", "Hu", "Ha")
    capsys.readouterr()
    assert run("cassette", "diff", str(one), str(other)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "request 2 (llm.predict): the responses differ",
        '  text: first "You said \\"Hi\\". What shal"…, second "Else"',
        "request 3 (llm.predict) is another one in the second",
        '  messages[0] (user).content[0].text, from character 1: first "Ho", second "Hu"',
        "request 4 (llm.predict) is only in the second",
    ]


def look(address: str, image: bytes, *, lists: int = 1) -> None:
    """Ask about images, and about the models in one way or another."""
    with lms.Client(address) as client:
        for _ in range(lists):
            client.list_loaded_models()
        model = client.llm.model("eyes")
        for name in ("a.png", "b.png"):
            chat = lms.Chat()
            chat.add_user_message(f"What is {name}?", images=[client.files.prepare_image(image, name)])
            model.respond(chat)
        if lists == 1:
            model.get_info()


def test_what_a_replay_leaves_aside_is_no_difference(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    one, same, other = (tmp_path / f"{name}.lms.jsonl" for name in ("one", "same", "other"))
    for path, image, lists in ((one, PIXEL, 1), (same, PIXEL, 3), (other, PIXEL + b"0", 1)):
        with (
            Emulator([{"key": "eyes", "vision": True}, CHAT], load=[CHAT]) as server,
            use_cassette(path, "rewrite", server=server.address) as recording,
        ):
            look(recording.address, image, lists=lists)
    save(same, reversed(read(same)))
    capsys.readouterr()
    assert run("cassette", "diff", str(one), str(same)) == 0
    assert run("cassette", "diff", str(same), str(one)) == 0
    assert capsys.readouterr().out == ""
    assert run("cassette", "diff", str(one), str(other)) == 1
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("request")] == [
        f"request {number} ({name}) is another one in the second"
        for number, name in enumerate(["files.uploadFileBase64", "llm.predict"] * 2, 4)
    ]


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "one file to compare": (("cassette", "diff", "FILE"), "diff takes two files"),
    "two files to show": (("cassette", "show", "FILE", "FILE"), "show takes one file"),
    "no cassette": (("cassette", "show", __file__), "is not a cassette"),
    "models beside a cassette": (("serve", "--replay", "FILE", "--model", "m"), "omit --model, --load, --catalog"),
    "a probe without a terminal": (
        ("certify", CHAT, "--record", "NEW", "--host", "HOST"),
        "not a terminal, so cannot ask; pass --yes",
    ),
    "a file that exists": (("record", "--to", "FILE", "--host", "HOST"), "exists; delete it, or choose another name"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_use_is_explained(
    server: Emulator,
    tmp_path: Path,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    path = recorded(tmp_path / "x.lms.jsonl", server, "Hi")
    given = {"FILE": str(path), "NEW": str(tmp_path / "new.lms.jsonl"), "HOST": server.address}
    status = run(*(given.get(each, each) for each in arguments))
    assert status not in {0, None}
    assert message in f"{status}{capsys.readouterr().err}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_recording_wherever_it_arrives(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(_record, "_TURN", 0.001)
    before = sys.gettrace()
    for at in range(1, 40):
        lines = count(1)

        def trace(_frame: FrameType, event: str, _argument: Any, at: int = at, lines: Iterator[int] = lines) -> Any:
            if event == "line" and next(lines) == at:
                signal.raise_signal(number)
            return trace

        with _record.interruption() as wait:
            sys.settrace(trace)
            try:
                wait()
            finally:
                sys.settrace(before)
