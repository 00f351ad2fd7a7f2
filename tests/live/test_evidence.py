"""`pytest -m live --from-cassette=FILE`: a recording of a real LM Studio against the specification and the emulator."""

from collections.abc import Sequence

import pytest

from lmstudio_integrations.cassettes.cassette import Interaction
from tests.live.behavior import difference, place
from tests.live.recording import BY_NAME, ByQuestion, by_question
from tests.live.specification import findings

pytestmark = pytest.mark.live


def test_what_the_real_server_says_is_as_specified(evidence: str, recorded: Sequence[Interaction]) -> None:
    question = BY_NAME[evidence]
    found = findings(by_question(recorded)[evidence], is_invalid=question.is_invalid)
    if found:
        lines = "\n  ".join(found)
        pytest.fail(f"{question.name}: {question.text}\n  {lines}\nSee {place(question)}.", pytrace=False)


def test_the_emulator_does_what_the_real_server_did(
    evidence: str, recorded: Sequence[Interaction], emulated: ByQuestion
) -> None:
    different = difference(BY_NAME[evidence], by_question(recorded)[evidence], emulated.get(evidence, ()))
    if different is not None:
        pytest.fail(different, pytrace=False)
