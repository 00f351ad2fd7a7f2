"""Draws the chart of `docs/speed.md`: what each package needs, as a multiple of the floor. Needs matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes

from benchmarks.page import times
from benchmarks.results import Outcome
from benchmarks.rows import FLOATS, TITLES, Group
from benchmarks.targets import FLOOR, OURS, peers

PANELS = {
    "A stream of 1,000 tokens": "stream",
    "A response of one token": "one",
    "1,000 embeddings of 768 floats": "embed",
    "200 streams at once": "many",
}
"""The cases of the chart."""

GROUPS: tuple[Group, ...] = ("native", "langchain", "llama_index")

OURS_COLOR, PEER_COLOR, FLOOR_COLOR = "#2563eb", "#b8bec9", "#6b7280"

# Some versions of matplotlib name every key in its type, others do not.
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "speed",
    "svg.fonttype": "none",  # text stays text: it is found by a search, and the file is small
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "ytick.major.size": 0,
}

BESIDE: dict[str, Any] = {
    "xytext": (4, 0),
    "textcoords": "offset points",
    "va": "center",
    "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.8},
}
"""Where the number of a bar stands; nothing shines through it."""

_AXIS = (0.1, 1000)
"""From where to where the axis goes."""

_GAP = 0.6
"""Bars that are left out between two groups."""


class Bar(NamedTuple):
    """One bar: what it stands for, where it is, the multiple of the floor, and whether it is ours."""

    label: str
    position: float
    multiple: float
    ours: bool


def bars(found: Sequence[Outcome], case: str) -> list[Bar]:
    """Return the bars of a case, group by group, ours first."""
    drawn: list[Bar] = []
    by_group = {outcome.row.group: outcome.values for outcome in found if outcome.row.case == case}
    for number, group in enumerate(each for each in GROUPS if each in by_group):
        values = by_group[group]
        for who, value in {OURS: values[OURS], **peers(values)}.items():
            label = f"{TITLES[group]}: {who.replace(FLOATS, 'lists')}"
            drawn.append(Bar(label, len(drawn) + number * _GAP, value / values[FLOOR], who == OURS))
    return drawn


def draw(found: Sequence[Outcome], path: Path, last_line: str) -> None:
    """Draw the chart and end the file with a line."""
    mpl.use("svg")
    from matplotlib import pyplot as plt

    with mpl.rc_context(STYLE):
        canvas, axes = plt.subplots(2, 2, figsize=(10, 5.6), height_ratios=(9, 10))
        for panel, (title, case) in zip(axes.flat, PANELS.items(), strict=True):
            _panel(panel, title, bars(found, case))
        canvas.supxlabel("client CPU, as a multiple of the floor; less is better; logarithmic")
        canvas.tight_layout()
        canvas.savefig(path, metadata={"Date": None})
        plt.close(canvas)
    path.write_text(_without_trailing_spaces(path.read_text(encoding="utf-8")) + last_line, encoding="utf-8")


def _panel(panel: Axes, title: str, drawn: Sequence[Bar]) -> None:
    positions, multiples = [each.position for each in drawn], [each.multiple for each in drawn]
    colors = [OURS_COLOR if each.ours else PEER_COLOR for each in drawn]
    panel.axvline(1, color=FLOOR_COLOR, linewidth=0.8, linestyle="--")
    panel.barh(positions, multiples, color=colors, height=0.75)
    for position, multiple in zip(positions, multiples, strict=True):
        panel.annotate(times(multiple), (multiple, position), **BESIDE)
    panel.set(xscale="log", xlim=_AXIS, yticks=positions)
    panel.set_xticks([0.1, 1, 10, 100, 1000], ["0.1", "the floor", "10", "100", "1,000"])
    panel.minorticks_off()
    panel.set_yticklabels([each.label for each in drawn])
    panel.set_title(title, loc="left", fontweight="bold")
    panel.invert_yaxis()


def _without_trailing_spaces(text: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())
