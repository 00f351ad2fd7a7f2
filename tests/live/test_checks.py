"""The checks of evidence, with an emulator in the place of LM Studio: what deviates is found, and nothing else."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations.cassettes.cassette import ABSENT, Event, EventKind, Interaction, read
from lmstudio_integrations.emulator import Emulator
from tests.live.behavior import difference
from tests.live.recording import BY_NAME, ByQuestion, ask_emulator, by_question
from tests.live.specification import findings
from tests.live.standin import KEY, RULES, entry
from tools.probe.reasoning import CONSTANT
from tools.probe.run import QUESTIONS, run_probe

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

TOOL_CALL = ", ".join(
    f"toolCallGeneration{part}" for part in ("Start", "NameReceived", "ArgumentFragmentGenerated", "End")
)

Change = Callable[[Interaction], None]


def different_questions(real: ByQuestion, ours: ByQuestion) -> dict[str, str]:
    """Return the questions in which an emulator differs from a recording, with the differences."""
    found = {name: difference(BY_NAME[name], real[name], ours.get(name, ())) for name in real}
    return {name: text for name, text in found.items() if text is not None}


def findings_of(questions: ByQuestion) -> list[str]:
    return [each for name in questions for each in findings(questions[name], is_invalid=BY_NAME[name].is_invalid)]


def test_an_emulator_in_the_place_of_lm_studio_is_as_specified_and_as_the_emulator(
    probed: ByQuestion, tmp_path: Path
) -> None:
    assert list(probed) == [question.name for question in QUESTIONS]
    assert findings_of(probed) == []
    recorded = [each for interactions in probed.values() for each in interactions]
    assert different_questions(probed, ask_emulator(recorded, tmp_path / "again.jsonl")) == {}


def test_a_server_that_behaves_otherwise_at_one_question_is_reported(probed: ByQuestion, tmp_path: Path) -> None:
    silent = entry().model_copy(update={"rules": tuple(rule for rule in RULES if "tools" not in rule["when"])})
    questions = [QUESTIONS[0], BY_NAME["tool-call"], BY_NAME["stop-string"]]
    with Emulator([silent]) as server:
        run_probe(server.address, KEY, tmp_path / "real.jsonl", questions=questions)
    found = different_questions(by_question(read(tmp_path / "real.jsonl")), probed)
    assert list(found) == ["tool-call"]
    assert found["tool-call"].splitlines() == [
        "tool-call: Which packets does a tool call have, and why does the prediction stop?",
        "  real server: llm.predict: promptProcessingProgress, fragment, success (stopReason eosFound), closed",
        f"  emulator:    llm.predict: promptProcessingProgress, {TOOL_CALL}, success (stopReason toolCalls), closed",
        "Unless the model has decided this, correct docs/protocol.md#predict-packets, and the emulator by it.",
    ]


def _last_packet(interaction: Interaction) -> dict[str, Any]:
    return [*interaction.packets()][-1]


def _result(**members: Any) -> Change:
    return lambda interaction: interaction.result.update(members)


def _end(kind: EventKind, *body: Any) -> Change:
    def change(interaction: Interaction) -> None:
        interaction.events[-1] = Event(kind, *body)

    return change


def _without(kind: str) -> Change:
    def change(interaction: Interaction) -> None:
        events = interaction.events
        interaction.events = [each for each in events if each.kind != "received" or each.body["type"] != kind]

    return change


def _read_more_than_all(interaction: Interaction) -> None:
    for packet in interaction.packets():
        if "details" in packet:
            packet["details"]["cachedTokenCount"] += 1


DEVIATIONS: dict[str, tuple[str, int, Change, str, str]] = {
    "unknown stop reason": (
        *("overflow-stop-at-limit", -1, lambda each: _last_packet(each)["stats"].update(stopReason="full")),
        *("stats.stopReason must be one of", "stopReason full"),
    ),
    "channel without a last packet": (
        *("raw-completion", -1, _without("success"), "closed without a last packet", "closed"),
    ),
    "unknown member": ("tokens", 0, _result(ids=[1]), "unknown field 'ids'", "ids, tokens"),
    "counts that disagree": ("tokens", 1, _result(tokenCount=1), "and countTokens 1", ""),
    "unknown error code": (
        *("unknown-preset", -1, _end("error", {"displayData": {"code": "generic.other"}})),
        *("displayData.code must be one of", "error (generic.other)"),
    ),
    "error in place of a warning": (
        *("unknown-endpoint", 0, _end("error", {}), "with a warning only; it did with error", "error (without a code)"),
    ),
    "result that is absent": ("load-config", -1, _end("result"), "the result is absent", "void"),
    "call without an end": (*("tokens", 0, lambda each: each.events.pop(), "it has not ended", "nothing"),),
    "tool call without an end": (
        *("tool-call", -1, _without("toolCallGenerationEnd"), "neither an end nor a failure", "emulator:"),
    ),
    "rendering by an own template": (
        *("template-of-a-request", 0, _end("result", {"formatted": CONSTANT}), "", "result ('tick tock"),
    ),
    "load that counts as use": ("idle-instance", 1, _result(lastUsedTime=1), "", "an instance that was used"),
    "rounded context length": ("real-context-length", 1, _result(contextLength=512), "", "context length 512"),
    "unknown status of a survey": ("hardware-survey", 1, _result(status="no"), "status must be one of", "status no"),
    "LM Link that is on": ("link-status", 0, _result(status="online", issues=[]), "", ""),
    "counts that do not add up": ("stop-string", -1, _read_more_than_all, "not the sum of the other counts", ""),
}
"""What a server may do otherwise: the question, the request, the change; the finding and the difference about it."""


@pytest.mark.parametrize("name", DEVIATIONS)
def test_each_deviation_of_a_recording_is_found(name: str, probed: ByQuestion) -> None:
    question, index, change, finding, expected = DEVIATIONS[name]
    real = {**probed, question: deepcopy(probed[question], {id(ABSENT): ABSENT})}
    change(real[question][index])
    found = findings_of({question: real[question]})
    assert [finding in each for each in found] == ([True] * len(found) if finding else [])
    assert bool(found) == bool(finding)
    different = different_questions(real, probed)
    assert list(different) == ([question] if expected else [])
    assert expected in different.get(question, "")


def test_a_request_that_is_missing_is_a_difference(probed: ByQuestion) -> None:
    real = {**probed, "identity-after-release": probed["identity-after-release"][:1]}
    assert "  real server: nothing\n" in different_questions(real, probed)["identity-after-release"]
