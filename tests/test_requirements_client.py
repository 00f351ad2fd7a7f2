"""Every requirement of the client is proved by a test, and every proof names a requirement."""

import re
from pathlib import Path

from tests.requirements import proofs, unknown, unproved
from tests.requirements_client import REQUIREMENTS


def test_every_requirement_of_the_client_is_proved_by_a_test() -> None:
    assert unproved(REQUIREMENTS) == []


def test_no_test_proves_what_is_not_required() -> None:
    assert unknown(REQUIREMENTS, "C-") == []


def test_every_requirement_is_a_sentence_with_its_section() -> None:
    for name, requirement in REQUIREMENTS.items():
        assert re.fullmatch(r"C(-[A-Z]+)+", name)
        assert requirement.section.startswith("#")
        assert requirement.sentence.endswith(".")
    assert len({requirement.sentence for requirement in REQUIREMENTS.values()}) == len(REQUIREMENTS)


def test_proofs_are_found_where_tests_name_them(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text(
        "@proves('C-ONE', 'C-TWO')\ndef test_one(): ...\n\n@proves('C-ONE')\nasync def test_two(): ...\n"
        "@other('C-THREE')\ndef test_three(): ...\n@proves('C-FOUR')\ndef helper(): ...\n"
    )
    assert proofs(tmp_path) == {
        "C-ONE": ["test_a.py::test_one", "test_a.py::test_two"],
        "C-TWO": ["test_a.py::test_one"],
    }
