"""`demo`: which server and which models it takes, and what it prints."""

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations._support.environment import HOST_VARIABLE
from lmstudio_integrations.cli import _demo
from lmstudio_integrations.cli._demo import DOCUMENTS, QUESTION, SIZE_LIMIT, Choice
from lmstudio_integrations.cli._main import INTERRUPTED
from lmstudio_integrations.emulator import Emulator, ManualClock, ModelEntry
from lmstudio_integrations.emulator.engines.base import ModelMetadata
from lmstudio_integrations.emulator.engines.scripted.engine import ScriptedEngine
from tests.cli.managed import Piped, Run
from tests.cli.terminal import needs_pty, on_terminal

Capture = pytest.CaptureFixture[str]
CHAT, EMBEDDING = "smollm2-135m-instruct", "text-embedding-all-minilm-l6-v2"
TOKEN = "sk-lm-abcdefgh:abcdefghij0123456789"


class RealLooks(ScriptedEngine):
    """Its scripted models look like real ones."""

    def metadata(self, *arguments: Any) -> ModelMetadata:
        return replace(super().metadata(*arguments), architecture="llama")


def demo_server(*models: ModelEntry, engine: ScriptedEngine | None = None, **settings: Any) -> Emulator:
    entries = models or (ModelEntry(key=CHAT), ModelEntry(key=EMBEDDING, kind="embedding"))
    return Emulator(entries, engines={"scripted": engine or RealLooks()}, **settings)


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    """A server with a model of each kind."""
    with demo_server() as server:
        yield server


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, server: Emulator) -> Emulator:
    """Put a scripted server in the place of the emulator with bundled models."""

    @contextlib.contextmanager
    def bundled_emulator() -> Iterator[_demo.DemoServer]:
        yield _demo.DemoServer(server.address, None, Choice(CHAT, loaded=False), Choice(EMBEDDING, loaded=False))

    monkeypatch.setattr(_demo, "bundled_emulator", bundled_emulator)
    return server


@pytest.fixture
def large_only() -> Iterator[Emulator]:
    """A server whose only chat model is large, and not loaded."""
    large = ModelEntry(key="large", size_bytes=SIZE_LIMIT)
    with demo_server(large, ModelEntry(key="embedder", kind="embedding")) as server:
        yield server


def without_spaces(text: str) -> str:
    return "".join(text.split())


