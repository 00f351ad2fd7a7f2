"""Writes the table of faults into `docs/tools/faults.md`: `python -m tools.faults_page`."""

from collections.abc import Iterator
from itertools import groupby

from lmstudio_integrations.emulator.testing.faults import choose_faults
from tools import ROOT

PAGE = ROOT / "docs/tools/faults.md"

_HEADING = "## The faults\n"
"""The table follows until the end of the page."""


def render_page(old: str) -> str:
    """Return the page with the table of today."""
    before, heading, _ = old.partition(_HEADING)
    return f"{before}{heading}\n{''.join(f'{line}{chr(10)}' for line in _table())}"


def _table() -> Iterator[str]:
    yield "| phase | kind | faults |"
    yield "| --- | --- | --- |"
    for phase, faults in groupby(choose_faults([]), lambda fault: fault.phase.word):
        for kind, names in groupby(sorted(faults, key=lambda fault: fault.kind), lambda fault: fault.kind):
            yield f"| `{phase}` | `{kind}` | {', '.join(f'`{fault.name}`' for fault in names)} |"


if __name__ == "__main__":
    PAGE.write_text(render_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
