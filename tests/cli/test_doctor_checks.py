"""The verdicts of `doctor`, each from what was gathered, and the comparison of several hosts."""

from dataclasses import replace
from typing import Any

import pytest

from lmstudio_integrations.cli._doctor.checks import (
    NO_SERVER,
    READ_FROM_TEXT,
    UNTRAINED,
    Check,
    Extra,
    TokenUse,
    comparison_check,
    count_verdicts,
    extras_check,
    failed_check,
    loaded_check,
    models_check,
    reasoning_check,
    server_check,
    summary,
    token_check,
    trial_check,
    version_check,
)
from lmstudio_integrations.client.transport.connect.discovery import Attempt
from lmstudio_integrations.client.transport.connect.probe import ServerStatus
from lmstudio_integrations.errors import (
    LMStudioAuthenticationError,
    LMStudioError,
    LMStudioServerError,
    LMStudioTimeoutError,
    LMStudioUnreachableError,
)
from lmstudio_integrations.types.cards import CardRow, Observation, RowName
from lmstudio_integrations.types.models import (
    DecisionModelInfo,
    EmbeddingModelInfo,
    EmbeddingModelInstanceInfo,
    LlmInfo,
    LlmInstanceInfo,
    ModelInfo,
    ModelInstanceInfo,
    Quantization,
    ServerVersion,
)
from lmstudio_integrations.types.reasoning import REJECTED_REASONING, ReasoningReplay

VERSION = ServerVersion(version="0.3.30", build=2)
REJECTED = LMStudioAuthenticationError(
    "LM Studio rejected this client: no\n  suggestion: copy it again", suggestion="copy it again"
)
UNREACHABLE = LMStudioUnreachableError("LM Studio is not reachable at ws://a:1: the WebSocket failed; update LM Studio")
SILENT = LMStudioTimeoutError(
    "Version: nothing was received; raise idle_timeout, or set it to None", timeout_name="idle_timeout"
)
USED = Attempt("ws://a:1", "--host")


def llm(key: str = "chat", **changes: Any) -> LlmInfo:
    info = LlmInfo(
        model_key=key,
        format="gguf",
        display_name=key,
        path=f"vendor/{key}.gguf",
        size_bytes=2_000_000_000,
        max_context_length=131072,
        trained_for_tool_use=True,
        vision=False,
        quantization=Quantization(name="Q4_K_M", bits=4),
    )
    return info.model_copy(update=changes)


def embedder(path: str = "a/b") -> EmbeddingModelInfo:
    return EmbeddingModelInfo(
        model_key="embedder", format="gguf", display_name="", path=path, size_bytes=100, max_context_length=512
    )


def decider(key: str = "judge") -> DecisionModelInfo:
    return DecisionModelInfo(
        model_key=key, format="gguf", display_name="", path=key, size_bytes=100, max_context_length=512
    )


def loaded_llm(identifier: str = "chat", *, context_length: int = 4096, **changes: Any) -> LlmInstanceInfo:
    info = llm().model_dump()
    loaded = LlmInstanceInfo(**info, identifier=identifier, instance_reference="1", context_length=context_length)
    return loaded.model_copy(update=changes)


def loaded_embedder(path: str = "a/b", ttl_ms: int | None = None) -> EmbeddingModelInstanceInfo:
    info = embedder(path).model_dump()
    return EmbeddingModelInstanceInfo(
        **info, identifier="embedder", instance_reference="2", context_length=512, ttl_ms=ttl_ms
    )


def test_an_address_that_takes_no_precedence_is_named() -> None:
    other = Attempt("b:2", "LMSTUDIO_HOST", "not tried, as --host takes precedence", tried=False)
    failed = Attempt("ws://a:1", "--host", "no response; check it")
    for attempt in (USED, failed):
        assert server_check([attempt, other], None, "").details == (
            "b:2 (LMSTUDIO_HOST): not tried, as --host takes precedence",
        )
    assert server_check([failed, other], None, "").fix == "check it"
    rejected = server_check([USED], UNREACHABLE, "")
    assert (rejected.verdict, rejected.fix) == ("problem", "update LM Studio")


