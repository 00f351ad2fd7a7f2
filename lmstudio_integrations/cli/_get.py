"""`get`: downloads what is on the hub, or what a search finds."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from lmstudio_integrations.cli._common import Host, Token, note, results
from lmstudio_integrations.cli._downloads import DownloadBar, describe, downloaded_note, pick_form, pick_one
from lmstudio_integrations.errors import LMStudioError, LMStudioValueError

if TYPE_CHECKING:
    from lmstudio_integrations.client.api.sync import AvailableModel, DownloadOption


def get(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL[@QUANTIZATION]",
            help="A model of LM Studio's hub, such as qwen/qwen3-4b, or what to search for, such as qwen3-4b@q4_k_m. "
            "Without it: what LM Studio recommends.",
            show_default=False,
        ),
    ] = None,
    *,
    gguf: Annotated[bool, typer.Option("--gguf", help="Search for GGUF models.")] = False,
    mlx: Annotated[bool, typer.Option("--mlx", help="Search for MLX models.")] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", "-n", metavar="N", min=1, max=25, help="Search, and show at most N models.", show_default=False
        ),
    ] = None,
    pick_model: Annotated[
        bool,
        typer.Option("--always-show-all-results", help="Search, and pick the model even if one has the exact name."),
    ] = False,
    pick: Annotated[
        bool,
        typer.Option("--always-show-download-options", "-a", help="Pick the form even if one is recommended."),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask: download the first model, in its recommended form.")
    ] = False,
    host: Host = None,
    token: Token = None,
) -> None:
    """Download a model, and print the key to load it with.

    A name of the form owner/name, in lower case letters, digits, hyphens and dots, is looked up on LM Studio's hub, and
    downloaded with all that it needs. Everything else is searched for, and so is what the hub does not have.

    Ctrl-C cancels the download.
    """
    from lmstudio_integrations.cli._get_artifact import get_artifact  # noqa: PLC0415 - slow
    from lmstudio_integrations.client.api.sync import Client  # noqa: PLC0415
    from lmstudio_integrations.protocol.requests import ARTIFACT, kebab_case  # noqa: PLC0415

    if yes and (pick_model or pick):
        raise typer.BadParameter("it does not ask, so nothing can be picked", param_hint="--yes")
    term, at, quantization = (model or "").partition("@")
    if at and not quantization:
        raise typer.BadParameter("no quantization follows the @; omit the @", param_hint="MODEL")
    formats = [name for name, requested in (("gguf", gguf), ("safetensors", mlx)) if requested]
    missing: LMStudioError | None = None
    with Client(host, token) as client:
        if ARTIFACT.fullmatch(term) and limit is None and not pick_model:
            key = get_artifact(client, term, quantization or None, formats or None, yes=yes, picks=pick)
            if isinstance(key, str):
                results().write_line(key)
                return
            missing = key
        matches = client.repository.search_models(term or None, limit, formats or None)
        if not matches:
            spelled = kebab_case(term)
            remedy = f"did you mean {f'{spelled}{at}{quantization}'!r}?" if spelled else "try fewer words"
            raise missing or LMStudioValueError(f"no model to download matches {term!r}; {remedy}")
        choice = choose_model(matches, yes=yes, every=pick_model)
        forms = choice.get_download_options()
        picks = pick or not choice.search_result.exact
        form = choose_form(term, forms, quantization, yes=yes, picks=picks)
        results().write_line(download(form))


def choose_model(models: "Sequence[AvailableModel]", *, yes: bool, every: bool) -> "AvailableModel":
    """Return the model with exactly the name; else the one that the user picks.

    Args:
        models: What the search found, at least one.
        yes: Whether the first one is downloaded without a question.
        every: Whether the user picks even if a name is exact.

    Raises:
        LMStudioValueError: If there is no terminal to ask at.
    """
    exact = next((each for each in models if each.search_result.exact), None)
    if exact is not None and not every:
        return exact
    if yes:
        return models[0]
    remedy = "omit --always-show-all-results" if every else f"name one, or use --yes for {models[0].name!r}"
    return models[pick_one("Model", [each.name for each in models], remedy=remedy)]


def choose_form(
    model: str, forms: "Sequence[DownloadOption]", quantization: str, *, yes: bool, picks: bool
) -> "DownloadOption":
    """Return the form with a quantization; else the recommended one, or the one that the user picks.

    Args:
        model: The name of the model, as the user typed it.
        forms: The forms in which it can be downloaded.
        quantization: What the user typed after `@`, if anything.
        yes: Whether there are no questions.
        picks: Whether the user picks if no quantization was typed.

    Raises:
        LMStudioValueError: If there is none, or no terminal to ask at.
    """
    if not forms:
        raise LMStudioValueError("this model has no form that the server can run")
    if quantization:
        from lmstudio_integrations.client.models.repository import no_quantization  # noqa: PLC0415 - slow

        for form in forms:
            if (form.info.quantization or "").casefold() == quantization.casefold():
                return form
        raise no_quantization(quantization, (form.info.quantization for form in forms))
    recommended = next((number for number, form in enumerate(forms) if form.info.recommended), 0)
    if yes or not picks or len(forms) == 1:
        return forms[recommended]
    lines = [describe_form(form) for form in forms]
    return forms[pick_form(model, lines, recommended, forms[recommended].info.quantization)]


def describe_form(form: "DownloadOption") -> str:
    """Return a line about a form of a model."""
    info = form.info
    return describe(info.name, info.size_bytes, info.quantization, info.compatibility_type, info.fit_estimation)


def download(form: "DownloadOption") -> str:
    """Download a form of a model with a progress bar; return the key to load it with."""
    note(f"Downloading {describe_form(form)}")
    with DownloadBar() as bar:
        key = form.download(bar.show)
    note(downloaded_note(key, is_new=bar.is_shown))
    return key
