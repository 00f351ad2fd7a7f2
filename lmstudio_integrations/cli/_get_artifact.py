"""`get` of an artifact of the hub: shows what will be downloaded, asks, and downloads it."""

from collections.abc import Iterator, Sequence

import typer

from lmstudio_integrations.cli._common import note
from lmstudio_integrations.cli._downloads import DownloadBar, describe, downloaded_note, pick_form
from lmstudio_integrations.cli._errors import parts_of
from lmstudio_integrations.cli._formatting import file_size
from lmstudio_integrations.cli._questions import agrees, has_terminal
from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.errors import LMStudioAuthenticationError, LMStudioServerError, LMStudioUnsupportedError
from lmstudio_integrations.types.download_plans import DownloadPlan, DownloadPlanNode, DownloadPlanOption


def get_artifact(
    client: Client, artifact: str, quantization: str | None, formats: Sequence[str] | None, *, yes: bool, picks: bool
) -> str | LMStudioServerError:
    """Download an artifact; return the key to load it with, or why the server has no plan for it.

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
    dialog = _Dialog(artifact, yes=yes, picks=picks and not quantization)
    try:
        with DownloadBar() as bar:
            plan = client.repository.download_artifact(
                artifact, quantization, formats, on_plan=dialog.decide, on_progress=bar.show
            )
    except LMStudioServerError as error:
        if dialog.has_plan or isinstance(error, LMStudioAuthenticationError):
            raise
        if not isinstance(error, LMStudioUnsupportedError):  # an old server finds models by a search only
            note(f"{artifact} was not found on the hub ({parts_of(error)[0]}); searching for it.")
        return error
    if plan is None:
        raise typer.Abort
    key = next(iter(plan.model_keys), None)
    note(downloaded_note(key, is_new=not plan.is_empty))
    return key or artifact


class _Dialog:
    """What the user sees and decides.

    Args:
        artifact: Owner and name.
        yes: Whether there are no questions.
        picks: Whether the user picks the forms of models.

    Attributes:
        has_plan: Whether the server has made a plan.
    """

    def __init__(self, artifact: str, *, yes: bool, picks: bool) -> None:
        self._artifact = artifact
        self._yes = yes
        self._picks = picks
        self._has_shown = False
        self.has_plan: bool = False

    def decide(self, plan: DownloadPlan) -> dict[int, int] | bool:
        """Return what the user picks; then whether to download it."""
        self.has_plan = True
        picked, self._picks = _picked(self._artifact, plan) if self._picks else {}, False
        if picked:
            return picked
        if plan.is_empty:
            return True
        if self._has_shown:
            note("The server has changed the plan.")
        for line in plan_lines(self._artifact, plan):
            note(line)
        self._has_shown = True
        return self._yes or not has_terminal() or agrees("Download?", default=True)


def _picked(artifact: str, plan: DownloadPlan) -> dict[int, int]:
    """Return the forms that the user picks, as far as they are others than those of the plan."""
    picked: dict[int, int] = {}
    for index, node in plan.models.items():
        options, chosen = node.download_options or [], node.selected_download_option_index
        if len(options) > 1:
            best = (chosen, node.recommended_download_option_index)
            default = next((each for each in best if each is not None and 0 <= each < len(options)), 0)
            option = pick_form(artifact, [_describe(each) for each in options], default, options[default].quant_name)
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
