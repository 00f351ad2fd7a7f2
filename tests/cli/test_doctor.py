"""`doctor`: what each check finds, that it changes nothing on the server, and what it prints."""

import json
import re
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace
from typing import Any, cast

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations import __version__
from lmstudio_integrations.cli import _doctor
from lmstudio_integrations.cli._doctor import Subject, check_server, check_token
from lmstudio_integrations.client.api.sync import SystemNamespace
from lmstudio_integrations.client.transport.connect import discovery
from lmstudio_integrations.client.transport.connect.addresses import Address, Target
from lmstudio_integrations.client.transport.connect.discovery import Attempt
from lmstudio_integrations.client.transport.connect.probe import ServerStatus
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.types.models import ServerVersion
from tests.cli.managed import OnScreen, Piped, Run
from tests.client.transport.connect.test_forward_proxies import tunnel_to
from tests.client.transport.connect.test_tls_and_redirects import listening
from tests.faults.faults import FaultProxy
from tests.faults.proxy import ProxyThread
from tests.support.leaks import TOKEN, shows_token

Capture = pytest.CaptureFixture[str]
CHAT, EMBEDDING = "smollm2-135m-instruct", "text-embedding-all-minilm-l6-v2"
OTHER = "sk-lm-abcdefgh:abcdefghij0123456789"
NAMES = ["package", "server", "token", "models", "loaded"]

Found = dict[str, dict[str, Any]]
Checks = Callable[..., tuple[int, Found]]


def entries() -> list[ModelEntry]:
    return [ModelEntry(key=CHAT), ModelEntry(key=EMBEDDING, kind="embedding")]


@pytest.fixture(scope="module")
def good() -> Iterator[Emulator]:
    """A server with a loaded model of each kind."""
    with Emulator(entries()) as server:
        server.load(CHAT, ttl=600)
        server.load(EMBEDDING)
        yield server


@pytest.fixture
def checks(run: Run, capsys: Capture) -> Checks:
    """Run `doctor --json`; return its exit status, and its checks by name."""

    def diagnose(*arguments: str) -> tuple[int, Found]:
        status = run("doctor", "--json", *arguments)
        assert isinstance(status, int), status
        document = json.loads(capsys.readouterr().out)
        assert document["ok"] is (status == 0)
        assert document["summary"]["problem"] == sum(each["verdict"] == "problem" for each in document["checks"])
        return status, {each["name"]: each for each in document["checks"]}

    return diagnose


def test_a_server_with_loaded_models_passes_all_checks(checks: Checks, good: Emulator) -> None:
    status, found = checks("--host", good.address)
    assert (status, list(found)) == (0, NAMES)
    assert {each["verdict"] for each in found.values()} == {"ok"}
    assert found["server"]["found"] == f"ws://{good.address} (--host): emulator {__version__}, which plays LM Studio"
    assert [each["ttl_seconds"] for each in found["loaded"]["instances"]] == [600, None]


def test_no_model_is_loaded_run_or_unloaded(checks: Checks) -> None:
    with Emulator(entries()) as server, lms.Client(server.address) as client:
        client.llm.model(CHAT)  # just in time, so that another such load would evict it
        status, found = checks("--host", server.address)
        assert (status, list(found)) == (0, NAMES)
        assert [(each.key, each.state) for each in server.loads] == [(CHAT, "loaded")]
        assert (list(server.predictions), list(server.embedded_texts)) == ([], [])


