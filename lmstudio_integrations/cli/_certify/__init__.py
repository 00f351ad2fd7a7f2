"""`certify`: measures what a model can do, and what has changed since an earlier card. `page.py` writes HTML."""

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from lmstudio_integrations._support.files import regular
from lmstudio_integrations._support.text import counted, printable_line
from lmstudio_integrations.cli import INTERRUPTED
from lmstudio_integrations.cli._common import (
    AsJson,
    Host,
    OnDevice,
    Token,
    note,
    print_json,
    progress_bar,
    results,
    warnings_as_notes,
)
from lmstudio_integrations.cli._errors import message_for_commands
from lmstudio_integrations.cli._formatting import wrapped
from lmstudio_integrations.errors import LMStudioError, LMStudioOSError, LMStudioValueError

if TYPE_CHECKING:
    from lmstudio_integrations.client.api.sync import Client
    from lmstudio_integrations.types.cards import Card, RowName

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
    load: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--load", help="Also load instances with other context windows for a moment.")
    ] = False,
    draft: Annotated[
        list[str] | None, typer.Option(metavar="MODEL", help="Try this draft model. May be repeated.")
    ] = None,
    temperature: Annotated[float, typer.Option(metavar="NUMBER", min=0.0, help="The temperature.")] = 0.0,
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
    from lmstudio_integrations.client.certify.parameters import CertifyParameters  # noqa: PLC0415

    names = rows.replace(" ", "").split(",") if rows else None  # the client checks them
    parameters: CertifyParameters = {
        "rows": cast("list[RowName] | None", names),
        "quick": quick,
        "load": load,
        "drafts": draft or (),
        "temperature": temperature,
        "against": against,
        "device": device,
    }
    for path in (to, html):
        _check_writable(path)
    if to is not None and html is not None and to.resolve() == html.resolve():
        raise LMStudioValueError(f"--to and --html both name {str(to)!r}; choose another name for one of them")
    cards: list[Card] = []
    status = 0
    try:
        with warnings_as_notes(), Client(host, token) as client:
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
            from lmstudio_integrations.cli._certify.page import page_of  # noqa: PLC0415 - rarely used

            html.write_text(page_of(cards[-1]), encoding="utf-8")
        status = status or int(bool(cards[-1].worse))
    raise typer.Exit(status)


def _keep(card: "Card", to: Path | None, against: Path | None) -> None:
    """Write a card; not over the one that later cards are to be compared with, if it is worse or not complete."""
    if to is None:
        return
    is_baseline = against is not None and to.resolve() == against.resolve()
    if is_baseline and (card.worse or not card.complete):
        note(f"{to} is left as it was, because this card is {'worse' if card.worse else 'not complete'}.")
    else:
        to.write_text(f"{card.to_json()}\n", encoding="utf-8")


def _check_writable(path: Path | None) -> None:
    """Reject a file that could not be written after minutes of measuring."""
    if path is None:
        return
    reason = None
    try:
        if regular(path).is_dir():
            reason = "it is a folder"
        elif not os.access(path if path.exists() else path.parent, os.W_OK):
            reason = "it is read-only" if path.exists() else f"{path.parent} is no folder for it"
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    if reason is not None:
        raise LMStudioOSError(f"{str(path)!r} cannot be written, because {reason}; choose another name")


def _measure(client: "Client", model: str, parameters: Any, cards: "list[Card]") -> None:
    """Add the card to a list, before that what was measured of it so far."""
    from lmstudio_integrations.client.certify.rows import tokens_of  # noqa: PLC0415 - slow

    prompt, predicted = tokens_of(parameters["rows"], quick=parameters["quick"])
    again = ", and again what differs from the earlier card, up to six times" if parameters["against"] else ""
    minutes = counted(math.ceil(prompt / TOKENS_PER_MINUTE), "minute")
    note(
        f"At most {prompt:,} tokens of prompts and {predicted:,} of responses{again}: about {minutes} with a model of "
        "7B on a graphics card. Ctrl-C keeps what was measured."
    )
    with progress_bar(f"Certifying {model}") as show:

        def on_progress(_row: str, share: float) -> None:
            show(share)

        cards.append(client.certify(model, **parameters, on_row=cards.append, on_progress=on_progress))


def _show(card: "Card", *, as_json: bool) -> None:
    console = results()
    if as_json:
        print_json(card.model_dump(mode="json"))
        return
    for line in card.lines():
        if console.is_terminal:
            for part in wrapped(printable_line(line), console.width, indent=_INDENT).split("\n"):
                console.write_line(part)
        else:
            console.write_line(line)
