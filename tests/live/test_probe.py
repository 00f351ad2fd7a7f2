"""The probe: what it asks, that it touches nothing of the user, and what it needs."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmstudio_integrations import Client
from lmstudio_integrations.cassettes.cassette import read
from lmstudio_integrations.client.transport.connect import records
from lmstudio_integrations.client.transport.connect.addresses import Address
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioError, LMStudioOSError, LMStudioServerError, LMStudioValueError
from tests.docs.snippets import read as read_page
from tests.live.standin import KEY, entry
from tests.support.ports import closed_port
from tools.probe import machine
from tools.probe.context import PREFIX
from tools.probe.machine import describe_machine, write_machine
from tools.probe.question import Question
from tools.probe.run import QUESTIONS, describe_calls, run_probe

EMBEDDER = "acme/embedder"
BROKEN = "acme/broken"

PERMITTED = {
    "applyPromptTemplate",
    "completeRawText",
    "countTokens",
    "estimateModelUsage",
    "getBasePredictionConfig",
    "getInstanceProcessingState",
    "getLoadConfig",
    "getLocalFileAbsolutePath",
    "getModelInfo",
    "listDownloadedModels",
    "listLoaded",
    "lmLinkStatus",
    "lmsiProbe",
    "lmsiProbeChannel",
    "loadModel",
    "predict",
    "startToolUseSession",
    "surveyHardware",
    "tokenize",
    "unloadModel",
    "uploadFileBase64",
    "version",
}
"""Nothing that downloads, that loads just in time, that calls a tool, or that changes a setting of LM Studio."""


def reads(text: str) -> str:
    """Return a text."""
    return text


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server with models of the user: one loaded explicitly, and one just in time."""
    models = [
        entry(),
        ModelEntry(key=EMBEDDER, kind="embedding"),
        ModelEntry(key=BROKEN, rules=({"when": {"load": True}, "then": [{"error": "no memory"}]},)),
    ]
    with Emulator(models, load=[EMBEDDER], plugins={"mcp/reading": [reads]}) as server:
        with Client(server.address) as client:
            client.llm.model(KEY)
        yield server


def identifiers(server: Emulator) -> set[str]:
    return {info.identifier for info in server.loaded()}


@pytest.mark.exhaustive
@pytest.mark.slow
def test_the_probe_asks_every_question_and_leaves_everything_as_it_was(server: Emulator, tmp_path: Path) -> None:
    before = [info.instance_reference for info in server.loaded()]
    run_probe(server.address, KEY, tmp_path / "probe.jsonl", plugin="mcp/reading")
    assert [info.instance_reference for info in server.loaded()] == before
    assert server.tool_calls == ()
    recorded = read(tmp_path / "probe.jsonl")
    assert {each.section for each in recorded} == {question.name for question in QUESTIONS}
    assert {each.endpoint for each in recorded} <= PERMITTED
    loads = [each.parameter for each in recorded if each.endpoint == "loadModel"]
    assert {each["modelKey"] for each in loads} == {KEY, "lmsi-probe/no-such-model"}
    assert all(each["ttlMs"] for each in loads)
    unloaded = [each.parameter["identifier"] for each in recorded if each.endpoint == "unloadModel"]
    assert all(each.startswith(PREFIX) for each in unloaded)
    sent = [event.body for each in recorded for event in each.events if event.kind == "sent"]
    assert {packet["type"] for packet in sent} == {"cancel", "discardSession"}


def test_the_probe_unloads_its_instances_after_ctrl_c(server: Emulator, tmp_path: Path) -> None:
    before = identifiers(server)

    def interrupt(question: Question) -> None:
        if question is not QUESTIONS[0]:
            assert identifiers(server) > before
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_probe(server.address, KEY, tmp_path / "probe.jsonl", on_question=interrupt)
    assert identifiers(server) == before
    assert {each.section for each in read(tmp_path / "probe.jsonl")} == {QUESTIONS[0].name}


def test_the_probe_logs_in_with_a_token_which_is_not_recorded(tmp_path: Path) -> None:
    identifier, passkey = "abcdefgh", "abcdefghij0123456789"
    token, path = f"sk-lm-{identifier}:{passkey}", tmp_path / "probe.jsonl"
    asked = [
        question for question in QUESTIONS if question.name in {"load", "model-matching", "identity-after-release"}
    ]
    with Emulator([entry()], tokens=[token]) as server:
        run_probe(server.address, KEY, path, token=token, questions=asked)
    # The last question asks as a guest, which this server does not accept.
    assert {each.section for each in read(path)} == {"load", "model-matching"}
    recorded = path.read_text(encoding="utf-8")
    assert identifier not in recorded
    assert passkey not in recorded


