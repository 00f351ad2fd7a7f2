"""`get`: searches for a model and downloads it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from lmstudio_integrations.cli._common import Host, Token, note, progress_display, results
from lmstudio_integrations.cli._formatting import file_size
from lmstudio_integrations.errors import LMStudioValueError

if TYPE_CHECKING:
    from lmstudio_integrations.client.api.sync import AvailableModel, DownloadOption
    from lmstudio_integrations.types.models import DownloadProgressUpdate

_FITS = {
    "fullGPUOffload": "fits into the GPU",
    "partialGPUOffload": "fits partly into the GPU",
    "fitWithoutGPU": "fits without a GPU",
    "willNotFit": "does not fit",
}
"""What the server expects of a download on its machine."""


def get(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL[@QUANTIZATION]",
            help="What to search for, for example qwen3-4b@q4_k_m. Without it: what LM Studio recommends.",
            show_default=False,
        ),
    ] = None,
    *,
    gguf: Annotated[bool, typer.Option("--gguf", help="Search for GGUF models.")] = False,
    mlx: Annotated[bool, typer.Option("--mlx", help="Search for MLX models.")] = False,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", metavar="N", min=1, max=25, help="Show at most N models.", show_default=False),
    ] = None,
    pick_model: Annotated[
        bool, typer.Option("--always-show-all-results", help="Pick the model even if one has the exact name.")
    ] = False,
    pick_form: Annotated[
        bool,
        typer.Option("--always-show-download-options", "-a", help="Pick the form even if one is recommended."),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask: download the first model, in its recommended form.")
    ] = False,
    host: Host = None,
    token: Token = None,
) -> None:
    """Search for a model, download it, and print the key to load it with.

    Ctrl-C cancels the download.
    """
    from lmstudio_integrations.client.api.sync import Client  # noqa: PLC0415 - slow

    if yes and (pick_model or pick_form):
        raise typer.BadParameter("it does not ask, so nothing can be picked", param_hint="--yes")
    term, _, quantization = (model or "").partition("@")
    formats = [name for name, requested in (("gguf", gguf), ("safetensors", mlx)) if requested]
    with Client(host, token) as client:
        matches = client.repository.search_models(term or None, limit, formats or None)
        choice = choose_model(matches, term, yes=yes, every=pick_model)
        forms = choice.get_download_options()
        picks = pick_form or not choice.search_result.exact
        form = choose_form(forms, quantization, yes=yes, picks=picks)
        results().write_line(download(form))


def choose_model(models: "Sequence[AvailableModel]", term: str, *, yes: bool, every: bool) -> "AvailableModel":
    """Return the model with exactly the name; else the only one, or the one that the user picks.

    Args:
        models: What the search found.
        term: What was searched for.
        yes: Whether the first one is downloaded without a question.
        every: Whether the user picks even if a name is exact.

    Raises:
        LMStudioValueError: If there is none, or no terminal to ask at.
    """
    if not models:
        raise LMStudioValueError(f"no model to download matches {term!r}; try fewer words")
    exact = next((each for each in models if each.search_result.exact), None)
    if exact is not None and not every:
        return exact
    if yes:
        return models[0]
    return models[_pick("Model", [each.name for each in models])]


def choose_form(forms: "Sequence[DownloadOption]", quantization: str, *, yes: bool, picks: bool) -> "DownloadOption":
    """Return the form with a quantization; else the recommended one, or the one that the user picks.

    Args:
        forms: The forms in which the model can be downloaded.
        quantization: What the user typed after `@`, if anything.
        yes: Whether there are no questions.
        picks: Whether the user picks if no quantization was typed.

    Raises:
        LMStudioValueError: If there is none, or no terminal to ask at.
    """
    if not forms:
        raise LMStudioValueError("this model has no form that the server can run")
    for form in forms:
        if quantization and (form.info.quantization or "").casefold() == quantization.casefold():
            return form
    if quantization:
        names = ", ".join(form.info.quantization or form.info.name for form in forms)
        raise LMStudioValueError(f"there is no quantization {quantization!r}; there are {names}")
    recommended = next((number for number, form in enumerate(forms) if form.info.recommended), 0)
    if yes or not picks or len(forms) == 1:
        return forms[recommended]
    return forms[_pick("Download", [describe(form) for form in forms], recommended)]


def describe(form: "DownloadOption") -> str:
    """Return a line about a form of a model."""
    info = form.info
    details = (file_size(info.size_bytes), info.quantization, info.compatibility_type, _FITS.get(info.fit_estimation))
    return f"{info.name} ({', '.join(detail for detail in details if detail)})"


def download(form: "DownloadOption") -> str:
    """Download a form of a model with a progress bar; return the key to load it with."""
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = BarColumn(), DownloadColumn(), "{task.fields[speed]}", TimeRemainingColumn()
    note(f"Downloading {describe(form)}")
    with progress_display(*columns, transient=True) as progress:
        task = progress.add_task("", total=form.info.size_bytes or None, speed="")
        reported: list[int] = []

        def show(update: "DownloadProgressUpdate") -> None:
            reported.append(update.downloaded_bytes)
            speed = f"{file_size(update.speed_bytes_per_second)}/s"
            progress.update(task, completed=update.downloaded_bytes, total=update.total_bytes, speed=speed)

        key = form.download(show)
    note(
        f"Downloaded. `lmsi load {key}` loads it."
        if reported
        else f"It was downloaded before. `lmsi load {key}` loads it."
    )
    return key


def _pick(question: str, choices: Sequence[str], default: int = 0) -> int:
    from lmstudio_integrations.cli._questions import has_terminal, pick  # noqa: PLC0415 - slow

    if has_terminal():
        return pick(question, choices, default)
    listed, best = "; ".join(choices), choices[default]
    raise LMStudioValueError(f"not a terminal, so cannot ask; name one, or use --yes for {best!r}: {listed}")
