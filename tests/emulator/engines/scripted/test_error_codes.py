"""The codes of errors stand in a few tables, each with what its reader needs; here they are compared."""

import re
from pathlib import Path

import pytest

from lmstudio_integrations.emulator import errors
from lmstudio_integrations.emulator.engines.scripted.error_codes import MEMBERS, unsupported

PROTOCOL = Path(__file__).parents[4] / "docs" / "protocol.md"


def documented() -> dict[str, set[str]]:
    """Return the codes of the protocol's page, with the names of their members."""
    section = PROTOCOL.read_text(encoding="utf-8").partition("{ #error-codes }")[2].partition("\n### ")[0]
    rows = re.findall(r"^\| `(generic\.\w+)` \| (.+) \|$", section, re.MULTILINE)
    return {code: set(re.findall(r"`(\w+)`", members)) for code, members in rows}


def test_rules_can_raise_every_documented_code_with_its_members() -> None:
    assert documented() == {code: set(members) for code, members in MEMBERS.items()}


@pytest.mark.parametrize(
    "error",
    [
        errors.model_unloaded(),
        errors.no_model_matching({}, []),
        errors.path_not_found("a", []),
        errors.domain_mismatch("a", "llm", "embedding"),
        errors.preset_not_found("a", []),
        unsupported("a"),
    ],
    ids=lambda error: error.title,
)
def test_an_error_of_the_emulator_has_the_members_of_its_code(error: errors.WireError) -> None:
    assert error.display_data is not None
    assert error.display_data.keys() == {"code", *documented()[error.display_data["code"]]}
