"""Writes the generated parts of the pages about speed, and draws their charts: `python -m benchmarks.page`.

`docs/guides/speed.md` is for users, `docs/internals/benchmarks.md` for contributors. They are made of
`benchmarks/results.json`, which `python -m benchmarks.speed` writes, and of `benchmarks/waits.json`, which
`python -m benchmarks.waits` writes. What stands between the markers is overwritten; the rest of a page is written by
hand. The charts need matplotlib.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks import waits
from benchmarks.environment import ROOT
from benchmarks.programs import FLOOR, OURS
from benchmarks.speed import GROUPS, RESULTS, ROWS, Row, number, table

_PART = re.compile(r"(<!-- begin (\w+)[^>]*-->\n).*?(<!-- end \2 -->\n)", re.DOTALL)

_SENTENCES = {
    "langchain": "A LangChain stream costs {ours} times the framework's own cost per token; "
    "the next package, {peer}, {its} times.",
    "llama_index": "A LlamaIndex stream costs {ours} times the framework's own; the next package, {peer}, {its} times.",
    "native": "The native client costs {ours} times what the `websockets` library and the `json` module need for the "
    "same frames; the {peer}, {its} times.",
}
"""What a reader in a hurry should know about the streams of each group."""

CASES = {
    "A stream of 1,000 tokens": "stream",
    "A response of one token": "one",
    "1,000 embeddings of 768 numbers": "embed",
    "200 streams at once": "many",
}
"""What the chart and the table for users show."""

COLUMNS = ("langchain", "llama_index", "native")
"""The groups as users read them."""

DRAWN_WAITS = {
    "chat": "A chat",
    "agent": "An agent",
    "retrieval": "Retrieval",
    "in_front": "Retrieval, in front",
}
"""What the chart about waiting shows."""

OURS_COLOR, PEER_COLOR = "#2563eb", "#b8bec9"

# Some versions of matplotlib name every key in its type, others do not.
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "speed",
    "svg.fonttype": "none",  # text stays text: it is found by a search, and the file is small
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.spines.bottom": False,
    "ytick.major.size": 0,
}

BESIDE: dict[str, Any] = {
    "xytext": (4, 0),
    "textcoords": "offset points",
    "va": "center",
    "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.8},
}
"""Where the number of a bar stands; nothing shines through it."""


class Report(NamedTuple):
    """Pages and a chart that are made of kept results.

    Attributes:
        results: The file of the results.
        pages: The pages.
        chart: The chart.
        parts: Makes the generated parts of the pages, by their names.
        draw: Draws the chart on a canvas.
    """

    results: Path
    pages: Sequence[Path]
    chart: Path
    parts: Callable[[Mapping[str, Any]], Mapping[str, str]]
    draw: Callable[[Mapping[str, Any], Any], Any]

    def written(self, page: str) -> str:
        """Return a page with those of its generated parts that are made of these results."""
        parts = self.parts(json.loads(self.results.read_text(encoding="utf-8")))
        return _PART.sub(
            lambda match: f"{match[1]}{parts[match[2]]}\n{match[3]}" if match[2] in parts else match[0], page
        )

    def last_line(self) -> str:
        """Return the last line of the chart, which says of which results it is made."""
        digest = hashlib.sha256(self.results.read_bytes()).hexdigest()
        return f"<!-- {self.results.name}: {digest} -->\n"


def _speed(results: Mapping[str, Any]) -> dict[str, str]:
    python, *packages = (f"{name} {version}" for name, version in results["versions"].items())
    run = (
        f"Medians of {results['rounds']} rounds on {results['date']}, with {python} on "
        f"{results['machine']['platform']}, {results['machine']['cpus']} cores."
    )
    return {
        "run": run,
        "costs": _costs(results),
        "behind": _behind(results),
        "summary": "\n".join(_sentence(text, _multiples(group, results)) for group, text in _SENTENCES.items()),
        "results": f"{run}\n\n{table(ROWS, results['measurements'])}\n\nMeasured with {', '.join(packages)}.",
    }


def _waits(results: Mapping[str, Any]) -> dict[str, str]:
    machine = results["machine"]
    return {
        "measured": f"Measured on {results['date']}, on {machine['platform']}, {machine['cpus']} cores, one of them for"
        " the model."
    }


def _waits_of(results: Mapping[str, Any]) -> dict[str, waits.Waits]:
    return {name: waits.Waits(**case) for name, case in results["cases"].items()}


def _values(group: str, case: str, results: Mapping[str, Any]) -> dict[str, float]:
    """Return what the floor, ours and the peers need; empty if it was not measured."""
    rows: list[Row] = [row for row in ROWS if (row.group, row.case) == (group, case)]
    return rows[0].values(results["measurements"]) if rows else {}


def _unit(case: str) -> str:
    return next(row.unit for row in ROWS if row.case == case)


def _listed(values: Mapping[str, float]) -> str:
    """Return ours and the peers in words."""
    return ", ".join(
        f"**{number(value)}**" if role == OURS else f"{role} {number(value)}"
        for role, value in values.items()
        if role != FLOOR
    )


def _costs(results: Mapping[str, Any]) -> str:
    """Return the table for users."""
    lines = [f"| | {' | '.join(GROUPS[group] for group in COLUMNS)} |", "| --- " * (len(COLUMNS) + 1) + "|"]
    for title, case in CASES.items():
        cells = [_listed(_values(group, case, results)) or "-" for group in COLUMNS]
        lines.append(f"| {title}, {_unit(case)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _behind(results: Mapping[str, Any]) -> str:
    """Return the rows in which a peer needs less."""
    found = [
        (row, row.values(results["measurements"])) for row in ROWS if row.case in results["measurements"][row.group]
    ]
    lines = [
        f"- {GROUPS[row.group]}, {row.title} ({row.unit}): {_listed(values)}"
        for row, values in found
        if values[OURS] > min(values[role] for role in values if role not in {FLOOR, OURS})
    ]
    return "\n".join(lines) or "- none of what was measured"


def _multiples(group: str, results: Mapping[str, Any]) -> dict[str, float]:
    """Return what streams of ours and of the peers need, as multiples of the floor."""
    values = _values(group, "stream", results)
    return {role: value / values[FLOOR] for role, value in values.items() if role != FLOOR}


def _sentence(text: str, multiples: Mapping[str, float]) -> str:
    (_, ours), (peer, its), *_ = multiples.items()
    return text.format(ours=_times(ours), peer=peer, its=_times(its))


def _times(value: float) -> str:
    return f"{value:.1f}" if value < 9.95 else f"{value:,.0f}"


def _draw_speed(results: Mapping[str, Any], plt: Any) -> Any:
    values = {case: {group: _values(group, case, results) for group in COLUMNS} for case in CASES.values()}
    bars = [sum(map(len, groups.values())) for groups in values.values()]
    canvas, axes = plt.subplots(len(CASES), figsize=(5.6, 7.6), height_ratios=bars)
    for panel, (title, case) in zip(axes, CASES.items(), strict=True):
        _draw_panel(panel, f"{title}, {_unit(case)}", values[case])
    canvas.supxlabel("client CPU; less is better")
    return canvas


def _draw_panel(panel: Any, title: str, groups: Mapping[str, Mapping[str, float]]) -> None:
    labels, positions, position = list[str](), list[float](), 0.0
    for group, values in groups.items():
        for role, value in values.items():
            if role == FLOOR:
                continue
            panel.barh(position, value, color=OURS_COLOR if role == OURS else PEER_COLOR, height=0.75)
            panel.annotate(number(value), (value, position), **BESIDE)
            labels.append(f"{GROUPS[group]}: {'this package' if role == OURS else role}")
            positions.append(position)
            position += 1
        position += 0.6 if values else 0  # a gap between two groups
    panel.margins(x=0.12, y=0.02)
    panel.set_xticks([])
    panel.set_yticks(positions, labels)
    panel.invert_yaxis()  # the first bar is on top
    panel.set_title(title, loc="left", fontweight="bold")


def _draw_waits(results: Mapping[str, Any], plt: Any) -> Any:
    found = _waits_of(results)
    canvas, axes = plt.subplots(1, len(DRAWN_WAITS), figsize=(7.6, 2.4), sharey=True)
    for panel, (name, title) in zip(axes, DRAWN_WAITS.items(), strict=True):
        for turns, color, label in (
            (found[name].uncached, PEER_COLOR, "nothing cached"),
            (found[name].seconds, OURS_COLOR, "cached"),
        ):
            panel.plot(range(1, len(turns) + 1), [median(each) for each in turns], color=color, label=label)
        panel.set_title(title, loc="left", fontweight="bold")
        panel.set_xlabel("turn")
        panel.set_xticks(range(1, len(found[name].seconds) + 1, 3))
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel("seconds to the first token")
    axes[-1].legend(frameon=False)
    return canvas


REPORTS = (
    Report(
        RESULTS,
        (ROOT / "docs/guides/speed.md", ROOT / "docs/internals/benchmarks.md"),
        ROOT / "docs/images/speed.svg",
        _speed,
        _draw_speed,
    ),
    Report(waits.RESULTS, (ROOT / "docs/guides/speed.md",), ROOT / "docs/images/waiting.svg", _waits, _draw_waits),
)


def main() -> None:
    """Write the pages and draw the charts."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    for report in REPORTS:
        for page in report.pages:
            page.write_text(report.written(page.read_text(encoding="utf-8")), encoding="utf-8")
        with mpl.rc_context(STYLE):
            canvas = report.draw(json.loads(report.results.read_text(encoding="utf-8")), plt)
            canvas.tight_layout()
            canvas.savefig(report.chart, metadata={"Date": None})
            plt.close(canvas)
        lines = report.chart.read_text(encoding="utf-8").splitlines()
        drawn = "".join(f"{line.rstrip()}\n" for line in lines)
        report.chart.write_text(drawn + report.last_line(), encoding="utf-8")


if __name__ == "__main__":
    main()
