"""The verdicts of `doctor`, each from what was gathered."""

import pytest

from lmstudio_integrations.cli._doctor.checks import (
    LOAD_ONE,
    NO_SERVER,
    READ_FROM_TEXT,
    UNTRAINED,
    Check,
    Extra,
    TokenUse,
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
from lmstudio_integrations.errors import (
    LMStudioAuthenticationError,
    LMStudioError,
    LMStudioServerError,
    LMStudioTimeoutError,
    LMStudioUnreachableError,
)
from lmstudio_integrations.types.cards import CardRow, Observation, RowName
from lmstudio_integrations.types.models import (
    EmbeddingModelInfo,
    EmbeddingModelInstanceInfo,
    LlmInfo,
    LlmInstanceInfo,
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


def llm(key: str = "chat", *, tools: bool = True, vision: bool = False) -> LlmInfo:
    return LlmInfo(
        model_key=key,
        format="gguf",
        display_name=key,
        path=f"somebody/{key}",
        size_bytes=2_000_000_000,
        max_context_length=131072,
        trained_for_tool_use=tools,
        vision=vision,
    )


def embedder() -> EmbeddingModelInfo:
    return EmbeddingModelInfo(
        model_key="embedder", format="gguf", display_name="", path="a/b", size_bytes=100, max_context_length=512
    )


def loaded_llm(*, identifier: str = "chat", ttl_ms: int | None = None) -> LlmInstanceInfo:
    return LlmInstanceInfo(
        **llm().model_dump(), identifier=identifier, instance_reference="1", context_length=4096, ttl_ms=ttl_ms
    )


def test_an_address_that_takes_no_precedence_is_named() -> None:
    other = Attempt("b:2", "LMSTUDIO_HOST", "not tried, as --host takes precedence", tried=False)
    failed = Attempt("ws://a:1", "--host", "no response; check it")
    for attempt in (USED, failed):
        assert server_check([attempt, other], None, "").details == (
            "b:2 (LMSTUDIO_HOST): not tried, as --host takes precedence",
        )
    assert server_check([failed, other], None, "").fix == "check it"


def test_a_server_that_rejects_the_websocket_is_a_problem() -> None:
    check = server_check([USED], UNREACHABLE, "")
    assert (check.verdict, check.fix) == ("problem", "update LM Studio")


@pytest.mark.parametrize("failure", [None, REJECTED, UNREACHABLE])
def test_the_version_is_skipped_if_another_check_has_the_reason(failure: LMStudioError | None) -> None:
    assert version_check(None, failure) == Check("version", "skipped", NO_SERVER)


def test_a_server_that_does_not_send_its_version_is_a_problem() -> None:
    check = version_check(None, SILENT)
    assert (check.verdict, check.found, check.fix) == ("problem", "Version: nothing was received", None)


def extra(name: str, versions: dict[str, str | None], **outdated: str) -> Extra:
    return Extra(name, next(iter(versions)), versions, outdated, f"pip install {name}")


def test_complete_and_absent_extras_are_ok() -> None:
    check = extras_check([extra("cli", {"typer": "1"}), extra("langchain", {"core": None, "numpy": "2"})])
    assert check.verdict == "ok"
    assert check.found == "installed: cli; not installed: langchain"
    assert check.details == ("to install langchain: pip install langchain",)


def test_an_extra_that_lacks_a_package_is_a_warning() -> None:
    check = extras_check([extra("langchain", {"core": "1", "numpy": None})])
    assert (check.verdict, check.fix) == ("warning", "run: pip install langchain")
    assert check.found == "langchain: numpy is missing"


def test_an_extra_with_a_package_of_another_version_is_a_warning() -> None:
    check = extras_check([extra("langchain", {"core": "1"}, core=">=2")])
    assert (check.verdict, check.found) == ("warning", "langchain: core 1 is not >=2")


@pytest.mark.parametrize(
    ("use", "version", "failure", "verdict", "found"),
    [
        (TokenUse(None), VERSION, None, "ok", "none is set, and the server requires none"),
        (TokenUse("--token"), VERSION, None, "ok", "the server accepts the API token of --token"),
        (
            TokenUse("--token", "it is sent in plain text; use TLS"),
            VERSION,
            None,
            "warning",
            "it is sent in plain text",
        ),
        (
            TokenUse("LM_API_TOKEN"),
            None,
            REJECTED,
            "problem",
            "rejected this client: no (the API token of LM_API_TOKEN)",
        ),
        (TokenUse(None), None, REJECTED, "problem", "rejected this client: no (no API token)"),
        (TokenUse(None), None, None, "skipped", f"no API token; {NO_SERVER}"),
        (TokenUse("--token"), None, SILENT, "skipped", f"the API token of --token; {NO_SERVER}"),
    ],
)
def test_the_verdict_on_the_token_is_what_the_server_did(
    use: TokenUse, version: ServerVersion | None, failure: LMStudioError | None, verdict: str, found: str
) -> None:
    check = token_check(use, version, failure)
    assert check.verdict == verdict
    assert check.found.endswith(found)
    assert check.fix == {"problem": "copy it again", "warning": "use TLS"}.get(verdict)


def test_models_of_both_kinds_are_ok() -> None:
    check = models_check([llm(vision=True), llm("plain", tools=False), embedder()])
    assert (check.verdict, check.found) == ("ok", "2 language models and 1 embedding model downloaded")
    assert check.details == (
        "chat: chat, tool use, vision; 2.00 GB, context window up to 131,072 tokens",
        "plain: chat; 2.00 GB, context window up to 131,072 tokens",
        "embedder: embeddings; 100 B, context window up to 512 tokens",
    )


def test_models_of_one_kind_only_are_a_warning() -> None:
    check = models_check([llm()])
    assert (check.verdict, check.fix) == ("warning", "download a model for embeddings with `lms get`")


def test_no_model_at_all_is_a_problem() -> None:
    check = models_check([])
    assert check.verdict == "problem"
    assert check.fix == "download a model for chat and a model for embeddings with `lms get`"


@pytest.mark.parametrize("check", [models_check, loaded_check, reasoning_check])
def test_models_that_are_not_known_are_skipped_and_an_error_is_a_problem(check: object) -> None:
    assert callable(check)
    assert check(None).verdict == "skipped"
    assert check(None, SILENT).verdict == "problem"


def test_nothing_loaded_is_a_warning() -> None:
    check = loaded_check([])
    assert (check.verdict, check.fix) == ("warning", LOAD_ONE)


def test_loaded_models_are_listed_with_context_window_and_time_to_live() -> None:
    instance = EmbeddingModelInstanceInfo(
        **embedder().model_dump(), identifier="embedder", instance_reference="2", context_length=512, ttl_ms=90_000
    )
    check = loaded_check([loaded_llm(identifier="mine"), loaded_llm(ttl_ms=3_600_000), instance])
    assert (check.verdict, check.found) == ("ok", "3 models loaded")
    assert check.details == (
        "mine (chat): chat, tool use; context window 4,096 of 131,072 tokens; stays loaded",
        "chat: chat, tool use; context window 4,096 of 131,072 tokens; unloaded after 1h without use",
        "embedder: embeddings; context window 512 of 512 tokens; unloaded after 1m 30s without use",
    )
    assert [each["ttl_seconds"] for each in check.data["instances"]] == [None, 3600, 90]


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
    assert (check.verdict, check.found, check.fix) == (
        "problem",
        "embedder: Embedding error: no cause: why",
        "do this",
    )


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
