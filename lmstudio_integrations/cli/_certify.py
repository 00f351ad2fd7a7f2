"""`certify`: measures what a model can do, and what has changed since an earlier card."""

import contextlib
import functools
import math
import warnings
from collections.abc import Generator, Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from lmstudio_integrations._support.text import counted
from lmstudio_integrations.cli._common import (
    AsJson,
    Host,
    OnDevice,
    Token,
    check_writable,
    note,
    print_json,
    progress_bar,
    results,
)
from lmstudio_integrations.cli._formatting import message_for_commands
from lmstudio_integrations.cli._main import INTERRUPTED
from lmstudio_integrations.errors import LMStudioError, LMStudioOSError, LMStudioValueError

if TYPE_CHECKING:
    from lmstudio_integrations.client.api.sync import Client
    from lmstudio_integrations.client.certify import CertifyParameters
    from lmstudio_integrations.types.cards import Card, CardRow, Change, RowName

TOKENS_PER_MINUTE = 15_000
"""Tokens of prompts, with the responses to them."""

_INDENT = 11
"""Columns before what the text of a card says of a row."""


def certify(  # noqa: PLR0917 - one parameter for each flag
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Key or identifier.", show_default=False),
    ],
    to: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep the card as JSON.", show_default=False)] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Show what changed since this card.", show_default=False)
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page.", show_default=False)] = None,
    rows: Annotated[
        str | None, typer.Option(metavar="ROW,...", help="Measure these rows only.", show_default=False)
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Ask a sixth of the questions.")] = False,  # noqa: FBT002
    draft: Annotated[
        list[str] | None, typer.Option(metavar="MODEL", help="Try this draft model. May be repeated.")
    ] = None,
    device: OnDevice = None,
    as_json: AsJson = False,  # noqa: FBT002 - a flag
    host: Host = None,
    token: Token = None,
) -> None:
    """Measure what a model can do on this server, and what an update broke.

    Uses an idle instance that is loaded, else loads one that fits beside the others, and unloads it. Ctrl-C keeps what
    was measured. The exit status is 1 if something became worse than on the card of --against.
    """
    from lmstudio_integrations.client.api.sync import Client  # noqa: PLC0415 - slow

    names = rows.replace(" ", "").split(",") if rows else None  # the client checks them
    old = _read(against)
    parameters: CertifyParameters = {
        "rows": cast("list[RowName] | None", names),
        "quick": quick,
        "drafts": draft or (),
        "against": old,
        "device": device,
    }
    check_writable(to, "--to")
    check_writable(html, "--html")
    if to is not None and html is not None and to.resolve() == html.resolve():
        raise LMStudioValueError(f"--to and --html both name {str(to)!r}; choose another name for one of them")
    cards: list[Card] = []
    status = 0
    try:
        with _warnings_as_notes(), Client(host, token) as client:
            _measure(client, model, parameters, cards)
    except KeyboardInterrupt:
        status = INTERRUPTED
    except LMStudioError as error:
        if not any(row.observations for card in cards for row in card.rows):
            raise
        note(f"Error: {message_for_commands(str(error))}")
        status = 1
    if cards:
        _show(cards[-1], as_json=as_json)
        _keep(cards[-1], to, against)
        if html is not None:
            html.write_text(page_of(cards[-1]), encoding="utf-8")
        status = status or int(bool(cards[-1].worse))
    raise typer.Exit(status)


