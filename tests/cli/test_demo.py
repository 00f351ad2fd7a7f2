"""`demo`: which server and which models it takes, and what it prints."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from lmstudio_integrations._support.environment import HOST_VARIABLE
from lmstudio_integrations.cli import INTERRUPTED, _demo
from lmstudio_integrations.cli._demo import DOCUMENTS, QUESTION
from lmstudio_integrations.cli._models import SIZE_LIMIT, Choice
from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.scripted.engine import ScriptedEngine
from lmstudio_integrations.errors import LMStudioTimeoutError
from tests.cli.managed import Piped
from tests.cli.terminal import needs_pty, on_terminal
from tests.support.gate import AT_THE_GATE, Gate

Run = Callable[..., int | str | None]
Capture = pytest.CaptureFixture[str]
CHAT, EMBEDDING = "smollm2-135m-instruct", "text-embedding-all-minilm-l6-v2"
TOKEN = "sk-lm-abcdefgh:abcdefghij0123456789"


@pytest.fixture(autouse=True)
def _real_metadata(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Let scripted models look like real ones, except in tests of how they look."""
    metadata = ScriptedEngine.metadata
    if "looks" not in request.fixturenames:
        monkeypatch.setattr(
            ScriptedEngine, "metadata", lambda self, *args: replace(metadata(self, *args), architecture="llama")
        )


@pytest.fixture
def looks() -> None:
    """Scripted models look scripted."""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, scripted: Emulator) -> Emulator:
    """Put a scripted server in the place of the emulator with bundled models."""

    @contextlib.contextmanager
    def bundled_emulator() -> Iterator[_demo.DemoServer]:
        yield _demo.DemoServer(scripted.address, None, Choice(CHAT, loaded=False), Choice(EMBEDDING, loaded=False))

    monkeypatch.setattr(_demo, "bundled_emulator", bundled_emulator)
    return scripted


@pytest.fixture
def large_only() -> Iterator[Emulator]:
    """A server whose only chat model is large, and not loaded."""
    models = [ModelEntry(key="large", size_bytes=SIZE_LIMIT), ModelEntry(key="embedder", kind="embedding")]
    with Emulator(models) as server:
        yield server


def requested_models(server: Emulator) -> list[str]:
    return [info.model_key for info in server.loaded()]


def test_the_demo_finds_the_document_streams_a_response_and_prints_stats(
    run: Run, scripted: Emulator, capsys: Capture
) -> None:
    assert run("demo", "--host", scripted.address) == 0
    out = capsys.readouterr().out
    assert f"Using the emulator at {scripted.address}." in out
    assert QUESTION in out
    assert DOCUMENTS["ferry"] in out
    assert "Answer:   " in out
    for row in ("Model", "Tokens", "Tokens per second", "Time to first token", "Stop reason"):
        assert f"│ {row} " in out
    assert f"{CHAT} (llama" in out
    assert "│ complete " in out


def test_loading_is_shown(run: Run, scripted: Emulator, capsys: Capture) -> None:
    run("demo", "--host", scripted.address)
    out = capsys.readouterr().out
    assert f"Loading {EMBEDDING}" in out
    assert f"Loading {CHAT}" in out


