"""`doctor` with several hosts: one that fails is a warning if another one works, and all are compared."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lmstudio_integrations.cli._doctor.checks import Check, comparison_check, of_host
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.types.models import (
    EmbeddingModelInstanceInfo,
    LlmInstanceInfo,
    ModelInstanceInfo,
    Quantization,
)
from tests.support.certified.good import RULES
from tests.support.leaks import TOKEN, shows_token

Run = Callable[..., int | str | None]
Capture = pytest.CaptureFixture[str]
Found = dict[tuple[str | None, str], dict[str, Any]]
Checks = Callable[..., tuple[int, Found]]

CHAT, VECTORS = "qwen3-4b", "nomic-embed-text"
OF_HOST = ["server", "version", "token", "models", "loaded", "reasoning", "embedding", "tools", "structure"]


def entries(**chat: Any) -> list[ModelEntry]:
    return [ModelEntry(key=CHAT, rules=RULES, **chat), ModelEntry(key=VECTORS, kind="embedding")]


@pytest.fixture
def first() -> Iterator[Emulator]:
    with Emulator(entries(), load=[CHAT, VECTORS]) as server:
        yield server


@pytest.fixture
def second() -> Iterator[Emulator]:
    with Emulator(entries(), load=[CHAT, VECTORS]) as server:
        yield server


@pytest.fixture
def checks(run: Run, capsys: Capture) -> Checks:
    """Run `doctor --json`; return its exit status, and its checks by host and name."""

    def diagnose(*arguments: str) -> tuple[int, Found]:
        status = run("doctor", "--json", *arguments)
        assert isinstance(status, int), status
        document = json.loads(capsys.readouterr().out)
        assert document["ok"] is (status == 0)
        return status, {(each.get("host"), each["name"]): each for each in document["checks"]}

    return diagnose


def verdicts(found: Found, host: str | None) -> dict[str, str]:
    return {name: each["verdict"] for (of, name), each in found.items() if of == host}


def instance(
    key: str, *, identifier: str | None = None, path: str = "", quantization: str = "Q4_K_M", context_length: int = 4096
) -> LlmInstanceInfo:
    return LlmInstanceInfo(
        model_key=key,
        format="gguf",
        display_name=key,
        path=path or f"vendor/{key}.gguf",
        size_bytes=10**9,
        max_context_length=131072,
        quantization=Quantization(name=quantization, bits=4),
        identifier=identifier or key,
        instance_reference="reference",
        context_length=context_length,
        vision=False,
        trained_for_tool_use=True,
    )


def vectors(path: str) -> EmbeddingModelInstanceInfo:
    return EmbeddingModelInstanceInfo(
        model_key=VECTORS,
        format="gguf",
        display_name=VECTORS,
        path=path,
        size_bytes=10**8,
        max_context_length=2048,
        identifier=VECTORS,
        instance_reference="reference",
        context_length=2048,
    )


# The command ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["--host", "LMSTUDIO_HOST"])
def test_each_host_has_all_checks_and_this_side_has_its_own_once(
    monkeypatch: pytest.MonkeyPatch, checks: Checks, first: Emulator, second: Emulator, source: str
) -> None:
    hosts = f"{first.address}, {second.address}"
    if source == "LMSTUDIO_HOST":
        monkeypatch.setenv(source, hosts)
    status, found = checks("--try", *(("--host", hosts) if source == "--host" else ()))
    assert status == 0
    for server in (first, second):
        assert verdicts(found, server.address) == dict.fromkeys(OF_HOST, "ok")
        check = found[server.address, "server"]
        assert check["found"] == f"the emulator responds at ws://{server.address} ({source})"
        assert [each["identifier"] for each in found[server.address, "loaded"]["instances"]] == [VECTORS, CHAT]
    assert verdicts(found, None) == dict.fromkeys(["package", "extras", "hosts"], "ok")
    assert found[None, "hosts"]["compared"] == [first.address, second.address]


def test_a_host_that_does_not_respond_is_a_warning_with_the_remedy_if_another_one_does(
    checks: Checks, first: Emulator, nobody: str
) -> None:
    status, found = checks("--host", f"{nobody},{first.address}")
    assert status == 0
    assert found[nobody, "server"]["verdict"] == "warning"
    assert "nothing listens there" in found[nobody, "server"]["found"]
    assert "lms server start" in found[nobody, "server"]["fix"]
    assert {verdict for name, verdict in verdicts(found, nobody).items() if name != "server"} == {"skipped"}
    assert found[None, "hosts"]["verdict"] == "skipped"


def test_a_host_that_rejects_the_token_is_a_warning_if_another_one_accepts_it(checks: Checks, first: Emulator) -> None:
    with Emulator(entries(), tokens=[TOKEN]) as guarded:
        status, found = checks("--host", f"{first.address},{guarded.address}")
        assert (status, found[guarded.address, "token"]["verdict"]) == (0, "warning")
        status, found = checks("--host", f"{guarded.address},127.0.0.1:9")
        assert (status, found[guarded.address, "token"]["verdict"]) == (1, "problem")


def test_a_model_that_is_loaded_with_other_context_lengths_is_a_warning(checks: Checks, first: Emulator) -> None:
    with Emulator(entries(context_length=512), load=[CHAT]) as smaller:
        status, found = checks("--host", f"{first.address},{smaller.address}")
        check = found[None, "hosts"]
        (difference,) = check["differences"]
        assert difference["context_length"][smaller.address] == 512
    assert (status, check["verdict"]) == (0, "warning")
    assert check["found"] == "1 model loaded differently"
    assert difference["model"] == CHAT
    assert "same file" in check["fix"]


@pytest.mark.parametrize("hosts", ["{0},ftp://nowhere", "{0},{0}", "{0},user:password@somewhere"])
def test_an_invalid_list_is_one_problem_that_shows_no_secret(
    run: Run, capsys: Capture, first: Emulator, hosts: str
) -> None:
    assert run("doctor", "--host", hosts.format(first.address)) == 1
    shown = "".join(capsys.readouterr())
    assert shown.count("problem  ") == 1
    assert "problem  server" in shown
    assert "several servers" not in shown
    assert not shows_token(shown)
    assert "user:password" not in shown


def test_each_line_names_its_host(run: Run, capsys: Capture, first: Emulator, nobody: str) -> None:
    assert run("doctor", "--host", f"{first.address},{nobody}") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"ok       {first.address} loaded: 2 models loaded") for line in lines)
    assert any(line.startswith(f"warning  {nobody} server: ") for line in lines)
    assert lines[-1] == f"0 problems, 1 warning ({nobody} server); 8 ok, 6 skipped."


# The verdicts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "others_serve", "verdict"),
    [
        ("server", True, "warning"),
        ("models", True, "warning"),
        ("server", False, "problem"),
        ("tools", True, "problem"),
    ],
)
def test_what_another_host_can_do_is_no_problem(name: str, others_serve: bool, verdict: str) -> None:
    check = of_host(Check(name, "problem", "no", "fix it"), "a:1", others_serve=others_serve)
    assert (check.verdict, check.host, check.fix) == (verdict, "a:1", "fix it")
    assert check.to_dict()["host"] == "a:1"


@pytest.mark.parametrize(
    ("other", "name", "values"),
    [
        ({"quantization": "Q8_0"}, "quantization", ("Q4_K_M", "Q8_0")),
        ({"path": "other/file.gguf"}, "path", (f"vendor/{CHAT}.gguf", "other/file.gguf")),
        ({"context_length": 512}, "context_length", (4096, 512)),
    ],
)
def test_each_difference_of_a_loaded_model_is_named_with_its_hosts(
    other: dict[str, Any], name: str, values: tuple[object, object]
) -> None:
    check = comparison_check({"a:1": [instance(CHAT)], "b:1": [instance(CHAT, **other)]})
    assert check.verdict == "warning"
    assert check.details == (f"{CHAT}: {name} (a:1: {values[0]}, b:1: {values[1]})",)
    assert check.data["differences"] == [{"model": CHAT, name: {"a:1": values[0], "b:1": values[1]}}]


def test_different_files_of_an_embedding_model_are_a_warning_about_its_vectors() -> None:
    check = comparison_check({"a:1": [vectors("a.gguf")], "b:1": [vectors("b.gguf")]})
    assert check.verdict == "warning"
    assert check.fix
    assert "vectors" in check.fix


@pytest.mark.parametrize(
    ("loaded", "verdict", "found"),
    [
        ([[instance(CHAT)], [instance(CHAT)]], "ok", "2 of 2 hosts can be used; 1 model loaded on more than one"),
        ([[instance(CHAT)], []], "ok", "2 of 2 hosts can be used; no model loaded on more than one"),
        ([[instance(CHAT)], None], "skipped", "1 of 2 hosts can be used"),
        ([None, None], "skipped", "0 of 2 hosts can be used"),
    ],
)
def test_the_comparison_counts_the_hosts_that_can_be_used(
    loaded: list[list[ModelInstanceInfo] | None], verdict: str, found: str
) -> None:
    check = comparison_check(dict(zip(("a:1", "b:1"), loaded, strict=True)))
    assert (check.verdict, check.found) == (verdict, found)


def test_of_two_instances_the_one_with_the_name_as_identifier_is_compared() -> None:
    copies = [instance(CHAT, identifier=f"{CHAT}:2", context_length=512), instance(CHAT)]
    check = comparison_check({"a:1": copies, "b:1": [instance(CHAT)]})
    assert check.verdict == "ok"
