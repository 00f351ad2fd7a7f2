"""Every requirement of the server has a proof, and every proof a requirement."""

import re
from pathlib import Path

from tests.requirements_server import REQUIREMENTS

_PROOF = re.compile(r"@proves\(([^)]*)\)")
_NAME = re.compile(r'"([^"]+)"')


def test_each_requirement_is_proved_and_each_proof_is_of_a_requirement() -> None:
    proved: set[str] = set()
    for path in (Path(__file__).parent / "emulator").glob("test_*.py"):
        for names in _PROOF.findall(path.read_text(encoding="utf-8")):
            proved.update(_NAME.findall(names))
    assert proved == set(REQUIREMENTS)


def test_each_requirement_names_its_source() -> None:
    assert all(re.fullmatch(r"§\d(\.\d)?(, §\d(\.\d)?)*", source) for _, source in REQUIREMENTS.values())
