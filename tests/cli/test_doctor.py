"""`doctor`: what it gathers of one host or of several, that it changes nothing on the server, and what it prints."""

import json
import signal
import socket
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from typing import Any

import pytest

from lmstudio_integrations import __version__
from lmstudio_integrations.cli import INTERRUPTED, _doctor
from lmstudio_integrations.cli._doctor import survey
from lmstudio_integrations.cli._doctor.checks import UNTRAINED
from lmstudio_integrations.client.api.sync import LLM, Client
from lmstudio_integrations.client.transport.connect import discovery
from lmstudio_integrations.client.transport.connect.addresses import Address
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioServerError
from tests.cli.managed import OnScreen, Piped, Run
from tests.cli.terminal import interrupt, started
from tests.faults.faults import FaultProxy
from tests.support.certified.good import REGRESSIONS, RULES
from tests.support.gate import AT_THE_GATE, Gate
from tests.support.leaks import TOKEN, shows_token
from tests.support.treatments import BY_PLACE, TEMPLATES, TreatingEngine
from tools import ROOT

Capture = pytest.CaptureFixture[str]
CHAT, EMBEDDING = "smollm2-135m-instruct", "text-embedding-all-minilm-l6-v2"
OTHER = "sk-lm-abcdefgh:abcdefghij0123456789"
OF_HOST = ["server", "version", "token", "models", "loaded", "reasoning", "embedding", "tools", "structure"]
NAMES = [*OF_HOST[:2], "package", "extras", *OF_HOST[2:]]

Found = dict[Any, dict[str, Any]]
Checks = Callable[..., tuple[int, Found]]


def entries(**chat: Any) -> list[ModelEntry]:
    return [ModelEntry(key=CHAT, rules=RULES, **chat), ModelEntry(key=EMBEDDING, kind="embedding")]


@pytest.fixture(scope="module")
def good() -> Iterator[Emulator]:
    """A server whose loaded models pass the trials."""
    with Emulator(entries()) as server:
        server.load(CHAT, ttl=600)
        server.load(EMBEDDING)
        yield server


@pytest.fixture
def checks(run: Run, capsys: Capture) -> Checks:
    """Run `doctor --json`; return its exit status, and its checks by name, and by host and name if it has several."""

    def diagnose(*arguments: str) -> tuple[int, Found]:
        status = run("doctor", "--json", *arguments)
        assert isinstance(status, int), status
        document = json.loads(capsys.readouterr().out)
        assert document["ok"] is (status == 0)
        assert document["summary"]["problem"] == sum(each["verdict"] == "problem" for each in document["checks"])
        found = {(each.get("host"), each["name"]): each for each in document["checks"]}
        return status, {name if host is None else (host, name): each for (host, name), each in found.items()}

    return diagnose


def test_a_server_with_loaded_models_passes_all_checks(checks: Checks, good: Emulator) -> None:
    status, found = checks("--host", good.address, "--try")
    assert status == 0
    assert list(found) == NAMES
    assert {each["verdict"] for each in found.values()} == {"ok"}
    assert [each["ttl_seconds"] for each in found["loaded"]["instances"]] == [600, None]
    assert found["embedding"]["model"] == EMBEDDING
    for name in ("embedding", "tools", "structure"):
        assert (found[name]["share"], found[name]["seconds"] > 0) == (1, True)
    assert found["tools"]["found"].startswith(f"{CHAT}: 7 of 7 right in ")


def test_without_try_no_model_is_loaded_run_or_unloaded_and_with_try_without_evicting_others(checks: Checks) -> None:
    with Emulator(entries()) as server, Client(server.address) as client:
        client.llm.model(CHAT)  # just in time, so that another such load would evict it
        status, found = checks("--host", server.address)
        assert (status, list(found)) == (0, NAMES[:-3])
        assert [(each.key, each.state) for each in server.loads] == [(CHAT, "loaded")]
        assert (list(server.predictions), list(server.embedded_texts)) == ([], [])
        status, found = checks("--host", server.address, "--try")
        assert (status, found["embedding"]["verdict"]) == (0, "ok")
        states = [(each.key, each.mode, each.state) for each in server.loads]
        assert states == [(CHAT, "just_in_time", "loaded"), (EMBEDDING, "explicit", "unloaded")]


