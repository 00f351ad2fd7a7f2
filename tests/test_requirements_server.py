"""Every requirement of the server is proved by a test, and every proof names a requirement."""

import re

from tests.requirements import unknown, unproved
from tests.requirements_server import REQUIREMENTS


def test_every_requirement_of_the_server_is_proved_by_a_test() -> None:
    assert unproved(REQUIREMENTS) == []


def test_no_test_proves_what_is_not_required() -> None:
    assert unknown(REQUIREMENTS, "S-") == []


def test_every_requirement_is_a_sentence_with_its_section() -> None:
    for name, requirement in REQUIREMENTS.items():
        assert re.fullmatch(r"S(-[A-Z]+)+", name)
        assert re.fullmatch(r"#[a-z0-9-]+(, #[a-z0-9-]+)*", requirement.section)
        assert requirement.sentence.endswith(".")
    assert len({requirement.sentence for requirement in REQUIREMENTS.values()}) == len(REQUIREMENTS)
