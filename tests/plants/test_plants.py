"""The plants can be planted: each says what is wrong with it, and changes the trunk as it is now."""

import subprocess
from pathlib import Path

import pytest

from tools import ROOT
from tools.leaves import is_of, leaves, module_name
from tools.plants import FOLDER, Plant

OF_LEAVES = [name for names in leaves().values() for name in names]


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.patch")), ids=lambda path: path.stem)
def test_a_plant_changes_the_trunk(path: Path) -> None:
    plant = Plant(path)
    assert plant.sentence.endswith(".")
    assert not is_of(module_name(ROOT / plant.file), OF_LEAVES)
    checked = subprocess.run(
        ["git", "apply", "--check", "-C1", path], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, f"{checked.stderr}; make the patch again for the code as it is now"