@pytest.mark.parametrize("fault", ["handshake-unanswered", "authentication-unanswered"])
def test_a_server_that_never_answers_is_a_problem_after_a_short_timeout(
    checks: Checks, good: Emulator, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(_doctor, "_TIMEOUT", 0.1)
    with FaultProxy(good.address, fault) as proxy:
        status, found = checks("--host", proxy.address)
    assert status == 1
    assert "problem" in {found["server"]["verdict"], found["version"]["verdict"]}


def test_with_try_the_smallest_suitable_model_is_loaded(checks: Checks) -> None:
    sizes = {"large": 10**10, "small": 10**9, "smallest": 10**6}
    models = [ModelEntry(key=key, size_bytes=size, tools=key != "smallest") for key, size in sizes.items()]
    models.append(ModelEntry(key="qwen3-reranker-0.6b", size_bytes=10**6))
    with Emulator(models) as server:
        _, found = checks("--host", server.address, "--try")
        assert [each.key for each in server.loads] == ["small"], "a reranker cannot chat"
        assert server.loaded() == []
    assert found["embedding"]["found"] == "no embedding model is downloaded"


def test_the_prefixes_of_an_embedding_model_and_decision_models_are_shown(checks: Checks) -> None:
    models = [ModelEntry(key="nomic-embed-text-v1.5", kind="embedding"), ModelEntry(key="judge", kind="decision")]
    with Emulator(models, load=["judge"]) as server:
        _, found = checks("--host", server.address)
    data = {each["key"]: each for each in found["models"]["models"]}
    embedder = data["nomic-embed-text-v1.5"]
    assert (embedder["query_prefix"], embedder["document_prefix"]) == ("search_query: ", "search_document: ")
    assert "query_prefix" not in data["judge"]
    details = "\n".join(found["models"]["details"])
    assert "; 'search_query: ' before queries and 'search_document: ' before documents" in details
    assert "judge: decisions" in details
    assert [each["identifier"] for each in found["loaded"]["instances"]] == ["judge"]


def test_what_each_chat_template_does_with_thoughts_is_shown_and_nothing_is_loaded_for_it(checks: Checks) -> None:
    loaded = [key for key in TEMPLATES if key not in {"rejected", "misplaced"}]
    models = [*(ModelEntry(key=key) for key in TEMPLATES), ModelEntry(key="embedder", kind="embedding")]
    with Emulator(models, load=["embedder"], engines={"scripted": TreatingEngine()}) as server:
        _, found = checks("--host", server.address)
        assert (found["reasoning"]["verdict"], found["reasoning"]["found"]) == (
            "skipped",
            "no language model is loaded",
        )
        for key in loaded:
            server.load(key)
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


def chat(*rules: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"key": "chat", "preload": True, "rules": rules, **fields}


PROSE = {"text": "I would rather not."}
DROP = {"fault": "drop"}
NEIGHBOR = {"key": "other", "memory_gib": 6, "kind": "embedding", "preload": True}

TRIALS: dict[str, tuple[list[dict[str, Any]], dict[str, tuple[str, str, str]]]] = {
    "cannot be loaded": (
        [chat({"when": {"load": True}, "then": [{"fault": "out_of_memory"}]}, preload=False)],
        {"tools": ("problem", "insufficient system resources", ""), "structure": ("skipped", "", "")},
    ),
    "does not fit beside another": (
        [chat(*RULES, memory_gib=6, preload=False), NEIGHBOR],
        {
            "tools": ("problem", "'chat' is not loaded, and does not fit beside what is loaded", "lms load chat"),
            "structure": ("skipped", "", ""),
        },
    ),
    "does nothing right": (
        [chat({"when": {}, "then": [PROSE]})],
        {
            "tools": ("problem", "chat: 0 of 7 right; no call 6, wrong text 1 in ", "use another model for agents"),
            "structure": ("problem", "chat: 0 of 5 valid; not JSON 5 in ", ""),
        },
    ),
    "does a part right": (
        [chat(*REGRESSIONS["tool calls stay in the text"].model["rules"])],
        {
            "tools": (
                "warning",
                "chat: 1 of 7 right; in the text 6 in ",
                "rescue_tool_calls=True reads the calls that stay in the text",
            ),
            "structure": ("ok", "", ""),
        },
    ),
    "was not trained for tools": (
        [chat({"when": {"structured": False}, "then": [PROSE]}, tools=False)],
        {"tools": ("warning", "", UNTRAINED), "structure": ("ok", "", "")},
    ),
    "loses the connection": (
        [chat({"when": {}, "then": [DROP]})],
        {"tools": ("problem", "the connection to LM Studio was lost", ""), "structure": ("skipped", "", "")},
    ),
    "loses the connection later": (
        [chat({"when": {"structured": True}, "then": [DROP]}, *RULES)],
        {"tools": ("ok", "", ""), "structure": ("problem", "the connection to LM Studio was lost", "")},
    ),
}
"""What a model does, the models of the server, and verdict, text and remedy of checks."""


@pytest.mark.parametrize("name", TRIALS)
def test_what_a_model_does_in_the_trials_is_its_verdict(checks: Checks, name: str) -> None:
    models, expected = TRIALS[name]
    with Emulator(catalog={"model": models, "memory_gib": 8}) as server:
        status, found = checks("--host", server.address, "--try")
        assert "other" not in name or [each.identifier for each in server.loaded()] == ["other"]
        if name.startswith("loses"):
            assert len(server.predictions) == (8 if "later" in name else 1), "a lost server is not used again"
    for check, (verdict, text, fix) in expected.items():
        assert (found[check]["verdict"], text in found[check]["found"]) == (verdict, True)
        assert fix in (found[check].get("fix") or "")
    assert status == int("problem" in {each["verdict"] for each in found.values()})


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
    ("owner", "method", "name"),
    [
        (Client, "list_downloaded_models", "models"),
        (Client, "list_loaded_models", "loaded"),
        (LLM, "get_reasoning_replay", "reasoning"),
    ],
)
def test_what_the_server_cannot_tell_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, checks: Checks, good: Emulator, owner: type, method: str, name: str
) -> None:
    def fail(_: object, _kind: str | None = None) -> None:
        raise LMStudioServerError("RPC error: no; try again")

    monkeypatch.setattr(owner, method, fail)
    status, found = checks("--host", good.address, "--try")
    assert (status, found[name]["verdict"], found[name]["fix"]) == (1, "problem", "try again")
    assert found["embedding"]["verdict"] == ("ok" if owner is LLM else "skipped")


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
        assert run("doctor", "--host", server.address) == 1
    assert "create one in the server's settings" in capsys.readouterr().out


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
    monkeypatch: pytest.MonkeyPatch, checks: Checks, good: Emulator, nobody: str
) -> None:
    monkeypatch.setenv("LMSTUDIO_HOST", nobody)
    status, found = checks()
    assert status == 1
    assert found["server"]["found"] == f"ws://{nobody} (LMSTUDIO_HOST): nothing listens there (Connection refused)"
    assert "lms server start" in found["server"]["fix"]
    status, found = checks("--host", good.address)
    assert (status, found["server"]["addresses"][1]["source"]) == (0, "LMSTUDIO_HOST")


