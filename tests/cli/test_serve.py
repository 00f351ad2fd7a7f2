"""`serve`: which emulator the flags ask for, what it prints, and how it ends."""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations._support.environment import SERVER_FILE_VARIABLE, TOKEN_VARIABLES
from lmstudio_integrations.cli import _serve
from lmstudio_integrations.cli._main import INTERRUPTED
from lmstudio_integrations.cli._serve import (
    SCRIPTED_PACE,
    accepted_tokens,
    build_catalog,
    how_to_reach,
    is_exposed,
    load_rules,
)
from lmstudio_integrations.client.transport.connect import records
from lmstudio_integrations.client.transport.connect.discovery import Attempt
from lmstudio_integrations.client.transport.connect.probe import ServerStatus
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.models.catalog import BUNDLED
from lmstudio_integrations.emulator.server.context import MIB
from tests.cli.managed import Piped, Run
from tests.cli.terminal import interrupt, started
from tests.emulator.bare_client import wire
from tests.support.leaks import shown_by

Serve = Callable[..., None]
Capture = pytest.CaptureFixture[str]
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
def serve(run: Run, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Run `serve` with flags in this process until a function, which gets the running server, returns."""

    def serve_while(check: Callable[[Emulator], object], *flags: str) -> None:
        def serve_briefly(emulator: Emulator, on_ready: Callable[[], None]) -> None:
            with emulator:
                on_ready()
                check(emulator)

        monkeypatch.setattr(Emulator, "serve_forever", serve_briefly)
        assert run("serve", *flags) == INTERRUPTED

    return serve_while


def test_the_memory_of_workers_is_given_in_mebibytes(piped: Piped, monkeypatch: pytest.MonkeyPatch) -> None:
    def record(**settings: Any) -> Emulator:
        raise lms.LMStudioValueError(f"{settings['worker_memory']} bytes")

    monkeypatch.setattr(_serve, "Emulator", record)
    assert piped("serve", "--scripted", "--worker-memory", "2000") == (2, "", f"Error: {2000 * MIB} bytes\n")
    assert piped("serve", "--scripted") == (2, "", "Error: None bytes\n")


CATALOG = '[[model]]\nkey = "one"\n'
SCRIPTED = ("scripted-tools", "scripted-reranker")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"scripted": True}, dict.fromkeys((*BUNDLED, *SCRIPTED), "scripted")),
        ({"models": ["no-such-weights"], "scripted": True}, {"no-such-weights": "scripted"}),
        ({"path": CATALOG}, {"one": "scripted"}),
        ({"models": ["two"], "path": CATALOG, "scripted": True}, {"one": "scripted", "two": "scripted"}),
    ],
    ids=["no model", "scripted", "a catalog", "a catalog and more"],
)
def test_what_is_served(write: Callable[[str], Path], arguments: dict[str, Any], expected: dict[str, str]) -> None:
    models, path = arguments.get("models", ()), arguments.get("path")
    catalog = build_catalog(models, path and write(path), scripted=arguments.get("scripted", False))
    assert {model.key: model.engine for model in catalog.models} == expected


def test_a_key_without_weights_needs_the_scripted_switch() -> None:
    with pytest.raises(lms.LMStudioValueError, match="no-such-weights"):
        build_catalog(["no-such-weights"])


def test_scripted_models_have_a_default_speed(write: Callable[[str], Path]) -> None:
    path = write('[[model]]\nkey = "slow"\ntokens_per_second = 5\n[[model]]\nkey = "usual"\n')
    paces = {model.key: model.tokens_per_second for model in build_catalog(path=path).models}
    assert paces == {"slow": 5, "usual": SCRIPTED_PACE}


def test_rules_go_to_scripted_llms_that_have_none(write: Callable[[str], Path], serve: Serve) -> None:
    path = write('[[rule]]\nwhen = {last = "ping"}\nthen = [{text = "pong"}]\n')

    def check(server: Emulator) -> None:
        with lms.Client(server.address) as client:
            assert client.llm.model("talker").respond("ping").content == "pong"

    serve(check, "--port", "0", "--scripted", "--rules", str(path), "--model", "talker", "--model", "embedder")


def test_rules_go_to_the_scripted_model_of_plain_serve(write: Callable[[str], Path], serve: Serve) -> None:
    path = write('[[rule]]\nwhen = {last = "ping"}\nthen = [{text = "pong"}]\n')

    def check(server: Emulator) -> None:
        with lms.Client(server.address) as client:
            assert client.llm.model("scripted-tools").respond("ping").content == "pong"

    serve(check, "--port", "0", "--rules", str(path))


def test_rules_that_no_model_follows_are_an_error(write: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text('[[rule]]\nthen = "pong"\n', encoding="utf-8")
    catalog = write('[[model]]\nkey = "own"\n[[model.rule]]\nthen = "x"\n[[model]]\nkey = "e"\nkind = "embedding"\n')
    with pytest.raises(lms.LMStudioValueError, match=r"no model follows .*rules\.toml: .* add --scripted --model NAME"):
        build_catalog(path=catalog, rules=path)


def test_each_load_unload_and_prediction_is_a_line_unless_it_is_quiet(serve: Serve, capsys: Capture) -> None:
    def check(server: Emulator) -> None:
        with lms.Client(server.address) as client:
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
        "embedder: unloaded",
    ]
    serve(check, *flags, "--quiet")
    assert capsys.readouterr().err.splitlines()[2:] == []


@pytest.mark.leaf("plugins")
def test_a_call_of_a_tool_is_a_line(serve: Serve, capsys: Capture) -> None:
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


PLUGIN = '[[plugin]]\nidentifier = "me/writer"\ngenerator = true\n[[plugin.rule]]\nthen = [{ text = "Written." }]\n'


@pytest.mark.leaf("plugins")
def test_the_first_line_is_the_address_then_come_the_models_and_plugins(
    serve: Serve, write: Callable[[str], Path], capsys: Capture
) -> None:
    serve(lambda _server: None, "--port", "0", "--catalog", str(write(PLUGIN)), "--model", "talker", "--scripted")
    address, *offered = capsys.readouterr().out.splitlines()
    assert address.startswith("ws://127.0.0.1:")
    assert offered == ["  talker (llm, scripted)", "  me/writer (plugin, generator)"]


@pytest.mark.parametrize(
    ("host", "port", "other", "expected"),
    [
        ("127.0.0.1", 41343, None, "Programs on this machine find it."),
        ("127.0.0.1", 8080, None, "To use it: export LMSTUDIO_HOST=127.0.0.1:8080"),
        ("::1", 41343, None, "To use it: export LMSTUDIO_HOST=[::1]:41343"),
        ("0.0.0.0", 1234, None, "To use it from another machine: export LMSTUDIO_HOST=NAME-OF-THIS-MACHINE:1234"),
        ("127.0.0.1", 52993, 41343, "Programs that name no host find the server at 127.0.0.1:41343 first: stop that"),
        ("127.0.0.1", 52993, 5000, "Programs that name no host find the server at 127.0.0.1:5000 first: stop that"),
        ("127.0.0.1", 52993, 16141, "Programs on this machine find it."),  # a later port
        ("127.0.0.1", 1234, 41343, "Programs that name no host find the server at 127.0.0.1:41343 first: stop that"),
        ("127.0.0.1", 1234, 1235, "Programs on this machine find it."),
    ],
)
def test_it_says_how_clients_reach_it(host: str, port: int, other: int | None, expected: str) -> None:
    first = None if other is None else Attempt(f"ws://127.0.0.1:{other}", "a port")
    assert how_to_reach(host, port, first).startswith(expected)


@pytest.mark.parametrize(("port", "is_found"), [(41343, True), (1234, False)])
def test_bionic_comes_after_the_discovery_ports(port: int, is_found: bool) -> None:
    bionic = Attempt("ws://127.0.0.1:5000", "its record", status=ServerStatus("bionic", "1.1.7"))
    assert how_to_reach("127.0.0.1", port, bionic).startswith("Programs on this machine find it.") is is_found


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[rule]\n", "cannot read the rules"),
        ('[rule]\nthen = [{text = "x"}]\n', "list of tables"),
        ('[[rules]]\nthen = [{text = "x"}]\n', "unknown table 'rules'"),
        ('[[rule]]\nwhenn = {last = "x"}\nthen = [{text = "x"}]\n', "rule 1"),
        *(
            (f"[[rule]]\nthen = [{{text = {'[' * depth}{']' * depth}}}]\n", "(is nested too deeply|should be a valid)")
            for depth in (450, 5000)
        ),
    ],
)
def test_a_bad_rules_file_is_rejected_by_name(write: Callable[[str], Path], text: str, complaint: str) -> None:
    path = write(text)
    with pytest.raises(lms.LMStudioValueError, match=complaint) as caught:
        load_rules(path)
    assert path.name in str(caught.value)


def test_by_default_the_port_is_the_first_free_one_where_clients_look(
    scripted: Emulator, nobody: str, monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    free = int(nobody.rpartition(":")[2])
    monkeypatch.setattr(_serve, "DISCOVERY_PORTS", (scripted.port, free))
    ports: list[int] = []
    serve(lambda server: ports.append(server.port), "--scripted")
    assert ports == [free]


OTHER_TOKEN = "sk-lm-zyxwvuts:0123456789abcdefghij"


def test_tokens_come_from_flags_a_file_or_without_both_from_the_environment(
    write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(f"# for the team\n\n{OTHER_TOKEN}  # Ann\n")
    assert accepted_tokens((), None) == ()
    for name in TOKEN_VARIABLES:
        with monkeypatch.context() as patch:
            patch.setenv(name, TOKEN)
            assert accepted_tokens((), None) == (TOKEN,)
            assert accepted_tokens((OTHER_TOKEN,), None) == accepted_tokens((), file) == (OTHER_TOKEN,)
    assert accepted_tokens((TOKEN,), file) == (TOKEN, OTHER_TOKEN)


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
    with pytest.raises(lms.LMStudioValueError, match=complaint) as caught:
        accepted_tokens((), write(text))
    assert TOKEN[:14] not in shown_by(caught.value)


@pytest.mark.parametrize("way", ["flag", "file", "environment"])
def test_a_token_keeps_guests_outside_and_is_not_printed(
    serve: Serve, write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: Capture, way: str
) -> None:
    if way == "environment":
        monkeypatch.setenv("LM_API_TOKEN", TOKEN)
    flags = {"flag": ["--token", TOKEN], "file": ["--token-file", str(write(TOKEN))]}.get(way, [])

    def check(server: Emulator) -> None:
        monkeypatch.delenv("LM_API_TOKEN", raising=False)
        address = f"127.0.0.1:{server.port}"
        with lms.Client(address) as guest, pytest.raises(lms.LMStudioAuthenticationError):
            guest.list_downloaded_models()
        with lms.Client(address, TOKEN) as member:
            assert len(member.list_downloaded_models()) == len(BUNDLED) + len(SCRIPTED)

    serve(check, "--host", "0.0.0.0", "--port", "0", "--scripted", *flags)
    out, err = capsys.readouterr()
    assert TOKEN[6:14] not in out + err
    assert TOKEN[15:] not in out + err
    expected = "the API token in LM_API_TOKEN." if way == "environment" else "one of the API tokens you gave: export"
    assert f"Clients need {expected}" in err


def test_a_token_in_the_place_of_the_token_file_is_not_shown(piped: Piped) -> None:
    status, _, err = piped("serve", "--token-file", TOKEN)
    assert (status, TOKEN[15:] in err) == (2, False)


def test_named_models_are_loaded_at_the_start(serve: Serve) -> None:
    loaded: list[str] = []
    flags = ("--port", "0", "--scripted", "--load", "smollm2-135m-instruct")
    serve(lambda server: loaded.extend(info.identifier for info in server.loaded()), *flags)
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


def test_an_exposed_server_is_warned_of(serve: Serve, capsys: Capture) -> None:
    serve(lambda _server: None, "--host", "0.0.0.0", "--port", "0", "--scripted")
    assert "--token" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_a_served_process_responds_and_exits_cleanly_when_interrupted() -> None:
    with started("serve", "--port", "0", "--scripted", "--quiet") as process:
        assert process.stdout is not None
        with lms.Client(process.stdout.readline().strip()) as client:
            assert client.llm.model("smollm2-135m-instruct").respond("Anybody there?").content
        status, _, errors = interrupt(process)
    assert (status, [line.partition(" ")[0] for line in errors.splitlines()]) == (INTERRUPTED, ["To", "Ctrl-C"])


@pytest.fixture
def announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which a server on this machine writes its port."""
    path = tmp_path / "of-lm-studio" / "http-server.json"
    monkeypatch.setenv(SERVER_FILE_VARIABLE, str(path))
    return path


ANNOUNCE = ("serve", "--scripted", "--model", "m", "--port", "0", "--announce")


def test_an_announced_server_is_found_on_any_port_as_long_as_it_runs(
    serve: Serve, run: Run, announced: Path, capsys: Capture
) -> None:
    asked: list[int] = []

    def check(emulator: Emulator) -> None:
        assert "Programs on this machine find it." in capsys.readouterr().err
        with lms.Client() as client:
            asked.append(len(client.list_downloaded_models()))
        assert json.loads(announced.read_text("utf-8")) == {
            "host": "127.0.0.1",
            "pid": os.getpid(),
            "port": emulator.port,
        }
        assert run(*ANNOUNCE) == (
            f"Error: {announced} announces the server at {emulator.address}; stop that one first, or omit --announce"
        )
        found = _serve.find_first()
        assert found
        assert (found.address, found.source) == (f"ws://{emulator.address}", SERVER_FILE_VARIABLE)

    serve(check, *ANNOUNCE[1:])
    assert asked == [1]
    assert list(announced.parent.iterdir()) == []


def test_bionic_is_announced_in_its_own_file_unless_lm_studio_runs(
    serve: Serve, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "home", lambda: tmp_path)
    catalog = tmp_path / "catalog.toml"
    catalog.write_text('application = "bionic"\nmodel = [{ key = "m" }]\n', encoding="utf-8")
    command = ("serve", "--catalog", str(catalog), "--port", "0", "--announce")
    (tmp_path / "apps" / "bionic").mkdir(parents=True)
    serve(lambda _: list_found(), *command[1:])
    assert not [*tmp_path.glob("apps/bionic/.internal/*")]
    with Emulator(["m"]) as other:
        (tmp_path / ".internal").mkdir()
        (tmp_path / ".internal" / "http-server.json").write_text(f'{{"port": {other.port}}}', encoding="utf-8")
        assert run(*command) == (
            f"Error: programs find the server at {other.address} before one that plays Bionic; stop that one first, or "
            "omit --announce"
        )


def list_found() -> None:
    with lms.Client() as client:
        assert [each.model_key for each in client.list_downloaded_models()] == ["m"]


def test_a_file_left_by_a_server_that_ended_is_replaced_and_that_of_another_is_kept(
    serve: Serve, announced: Path
) -> None:
    announced.parent.mkdir()
    announced.write_text('{"port": 1}', encoding="utf-8")
    serve(lambda _: announced.write_bytes(b"of another\xff"), *ANNOUNCE[1:])
    assert announced.read_bytes() == b"of another\xff"


@pytest.mark.parametrize(
    ("content", "is_link"),
    [("not JSON", False), ("[]", False), ("{}", True), ('{"port": 1, "mine": 2}', False), ("[" * 5000, False)],
)
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


def test_no_link_is_followed(run: Run, serve: Serve, announced: Path) -> None:
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
def test_a_server_that_would_not_be_found_is_not_announced(piped: Piped, announced: Path, host: str) -> None:
    status, _, err = piped(*ANNOUNCE, "--host", host)
    assert status == 2
    assert err.startswith(
        f"Error: --announce lets programs look for the server on 127.0.0.1, but it is to listen on {host}"
    )
    assert not announced.exists()


def test_a_file_that_cannot_be_written_is_an_error(run: Run, announced: Path) -> None:
    announced.mkdir(parents=True)
    assert str(run(*ANNOUNCE)).startswith(f"Error: cannot write '{announced}': ")
    assert list(announced.parent.iterdir()) == [announced]


def test_a_copy_without_cassettes_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmstudio_integrations.cassettes", None)
    assert str(run("serve", "--replay", "x")).startswith(
        "Error: This copy of lmstudio_integrations is without cassettes: "
    )