@pytest.mark.parametrize("failure", [None, REJECTED, UNREACHABLE])
def test_the_version_is_skipped_if_another_check_has_the_reason(failure: LMStudioError | None) -> None:
    assert version_check(None, failure) == Check("version", "skipped", NO_SERVER)


def test_a_server_that_does_not_send_its_version_is_a_problem() -> None:
    check = version_check(None, SILENT)
    assert (check.verdict, check.found, check.fix) == ("problem", "Version: nothing was received", None)


@pytest.mark.parametrize(
    ("status", "version", "server", "found"),
    [
        (None, "0.3.30", "LM Studio responds", "LM Studio 0.3.30, build 2"),
        (ServerStatus("bionic", "1.1.7"), "1.1.7", "Bionic responds", "Bionic 1.1.7, build 2"),
        (
            ServerStatus("daemon", "0.0.17"),
            "0.4.25",
            "llmster responds",
            "llmster 0.0.17, which serves as version 0.4.25, build 2",
        ),
        (ServerStatus("splash", "2.0"), "2.0", "splash responds", "splash 2.0, build 2"),
        (ServerStatus("bionic", "1.1.7"), "1.1.7+emulator", "the emulator", "emulator 1.1.7, which plays Bionic"),
    ],
)
def test_the_application_and_its_version_are_named(
    status: ServerStatus | None, version: str, server: str, found: str
) -> None:
    of_client = ServerVersion(version=version, build=2)
    check = server_check([replace(USED, status=status)], None, "", of_client)
    assert check.found.startswith(server)
    assert check.data["application"] == (status and status._asdict())
    assert version_check(of_client, None, status).found == found


@pytest.mark.parametrize(
    ("versions", "outdated", "verdict", "found"),
    [
        ({"core": None, "numpy": "2"}, {}, "ok", "installed: cli; not installed: langchain"),
        ({"core": "1", "numpy": None}, {}, "warning", "langchain: numpy is missing"),
        ({"core": "1"}, {"core": ">=2"}, "warning", "langchain: core 1 is not >=2"),
    ],
)
def test_an_extra_that_lacks_a_package_or_its_version_is_a_warning_unless_it_is_absent(
    versions: dict[str, str | None], outdated: dict[str, str], verdict: str, found: str
) -> None:
    cli = Extra("cli", "typer", {"typer": "1"}, {}, "")
    check = extras_check([cli, Extra("langchain", "core", versions, outdated, "pip install langchain")])
    assert (check.verdict, check.found) == (verdict, found)
    assert check.fix == (None if verdict == "ok" else "run: pip install langchain")
    assert check.details == (("to install langchain: pip install langchain",) if verdict == "ok" else ())


@pytest.mark.parametrize(
    ("source", "danger", "version", "failure", "verdict", "found"),
    [
        (None, None, VERSION, None, "ok", "none is set, and the server requires none"),
        ("--token", None, VERSION, None, "ok", "the server accepts the API token of --token"),
        ("--token", "it is in plain text; use TLS", VERSION, None, "warning", "it is in plain text"),
        ("LM_API_TOKEN", None, None, REJECTED, "problem", "this client: no (the API token of LM_API_TOKEN)"),
        (None, None, None, REJECTED, "problem", "rejected this client: no (no API token)"),
        (None, None, None, None, "skipped", f"no API token; {NO_SERVER}"),
        ("--token", None, None, SILENT, "skipped", f"the API token of --token; {NO_SERVER}"),
    ],
)
def test_the_verdict_on_the_token_is_what_the_server_did(
    source: str | None,
    danger: str | None,
    version: ServerVersion | None,
    failure: LMStudioError | None,
    verdict: str,
    found: str,
) -> None:
    check = token_check(TokenUse(source, danger), version, failure)
    assert check.verdict == verdict
    assert check.found.endswith(found)
    assert check.fix == {"problem": "copy it again", "warning": "use TLS"}.get(verdict)