def test_without_an_address_all_ports_of_this_machine_are_tried(
    monkeypatch: pytest.MonkeyPatch, checks: Checks, good: Emulator, nobody: str
) -> None:
    candidates = [Address.parse(nobody), Address.parse(good.address)]
    monkeypatch.setattr(discovery, "local_candidates", lambda: tuple(candidates))
    status, found = checks()
    assert (status, [each["error"] is None for each in found["server"]["addresses"]]) == (0, [False, False, True])
    candidates.pop()
    status, found = checks()
    assert (status, found["server"]["found"]) == (1, "no LM Studio, llmster or Bionic found on this machine")
    assert found["server"]["fix"].startswith("open LM Studio or Bionic, start llmster, or run `lmsi serve`")


@pytest.mark.parametrize(
    "host",
    [
        "ftp://nowhere",
        f"{TOKEN}@somewhere",
        "http://user:password@a",
        "{0},ftp://nowhere",
        "{0},{0}",
        "{0},user:password@a",
    ],
)
def test_an_invalid_address_is_one_problem_that_shows_no_secret(
    run: Run, capsys: Capture, good: Emulator, host: str
) -> None:
    assert run("doctor", "--host", host.format(good.address)) == 1
    shown = "".join(capsys.readouterr())
    assert (shown.count("problem  "), shown.count("problem  server")) == (1, 1)
    assert not shows_token(shown)
    assert "user:password" not in shown
    assert "several servers" not in shown


def test_a_server_that_is_not_lm_studio_is_a_problem(checks: Checks) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):  # the test closes it
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(1024)
                        connection.sendall(b"HTTP/1.1 404 Not Found\r\n\r\n")

        threading.Thread(target=serve, daemon=True).start()
        status, found = checks("--host", f"127.0.0.1:{server.getsockname()[1]}")
        with suppress(OSError):  # not every system knows it for a socket that listens
            server.shutdown(socket.SHUT_RDWR)
    assert (status, found.pop("server")["found"].partition(": ")[2]) == (
        1,
        "something else listens there, not LM Studio",
    )
    assert {each["verdict"] for name, each in found.items() if name not in {"package", "extras"}} == {"skipped"}


def test_a_package_that_is_not_installed_is_no_error(
    monkeypatch: pytest.MonkeyPatch, checks: Checks, good: Emulator
) -> None:
    def missing(name: str) -> Any:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(survey, "distribution", missing)
    monkeypatch.setattr(survey, "version", missing)
    status, found = checks("--host", good.address)
    assert (status, found["package"]["version"]) == (0, f"{__version__} (not installed)")
    assert found["extras"]["verdict"] == "skipped"


