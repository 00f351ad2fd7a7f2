"""The generated parts of `docs/speed.md`: `python -m benchmarks.page FILE` writes them.

FILE is what `python -m benchmarks.run --json` wrote. It is kept as `benchmarks/results.json`, and a chart
is drawn, which needs matplotlib. Without FILE, the page is made again of the kept results. What stands between the
markers is overwritten; the rest of the page is written by hand.
"""

import argparse
import hashlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.environment import ROOT
from benchmarks.results import Outcome, Results, from_json, outcomes
from benchmarks.rows import ROWS, Group
from benchmarks.table import render
from benchmarks.targets import FLOOR, OURS, Values, peers

RESULTS = ROOT / "benchmarks/results.json"
PAGE = ROOT / "docs/speed.md"
CHART = ROOT / "docs/images/speed.svg"

_PART = re.compile(r"(<!-- begin (\w+)[^>]*-->\n).*?(<!-- end \2 -->\n)", re.DOTALL)

_SENTENCES: dict[tuple[Group, str], str] = {
    ("langchain", "stream"): (
        "A LangChain stream costs {ours} times the framework's own cost per token; "
        "the next package, {peer}, {its} times."
    ),
    ("llama_index", "stream"): (
        "A LlamaIndex stream costs {ours} times the framework's own; the next package, {peer}, {its} times."
    ),
    ("native", "stream"): (
        "The native client costs {ours} times what the `websockets` library and the `json` module need for the same "
        "frames; the {peer}, {its} times."
    ),
}
"""What a reader in a hurry should know, by group and case."""


def with_parts(page: str, results: Results) -> str:
    """Return the page with its generated parts made of results."""
    found = outcomes(ROWS, results.measurements)
    parts = {"summary": _summary(found), "results": _results(results, found), "missed": _missed(found)}
    return _PART.sub(lambda match: f"{match[1]}{parts[match[2]]}\n{match[3]}", page)


def missed(found: Sequence[Outcome]) -> list[str]:
    """Return the labels of the rows that do not reach their targets."""
    return [outcome.row.label for outcome in found if outcome.reached is False]


def incomplete(found: Sequence[Outcome]) -> list[str]:
    """Return the labels of the rows of which something was not measured."""
    return [outcome.row.label for outcome in found if outcome.reached is None]


def digest_line(results: str) -> str:
    """Return the last line of the chart that belongs to results, as JSON."""
    return f"<!-- {RESULTS.name}: {hashlib.sha256(results.encode()).hexdigest()} -->\n"


def times(value: float) -> str:
    """Return a multiple."""
    return f"{value:.1f}" if value < 9.95 else f"{value:,.0f}"


def _summary(found: Sequence[Outcome]) -> str:
    by_case = {(outcome.row.group, outcome.row.case): outcome.values for outcome in found}
    return "\n".join(_sentence(text, by_case[case]) for case, text in _SENTENCES.items())


def _sentence(text: str, values: Values) -> str:
    peer, needed = next(iter(peers(values).items()))
    floor = values[FLOOR]
    return text.format(ours=times(values[OURS] / floor), peer=peer, its=times(needed / floor))


def _results(results: Results, found: Sequence[Outcome]) -> str:
    python, *packages = (f"{name} {version}" for name, version in results.versions.items())
    run = (
        f"Medians of {results.rounds} rounds on {results.date}, with {python} on {results.machine['platform']}, "
        f"{results.machine['cpus']} cores."
    )
    return f"{run}\n\n{render(found)}\n\nMeasured with {', '.join(packages)}."


def _missed(found: Sequence[Outcome]) -> str:
    names = missed(found)
    if not names:
        return "Every target was reached in this run."
    return "\n".join([f"Missed in this run, {len(names)} of {len(found)}:", "", *(f"- {name}" for name in names)])


def main() -> None:
    """Write the page and draw the chart."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=RESULTS, metavar="FILE", help="what `run --json` wrote")
    text = parser.parse_args().file.read_text(encoding="utf-8")
    results = from_json(text)
    found = outcomes(ROWS, results.measurements)
    if lacking := incomplete(found):
        sys.exit(f"not everything was measured: {', '.join(lacking)}")
    page = with_parts(PAGE.read_text(encoding="utf-8"), results)
    from benchmarks.chart import draw

    draw(found, CHART, digest_line(text))
    RESULTS.write_text(text, encoding="utf-8")
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