def test_models_of_both_kinds_are_ok() -> None:
    check = models_check([llm(vision=True), llm("plain", trained_for_tool_use=False), embedder()])
    assert (check.verdict, check.found) == ("ok", "2 language models and 1 embedding model downloaded")
    assert check.details == (
        "chat: chat, tool use, vision; 2.00 GB, context window up to 131,072 tokens",
        "plain: chat; 2.00 GB, context window up to 131,072 tokens",
        "embedder: embeddings; 100 B, context window up to 512 tokens",
    )


def test_models_of_other_kinds_are_counted_as_well() -> None:
    models: list[ModelInfo] = [llm("qwen3-reranker-0.6b"), llm(), decider(), decider("other"), embedder()]
    check = models_check(models)
    assert check.verdict == "ok"
    assert check.found == "1 language model, 1 embedding model, 1 reranker and 2 decision models downloaded"
    assert [each.split("; ")[0] for each in check.details] == [
        "qwen3-reranker-0.6b: reranking",
        "chat: chat, tool use",
        "judge: decisions",
        "other: decisions",
        "embedder: embeddings",
    ]
    assert models_check(models[:1]).fix == "download a model for chat and a model for embeddings with `lms get`"


@pytest.mark.parametrize(
    ("models", "verdict", "missing"),
    [([llm()], "warning", "a model for embeddings"), ([], "problem", "a model for chat and a model for embeddings")],
)
def test_without_models_of_a_kind_it_says_what_to_download(models: list[LlmInfo], verdict: str, missing: str) -> None:
    check = models_check(models)
    assert (check.verdict, check.fix) == (verdict, f"download {missing} with `lms get`")


@pytest.mark.parametrize("check", [models_check, loaded_check, reasoning_check])
def test_models_that_are_not_known_are_skipped_and_an_error_is_a_problem(check: Any) -> None:
    assert check(None).verdict == "skipped"
    assert check(None, SILENT).verdict == "problem"


def test_loaded_models_are_listed_with_context_window_and_time_to_live() -> None:
    check = loaded_check([loaded_llm("mine"), loaded_llm(ttl_ms=3_600_000), loaded_embedder(ttl_ms=90_000)])
    assert (check.verdict, check.found) == ("ok", "3 models loaded")
    assert check.details == (
        "mine (chat): chat, tool use; context window 4,096 of 131,072 tokens; stays loaded",
        "chat: chat, tool use; context window 4,096 of 131,072 tokens; unloaded after 1h without use",
        "embedder: embeddings; context window 512 of 512 tokens; unloaded after 1m 30s without use",
    )
    assert [each["ttl_seconds"] for each in check.data["instances"]] == [None, 3600, 90]
    nothing = loaded_check([])
    assert (nothing.verdict, nothing.found, nothing.fix) == (
        "ok",
        "no model is loaded; a call that names one loads it",
        None,
    )


REPLAYS = {
    "shows all thoughts; auto sends all thoughts": ReasoningReplay("kept", "kept", "kept"),
    "omits all thoughts; auto sends all thoughts": ReasoningReplay("stripped", "stripped", "stripped"),
    "shows thoughts before calls of the current turn, omits thoughts before earlier calls and before answers; "
    "auto sends all thoughts": ReasoningReplay("kept", "stripped", "stripped"),
    "copies all thoughts like any text; auto sends thoughts before calls of the current turn and before earlier "
    "calls": ReasoningReplay("copied", "copied", "copied"),
    "shows all thoughts in the wrong place; auto sends none": ReasoningReplay("misplaced", "misplaced", "misplaced"),
    "rejects conversations with all thoughts; auto sends none": REJECTED_REASONING,
    "shows thoughts before calls of the current turn, omits thoughts before earlier calls, rejects conversations with "
    "thoughts before answers; auto sends thoughts before calls of the current turn and before earlier calls without "
    "tags": ReasoningReplay("kept", "stripped", "rejected", is_bare=True),
}


@pytest.mark.parametrize(("line", "replay"), REPLAYS.items())
def test_what_a_chat_template_does_with_thoughts_and_what_is_sent_is_a_line(line: str, replay: ReasoningReplay) -> None:
    check = reasoning_check({"chat": replay})
    assert check.details == (f"chat: {line}",)
    is_misplaced = replay.answer == "misplaced"
    assert check.verdict == ("warning" if is_misplaced else "ok")
    assert check.fix == (f"{READ_FROM_TEXT} (chat)" if is_misplaced else None)