@pytest.mark.parametrize("fault", ["handshake-unanswered", "authentication-unanswered"])
def test_a_server_that_never_answers_is_a_problem_after_a_short_timeout(
    checks: Checks, good: Emulator, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(_doctor, "_TIMEOUT", 0.1)
    with FaultProxy(good.address, fault) as proxy:
        status, found = checks("--host", proxy.address)
    assert (status, found["server"]["verdict"]) == (1, "problem")


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


@pytest.mark.parametrize(
    ("owner", "method", "name"),
    [
        (SystemNamespace, "get_version", "server"),
        (lms.Client, "list_downloaded_models", "models"),
        (lms.Client, "list_loaded_models", "loaded"),
    ],
)
def test_what_the_server_cannot_tell_is_a_problem_with_the_remedy_of_its_error_and_what_needs_it_is_skipped(
    monkeypatch: pytest.MonkeyPatch, checks: Checks, good: Emulator, owner: type, method: str, name: str
) -> None:
    def fail(*_: object) -> None:
        remedy = "pass api_token="
        raise lms.LMStudioServerError(f"RPC error: no\n  cause: why\n  suggestion: {remedy}", suggestion=remedy)

    monkeypatch.setattr(owner, method, fail)
    status, found = checks("--host", good.address)
    check = found[name]
    assert (status, check["verdict"], check["found"]) == (1, "problem", "RPC error: no cause: why")
    assert check["fix"] == "pass --token"
    later = [found[each] for each in NAMES[NAMES.index(name) + 1 :]]
    assert {(each["verdict"], each["found"]) for each in later} <= {("skipped", f"fix {name!r} first")}


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
    shown = capsys.readouterr().out
    assert re.search(r"^ok +server: .* LM Studio \d", shown, re.MULTILINE), "without a token, its status says that"
    assert "create one in the server's settings" in shown


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
    assert found["server"]["details"] == []
    not_tried = "(LMSTUDIO_HOST): not tried, as --host takes precedence"
    status, found = checks("--host", good.address)
    assert (status, found["server"]["addresses"][1]["source"]) == (0, "LMSTUDIO_HOST")
    assert found["server"]["details"] == [f"{nobody} {not_tried}"]
    monkeypatch.setenv("LMSTUDIO_HOST", "http://user:password@a")
    status, found = checks("--host", nobody)
    assert (status, found["server"]["details"]) == (1, [f"an address with credentials {not_tried}"])
    assert found["server"]["found"].startswith(f"ws://{nobody} (--host): nothing listens there")


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


def test_a_server_that_is_not_lm_studio_is_a_problem(checks: Checks) -> None:
    with listening(b"HTTP/1.1 404 Not Found\r\n\r\n") as address:
        status, found = checks("--host", address)
    text = found.pop("server")["found"].partition(": ")[2]
    assert (status, text) == (1, "something else listens there, not LM Studio")
    assert {each["verdict"] for name, each in found.items() if name != "package"} == {"skipped"}


def test_a_package_that_is_not_installed_is_no_error(
    monkeypatch: pytest.MonkeyPatch, checks: Checks, good: Emulator
) -> None:
    def missing(name: str) -> Any:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(_doctor, "distribution", missing)
    status, found = checks("--host", good.address)
    assert (status, found["package"]["version"]) == (0, f"{__version__} (not installed)")


def test_verdicts_have_colors_on_a_terminal_only_and_the_summary_is_last(
    good: Emulator, piped: Piped, on_screen: OnScreen, monkeypatch: pytest.MonkeyPatch, nobody: str
) -> None:
    status, out, err = piped("doctor", "--host", good.address)
    assert (status, err, "\x1b" in out) == (0, "", False)
    assert out.splitlines()[-1] == "0 problems, 0 warnings; 5 ok, 0 skipped."
    assert piped("doctor", "--host", nobody)[1].splitlines()[-1] == "1 problem (server), 0 warnings; 1 ok, 3 skipped."
    assert "\x1b[32mok" in on_screen("doctor", "--host", good.address)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in on_screen("doctor", "--host", good.address)


def test_no_line_is_broken_by_a_narrow_terminal(good: Emulator, on_screen: OnScreen) -> None:
    printed = on_screen("doctor", "--host", good.address, columns=50)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", printed).splitlines()
    assert [line for line in lines if len(line) > 50 and len(line.split()) > 1] == []


# Checks of servers that the emulator does not play -------------------------------------------------------------------

VERSION = ServerVersion(version="0.3.30", build=2)
REJECTED = lms.LMStudioAuthenticationError(
    "LM Studio rejected this client: no\n  suggestion: copy it again", suggestion="copy it again"
)
UNREACHABLE = lms.LMStudioUnreachableError(
    "LM Studio is not reachable at ws://a:1: the WebSocket failed; update LM Studio"
)
SILENT = lms.LMStudioTimeoutError(
    "Version: nothing was received; raise idle_timeout, or set it to None", timeout_name="idle_timeout"
)


def subject(version: ServerVersion | lms.LMStudioError = VERSION, *, token: str | None = None) -> Subject:
    """Return a server on another machine, and what it says to a client, or why it says nothing."""

    def get_version() -> ServerVersion:
        if isinstance(version, lms.LMStudioError):
            raise version
        return version

    client = SimpleNamespace(system=SimpleNamespace(get_version=get_version))
    return Subject(cast("lms.Client", client), Target.of("a:1", token))


@pytest.fixture
def responds(monkeypatch: pytest.MonkeyPatch) -> Callable[[ServerStatus | None], None]:
    """Let an application with this status respond at the only address."""

    def respond(status: ServerStatus | None) -> None:
        monkeypatch.setattr(_doctor, "_find", lambda _: [Attempt("ws://a:1", "--host", status=status)])

    return respond


@pytest.mark.parametrize(
    ("status", "version", "found"),
    [
        (None, "0.3.30", "LM Studio 0.3.30, build 2"),
        (ServerStatus("bionic", "1.1.7"), "1.1.7", "Bionic 1.1.7, build 2"),
        (ServerStatus("daemon", "0.0.17"), "0.4.25", "llmster 0.0.17, which serves as version 0.4.25, build 2"),
        (ServerStatus("splash", "2.0"), "2.0", "splash 2.0, build 2"),
        (ServerStatus("bionic", "1.1.7"), "1.1.7+emulator", "emulator 1.1.7, which plays Bionic"),
        (None, "1.1.7+emulator", "emulator 1.1.7"),
        (ServerStatus("daemon", "0.0.17"), None, "llmster 0.0.17"),
        (None, None, "a server"),
    ],
)
def test_the_application_and_its_version_are_named_as_far_as_it_says_them(
    responds: Callable[[ServerStatus | None], None], status: ServerStatus | None, version: str | None, found: str
) -> None:
    responds(status)
    check = check_server(subject(REJECTED if version is None else ServerVersion(version=version, build=2)))
    assert (check.verdict, check.found, check.details) == ("ok", f"ws://a:1 (--host): {found}", ())
    assert check.data["application"] == (status and status._asdict())
    assert check.data.get("version") == version


@pytest.mark.parametrize(
    ("failure", "found", "fix"),
    [
        (UNREACHABLE, "LM Studio is not reachable at ws://a:1: the WebSocket failed", "update LM Studio"),
        (SILENT, "Version: nothing was received", None),
    ],
)
def test_a_server_that_greets_but_does_not_respond_to_the_client_is_a_problem(
    responds: Callable[[ServerStatus | None], None], failure: lms.LMStudioError, found: str, fix: str | None
) -> None:
    responds(None)
    check = check_server(subject(failure))
    assert (check.verdict, check.found, check.fix) == ("problem", found, fix)
    assert [each["address"] for each in check.data["addresses"]] == ["ws://a:1"]


@pytest.mark.parametrize(
    ("token", "environment", "version", "verdict", "found"),
    [
        (None, None, VERSION, "ok", "none is set, and the server requires none"),
        (TOKEN, None, VERSION, "warning", "the API token is sent unencrypted to a:1"),
        (None, None, REJECTED, "problem", "rejected this client: no (no API token)"),
        (TOKEN, OTHER, REJECTED, "problem", "rejected this client: no (the API token of --token)"),
        (TOKEN, TOKEN, REJECTED, "problem", "rejected this client: no (the API token of LMSTUDIO_API_TOKEN)"),
    ],
)
def test_the_verdict_on_the_token_is_what_the_server_did(
    monkeypatch: pytest.MonkeyPatch,
    token: str | None,
    environment: str | None,
    version: ServerVersion | lms.LMStudioError,
    verdict: str,
    found: str,
) -> None:
    if environment:
        monkeypatch.setenv("LMSTUDIO_API_TOKEN", environment)
    check = check_token(subject(version, token=token))
    assert check.verdict == verdict
    assert check.found.endswith(found)
    assert check.fix == {"problem": "copy it again", "warning": "put a TLS proxy in front of it"}.get(verdict)
    assert check.data["source"] == (token and ("LMSTUDIO_API_TOKEN" if environment == token else "--token"))


# Models ---------------------------------------------------------------------------------------------------------------


def llm(key: str = "chat", **changes: Any) -> ModelEntry:
    return ModelEntry(key=key, size_bytes=2_000_000_000, max_context_length=131072, **changes)


def decider(key: str) -> ModelEntry:
    return ModelEntry(key=key, kind="decision")


EMBEDDER = ModelEntry(key="embedder", kind="embedding", size_bytes=100, max_context_length=512)


def test_models_of_all_kinds_are_counted_and_described(checks: Checks) -> None:
    with Emulator([llm(vision=True), llm("plain", tools=False), llm("tools"), EMBEDDER]) as server:
        check = checks("--host", server.address)[1]["models"]
    assert (check["verdict"], check["found"]) == ("ok", "3 language models and 1 embedding model downloaded")
    assert check["details"] == [
        "chat: chat, tool use, vision; 2.00 GB, context window up to 131,072 tokens",
        "embedder: embeddings; 100 B, context window up to 512 tokens",
        "plain: chat; 2.00 GB, context window up to 131,072 tokens",
        "tools: chat, tool use; 2.00 GB, context window up to 131,072 tokens",
    ]
    with Emulator([llm(), decider("judge"), decider("other"), EMBEDDER]) as server:
        check = checks("--host", server.address)[1]["models"]
    counts = "1 language model, 1 embedding model and 2 decision models downloaded"
    assert (check["verdict"], check["found"]) == ("ok", counts)
    assert [each.split("; ")[0] for each in check["details"][2:]] == ["judge: decisions", "other: decisions"]


@pytest.mark.parametrize(
    ("models", "verdict", "missing"),
    [
        ([llm()], "warning", "a model for embeddings"),
        ([EMBEDDER], "warning", "a model for chat"),
        ([decider("judge")], "warning", "a model for chat and a model for embeddings"),
        ([], "problem", "a model for chat and a model for embeddings"),
    ],
)
def test_without_models_of_a_kind_it_says_what_to_download(
    checks: Checks, models: list[ModelEntry], verdict: str, missing: str
) -> None:
    with Emulator(models) as server:
        check = checks("--host", server.address)[1]["models"]
    assert (check["verdict"], check["fix"]) == (verdict, f"download {missing} with `lms get`")


def test_loaded_models_are_listed_with_context_window_and_time_to_live(checks: Checks) -> None:
    with Emulator([llm(), EMBEDDER]) as server:
        nothing = checks("--host", server.address)[1]["loaded"]
        server.load("chat", identifier="mine")
        server.load("chat", ttl=3600)
        server.load("embedder", ttl=90)
        check = checks("--host", server.address)[1]["loaded"]
    assert (check["verdict"], check["found"]) == ("ok", "3 models loaded")
    assert check["details"] == [
        "chat: chat, tool use; context window 4,096 of 131,072 tokens; unloaded after 1h without use",
        "embedder: embeddings; context window 512 of 512 tokens; unloaded after 1m 30s without use",
        "mine (chat): chat, tool use; context window 4,096 of 131,072 tokens; stays loaded",
    ]
    assert [each["ttl_seconds"] for each in check["instances"]] == [3600, 90, None]
    assert (nothing["verdict"], nothing["found"]) == ("ok", "no model is loaded; a call that names one loads it")
    assert (nothing["details"], nothing["instances"]) == ([], [])


@pytest.fixture
def behind_proxy(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Take this machine's own address for one in the network, which is reached through a proxy."""

    def use(proxy: str) -> None:
        monkeypatch.setattr(Address, "is_loopback", False)
        for name in ("http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HTTP_PROXY", proxy)

    return use


def test_a_proxy_that_does_not_respond_is_named(
    checks: Checks, piped: Piped, behind_proxy: Callable[[str], None]
) -> None:
    with Emulator(entries()) as server:
        behind_proxy("http://127.0.0.1:9")
        status, found = checks("--host", server.address)
        assert (status, found["server"]["verdict"]) == (1, "problem")
        assert "the proxy HTTP_PROXY=http://127.0.0.1:9 does not lead to it: " in found["server"]["found"]
        assert found["server"]["fix"] == "it responds without the proxy: set NO_PROXY=127.0.0.1"
        status, _, text = piped("ls", "--host", server.address)
        assert status == 1
        assert "the proxy HTTP_PROXY=http://127.0.0.1:9 does not lead to it: " in text
        assert "set NO_PROXY=127.0.0.1" in text


def test_a_host_that_only_a_proxy_reaches_passes_all_checks(
    checks: Checks, good: Emulator, behind_proxy: Callable[[str], None]
) -> None:
    with ProxyThread() as thread, tunnel_to(thread, good.address) as proxy:
        behind_proxy(proxy.address)
        status, found = checks("--host", "studio.invalid")
    assert (status, list(found)) == (0, NAMES)
    assert found["server"]["found"].startswith("ws://studio.invalid:1234 (--host): emulator")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-1, "0s"),
        (0.4, "0s"),
        (59, "59s"),
        (60, "1m"),
        (3599.6, "1h"),
        (3661, "1h 1m"),
        (3601, "1h 1s"),
        (90_000, "25h"),
    ],
)
def test_a_time_has_its_two_largest_units(seconds: float, expected: str) -> None:
    assert _doctor.duration(seconds) == expected
