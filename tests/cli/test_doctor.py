"""`doctor`: what it gathers, that it changes nothing on the server, and what it prints."""

import contextlib
import json
import signal
import socket
import threading
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations import __version__
from lmstudio_integrations.cli import INTERRUPTED, _doctor
from lmstudio_integrations.cli._doctor import survey
from lmstudio_integrations.cli._doctor.checks import UNTRAINED
from lmstudio_integrations.client.api.sync import LLM, Client
from lmstudio_integrations.client.transport.connect import discovery
from lmstudio_integrations.client.transport.connect.addresses import Address
from lmstudio_integrations.emulator import Emulator, FaultProxy, ModelEntry
from lmstudio_integrations.errors import LMStudioConnectionLostError, LMStudioServerError
from tests.cli.managed import Piped
from tests.cli.terminal import interrupt, needs_pty, on_terminal, started
from tests.support.certified.good import REGRESSIONS, RULES
from tests.support.gate import AT_THE_GATE, Gate
from tests.support.leaks import TOKEN, shows_token
from tests.support.treatments import BY_PLACE, TEMPLATES, TreatingEngine

ROOT = Path(__file__).parents[2]

Run = Callable[..., int | str | None]
Capture = pytest.CaptureFixture[str]
CHAT, EMBEDDING = "smollm2-135m-instruct", "text-embedding-all-minilm-l6-v2"
OTHER = "sk-lm-abcdefgh:abcdefghij0123456789"
NAMES = [
    *("server", "version", "package", "extras", "token", "models", "loaded", "reasoning"),
    *("embedding", "tools", "structure"),
]


@pytest.fixture
def good() -> Iterator[Emulator]:
    """A server whose models pass the trials."""
    with Emulator([ModelEntry(key=CHAT, rules=RULES), ModelEntry(key=EMBEDDING, kind="embedding")]) as server:
        yield server