@contextlib.contextmanager
def _warnings_as_notes() -> Generator[None]:
    """Print the warnings of the block as notes, without the lines of code that they are about."""

    def show(message: Warning | str, *_details: Any, **_more: Any) -> None:
        note(f"Warning: {message_for_commands(str(message))}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield


def _read(path: Path | None) -> "Card | None":
    from lmstudio_integrations.types.cards import Card  # noqa: PLC0415 - slow

    try:
        return None if path is None else Card.read(path)
    except LMStudioOSError as error:
        raise typer.BadParameter(str(error), param_hint="--against") from None


def _keep(card: "Card", to: Path | None, against: Path | None) -> None:
    """Write a card; not over the one that later cards are to be compared with, if it is worse or not complete."""
    if to is None:
        return
    is_baseline = against is not None and to.resolve() == against.resolve()
    if is_baseline and (card.worse or not card.complete):
        note(f"{to} is left as it was, because this card is {'worse' if card.worse else 'not complete'}.")
    else:
        to.write_text(f"{card.to_json()}\n", encoding="utf-8")


def _measure(client: "Client", model: str, parameters: Any, cards: "list[Card]") -> None:
    """Add the card to a list, before that what was measured of it so far."""
    from lmstudio_integrations.client.certify.run import tokens_of  # noqa: PLC0415 - slow

    prompt, predicted = tokens_of(parameters["rows"], quick=parameters["quick"])
    again = ", and again what differs from the earlier card, up to six times" if parameters["against"] else ""
    minutes = counted(math.ceil(prompt / TOKENS_PER_MINUTE), "minute")
    announcement = (
        f"At most {prompt:,} tokens of prompts and {predicted:,} of responses{again}: about {minutes} with a model of "
        "7B on a graphics card. Ctrl-C keeps what was measured."
    )
    announce = functools.cache(note)
    with progress_bar(f"Certifying {model}") as show:

        def on_progress(_row: str, share: float) -> None:
            announce(announcement)  # the model exists, and is loaded
            show(share)

        cards.append(client.certify(model, **parameters, on_row=cards.append, on_progress=on_progress))


def _show(card: "Card", *, as_json: bool) -> None:
    console = results()
    if as_json:
        print_json(card.model_dump(mode="json"))
        return
    for line in card.lines():
        console.write_wrapped(line, _INDENT)


# The page: one file of HTML without scripts, with a small picture for each row ----------------------------------------

_STYLE = """
:root { color-scheme: light dark; --good: #2e8b57; --bad: #c0392b; --middle: #d68910; --line: #8884 }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem }
section { border-top: 1px solid var(--line); padding: 1rem 0 }
h2 { font-size: 1.1rem; margin: 0 }
i { display: inline-block; width: .75rem; height: .75rem; margin-right: .1rem }
.good { background: var(--good) } .bad { background: var(--bad) } .middle { background: var(--middle) }
meter { width: 16rem }
.advice { border-left: 3px solid var(--middle); padding-left: .7rem }
td, th { text-align: left; vertical-align: top; padding: .1rem .8rem .1rem 0 }
summary { cursor: pointer } table { font-size: .9rem }
"""


def page_of(card: "Card") -> str:
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
<p>{escape(str(card.model))}, {escape(card.measured_at)}</p>
{state}
{body}
</html>
"""


def _section(row: "CardRow") -> str:
    advice = f'<p class="advice">{escape(row.advice)}</p>' if row.advice else ""
    unasked = f"<p>{row.unasked} not asked: the tokens of the row were used up.</p>" if row.unasked else ""
    summary = escape(row.missing or row.summary or "not asked")
    return f"<section><h2>{row.name}</h2><p>{summary}</p>{_picture(row)}{unasked}{advice}{_failures(row)}</section>"


def _failures(row: "CardRow") -> str:
    if not row.failures:
        return ""
    lines = "".join(
        f"<tr><td>{escape(each.case)}<td>{escape(each.outcome)}<td>{escape(each.detail)}" for each in row.failures
    )
    return f"<details><summary>{len(row.failures)} failed</summary><table>{lines}</table></details>"


def _changes(card: "Card", changes: Iterable["Change"]) -> str:
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


def _picture(row: "CardRow") -> str:
    """Return a square for each verdict, and a bar for each number."""
    squares = "".join(
        f'<i class="{"good" if each.score == 1 else "middle" if each.score else "bad"}"'
        f' title="{escape(each.case)}: {escape(each.outcome)}"></i>'
        for each in row.verdicts
    )
    numbers = [each for each in row.observations if each.kind == "number"]
    largest = {each.part: max(other.score for other in numbers if other.part == each.part) for each in numbers}
    bars = "".join(
        f'<tr><td>{escape(each.case)}<td><meter max="{largest[each.part]}" value="{each.score}"></meter>'
        f"<td>{escape(each.outcome)}"
        for each in numbers
    )
    return f"<div>{squares}</div>" + (f"<table>{bars}</table>" if bars else "")
