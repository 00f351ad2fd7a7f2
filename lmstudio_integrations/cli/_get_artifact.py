"""`get` of an artifact of the hub: shows what will be downloaded, asks, and downloads it."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import typer

from lmstudio_integrations.cli._common import note
from lmstudio_integrations.cli._downloads import describe, download_bar, downloaded_note, pick_one
from lmstudio_integrations.cli._errors import parts_of
from lmstudio_integrations.cli._formatting import file_size
from lmstudio_integrations.cli._questions import agrees, has_terminal
from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.errors import LMStudioAuthenticationError, LMStudioServerError
from lmstudio_integrations.types.download_plans import DownloadPlan, DownloadPlanNode, DownloadPlanOption
from lmstudio_integrations.types.models import DownloadProgressUpdate


def get_artifact(
    client: Client, artifact: str, quantization: str | None, formats: Sequence[str] | None, *, yes: bool, picks: bool
) -> str | None:
    """Download an artifact; return the key to load it with, or `None` if the server finds no such artifact.

    Args:
        client: The client.
        artifact: Owner and name.
        quantization: What the user typed after `@`, if anything.
        formats: The formats of models to choose from.
        yes: Whether there are no questions.
        picks: Whether the user picks the forms of models.

    Raises:
        typer.Abort: If the user does not want it.
    """
    with contextlib.ExitStack() as display:
        dialog = _Dialog(artifact, display, yes=yes, picks=picks and not quantization)
        try:
            plan = client.repository.download_artifact(
                artifact,
                quantization,
                formats,
                on_plan=dialog.decide,
                on_progress=dialog.show,
            )
        except LMStudioServerError as error:
            if dialog.has_plan or isinstance(error, LMStudioAuthenticationError):
                raise
            note(f"{artifact} is not on the hub, as far as the server knows ({parts_of(error)[0]}); searching for it.")
            return None
    if plan is None:
        raise typer.Abort
    key = next(iter(plan.model_keys), None)
    note(downloaded_note(key, is_new=not plan.is_empty))
    return key or artifact


class _Dialog:
    """What the user sees and decides.

    Args:
        artifact: Owner and name.
        display: Ends the display of the progress.
        yes: Whether there are no questions.
        picks: Whether the user picks the forms of models.

    Attributes:
        has_plan: Whether the server has made a plan.
        show: Shows the progress.
    """

    def __init__(self, artifact: str, display: contextlib.ExitStack, *, yes: bool, picks: bool) -> None:
        self._artifact = artifact
        self._display = display
        self._yes = yes
        self._picks = picks
        self.has_plan: bool = False
        self._bar: Callable[[DownloadProgressUpdate], None] | None = None

    def decide(self, plan: DownloadPlan) -> Any:
        """Return what the user picks; then whether to download it."""
        self.has_plan = True
        picked, self._picks = _picked(plan) if self._picks else {}, False
        if picked:
            return picked
        if plan.is_empty:
            return True
        for line in plan_lines(self._artifact, plan):
            note(line)
        if not self._yes and has_terminal() and not agrees("Download?", default=True):
            return False
        self._bar = self._display.enter_context(download_bar(plan.download_size_bytes))
        return True

    def show(self, update: DownloadProgressUpdate) -> None:
        assert self._bar is not None, "nothing is downloaded before the user agrees"
        self._bar(update)


def _picked(plan: DownloadPlan) -> dict[int, int]:
    """Return the forms that the user picks, as far as they are others than those of the plan."""
    picked: dict[int, int] = {}
    for index, node in plan.models.items():
        options, chosen = node.download_options or [], node.selected_download_option_index
        if len(options) > 1:
            default = chosen if chosen is not None else node.recommended_download_option_index or 0
            option = pick_one("Download", [_describe(each) for each in options], default)
            picked |= {index: option} if option != chosen else {}
    return picked


def plan_lines(artifact: str, plan: DownloadPlan) -> Iterator[str]:
    """Return what will be downloaded, line by line."""
    running = " It is being downloaded already." if plan.download_action == "attachToExistingDownload" else ""
    yield f"Downloading {artifact} ({file_size(plan.download_size_bytes)}).{running}"
    for node in plan.nodes[1:]:
        if line := _describe_node(node):
            yield f"  {line}"


def _describe_node(node: DownloadPlanNode) -> str | None:
    """Return a line about a part of a plan; nothing about one that this version does not know."""
    if node.type == "artifact":
        return f"{node.owner}/{node.name} ({node.artifact_type or 'artifact'})"
    if node.selected is not None:
        index, options = node.selected_download_option_index, node.download_options or []
        # Only the option says whether it fits.
        return _describe(options[index] if index is not None and index < len(options) else node.selected)
    return None if node.already_owned is None else f"{node.already_owned.display_name} was downloaded before"


def _describe(form: DownloadPlanOption) -> str:
    fit = form.fit_estimation
    return describe(form.display_name, form.size_bytes, form.quant_name, form.compatibility_type, fit)