def test_a_trial_that_fails_is_a_problem_with_the_remedy_of_its_error() -> None:
    failure = LMStudioServerError("Embedding error: no\n  cause: why\n  suggestion: do this", suggestion="do this")
    check = failed_check("embedding", "embedder", failure)
    assert (check.verdict, check.fix) == ("problem", "do this")
    assert check.found == "embedder: Embedding error: no cause: why"


@pytest.mark.parametrize(
    ("name", "trained", "verdict", "fix"),
    [
        ("tools", True, "problem", "the advice"),
        ("tools", False, "warning", UNTRAINED),
        ("structure", False, "problem", "the advice"),
    ],
)
def test_training_for_tools_excuses_nothing_else(name: RowName, trained: bool, verdict: str, fix: str) -> None:
    failure = Observation(case="nested/1", kind="verdict", outcome="rejected", detail="no grammar")
    row = CardRow(name=name, summary="0 of 1 right", advice="the advice", observations=(failure,))
    words = {"tools": "a call with nested arguments", "structure": "nested JSON"}[name]
    check = trial_check(row, "chat", trained=trained)
    assert (check.verdict, check.fix, check.details) == (verdict, fix, (f"{words}: rejected: no grammar",))


def test_the_last_line_counts_the_verdicts() -> None:
    checks = [Check("a", "ok", ""), Check("b", "problem", ""), Check("c", "skipped", ""), Check("d", "ok", "")]
    assert count_verdicts(checks) == {"problem": 1, "warning": 0, "ok": 2, "skipped": 1}
    assert summary(checks) == "1 problem (b), 0 warnings; 2 ok, 1 skipped."


# Several hosts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "change", "values"),
    [
        ("quantization", {"quantization": Quantization(name="Q8_0", bits=8)}, ("Q4_K_M", "Q8_0")),
        ("path", {"path": "other/file.gguf"}, ("vendor/chat.gguf", "other/file.gguf")),
        ("context_length", {"context_length": 512}, (4096, 512)),
    ],
)
def test_each_difference_of_a_loaded_model_is_named_with_its_hosts(
    name: str, change: dict[str, Any], values: tuple[object, object]
) -> None:
    check = comparison_check({"a:1": [loaded_llm()], "b:1": [loaded_llm(**change)]})
    assert check.verdict == "warning"
    assert check.details == (f"chat: {name} (a:1: {values[0]}, b:1: {values[1]})",)
    assert check.data["differences"] == [{"model": "chat", name: {"a:1": values[0], "b:1": values[1]}}]


def test_different_files_of_an_embedding_model_are_a_warning_about_its_vectors() -> None:
    check = comparison_check({"a:1": [loaded_embedder("a.gguf")], "b:1": [loaded_embedder("b.gguf")]})
    assert (check.verdict, "vectors" in (check.fix or "")) == ("warning", True)


COPY = loaded_llm("chat:2", context_length=512)


@pytest.mark.parametrize(
    ("loaded", "verdict", "found"),
    [
        ([[loaded_llm()], [loaded_llm()]], "ok", "2 of 2 hosts can be used; 1 model loaded on more than one"),
        ([[COPY, loaded_llm()], [loaded_llm()]], "ok", "2 of 2 hosts can be used; 1 model loaded on more than one"),
        ([[loaded_llm()], []], "ok", "2 of 2 hosts can be used; no model loaded on more than one"),
        ([[loaded_llm()], None], "skipped", "1 of 2 hosts can be used"),
        ([None, None], "skipped", "0 of 2 hosts can be used"),
    ],
    ids=["the same", "the instance with the name as identifier", "one", "one host", "no host"],
)
def test_the_comparison_counts_the_hosts_that_can_be_used(
    loaded: list[list[ModelInstanceInfo] | None], verdict: str, found: str
) -> None:
    check = comparison_check(dict(zip(("a:1", "b:1"), loaded, strict=True)))
    assert (check.verdict, check.found) == (verdict, found)