def test_missing_and_outdated_packages_of_an_extra_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    versions: dict[str, str | None] = {"langchain-core": "0.1", "numpy": None}
    monkeypatch.setattr(survey, "installed_version", lambda package: versions.get(package, "1000"))
    found = {extra.name: extra for extra in survey.find_extras()}
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(found) == declared.keys() - {"all"}
    assert not any(extra.is_absent for extra in found.values())
    assert found["langchain"].outdated.keys() >= {"langchain-core"}
    assert found["langchain"].versions["numpy"] is None
    assert "langchain" in found["langchain"].command
    for extra, package in survey.MAIN_PACKAGES.items():
        versions = {package: None}
        assert [each.name for each in survey.find_extras() if each.is_absent] == [extra], "it was not requested"


def test_verdicts_have_colors_on_a_terminal_only_and_the_summary_is_last(
    good: Emulator, piped: Piped, on_screen: OnScreen, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, out, err = piped("doctor", "--host", good.address)
    assert (status, err, "\x1b" in out) == (0, "", False)
    assert out.splitlines()[-1] == "0 problems, 0 warnings; 8 ok, 0 skipped."
    assert "\x1b[32mok" in on_screen("doctor", "--host", good.address)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in on_screen("doctor", "--host", good.address)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGINT for one process")
def test_ctrl_c_ends_it_and_unloads_what_it_loaded(gate: Gate) -> None:
    models = [ModelEntry(key="slow", rules=({"when": {}, "then": [AT_THE_GATE]},))]
    with Emulator(models, engines=gate.engines()) as server:
        with started("doctor", "--host", server.address, "--try") as process:
            server.wait_for(lambda: bool(server.predictions), timeout=600)
            status, _, err = interrupt(process)
        assert (status, "Traceback" in err) == (INTERRUPTED, False)
        assert [each.state for each in server.loads] == ["unloaded"]


# Several hosts --------------------------------------------------------------------------------------------------------


def test_each_host_has_all_checks_and_this_side_has_its_own_once(
    monkeypatch: pytest.MonkeyPatch, checks: Checks, good: Emulator
) -> None:
    with Emulator(entries(context_length=512), load=[CHAT, EMBEDDING]) as second:
        monkeypatch.setenv("LMSTUDIO_HOST", f"{good.address}, {second.address}")
        status, found = checks("--try")
        hosts = [good.address, second.address]
    assert status == 0
    for host in hosts:
        assert {name: found[host, name]["verdict"] for name in OF_HOST} == dict.fromkeys(OF_HOST, "ok")
        assert found[host, "server"]["found"] == f"the emulator responds at ws://{host} (LMSTUDIO_HOST)"
    assert (found["package"]["verdict"], found["extras"]["verdict"]) == ("ok", "ok")
    compared = found["hosts"]
    (difference,) = compared["differences"]
    assert (compared["verdict"], compared["found"]) == ("warning", "1 model loaded differently")
    assert (difference["model"], difference["context_length"][hosts[1]]) == (CHAT, 512)
    assert "same file" in compared["fix"]
    assert compared["compared"] == hosts


def test_a_host_that_does_not_respond_is_a_problem_also_if_another_one_does(
    checks: Checks, good: Emulator, nobody: str, piped: Piped
) -> None:
    hosts = f"{nobody},{good.address}"
    status, found = checks("--host", hosts)
    check = found[nobody, "server"]
    assert (status, check["verdict"], found["hosts"]["verdict"]) == (1, "problem", "skipped")
    assert "nothing listens there" in check["found"]
    assert "lms server start" in check["fix"]
    assert {found[nobody, name]["verdict"] for name in OF_HOST[1:-3]} == {"skipped"}
    lines = piped("doctor", "--host", hosts)[1].splitlines()
    assert any(line.startswith(f"ok       {good.address} loaded: 2 models loaded") for line in lines)
    assert any(line.startswith(f"problem  {nobody} server: ") for line in lines)
    assert lines[-1] == f"1 problem ({nobody} server), 0 warnings; 8 ok, 6 skipped."


def test_a_host_that_rejects_the_token_is_a_problem_also_if_another_one_accepts_it(
    checks: Checks, good: Emulator, nobody: str
) -> None:
    with Emulator(entries(), tokens=[TOKEN]) as guarded:
        for other in (good.address, nobody):
            status, found = checks("--host", f"{other},{guarded.address}")
            assert (status, found[guarded.address, "token"]["verdict"]) == (1, "problem")
