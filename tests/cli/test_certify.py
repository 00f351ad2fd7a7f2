"""`certify`: what it prints and writes, and its exit status."""

import os
import warnings
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lmstudio_integrations import Card, Client
from lmstudio_integrations._support.secrets import HIDDEN
from lmstudio_integrations._support.suggestions import KEEP_LOADED
from lmstudio_integrations.cli import _certify
from lmstudio_integrations.cli._main import INTERRUPTED
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioEvictionWarning
from tests.cli.managed import Piped
from tests.cli.terminal import TIMEOUT, needs_pty, on_terminal
from tests.support.certified.rules import tools
from tests.support.gate import AT_THE_GATE, Gate

Certify = Callable[..., tuple[int, str, str]]

QUICK = ("--quick", "--rows", "tools")


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    """A server with two models, of which one is good; none is loaded at the end."""
    wrong = {"when": {}, "then": [{"text": 'sk-lm-abcdefgh and {"password": "letmein"}'}]}
    with Emulator([ModelEntry(key="good", rules=tools()), ModelEntry(key="bad", rules=(wrong,))]) as server:
        yield server
        assert server.loaded() == []


@pytest.fixture(scope="module")
def good_card(server: Emulator) -> str:
    """The card of the tools of the good model, as it is kept in a file."""
    with Client(server.address) as client:
        return client.certify("good", rows=["tools"], quick=True).to_json()


@pytest.fixture
def certify(piped: Piped, server: Emulator) -> Certify:
    """Certify the tools of a model."""
    return lambda model, *more: piped("certify", model, *QUICK, *more, "--host", server.address)


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


def check_page(text: str) -> None:
    page = Page()
    page.feed(text)
    page.close()
    assert (page.open, page.loads) == ([], [])
    assert text.count("<i ") == 7


def test_a_card_is_one_screen_a_file_and_a_page_that_loads_nothing(certify: Certify, tmp_path: Path) -> None:
    card, page = tmp_path / "card.json", tmp_path / "card.html"
    status, out, err = certify("good", "--to", str(card), "--html", str(page))
    assert status == 0
    assert err.startswith("At most ")
    assert err.endswith("with a model of 7B on a graphics card. Ctrl-C keeps what was measured.\n")
    title, row = out.splitlines()
    assert title.startswith("good (context 4,096, 4 at once) on ")
    assert row == "tools      7 of 7 right"
    assert Card.read(card).row("tools").share == 1.0
    check_page(page.read_text(encoding="utf-8"))
    assert "one/1: right" in page.read_text(encoding="utf-8")


def test_failures_and_advice_stand_below_their_row_and_no_card_has_a_token_that_a_model_wrote(
    certify: Certify, tmp_path: Path
) -> None:
    card, page = tmp_path / "card.json", tmp_path / "card.html"
    status, out, _ = certify("bad", "--to", str(card), "--html", str(page))
    failed, advice = (line.strip() for line in out.splitlines()[2:4])
    assert (status, failed.startswith("failed: one/1"), advice.startswith("advice: ")) == (0, True, True)
    written = [out, *(path.read_text(encoding="utf-8") for path in (card, page))]
    assert HIDDEN in written[1]
    assert not [text for text in written if "abcdefgh" in text or "letmein" in text]
    check_page(written[2])


def test_a_card_that_was_kept_is_compared_and_a_worse_one_does_not_replace_it(
    certify: Certify, good_card: str, tmp_path: Path
) -> None:
    path = tmp_path / "card.json"
    path.write_text(good_card, encoding="utf-8")
    status, out, err = certify("good", "--against", str(path), "--to", str(path))
    assert (status, out.splitlines()[-2]) == (0, "same       tools")
    assert "up to six times" in err
    assert "left as it was" not in err
    before = good_card.replace('"key": "good"', '"key": "bad"')
    path.write_text(before, encoding="utf-8")
    status, out, err = certify("bad", "--against", str(path), "--to", str(path))
    assert status == 1
    assert "worse      tools: 7 of 7, now 0 of " in out
    assert f"{path} is left as it was, because this card is worse." in err
    assert path.read_text(encoding="utf-8") == before


def test_a_card_is_printed_as_json(certify: Certify) -> None:
    status, out, _ = certify("good", "--json")
    assert (status, Card.model_validate_json(out).row("tools").share) == (0, 1.0)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["zzz"], "downloaded are good"),
        (["good", "--rows", "tool"], "the card has no row 'tool'; did you mean 'tools'?"),
        (["good", "--html", "."], "'.' cannot be written, because it is a folder"),
        (["good", "--to", "x.json", "--html", "./x.json"], "--to and --html both name 'x.json'"),
        (["good", "--device", "away"], "the device 'away' is not linked to this server"),
    ],
)
def test_what_cannot_be_certified_is_an_error(certify: Certify, arguments: list[str], problem: str) -> None:
    status, out, err = certify(*arguments)
    assert (status, out) == (1 if "server" in problem or "downloaded" in problem else 2, "")
    assert problem in err
    assert "At most" not in err


def test_a_file_that_may_not_be_written_is_found_before_anything_is_asked(
    certify: Certify, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kept"
    path.write_text("kept", encoding="utf-8")
    monkeypatch.setattr(os, "access", lambda name, mode: (name, mode) != (path, os.W_OK))
    problem = f"Error: invalid value for --to: {str(path)!r} cannot be written, because it is read-only"
    assert certify("good", "--to", str(path)) == (2, "", f"{problem}; see `lmsi certify --help`\n")


def test_what_was_measured_is_kept_if_the_connection_is_lost(piped: Piped, tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    dropping = ({"when": {"structured": True}, "then": [{"fault": "drop"}]}, *tools())
    with Emulator([ModelEntry(key="good", rules=dropping)]) as server:
        arguments = ("--quick", "--rows", "tools,structure", "--to", str(path), "--host", server.address)
        status, out, err = piped("certify", "good", *arguments)
    assert (status, "Error: " in err) == (1, True)
    assert "It was interrupted; the rows so far:\ntools      7 of 7 right\n" in out
    assert Card.read(path).row("tools").share == 1.0


def test_warnings_are_about_commands(certify: Certify, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(*_: object) -> None:
        text = f"'load_policy='explicit'' evicted 'b'; {KEEP_LOADED}"
        warnings.warn(text, LMStudioEvictionWarning, stacklevel=1)

    monkeypatch.setattr(_certify, "_measure", warn)
    status, out, err = certify("good")
    assert (status, out) == (0, "")
    assert err.startswith("Warning: 'load_policy='explicit'' evicted 'b'; load one of them with `lms load`, ")


@pytest.mark.slow
@needs_pty
def test_sigterm_keeps_what_was_measured_and_the_cursor(gate: Gate, tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    waiting = ({"when": {"structured": True}, "then": [AT_THE_GATE]}, *tools())
    arguments = ("certify", "good", "--quick", "--rows", "tools,structure", "--to", str(path))
    with (
        Emulator([ModelEntry(key="good", rules=waiting)], engines=gate.engines()) as server,
        on_terminal(*arguments, "--host", server.address) as terminal,
    ):
        terminal.wait_for("Certifying good")
        assert gate.reached.wait(TIMEOUT)
        terminal.process.terminate()
        assert terminal.wait() == INTERRUPTED
    assert "Traceback" not in terminal.text
    assert terminal.raw.rfind("\x1b[?25l") < terminal.raw.rfind("\x1b[?25h")
    assert Card.read(path).row("tools").share == 1.0