def test_the_environment_names_the_server(
    run: Run, scripted: Emulator, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMSTUDIO_HOST", scripted.address)
    assert run("demo") == 0
    assert f"Using the emulator at {scripted.address}." in capsys.readouterr().out


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
    assert run("demo", "--host", large_only.address) == 0
    out = capsys.readouterr().out
    assert "has no chat model that is real, and loaded, or downloaded and below 2 GB" in out
    assert "Starting the built-in emulator" in out
    assert requested_models(large_only) == []
    assert stand_in.predictions


@pytest.mark.parametrize(
    ("models", "missing"),
    [
        ([ModelEntry(key="chatty")], "no embedding model"),
        ([ModelEntry(key="embedder", kind="embedding")], "no chat model"),
        ([], "no chat and no embedding model"),
    ],
)
def test_a_server_without_models_of_both_kinds_is_not_used(models: list[ModelEntry], missing: str) -> None:
    with Emulator(models) as server, Client(server.address) as client:
        found = _demo.survey(client, "The server")
    assert isinstance(found, str)
    assert f"The server has {missing} that is real" in found


@pytest.mark.usefixtures("looks")
@pytest.mark.parametrize("load", [True, False])
def test_scripted_models_are_not_used(run: Run, stand_in: Emulator, capsys: Capture, load: bool) -> None:
    models = [ModelEntry(key="chatty", preload=load), ModelEntry(key="embedder", kind="embedding", preload=load)]
    with Emulator(models) as server:
        assert run("demo", "--host", server.address) == 0
        assert not server.predictions
    assert "no chat and no embedding model that is real" in capsys.readouterr().out
    assert stand_in.predictions


@pytest.mark.usefixtures("stand_in")
def test_without_a_server_the_emulator_is_started_and_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("lmstudio_integrations.client.transport.connect.discovery.local_candidates", lambda: ())
    assert run("demo") == 0
    out = capsys.readouterr().out
    assert "There is no LM Studio on this machine. Starting the built-in emulator" in out
    assert "Stop reason" in out


@pytest.mark.parametrize("source", ["--host", HOST_VARIABLE])
def test_a_server_that_is_named_and_not_there_is_an_error(
    run: Run, monkeypatch: pytest.MonkeyPatch, nobody: str, capsys: Capture, source: str
) -> None:
    monkeypatch.setenv(HOST_VARIABLE, nobody)
    error = run("demo", *(["--host", nobody] if source == "--host" else []))
    assert str(error).startswith(f"Error: LM Studio is not reachable at ws://{nobody}")
    assert not capsys.readouterr().out


def test_a_server_that_never_responds_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        with Client(host, connect_timeout=0.05) as client, pytest.raises(LMStudioTimeoutError):
            _demo.survey(client, "It")


def test_a_local_server_that_does_not_respond_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def time_out(*_: object) -> None:
        raise LMStudioTimeoutError("no response", timeout_name="connect_timeout")

    monkeypatch.setattr(_demo, "loaded_models", time_out)
    with Client() as client:
        assert _demo.survey(client, "It") == "It did not respond (connect_timeout)."


def test_a_server_that_requires_a_token_gets_it(run: Run, capsys: Capture) -> None:
    models = [ModelEntry(key="chatty"), ModelEntry(key="embedder", kind="embedding")]
    with Emulator(models, tokens=[TOKEN]) as server:
        assert run("demo", "--host", server.address, "--token", TOKEN) == 0
        rejected = run("demo", "--host", server.address)
    assert "Stop reason" in capsys.readouterr().out
    assert isinstance(rejected, str)
    assert rejected.startswith("Error: ")


def without_spaces(text: str) -> str:
    return "".join(text.split())


def test_what_is_printed_is_saved_as_an_image_that_loads_nothing(
    run: Run, scripted: Emulator, capsys: Capture, tmp_path: Path
) -> None:
    path = tmp_path / "demo.svg"
    assert run("demo", "--host", scripted.address, "--svg", str(path)) == 0
    image = path.read_text(encoding="utf-8")
    texts = without_spaces("".join(ET.fromstring(image).itertext()))
    printed = capsys.readouterr().out
    assert f"Loading {CHAT}" in printed
    for line in printed.splitlines():
        assert without_spaces(line) in texts
    assert "url(http" not in image
    assert "href=" not in image


def test_an_image_in_a_folder_that_does_not_exist_fails_at_once(run: Run, scripted: Emulator, tmp_path: Path) -> None:
    assert run("demo", "--host", scripted.address, "--svg", str(tmp_path / "nowhere" / "demo.svg")) == 2
    assert not scripted.predictions


@pytest.mark.slow
def test_without_a_server_a_real_model_responds(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("lmstudio_integrations.client.transport.connect.discovery.local_candidates", lambda: ())
    assert run("demo") == 0
    out = capsys.readouterr().out
    assert DOCUMENTS["ferry"] in out
    assert f"{CHAT} (llama, 135M, Q4_1" in out
    response = out.partition("Answer:")[2].partition("┌")[0]
    assert len(response.split()) > 2


@pytest.mark.slow
@needs_pty
def test_a_terminal_shows_bars_and_a_pipe_shows_no_control_codes(scripted: Emulator, piped: Piped) -> None:
    with on_terminal("demo", "--host", scripted.address, columns=64) as terminal:
        assert terminal.wait() == 0
    assert "━━" in terminal.text
    assert "\x1b[" in terminal.raw
    assert "from the north pier. The crossing takes" in terminal.text.replace("\n", "")
    assert "\x1b" not in piped("demo", "--host", scripted.address)[1]


@pytest.mark.slow
@needs_pty
def test_ctrl_c_ends_the_demo(gate: Gate) -> None:
    rules: Any = [{"then": [{"text": "Wait"}, AT_THE_GATE, {"text": "."}]}]
    models = [ModelEntry(key=CHAT, rules=rules), ModelEntry(key=EMBEDDING, kind="embedding")]
    with Emulator(models, engines=gate.engines()) as server:
        with on_terminal("demo", "--host", server.address) as terminal:
            terminal.wait_for("Wait")
            terminal.type("\x03")
            assert terminal.wait() == INTERRUPTED
        assert "Traceback" not in terminal.text