def test_an_error_in_a_question_does_not_end_the_probe(server: Emulator, tmp_path: Path) -> None:
    def fail(_context: object) -> None:
        raise ConnectionResetError

    questions = [QUESTIONS[0], Question("fails", "load-model", "Does it?", fail), QUESTIONS[1]]
    run_probe(server.address, KEY, tmp_path / "probe.jsonl", questions=questions)
    assert {each.section for each in read(tmp_path / "probe.jsonl")} == {QUESTIONS[0].name, QUESTIONS[1].name}


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("acme/other", LMStudioValueError, "'acme/other' is no downloaded language model"),
        (EMBEDDER, LMStudioValueError, f"'{EMBEDDER}' is no downloaded language model"),
        (BROKEN, LMStudioServerError, "no memory"),
    ],
)
def test_the_probe_needs_a_downloaded_language_model_that_can_be_loaded(
    model: str, error: type[LMStudioError], message: str, server: Emulator, tmp_path: Path
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        run_probe(server.address, model, tmp_path / "probe.jsonl")


def test_the_probe_does_not_run_beside_another(server: Emulator, tmp_path: Path) -> None:
    with Client(server.address) as client:
        client.llm.load_new_instance(KEY, f"{PREFIX}1")
    with pytest.raises(
        LMStudioValueError, match=f"another probe runs, or has left {PREFIX}1; .*`lms unload {PREFIX}1`"
    ):
        run_probe(server.address, KEY, tmp_path / "probe.jsonl")
    assert f"{PREFIX}1" in identifiers(server)


def test_a_cassette_is_never_overwritten(server: Emulator, tmp_path: Path) -> None:
    before, path = identifiers(server), tmp_path / "probe.jsonl"
    path.write_text("mine")
    with pytest.raises(LMStudioOSError, match="exists"):
        run_probe(server.address, KEY, path)
    assert (path.read_text(), identifiers(server)) == ("mine", before)


def test_the_questions_and_what_their_calls_do_are_described() -> None:
    described = " ".join(describe_calls(KEY, "localhost:1234").split())
    assert all(f"{question.name} {question.text}" in described for question in QUESTIONS)
    assert "The calls for these questions go to localhost:1234" in described
    assert f"They load instances of {KEY} beside what is loaded" in described


def test_every_question_belongs_to_a_place_of_the_page_on_the_protocol_which_names_it() -> None:
    page = read_page("docs/protocol.md")
    unknown = page.partition("{ #unknown }")[2].partition("\n## ")[0]
    assert [question.name for question in QUESTIONS if f"{{ #{question.anchor} }}" not in page] == []
    assert [question.name for question in QUESTIONS if f"`{question.name}`" not in unknown] == []
    assert len({question.name for question in QUESTIONS}) == len(QUESTIONS)
    assert all(question.text.endswith("?") for question in QUESTIONS)


def test_the_machine_is_described_by_names_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    internal = tmp_path / "home" / "apps" / "bionic" / ".internal"
    (internal / "user-concrete-model-default-config" / "me").mkdir(parents=True)
    (internal / "lms-key-2").write_text("secret", encoding="utf-8")
    monkeypatch.setattr(records, "home", lambda: tmp_path / "home")
    with Emulator([entry()], catalog={"application": "bionic", "version": "1.1.7"}) as server, closed_port() as nobody:
        ports = (Address.parse(server.address), Address.parse(nobody))
        monkeypatch.setattr(machine, "public_candidates", lambda: ports)
        path = write_machine(describe_machine(server.address), tmp_path / "probe.jsonl")
    found = json.loads(path.read_bytes())
    status = {"package": "bionic", "version": "1.1.7"}
    assert found["server"] == {"status": status}
    assert found["folders"] == {
        "apps": ["bionic"],
        "apps/bionic": [".internal"],
        "apps/bionic/.internal": ["lms-key-2", "user-concrete-model-default-config"],
    }
    here, gone = found["public ports"].values()
    assert (here["status"], here["namespaces"]["llm"]) == (status, "open")
    assert gone["problem"].startswith("nothing listens there")
    assert "secret" not in path.read_text(encoding="utf-8")
