"""`pytest -m live --from-cassette=FILE`: a recording of a real LM Studio against the specification and the emulator."""

from collections.abc import Sequence

import pytest

from lmstudio_integrations.emulator.cassettes.cassette import Interaction
from tests.live.behavior import difference, place
from tests.live.recording import BY_NAME, Rows, by_row
from tests.live.specification import findings

pytestmark = pytest.mark.live


def test_what_the_real_server_says_is_as_specified(evidence: str, recorded: Sequence[Interaction]) -> None:
    row = BY_NAME[evidence]
    found = findings(by_row(recorded)[evidence], is_invalid=row.is_invalid)
    if found:
        lines = "\n  ".join(found)
        pytest.fail(f"{row.name}: {row.question}\n  {lines}\nSee {place(row)}.", pytrace=False)


@pytest.mark.timeout(120)
def test_the_emulator_does_what_the_real_server_did(
    evidence: str, recorded: Sequence[Interaction], emulated: Rows
) -> None:
    different = difference(BY_NAME[evidence], by_row(recorded)[evidence], emulated.get(evidence, ()))
    if different is not None:
        pytest.fail(different, pytrace=False)
