"""Writes the table of faults into `docs/tools/faults.md`: `python -m tools.faults_page`."""

from collections.abc import Iterator

from lmstudio_integrations.emulator.testing.proxy.fault_options import choose_faults
from tools import ROOT

PAGE = ROOT / "docs/tools/faults.md"

_HEADING = "## The faults\n"
"""The table follows until the end of the page."""


def render_page(old: str) -> str:
    """Return the page with the table of today."""
    before, heading, _ = old.partition(_HEADING)
    return f"{before}{heading}\n{''.join(f'{line}{chr(10)}' for line in _table())}"


def _table() -> Iterator[str]:
    yield "| name | kind | phase | what happens |"
    yield "| --- | --- | --- | --- |"
    for fault in choose_faults([]):
        lasts = " For a second." if fault.is_lasting else ""
        yield f"| `{fault.name}` | {fault.kind} | {fault.phase.word} | {fault.summary}{lasts} |"


if __name__ == "__main__":
    PAGE.write_text(render_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