def test_the_demo_finds_the_document_streams_a_response_and_saves_what_it_prints_as_an_image(
    run: Run, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "demo.svg"
    with demo_server() as server:
        monkeypatch.setenv(HOST_VARIABLE, server.address)
        assert run("demo", "--svg", str(path)) == 0
        out = capsys.readouterr().out
        assert f"Using the emulator at {server.address}." in out
    for text in (QUESTION, DOCUMENTS["ferry"], "Answer:   ", f"Loading {EMBEDDING}", f"Loading {CHAT}"):
        assert text in out
    for row in ("Model", "Tokens", "Tokens per second", "Time to first token", "Stop reason"):
        assert f"│ {row} " in out
    assert f"{CHAT} (llama" in out
    assert "│ complete " in out
    image = path.read_text(encoding="utf-8")
    texts = without_spaces("".join(ET.fromstring(image).itertext()))
    assert [line for line in out.splitlines() if without_spaces(line) not in texts] == []
    assert "url(http" not in image, "it loads nothing"
    assert "href=" not in image


def test_an_image_that_may_not_be_written_is_found_before_anything_is_asked(
    piped: Piped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kept"
    path.write_text("kept", encoding="utf-8")
    monkeypatch.setattr(os, "access", lambda name, mode: (name, mode) != (path, os.W_OK))
    problem = f"Error: invalid value for --svg: {str(path)!r} cannot be written, because it is read-only"
    assert piped("demo", "--svg", str(path)) == (2, "", f"{problem}; see `lmsi demo --help`\n")


def test_models_that_are_loaded_are_used_however_large(run: Run, large_only: Emulator, capsys: Capture) -> None:
    large_only.load("large", identifier="mine")
    large_only.load("embedder")
    assert run("demo", "--host", large_only.address) == 0
    out = capsys.readouterr().out
    assert "large (llama" in out
    assert "Loading" not in out


def test_a_large_model_is_not_loaded_unasked(
    run: Run, large_only: Emulator, stand_in: Emulator, capsys: Capture
) -> None:
    before = len(stand_in.predictions)
    assert run("demo", "--host", large_only.address) == 0
    out = capsys.readouterr().out
    assert "has no chat model that is real, and loaded, or downloaded and below 2 GB" in out
    assert "Starting the built-in emulator" in out
    assert large_only.loaded() == []
    assert len(stand_in.predictions) > before


CHATTY, EMBEDDER = ModelEntry(key="chatty"), ModelEntry(key="embedder", kind="embedding")
LOADED = [entry.model_copy(update={"preload": True}) for entry in (CHATTY, EMBEDDER)]


@pytest.mark.parametrize(
    ("models", "engine", "missing"),
    [
        ([CHATTY], RealLooks(), "no embedding model"),
        ([EMBEDDER], RealLooks(), "no chat model"),
        ([CHATTY, EMBEDDER], ScriptedEngine(), "no chat and no embedding model"),
        (LOADED, ScriptedEngine(), "no chat and no embedding model"),
    ],
    ids=["chat only", "embedding only", "scripted", "scripted and loaded"],
)
def test_a_server_without_real_models_of_both_kinds_is_not_used(
    models: list[ModelEntry], engine: ScriptedEngine, missing: str
) -> None:
    with demo_server(*models, engine=engine) as server, lms.Client(server.address) as client:
        found = _demo.survey(client, "The server")
    assert isinstance(found, str)
    assert f"The server has {missing} that is real" in found


@pytest.mark.usefixtures("stand_in")
def test_without_a_server_the_emulator_is_started_and_named(run: Run, capsys: Capture) -> None:
    assert run("demo") == 0
    out = capsys.readouterr().out
    assert "There is no LM Studio on this machine. Starting the built-in emulator" in out
    assert "Stop reason" in out


def test_a_server_that_the_environment_names_and_that_is_not_there_is_an_error(
    run: Run, monkeypatch: pytest.MonkeyPatch, nobody: str, capsys: Capture
) -> None:
    monkeypatch.setenv(HOST_VARIABLE, nobody)
    assert str(run("demo")).startswith(f"Error: LM Studio is not reachable at ws://{nobody}")
    assert not capsys.readouterr().out


def test_a_server_that_never_responds_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        with lms.Client(host, connect_timeout=0.05) as client, pytest.raises(lms.LMStudioTimeoutError):
            _demo.survey(client, "It")


def test_a_local_server_that_does_not_respond_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def time_out(*_: object) -> None:
        raise lms.LMStudioTimeoutError("no response", timeout_name="connect_timeout")

    monkeypatch.setattr(_demo, "loaded_models", time_out)
    with lms.Client() as client:
        assert _demo.survey(client, "It") == "It did not respond (connect_timeout)."


def test_a_server_that_requires_a_token_gets_it(run: Run, capsys: Capture) -> None:
    with demo_server(tokens=[TOKEN]) as server:
        assert run("demo", "--host", server.address, "--token", TOKEN) == 0
        assert str(run("demo", "--host", server.address)).startswith("Error: ")
    assert "Stop reason" in capsys.readouterr().out


@pytest.mark.slow
def test_without_a_server_a_real_model_responds(run: Run, capsys: Capture) -> None:
    assert run("demo") == 0
    out = capsys.readouterr().out
    assert DOCUMENTS["ferry"] in out
    assert f"{CHAT} (llama, 135M, Q4_1" in out
    response = out.partition("Answer:")[2].partition("┌")[0]
    assert len(response.split()) > 2


@pytest.mark.slow
@needs_pty
def test_a_terminal_shows_bars_until_ctrl_c_and_a_pipe_no_control_codes(server: Emulator, piped: Piped) -> None:
    assert "\x1b" not in piped("demo", "--host", server.address)[1]
    waiting: tuple[dict[str, Any], ...] = ({"then": [{"text": "Wait"}, {"wait": 1000}]},)
    models = [ModelEntry(key=CHAT, rules=waiting), ModelEntry(key=EMBEDDING, kind="embedding")]
    with demo_server(*models) as slow, on_terminal("demo", "--host", slow.address) as terminal:
        terminal.wait_for("Wait")
        terminal.type("\x03")
        assert terminal.wait() == INTERRUPTED
    assert "━━" in terminal.text
    assert "\x1b[" in terminal.raw
    assert "Traceback" not in terminal.text


@pytest.mark.parametrize(
    ("sizes", "loaded", "choice"),
    [
        ({"mine": 10 * SIZE_LIMIT, "small": 1}, ["mine"], Choice("mine", loaded=True)),
        ({"never": 1, "early": 1, "late": 1}, ["never", "late", "early"], Choice("early", loaded=True)),
        ({"b": 30, "a": 10, "c": 20}, [], Choice("a", loaded=False)),
    ],
    ids=["loaded, however large", "the last used", "the smallest"],
)
def test_a_loaded_model_is_taken_else_a_small_one(sizes: dict[str, int], loaded: list[str], choice: Choice) -> None:
    clock = ManualClock(unix_ms=1000)
    entries = [ModelEntry(key=key, size_bytes=size) for key, size in sizes.items()]
    with demo_server(*entries, EMBEDDER, clock=clock, load=loaded) as server, lms.Client(server.address) as client:
        for key in loaded[1:]:  # the first is never used
            clock.advance(1)
            client.llm.lazy_model(key, load_policy="require_loaded").respond("Hi")
        assert _demo.survey(client, "It") == (choice, Choice("embedder", loaded=False))