@pytest.fixture
def checks(run: Run, capsys: Capture) -> Callable[..., tuple[int, dict[str, dict[str, Any]]]]:
    """Run `doctor --json`; return its exit status and its checks by name."""

    def diagnose(*arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
        status = run("doctor", "--json", *arguments)
        assert isinstance(status, int), status
        document = json.loads(capsys.readouterr().out)
        assert document["ok"] is (status == 0)
        assert document["summary"]["problem"] == sum(each["verdict"] == "problem" for each in document["checks"])
        return status, {each["name"]: each for each in document["checks"]}

    return diagnose


Checks = Callable[..., tuple[int, dict[str, dict[str, Any]]]]


@contextlib.contextmanager
def listener(reply: bytes | None = None) -> Iterator[str]:
    """A server that is not LM Studio; without a reply it accepts connections and is silent."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        if reply is not None:

            def serve() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        connection, _ = server.accept()
                        with connection:
                            connection.recv(1024)
                            connection.sendall(reply)

            threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


def verdicts(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: each["verdict"] for name, each in found.items()}


def test_a_server_with_loaded_models_passes_all_checks(checks: Checks, good: Emulator) -> None:
    good.load(CHAT, ttl=600)
    good.load(EMBEDDING)
    status, found = checks("--host", good.address, "--try")
    assert status == 0
    assert list(found) == NAMES
    assert set(verdicts(found).values()) == {"ok"}
    assert [each["ttl_seconds"] for each in found["loaded"]["instances"]] == [600, None]
    assert found["embedding"]["model"] == EMBEDDING
    for name in ("embedding", "tools", "structure"):
        assert (found[name]["share"], found[name]["seconds"] > 0) == (1, True)
    assert found["tools"]["found"].startswith(f"{CHAT}: 7 of 7 right in ")


def test_without_try_no_model_is_loaded_run_or_unloaded(checks: Checks, good: Emulator) -> None:
    with Client(good.address) as client:
        client.llm.model(CHAT)  # just in time, so that another such load would evict it
        status, found = checks("--host", good.address)
    assert status == 0
    assert list(found) == NAMES[:-3]
    assert [(each.key, each.state) for each in good.loads] == [(CHAT, "loaded")]
    assert (list(good.predictions), list(good.embedded_texts)) == ([], [])


@pytest.mark.parametrize("fault", ["handshake-unanswered", "authentication-unanswered"])
def test_a_server_that_never_answers_is_a_problem_after_a_short_timeout(
    checks: Checks, scripted: Emulator, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(_doctor, "_TIMEOUT", 0.1)
    with FaultProxy(scripted.address, fault) as proxy:
        status, found = checks("--host", proxy.address)
    assert status == 1
    assert "problem" in {found["server"]["verdict"], found["version"]["verdict"]}


def test_with_try_models_are_loaded_without_evicting_others_and_unloaded_again(
    checks: Checks, scripted: Emulator
) -> None:
    with Client(scripted.address) as client:
        client.llm.model(CHAT)
        status, found = checks("--host", scripted.address, "--try")
    assert status == 0
    assert found["embedding"]["verdict"] == "ok"
    states = [(each.key, each.mode, each.state) for each in scripted.loads]
    assert states == [(CHAT, "just_in_time", "loaded"), (EMBEDDING, "explicit", "unloaded")]


def test_with_try_the_smallest_suitable_model_is_loaded(checks: Checks) -> None:
    models = [
        ModelEntry(key="large", size_bytes=10**10),
        ModelEntry(key="small", size_bytes=10**9),
        ModelEntry(key="smallest", size_bytes=10**6, tools=False),
    ]
    with Emulator(models) as server:
        _, found = checks("--host", server.address, "--try")
        assert [each.key for each in server.loads] == ["small"]
        assert server.loaded() == []
    assert found["embedding"]["found"] == "no embedding model is downloaded"


def test_what_each_chat_template_does_with_thoughts_is_shown_and_nothing_is_loaded_for_it(checks: Checks) -> None:
    loaded = [key for key in TEMPLATES if key not in {"rejected", "misplaced"}]
    models = [*(ModelEntry(key=key) for key in TEMPLATES), ModelEntry(key="embedder", kind="embedding")]
    with Emulator(models, load=["embedder", *loaded], engines={"scripted": TreatingEngine()}) as server:
        status, found = checks("--host", server.address)
        assert [each.key for each in server.loads] == ["embedder", *loaded]
        assert (status, found["reasoning"]["verdict"]) == (0, "ok")
        assert {each["model"]: each["reasoning_replay"] for each in found["reasoning"]["models"]} == {
            key: BY_PLACE[key] for key in loaded
        }
        server.load("misplaced")
        status, found = checks("--host", server.address)
    assert (status, found["reasoning"]["verdict"]) == (0, "warning")
    assert found["reasoning"]["found"] == "1 of 5 chat templates cannot be given earlier thoughts"
    assert found["reasoning"]["fix"].endswith("can show them (misplaced)")


def test_without_a_loaded_language_model_there_is_no_chat_template(checks: Checks, scripted: Emulator) -> None:
    scripted.load(EMBEDDING)
    _, found = checks("--host", scripted.address)
    assert (found["reasoning"]["verdict"], found["reasoning"]["found"]) == ("skipped", "no language model is loaded")


def test_a_server_that_cannot_be_asked_about_chat_templates_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, checks: Checks, scripted: Emulator
) -> None:
    def fail(_: LLM) -> None:
        raise LMStudioConnectionLostError("the connection to LM Studio was lost; try again")

    monkeypatch.setattr(LLM, "get_reasoning_replay", fail)
    scripted.load(CHAT)
    status, found = checks("--host", scripted.address)
    assert (status, found["reasoning"]["verdict"], found["reasoning"]["fix"]) == (1, "problem", "try again")


def test_a_model_that_cannot_be_loaded_is_a_problem(checks: Checks) -> None:
    rule = {"when": {"load": True}, "then": [{"fault": "out_of_memory"}]}
    with Emulator([ModelEntry(key="large", rules=(rule,))]) as server:
        status, found = checks("--host", server.address, "--try")
    assert status == 1
    assert found["tools"]["verdict"] == "problem"
    assert "insufficient system resources" in found["tools"]["found"]
    assert found["structure"]["verdict"] == "skipped"


def test_a_model_that_does_not_fit_is_a_problem_with_the_remedy(checks: Checks) -> None:
    models = [
        {"key": "large", "memory_gib": 6, "rules": RULES},
        {"key": "other", "memory_gib": 6, "kind": "embedding", "preload": True},
    ]
    with Emulator(catalog={"model": models, "memory_gib": 8}) as server:
        status, found = checks("--host", server.address, "--try")
        assert [each.identifier for each in server.loaded()] == ["other"]
    assert (status, found["tools"]["verdict"]) == (1, "problem")
    assert found["tools"]["found"].startswith(
        "large: 'large' is not loaded, and does not fit beside what is loaded on "
    )
    assert "memory for models" not in found["tools"]["found"]
    assert "lms load large" in found["tools"]["fix"]
    assert found["structure"]["verdict"] == "skipped"


def test_a_model_that_does_nothing_right_is_a_problem(checks: Checks) -> None:
    rule = {"when": {}, "then": [{"text": "I would rather not."}]}
    with Emulator([ModelEntry(key="stubborn", rules=(rule,))], load=["stubborn"]) as server:
        status, found = checks("--host", server.address, "--try")
    assert status == 1
    for name, text in {
        "tools": "0 of 7 right; no call 6, wrong text 1",
        "structure": "0 of 5 valid; not JSON 5",
    }.items():
        assert (found[name]["verdict"], found[name]["share"]) == ("problem", 0)
        assert found[name]["found"].startswith(f"stubborn: {text} in ")
        assert found[name]["fix"]
    assert found["structure"]["details"][0] == "JSON with a few members: not JSON"


def test_a_model_that_does_a_part_right_is_a_warning_with_the_advice_of_the_card(checks: Checks) -> None:
    rules = REGRESSIONS["tool calls stay in the text"].model["rules"]
    with Emulator([ModelEntry(key="partly", rules=rules)], load=["partly"]) as server:
        _, found = checks("--host", server.address, "--try")
    assert (found["tools"]["verdict"], found["structure"]["verdict"]) == ("warning", "ok")
    assert found["tools"]["found"].startswith("partly: 1 of 7 right; in the text 6 in ")
    assert found["tools"]["fix"] == "rescue_tool_calls=True reads the calls that stay in the text"


def test_a_model_that_was_not_trained_for_tools_is_a_warning(checks: Checks) -> None:
    rule = {"when": {"structured": False}, "then": [{"text": "I would rather not."}]}
    model = ModelEntry(key="plain", tools=False, rules=(rule,))
    with Emulator([model, ModelEntry(key="embedder", kind="embedding")], load=["plain"]) as server:
        status, found = checks("--host", server.address, "--try")
    assert (status, found["tools"]["verdict"], found["tools"]["fix"]) == (0, "warning", UNTRAINED)


def test_a_model_that_is_in_use_is_not_tried(checks: Checks) -> None:
    rule = {"when": {}, "then": [{"text": "One moment."}, AT_THE_GATE]}
    models = [ModelEntry(key="busy", rules=(rule,)), ModelEntry(key="embedder", kind="embedding")]
    with (
        Emulator(models, load=["busy", "embedder"], engines=Gate().engines()) as server,
        Client(server.address) as client,
        client.llm.model("busy").respond_stream("wait") as stream,
    ):
        fragments = iter(stream)
        next(fragments)
        status, found = checks("--host", server.address, "--try")
        assert len(server.predictions) == 1
    assert (status, found["embedding"]["verdict"]) == (0, "ok")
    for name in ("tools", "structure"):
        assert (found[name]["verdict"], found[name]["fix"]) == ("skipped", "wait until it is idle")


@pytest.mark.parametrize(
    ("when", "failed", "other", "predictions"),
    [({}, "tools", ("structure", "skipped"), 1), ({"structured": True}, "structure", ("tools", "ok"), 8)],
)
def test_after_a_lost_connection_the_server_is_not_used_again(
    checks: Checks, when: dict[str, Any], failed: str, other: tuple[str, str], predictions: int
) -> None:
    rule = {"when": when, "then": [{"fault": "drop"}]}
    with Emulator([ModelEntry(key="unstable", rules=(rule, *RULES))], load=["unstable"]) as server:
        status, found = checks("--host", server.address, "--try")
        assert len(server.predictions) == predictions
    assert status == 1
    assert found[failed]["verdict"] == "problem"
    assert "the connection to LM Studio was lost" in found[failed]["found"]
    assert (other[0], found[other[0]]["verdict"]) == other


@pytest.mark.parametrize(("method", "name"), [("list_downloaded_models", "models"), ("list_loaded_models", "loaded")])
def test_models_that_cannot_be_listed_are_a_problem(
    monkeypatch: pytest.MonkeyPatch, checks: Checks, scripted: Emulator, method: str, name: str
) -> None:
    def fail(_: Client, _kind: str | None = None) -> None:
        raise LMStudioServerError("RPC error: no; try again")

    monkeypatch.setattr(Client, method, fail)
    status, found = checks("--host", scripted.address, "--try")
    assert status == 1
    assert (found[name]["verdict"], found[name]["fix"]) == ("problem", "try again")
    assert found["embedding"]["verdict"] == "skipped"


def test_no_token_where_one_is_required_is_a_problem(checks: Checks) -> None:
    with Emulator(["chat"], tokens=[TOKEN]) as server:
        status, found = checks("--host", server.address)
    assert status == 1
    assert verdicts(found)["server"] == "ok"
    assert found["token"]["verdict"] == "problem"
    assert "create one in LM Studio's server settings" in found["token"]["fix"]
    assert found["models"]["verdict"] == "skipped"


@pytest.mark.parametrize("given", [TOKEN, "sk-lm-" + TOKEN[20:]])
def test_a_token_that_is_rejected_or_malformed_is_a_problem_and_is_not_shown(
    run: Run, capsys: Capture, given: str
) -> None:
    with Emulator(["chat"], tokens=[OTHER]) as server:
        for flags in ([], ["--json"]):
            assert run("doctor", "--host", server.address, "--token", given, *flags) == 1
            shown = "".join(capsys.readouterr())
            assert "problem" in shown
            assert "copy it again" in shown
            assert not shows_token(shown)


def test_the_source_of_an_accepted_token_is_named_and_the_token_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, run: Run, capsys: Capture
) -> None:
    monkeypatch.setenv("LM_API_TOKEN", TOKEN)
    with Emulator(["chat"], tokens=[TOKEN]) as server:
        assert run("doctor", "--host", server.address) == 0
    shown = "".join(capsys.readouterr())
    assert "the server accepts the API token of LM_API_TOKEN" in shown
    assert not shows_token(shown)


def test_the_address_of_the_environment_is_named(
    monkeypatch: pytest.MonkeyPatch, checks: Checks, scripted: Emulator, nobody: str
) -> None:
    monkeypatch.setenv("LMSTUDIO_HOST", nobody)
    status, found = checks()
    assert status == 1
    assert found["server"]["found"] == f"ws://{nobody} (LMSTUDIO_HOST): nothing listens there (Connection refused)"
    assert "lms server start" in found["server"]["fix"]
    status, found = checks("--host", scripted.address)
    assert status == 0
    assert found["server"]["addresses"][1]["source"] == "LMSTUDIO_HOST"


def test_without_an_address_all_ports_of_this_machine_are_tried(
    monkeypatch: pytest.MonkeyPatch, checks: Checks, scripted: Emulator, nobody: str
) -> None:
    free = Address.parse(nobody)
    candidates = (free, Address.parse(scripted.address))
    monkeypatch.setattr(discovery, "local_candidates", lambda: candidates)
    status, found = checks()
    assert status == 0
    assert [each["error"] is None for each in found["server"]["addresses"]] == [False, False, True]
    monkeypatch.setattr(discovery, "local_candidates", lambda: (free,))
    status, found = checks()
    assert status == 1
    assert found["server"]["found"] == "no LM Studio found on this machine"
    assert found["server"]["fix"].startswith("open LM Studio, or run `lmsi serve`")


@pytest.mark.parametrize("host", ["ftp://nowhere", f"{TOKEN}@somewhere", "http://user:password@somewhere"])
def test_an_invalid_address_is_a_problem_that_shows_no_secret(run: Run, capsys: Capture, host: str) -> None:
    assert run("doctor", "--host", host) == 1
    shown = "".join(capsys.readouterr())
    assert "problem  server" in shown
    assert not shows_token(shown)
    assert "user:password" not in shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "something else listens there, not LM Studio"),
        (None, "no response within 1 s"),
    ],
)
def test_a_server_that_is_not_lm_studio_or_is_silent_is_a_problem(
    checks: Checks, reply: bytes | None, reason: str
) -> None:
    with listener(reply) as address:
        status, found = checks("--host", address)
    assert status == 1
    assert reason in found["server"]["found"]
    assert found["server"]["fix"]
    assert {each["verdict"] for name, each in found.items() if name not in {"server", "package", "extras"}} == {
        "skipped"
    }


def test_a_package_that_is_not_installed_is_no_error(
    monkeypatch: pytest.MonkeyPatch, checks: Checks, scripted: Emulator
) -> None:
    def missing(name: str) -> Any:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(survey, "distribution", missing)
    monkeypatch.setattr(survey, "version", missing)
    status, found = checks("--host", scripted.address)
    assert status == 0
    assert found["package"]["version"] == f"{__version__} (not installed)"
    assert found["extras"]["verdict"] == "skipped"


def test_missing_and_outdated_packages_of_an_extra_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"langchain-core": "0.1", "numpy": None}
    monkeypatch.setattr(survey, "installed_version", lambda package: versions.get(package, "1000"))
    found = {extra.name: extra for extra in survey.find_extras()}
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(found) == declared.keys() - {"all"}
    assert not any(extra.is_absent for extra in found.values())
    assert found["langchain"].outdated.keys() >= {"langchain-core"}
    assert found["langchain"].versions["numpy"] is None
    assert "langchain" in found["langchain"].command


@pytest.mark.parametrize(("extra", "package"), survey.MAIN_PACKAGES.items())
def test_an_extra_without_its_main_package_was_not_requested(
    extra: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "installed_version", lambda each: None if each == package else "1000")
    assert [each.name for each in survey.find_extras() if each.is_absent] == [extra]


def test_in_a_pipe_there_are_no_colors_and_the_summary_is_last(good: Emulator, piped: Piped) -> None:
    status, out, err = piped("doctor", "--host", good.address, "--try")
    assert (status, err) == (0, "")
    assert "\x1b" not in out
    assert out.splitlines()[-1] == "0 problems, 1 warning (loaded); 9 ok, 1 skipped."


@pytest.mark.slow
@needs_pty
def test_on_a_terminal_verdicts_have_colors(good: Emulator) -> None:
    with on_terminal("doctor", "--host", good.address, "--try") as terminal:
        assert terminal.wait() == 0
    assert "\x1b[32mok" in terminal.raw
    assert "9 ok" in terminal.text
    with on_terminal("doctor", "--host", good.address, NO_COLOR="1") as terminal:
        assert terminal.wait() == 0
    assert "\x1b[32m" not in terminal.raw


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGINT for one process")
def test_ctrl_c_ends_it_and_unloads_what_it_loaded() -> None:
    gate = Gate()
    models = [ModelEntry(key="slow", rules=({"when": {}, "then": [AT_THE_GATE]},))]
    with Emulator(models, engines=gate.engines()) as server:
        with started("doctor", "--host", server.address, "--try") as process:
            server.wait_for(lambda: bool(server.predictions), timeout=600)
            status, _, err = interrupt(process)
        assert status == INTERRUPTED
        assert "Traceback" not in err
        assert [each.state for each in server.loads] == ["unloaded"]
