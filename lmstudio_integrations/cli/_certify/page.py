"""The card of a model as a page: one file of HTML without scripts, with a small picture for each row."""

from collections.abc import Iterable, Sequence
from html import escape

from lmstudio_integrations.types.cards import Card, CardRow, Change, Observation

_STYLE = """
:root { color-scheme: light dark; --good: #2e8b57; --bad: #c0392b; --middle: #d68910; --line: #8884 }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem }
section { border-top: 1px solid var(--line); padding: 1rem 0 }
h2 { font-size: 1.1rem; margin: 0 }
svg { width: 100%; max-width: 40rem; height: auto; margin: .5rem 0 }
svg text { fill: currentColor; font-size: 11px }
.good { fill: var(--good) } .bad { fill: var(--bad) } .middle { fill: var(--middle) }
.advice { border-left: 3px solid var(--middle); padding-left: .7rem }
td, th { text-align: left; vertical-align: top; padding: .1rem .8rem .1rem 0 }
summary { cursor: pointer } table { font-size: .9rem }
"""

_CELL, _ROW_OF_CELLS = 14, 40
_BAR, _LABEL, _WIDTH = 16, 150, 560


def page_of(card: Card) -> str:
    changes = [] if card.changes is None else [_changes(card, card.changes)]
    body = "\n".join([*changes, *map(_section, card.rows)])
    state = "" if card.complete else "<p><strong>It was interrupted.</strong></p>"
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(card.model.key)}</title>
<style>{_STYLE}</style>
<h1>{escape(card.model.key)}</h1>
<p>{escape(str(card.model))}, {escape(card.measured_at)}, temperature {card.temperature:g}</p>
{state}
{body}
</html>
"""


def _section(row: CardRow) -> str:
    advice = f'<p class="advice">{escape(row.advice)}</p>' if row.advice else ""
    unasked = f"<p>{row.unasked} not asked: the tokens of the row were used up.</p>" if row.unasked else ""
    summary = escape(row.missing or row.summary or "not asked")
    return f"<section><h2>{row.name}</h2><p>{summary}</p>{_picture(row)}{unasked}{advice}{_failures(row)}</section>"


def _failures(row: CardRow) -> str:
    if not row.failures:
        return ""
    lines = "".join(
        f"<tr><td>{escape(each.case)}<td>{escape(each.outcome)}<td>{escape(each.detail)}" for each in row.failures
    )
    return f"<details><summary>{len(row.failures)} failed</summary><table>{lines}</table></details>"


def _changes(card: Card, changes: Iterable[Change]) -> str:
    differences = "".join(f"<p>{escape(each)}</p>" for each in card.model_changes)
    lines = "".join(
        f"<tr><td>{change.verdict}<td>{escape(change.name)}<td>{escape(change.before)}<td>{escape(change.now)}"
        f"<td>{escape(change.smallest)}"
        for change in changes
        if change.verdict != "same"
    )
    head = "<tr><th><th>what<th>before<th>now<th>seen from"
    table = f"<table>{head}{lines}</table>" if lines else "<p>Nothing has changed.</p>"
    return f"<section><h2>Since the earlier card</h2>{differences}{table}</section>"


def _picture(row: CardRow) -> str:
    """Return a square for each verdict, and a bar for each number."""
    numbers = [each for each in row.observations if each.kind == "number"]
    parts = [*_squares(row.verdicts), *_bars(numbers, top=_height_of(row.verdicts))]
    height = _height_of(row.verdicts) + _BAR * len(numbers)
    if not parts:
        return ""
    label = escape(row.summary)
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _height_of(verdicts: Sequence[Observation]) -> int:
    return _CELL * -(-len(verdicts) // _ROW_OF_CELLS) + (4 if verdicts else 0)


def _squares(verdicts: Iterable[Observation]) -> Iterable[str]:
    for index, each in enumerate(verdicts):
        line, column = divmod(index, _ROW_OF_CELLS)
        kind = "good" if each.score == 1 else "middle" if each.score else "bad"
        place = f'x="{column * _CELL}" y="{line * _CELL}" width="{_CELL - 2}" height="{_CELL - 2}"'
        yield f'<rect class="{kind}" {place}><title>{escape(each.case)}: {escape(each.outcome)}</title></rect>'


def _bars(numbers: Sequence[Observation], top: int) -> Iterable[str]:
    for index, each in enumerate(numbers):
        largest = max(other.score for other in numbers if other.part == each.part)
        width = max(1.0, (_WIDTH - 2 * _LABEL) * each.score / largest)
        y = top + index * _BAR
        yield f'<text x="0" y="{y + 11}">{escape(each.case)}</text>'
        yield f'<rect class="good" x="{_LABEL}" y="{y + 2}" width="{width:.1f}" height="{_BAR - 5}"/>'
        yield f'<text x="{_LABEL + width + 6:.1f}" y="{y + 11}">{escape(each.outcome)}</text>'
