"""`certify`: what it prints and writes, and its exit status."""

import json
import os
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lmstudio_integrations import Card
from lmstudio_integrations._support.secrets import HIDDEN
from lmstudio_integrations.cli import INTERRUPTED
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.cli.managed import Piped
from tests.cli.terminal import TIMEOUT, needs_pty, on_terminal
from tests.support.certified.rules import TOOLS
from tests.support.gate import AT_THE_GATE, Gate

Certify = Callable[..., tuple[int, str, str]]


@pytest.fixture
def certify(piped: Piped) -> Iterator[Certify]:
    """Certify the tools of one of two models, of which one is good."""
    with Emulator([ModelEntry(key="good", rules=TOOLS), ModelEntry(key="bad")]) as server:
        yield lambda model, *more: piped("certify", model, "--rows", "tools", *more, "--host", server.address)
        assert server.loaded() == []


def test_a_card_is_one_screen(certify: Certify) -> None:
    status, out, err = certify("good")
    assert status == 0
    assert err.startswith("At most 56,000 tokens of prompts and 5,000 of responses: about 4 minutes with a model of 7B")
    title, row = out.splitlines()
    assert title.startswith("good (context 4,096, 4 at once) on ")
    assert row == "tools      40 of 40 right"


def test_the_failures_and_the_advice_stand_below_their_row(certify: Certify) -> None:
    _, out, _ = certify("bad", "--quick")
    failed, advice = (line.strip() for line in out.splitlines()[2:4])
    assert failed.startswith("failed: one/1")
    assert advice.startswith("advice: ")


def test_a_card_that_was_kept_is_compared(certify: Certify, tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    certify("good", "--to", str(path))
    assert Card.read(path).row("tools").share == 1.0
    status, out, err = certify("good", "--against", str(path))
    assert (status, out.splitlines()[-2]) == (0, "same       tools")
    assert "up to six times" in err
    worse = json.loads(path.read_text(encoding="utf-8").replace('"key":"bad"', '"key":"good"'))
    worse["model"]["key"] = "bad"
    path.write_text(json.dumps(worse), encoding="utf-8")
    status, out, _ = certify("bad", "--against", str(path))
    assert status == 1
    assert "worse      tools: 40 of 40, now " in out


def test_no_card_has_a_token_that_a_model_wrote(piped: Piped, tmp_path: Path) -> None:
    paths = tmp_path / "card.json", tmp_path / "card.html"
    wrong = {"when": {}, "then": [{"text": 'sk-lm-abcdefgh and {"password": "letmein"}'}]}
    with Emulator([ModelEntry(key="bad", rules=(wrong,))]) as server:
        arguments = ("certify", "bad", "--quick", "--rows", "tools,structure", "--host", server.address)
        _, out, _ = piped(*arguments, "--to", str(paths[0]), "--html", str(paths[1]))
    written = [out, *(path.read_text(encoding="utf-8") for path in paths)]
    assert HIDDEN in written[1]
    assert not [text for text in written if "abcdefgh" in text or "letmein" in text]


def test_a_card_is_printed_as_json(certify: Certify) -> None:
    status, out, _ = certify("good", "--json")
    assert status == 0
    assert Card.model_validate_json(out).row("tools").share == 1.0


class Page(HTMLParser):
    """Checks that each element is closed, and collects what a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "tr", "td", "th", "p"}:
            self.open.append(tag)
        self.loads += [name for name, _ in attrs if name in {"src", "href"}] + [tag] * (tag in {"script", "link"})

    def handle_endtag(self, tag: str) -> None:
        if tag != "p":
            assert self.open.pop() == tag


@pytest.mark.parametrize("model", ["good", "bad"])
def test_the_page_is_one_file_that_loads_nothing(certify: Certify, tmp_path: Path, model: str) -> None:
    path = tmp_path / "card.html"
    certify(model, "--html", str(path))
    text = path.read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    page.close()
    assert (page.open, page.loads) == ([], [])
    assert text.count("<i ") == 40
    assert ("one/2: right" in text) == (model == "good")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["zzz"], "zzz"),
        (["good", "--against", "none.json"], "cannot read the card 'none.json'"),
        (["good", "--rows", "tool"], "the card has no row 'tool'; did you mean 'tools'?"),
        (["good", "--to", "no/such/card.json"], "'no/such/card.json' cannot be written"),
        (["good", "--html", "."], "'.' cannot be written, because it is a folder"),
        (["good", "--to", "x.json", "--html", "./x.json"], "--to and --html both name 'x.json'"),
        (["good", "--device", "away"], "the device 'away' is not linked to this server"),
    ],
)
def test_what_cannot_be_certified_is_an_error(certify: Certify, arguments: list[str], problem: str) -> None:
    status, out, err = certify(*arguments)
    assert (status, out) == (1, "")
    assert problem in err


@pytest.mark.parametrize("option", ["--to", "--html"])
def test_a_file_that_may_not_be_written_is_found_before_anything_is_asked(
    certify: Certify, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    path = tmp_path / "kept"
    path.write_text("kept", encoding="utf-8")
    monkeypatch.setattr(os, "access", lambda name, mode: (name, mode) != (path, os.W_OK))
    assert certify("good", option, str(path)) == (
        1,
        "",
        f"Error: {str(path)!r} cannot be written, because it is read-only; choose another name\n",
    )


def test_what_was_measured_is_kept_if_the_connection_is_lost(piped: Piped, tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    dropping = ({"when": {"structured": True}, "then": [{"fault": "drop"}]}, *TOOLS)
    with Emulator([ModelEntry(key="good", rules=dropping)]) as server:
        arguments = ("certify", "good", "--rows", "tools,structure", "--to", str(path), "--host", server.address)
        status, out, err = piped(*arguments)
    assert status == 1
    assert "Error: " in err
    assert "It was interrupted; the rows so far:\ntools      40 of 40 right\n" in out
    assert Card.read(path).row("tools").share == 1.0


def test_a_worse_card_does_not_replace_the_one_that_it_was_compared_with(certify: Certify, tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    certify("good", "--to", str(path))
    path.write_text(path.read_text(encoding="utf-8").replace('"key": "good"', '"key": "bad"'), encoding="utf-8")
    before = path.read_bytes()
    status, _, err = certify("bad", "--against", str(path), "--to", str(path))
    assert status == 1
    assert f"{path} is left as it was, because this card is worse." in err
    assert path.read_bytes() == before
    certify("good", "--to", str(path))
    status, _, err = certify("good", "--against", str(path), "--to", str(path))
    assert (status, "left as it was" in err) == (0, False)


@pytest.mark.slow
@needs_pty
def test_sigterm_keeps_what_was_measured_and_the_cursor(gate: Gate, tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    waiting = ({"when": {"structured": True}, "then": [AT_THE_GATE]}, *TOOLS)
    arguments = ("certify", "good", "--rows", "tools,structure", "--to", str(path))
    with (
        Emulator([ModelEntry(key="good", rules=waiting)], engines=gate.engines()) as server,
        on_terminal(*arguments, "--host", server.address) as terminal,
    ):
        terminal.wait_for("Certifying good")
        assert gate.reached.wait(TIMEOUT)
        terminal.terminate()
        assert terminal.wait() == INTERRUPTED
    assert "Traceback" not in terminal.text
    assert terminal.raw.rfind("\x1b[?25l") < terminal.raw.rfind("\x1b[?25h")
    assert Card.read(path).row("tools").share == 1.0
