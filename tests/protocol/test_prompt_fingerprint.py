"""The fingerprints of prompts: what two of them have in common."""

import pytest

from lmstudio_integrations.protocol.prompt_fingerprint import fingerprint_of
from lmstudio_integrations.types.chat import ChatHistory

Prompt = tuple[list[dict[str, object]], list[dict[str, object]]]
TOOLS: list[dict[str, object]] = [{"type": "function", "function": {"name": "add"}}]


def message(role: str, *texts: str) -> dict[str, object]:
    return {"role": role, "content": [{"type": "text", "text": text} for text in texts]}


SYSTEM, QUESTION, ANSWER = message("system", "Be brief."), message("user", "Hi"), message("assistant", "Hello")
TURN = [SYSTEM, QUESTION]


@pytest.mark.parametrize(
    ("earlier", "later", "common"),
    [
        ((TURN, TOOLS), ([*TURN, ANSWER, QUESTION], TOOLS), 3),
        ((TURN, TOOLS), (TURN, []), 0),
        ((TURN, []), ([message("system", "Be long."), QUESTION, ANSWER], []), 1),
        ((TURN, []), ([message("user", "Be brief."), QUESTION], []), 1),
        ((TURN, []), ([SYSTEM, message("user", "Hi", "there")], []), 3),
        (([], []), (TURN, []), 1),
    ],
    ids=["a turn more", "other tools", "another system prompt", "another role", "a message that grows", "no message"],
)
def test_prompts_have_a_beginning_in_common(earlier: Prompt, later: Prompt, common: int) -> None:
    first, second = fingerprint_of(*earlier), fingerprint_of(*later)
    assert first.common_with(second) == second.common_with(first) == common


def test_what_stands_before_the_first_turn_is_known() -> None:
    assert fingerprint_of([SYSTEM, SYSTEM, QUESTION, SYSTEM], TOOLS).fixed == 3


def test_a_file_that_was_uploaded_again_is_the_same_part() -> None:
    first, second = (
        fingerprint_of([{"role": "user", "content": [{"type": "file", "name": "a.png", "identifier": identifier}]}])
        for identifier in ("one", "two")
    )
    assert first == second


def test_a_parsed_history_has_the_fingerprint_of_its_wire_form() -> None:
    wire = {"messages": [SYSTEM, QUESTION, ANSWER]}
    assert fingerprint_of(ChatHistory.model_validate(wire).to_dict()["messages"]) == fingerprint_of(wire["messages"])
