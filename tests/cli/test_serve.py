"""`serve`: which emulator the flags ask for, what it prints, and how it ends."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from lmstudio_integrations._support.environment import HOST_VARIABLE, SERVER_FILE_VARIABLE, TOKEN_VARIABLES
from lmstudio_integrations.cli import _serve
from lmstudio_integrations.cli._common import accepted_tokens
from lmstudio_integrations.cli._serve import (
    SCRIPTED_PACE,
    build_catalog,
    how_to_reach,
    is_exposed,
    load_rules,
    show,
)
from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.client.transport.connect.addresses import Address
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.models import instance
from lmstudio_integrations.emulator.models.catalog import BUNDLED
from lmstudio_integrations.emulator.server.context import MIB
from lmstudio_integrations.emulator.testing.faults import choose_faults
from lmstudio_integrations.errors import (
    LMStudioAuthenticationError,
    LMStudioConnectionLostError,
    LMStudioValueError,
)
from tests.emulator.bare_client import wire
from tests.support.leaks import shown_by

Run = Callable[..., int | str | None]
TOKEN = "sk-lm-abcdefgh:abcdefghij0123456789"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Write a TOML file."""

    def write_file(text: str) -> Path:
        path = tmp_path / "file.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


@pytest.fixture
def serving() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start `serve` as a process of its own; it is gone after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> "subprocess.Popen[str]":
        script = "from lmstudio_integrations.cli import main; main()"
        command = [sys.executable, "-c", script, "serve", *arguments]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=600)


