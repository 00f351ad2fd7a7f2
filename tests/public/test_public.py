"""What users rely on stays as it was released last, unless the changelog names what differs.

The lists in this folder are written with each release, see `tools/public.py`.
"""

import re

import pytest

from tools import ROOT
from tools.public import KINDS, changes, read

UNRELEASED = re.search(
    r"^## \[Unreleased\]\n(.*?)(?=^## |\Z)",
    (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
    re.DOTALL | re.MULTILINE,
)


@pytest.mark.parametrize("kind", KINDS)
def test_what_differs_from_the_last_release_is_in_the_changelog(kind: str) -> None:
    assert UNRELEASED
    assert read(kind)
    missing = [names for names in changes(kind) if not any(f"`{name}`" in UNRELEASED[1] for name in names)]
    assert not missing, "of each list, name one in CHANGELOG.md, under [Unreleased], in backticks"