@pytest.fixture
def serve(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run `serve` with flags in this process until a function, which gets the running server, returns."""

    def serve_while(check: Callable[[Emulator], object], *flags: str) -> None:
        def serve_briefly(emulator: Emulator, on_ready: Callable[[], None]) -> None:
            with emulator:
                on_ready()
                check(emulator)

        monkeypatch.setattr(Emulator, "serve_forever", serve_briefly)
        assert run("serve", *flags) == 0

    return serve_while


def test_the_memory_of_workers_is_given_in_mebibytes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    requested: list[Any] = []

    def record(**settings: Any) -> Emulator:
        requested.append(settings["worker_memory"])
        raise LMStudioValueError("recorded")

    monkeypatch.setattr(_serve, "Emulator", record)
    for flags in (["--worker-memory", "2000"], []):
        assert run("serve", *flags) == "Error: recorded"
    assert requested == [2000 * MIB, None]


def test_without_flags_real_weights_are_served_and_a_scripted_model_that_calls_tools() -> None:
    engines = {model.key: model.engine for model in build_catalog().models}
    assert engines == {**dict.fromkeys(BUNDLED, "llama_cpp"), "scripted-tools": "scripted"}


def test_the_first_agent_works_on_the_models_that_are_served_without_flags() -> None:
    def pier(destination: Literal["island", "harbor"]) -> str:
        """Return the pier of the ferries to a destination."""
        return f"Ferries to the {destination} leave from pier 7."

    with Emulator(build_catalog().models) as server, Client(server.address) as client:
        model = client.llm.model("scripted-tools")
        written: list[str] = []
        result = model.act("From which pier?", [pier], on_message=lambda message: written.append(str(message)))
        assert result.rounds == 2
        assert "I am a scripted model. The tool returned: " in written[-1]
        assert "Ferries to the island leave from pier 7." in written[-1]
        assert model.respond("And without tools?").content.startswith('You said "And without tools?"')


def test_any_key_can_be_declared_over_bundled_weights() -> None:
    (model,) = build_catalog(["qwen2.5-7b-instruct=smollm2-135m-instruct"]).models
    assert (model.key, model.engine, model.weights) == ("qwen2.5-7b-instruct", "llama_cpp", "smollm2-135m-instruct")


def test_a_key_without_weights_needs_the_scripted_switch() -> None:
    with pytest.raises(LMStudioValueError, match="no-such-weights"):
        build_catalog(["no-such-weights"])
    (model,) = build_catalog(["no-such-weights"], scripted=True).models
    assert model.engine == "scripted"


def test_scripted_models_have_a_default_speed(write: Callable[[str], Path]) -> None:
    path = write('[[model]]\nkey = "slow"\ntokens_per_second = 5\n[[model]]\nkey = "usual"\n')
    paces = {model.key: model.tokens_per_second for model in build_catalog(path=path).models}
    assert paces == {"slow": 5, "usual": SCRIPTED_PACE}


def test_a_catalog_replaces_the_bundled_models_and_flags_add_to_it(write: Callable[[str], Path]) -> None:
    path = write('[[model]]\nkey = "one"\n')
    assert [model.key for model in build_catalog(path=path).models] == ["one"]
    more = build_catalog(["two"], path, scripted=True)
    assert [model.key for model in more.models] == ["one", "two"]


def test_rules_go_to_scripted_llms_that_have_none(write: Callable[[str], Path], serve: Callable[..., None]) -> None:
    path = write('[[rule]]\nwhen = {last = "ping"}\nthen = [{text = "pong"}]\n')

    def check(server: Emulator) -> None:
        with Client(server.address) as client:
            assert client.llm.model("talker").respond("ping").content == "pong"
            assert client.embedding.model("embedder", load_policy="explicit").embed(["texts"] * 100 + ["."])

    flags = ["--port", "0", "--scripted", "--rules", str(path)]
    serve(check, *flags, "--model", "talker", "--model", "embedder")


def test_each_load_unload_and_request_is_a_line_unless_it_is_quiet(
    serve: Callable[..., None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance, "QUIET", 60.0)  # a busy machine may pause for longer than usual

    def check(server: Emulator) -> None:
        with Client(server.address) as client:
            assert client.llm.model("talker").respond("ping").content
            client.llm.unload("talker")
            assert client.embedding.model("embedder", load_policy="explicit").embed(["texts"] * 100 + ["."])

    flags = ["--port", "0", "--scripted", "--model=talker", "--model=embedder"]
    serve(check, *flags)
    announced, stops, *lines = capsys.readouterr().err.splitlines()
    assert announced.startswith("To use it: export LMSTUDIO_HOST=127.0.0.1:")
    assert stops == "Ctrl-C stops the server."
    assert [re.sub(r"^\d\d:\d\d:\d\d  |\d+ tokens read.* s ", "", line) for line in lines] == [
        "talker: loaded",
        "talker: (complete)",
        "talker: unloaded",
        "embedder: loaded",
        "embedder: embedded 101 texts, 501 characters",
        "embedder: unloaded",
    ]
    serve(check, *flags, "--quiet")
    assert capsys.readouterr().err.splitlines()[2:] == []


PLUGINS = """
[[plugin]]
identifier = "me/writer"
generator = true

[[plugin.rule]]
then = [{ text = "Written." }]
"""


def test_a_call_of_a_tool_is_a_line(serve: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    def check(_server: Emulator) -> None:
        with Emulator([], plugins={"mcp/sums": [add]}) as server, wire(server, "plugins") as me:
            specifier = {"type": "direct", "config": {"fields": []}}
            opened = {"pluginIdentifier": "mcp/sums", "pluginConfigSpecifier": specifier}
            packets = me.packets(channel := me.open("startToolUseSession", opened))
            assert next(packets)["type"] == "sessionReady"
            me.send(channel, {"type": "callTool", "callId": 0, "name": "add", "arguments": {"a": 1, "b": 2}})
            assert next(packets)["type"] == "toolCallComplete"

    serve(check, "--port", "0", "--scripted")
    assert re.search(r"  mcp/sums: add ended after \d\.\d s\n", capsys.readouterr().err)


def test_the_plugins_of_a_catalog_are_announced_after_its_models(
    serve: Callable[..., None], write: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    serve(lambda _server: None, "--port", "0", "--catalog", str(write(PLUGINS)), "--model", "talker", "--scripted")
    _, *offered = capsys.readouterr().out.splitlines()
    assert offered == ["  talker (llm, scripted)", "  me/writer (plugin, generator)"]


def test_faults_happen_to_the_clients_of_serve(serve: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    tried: list[str] = []

    def check(emulator: Emulator) -> None:
        address = capsys.readouterr().out.partition("\n")[0]
        with Client(address, api_token=TOKEN) as client:
            model = client.llm.model("any-model")
            with pytest.raises(LMStudioConnectionLostError):
                model.respond("Hello!")
            assert model.tokenize("Hello!")
        with pytest.raises(LMStudioAuthenticationError), Client(address, api_token=f"{TOKEN[:-1]}0") as client:
            client.list_downloaded_models()
        assert address != f"ws://{emulator.address}"
        tried.append(address)

    flags = ("--scripted", "--model", "any-model", "--token", TOKEN, "--port", "0")
    serve(check, *flags, "--fault", "connection-reset-mid-response@predict")
    assert tried
    assert "fault: connection-reset-mid-response on predict" in capsys.readouterr().err


def test_a_port_that_is_taken_is_an_error_before_a_proxy_with_faults_starts(run: Run) -> None:
    with Emulator(["m"]) as server:
        port = server.port
        problem = run("serve", "--scripted", "--model", "m", "--port", str(port), "--fault", "load-fails")
    assert str(problem).startswith(f"Error: cannot listen on 127.0.0.1, port {port}: already in use")


def test_the_faults_are_listed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("serve", "--fault", "list") == 0
    assert [line.partition(" ")[0] for line in capsys.readouterr().out.splitlines()] == [
        fault.name for fault in choose_faults([])
    ]


@pytest.mark.parametrize("fault", ["no-such", "load-fails:2", "load-fails@dance"])
def test_a_wrong_fault_is_an_error(run: Run, fault: str) -> None:
    assert re.match(r"Error: (unknown (fault|operation)|the probability) '", str(run("serve", "--fault", fault)))


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("127.0.0.1", 41343, "Programs on this machine find it."),
        ("127.0.0.1", 8080, "To use it: export LMSTUDIO_HOST=127.0.0.1:8080"),
        ("::1", 41343, "To use it: export LMSTUDIO_HOST=[::1]:41343"),
        ("0.0.0.0", 1234, "To use it from another machine: export LMSTUDIO_HOST=NAME-OF-THIS-MACHINE:1234"),
    ],
)
def test_it_says_how_clients_reach_it(host: str, port: int, expected: str) -> None:
    assert how_to_reach(host, port) == expected


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (Address("127.0.0.1", 41343), "Programs that name no host find the server at 127.0.0.1:41343 first: stop that"),
        (Address("127.0.0.1", 5000), "Programs that name no host find the server at 127.0.0.1:5000 first: stop that"),
        (Address("127.0.0.1", 16141), "Programs on this machine find it."),  # a later port
    ],
)
def test_a_second_server_says_which_one_programs_find(first: Address, expected: str) -> None:
    assert how_to_reach("127.0.0.1", 52993, first).startswith(expected)


def test_a_scripted_model_is_announced_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    with Emulator([{"key": "a", "engine": "scripted", "weights": "smollm2-135m-instruct"}]) as server:
        show(server, "")
    assert "a (llm, scripted)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[rule]\n", "cannot read the rules"),
        ('[rule]\nthen = [{text = "x"}]\n', "list of tables"),
        ('[[rules]]\nthen = [{text = "x"}]\n', "unknown table 'rules'"),
        ('[[rule]]\nwhenn = {last = "x"}\nthen = [{text = "x"}]\n', "rule 1"),
    ],
)
def test_a_bad_rules_file_is_rejected_by_name(write: Callable[[str], Path], text: str, complaint: str) -> None:
    path = write(text)
    with pytest.raises(LMStudioValueError, match=complaint) as caught:
        load_rules(path)
    assert path.name in str(caught.value)


def test_by_default_the_port_is_the_first_free_one_where_clients_look(
    scripted: Emulator, nobody: str, monkeypatch: pytest.MonkeyPatch, serve: Callable[..., None]
) -> None:
    free = int(nobody.rpartition(":")[2])
    monkeypatch.setattr(_serve, "DISCOVERY_PORTS", (scripted.port, free))
    ports: list[int] = []
    serve(lambda server: ports.append(server.port), "--scripted")
    assert ports == [free]


def test_a_token_keeps_guests_outside(serve: Callable[..., None]) -> None:
    def check(server: Emulator) -> None:
        with Client(server.address) as guest, pytest.raises(LMStudioAuthenticationError):
            guest.list_downloaded_models()
        with Client(server.address, TOKEN) as member:
            assert len(member.list_downloaded_models()) == len(BUNDLED) + 1

    serve(check, "--port", "0", "--scripted", "--token", TOKEN)


OTHER_TOKEN = "sk-lm-zyxwvuts:0123456789abcdefghij"


def test_tokens_come_from_flags_and_a_file(write: Callable[[str], Path]) -> None:
    file = write(f"# for the team\n\n{OTHER_TOKEN}  # Ann\n")
    assert accepted_tokens((), file) == (OTHER_TOKEN,)
    assert accepted_tokens((TOKEN,), file) == (TOKEN, OTHER_TOKEN)


@pytest.mark.parametrize("name", TOKEN_VARIABLES)
def test_without_flag_and_file_the_environment_holds_the_token(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert accepted_tokens((), None) == ()
    monkeypatch.setenv(name, TOKEN)
    assert accepted_tokens((), None) == (TOKEN,)
    assert accepted_tokens((OTHER_TOKEN,), None) == (OTHER_TOKEN,)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("# nothing\n", "contains no token, and every guest would be accepted"),
        (f"{TOKEN}\n{TOKEN[:-1]}\n", "the API token of .*file.toml, line 2 is malformed"),
    ],
)
def test_a_bad_token_file_is_rejected_without_showing_a_token(
    write: Callable[[str], Path], text: str, complaint: str
) -> None:
    with pytest.raises(LMStudioValueError, match=complaint) as caught:
        accepted_tokens((), write(text))
    assert TOKEN[:14] not in shown_by(caught.value)


@pytest.mark.parametrize("way", ["flag", "file", "environment"])
def test_a_server_with_a_token_prints_none(
    serve: Callable[..., None],
    write: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    way: str,
) -> None:
    if way == "environment":
        monkeypatch.setenv("LM_API_TOKEN", TOKEN)
    flags = {"flag": ["--token", TOKEN], "file": ["--token-file", str(write(TOKEN))]}.get(way, [])
    serve(lambda _server: None, "--host", "0.0.0.0", "--port", "0", "--scripted", *flags)
    out, err = capsys.readouterr()
    assert TOKEN[6:14] not in out + err
    assert TOKEN[15:] not in out + err
    expected = "the API token in LM_API_TOKEN." if way == "environment" else "one of the API tokens you gave: export"
    assert f"Clients need {expected}" in err


def test_a_token_in_the_place_of_the_token_file_is_not_shown(run: Run) -> None:
    code = run("serve", "--token-file", TOKEN)
    assert isinstance(code, str)
    assert TOKEN[15:] not in code


def test_named_models_are_loaded_at_the_start(serve: Callable[..., None]) -> None:
    loaded: list[str] = []
    serve(
        lambda server: loaded.extend(info.identifier for info in server.loaded()),
        *("--port", "0", "--scripted", "--load", "smollm2-135m-instruct"),
    )
    assert loaded == ["smollm2-135m-instruct"]


@pytest.mark.parametrize(
    ("host", "tokens", "exposed"),
    [
        ("127.0.0.1", (), False),
        ("localhost", (), False),
        ("0.0.0.0", (), True),
        ("0.0.0.0", (TOKEN,), False),
    ],
)
def test_a_server_is_exposed_if_others_reach_it_without_a_token(
    host: str, tokens: tuple[str, ...], exposed: bool
) -> None:
    assert is_exposed(host, tokens) is exposed


def test_the_first_line_is_the_address_then_come_the_models(
    serve: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    serve(lambda _server: None, "--port", "0", "--scripted", "--model", "talker")
    address, model = capsys.readouterr().out.splitlines()
    assert address.startswith("ws://127.0.0.1:")
    assert model == "  talker (llm, scripted)"


def test_an_exposed_server_is_warned_of(serve: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    serve(lambda _server: None, "--host", "0.0.0.0", "--port", "0", "--scripted")
    assert "--token" in capsys.readouterr().err


@pytest.mark.slow
def test_a_served_process_responds_and_exits_cleanly_when_interrupted(
    serving: Callable[..., "subprocess.Popen[str]"],
) -> None:
    process = serving("--port", "0", "--scripted", "--quiet")
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    with Client(address) as client:
        assert client.llm.model("smollm2-135m-instruct").respond("Anybody there?").content
    if sys.platform == "win32":
        process.terminate()
    else:
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert [line.partition(" ")[0] for line in errors.splitlines()] == ["To", "Ctrl-C"]
    assert sys.platform == "win32" or process.returncode == 0


def test_a_folder_offers_its_files(tmp_path: Path) -> None:
    (tmp_path / "Some-Model.gguf").write_bytes(b"GGUF")
    (model,) = build_catalog(path=tmp_path).models
    assert (model.key, model.engine) == ("some-model", "llama_cpp")


@pytest.fixture
def announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which a server on this machine writes its port."""
    path = tmp_path / "of-lm-studio" / "http-server.json"
    monkeypatch.setenv(SERVER_FILE_VARIABLE, str(path))
    monkeypatch.delenv(HOST_VARIABLE, raising=False)
    return path


def test_an_announced_server_is_found_on_any_port_as_long_as_it_runs(
    serve: Callable[..., None], run: Run, announced: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []

    def check(emulator: Emulator) -> None:
        assert "Programs on this machine find it." in capsys.readouterr().err
        with Client() as client:
            asked.append(len(client.list_downloaded_models()))
        assert json.loads(announced.read_text("utf-8")) == {
            "host": "127.0.0.1",
            "pid": os.getpid(),
            "port": emulator.port,
        }
        problem = run("serve", "--scripted", "--model", "m", "--port", "0", "--announce")
        assert problem == (
            f"Error: {announced} announces the server at {emulator.address}; stop that one first, or omit --announce"
        )
        assert run("doctor") == 0
        assert f"ws://{emulator.address} (LMS_API_SERVER_INFO_PATH)" in capsys.readouterr().out

    serve(check, "--scripted", "--model", "m", "--port", "0", "--announce")
    assert asked == [1]
    assert list(announced.parent.iterdir()) == []


ANNOUNCE = ("serve", "--scripted", "--model", "m", "--port", "0", "--announce")


def test_a_file_left_by_a_server_that_ended_is_replaced_and_that_of_another_is_kept(
    serve: Callable[..., None], announced: Path
) -> None:
    announced.parent.mkdir()
    announced.write_text('{"port": 1}', encoding="utf-8")
    serve(lambda _: announced.write_bytes(b"of another\xff"), *ANNOUNCE[1:])
    assert announced.read_bytes() == b"of another\xff"


@pytest.mark.parametrize("content", ["not JSON", "[]", "{}", '{"port": 1, "mine": 2}', "[" * 5000])
@pytest.mark.parametrize("is_link", [False, True])
def test_a_file_that_no_server_has_written_is_neither_overwritten_nor_deleted(
    run: Run, announced: Path, content: str, is_link: bool
) -> None:
    announced.parent.mkdir()
    mine = announced.with_name("mine.json") if is_link else announced
    mine.write_text(content, encoding="utf-8")
    if is_link:
        announced.symlink_to(mine)
    assert str(run(*ANNOUNCE)).startswith(
        f"Error: cannot write '{announced}': it exists, and no server has written it; delete it or name another one"
    )
    assert mine.read_text(encoding="utf-8") == content
    assert sorted(announced.parent.iterdir()) == sorted({announced, mine})


def test_no_link_is_followed(run: Run, serve: Callable[..., None], announced: Path) -> None:
    announced.parent.mkdir()
    elsewhere = announced.with_name("elsewhere.json")
    announced.symlink_to(elsewhere)
    assert "no server has written it" in str(run(*ANNOUNCE))
    assert not elsewhere.exists()
    announced.unlink()

    def move(_emulator: Emulator) -> None:
        announced.rename(elsewhere)
        announced.symlink_to(elsewhere)

    serve(move, *ANNOUNCE[1:])
    assert announced.is_symlink()
    assert elsewhere.exists()


@pytest.mark.parametrize("host", ["::1", "192.168.1.20"])
def test_a_server_that_would_not_be_found_is_not_announced(run: Run, announced: Path, host: str) -> None:
    assert str(run("serve", "--scripted", "--model", "m", "--host", host, "--announce")).startswith(
        f"Error: --announce lets programs look for the server on 127.0.0.1, but it is to listen on {host}"
    )
    assert not announced.exists()


def test_a_file_that_cannot_be_written_is_an_error(run: Run, announced: Path) -> None:
    announced.mkdir(parents=True)
    assert str(run("serve", "--scripted", "--model", "m", "--port", "0", "--announce")).startswith(
        f"Error: cannot write '{announced}': "
    )
    assert list(announced.parent.iterdir()) == [announced]
