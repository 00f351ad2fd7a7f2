"""`doctor`: checks the way to a server, its models and one use of each, and prints what to fix."""

import contextlib
import platform
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from lmstudio_integrations._installation import NAME
from lmstudio_integrations.cli._common import AsJson, Host, Token, print_json, results
from lmstudio_integrations.cli._doctor import checks, survey
from lmstudio_integrations.cli._doctor.checks import Check
from lmstudio_integrations.cli._loaded_models import downloaded_models, loaded_models
from lmstudio_integrations.client.sync import Client
from lmstudio_integrations.client.transport.advice import no_server
from lmstudio_integrations.errors import LMStudioError
from lmstudio_integrations.types.models import ModelInfo, ModelInstanceInfo, ServerVersion

_STYLES: dict[checks.Verdict, str] = {"ok": "green", "warning": "yellow", "problem": "bold red", "skipped": "dim"}
_WIDTH = max(map(len, _STYLES))


def doctor(
    host: Host = None,
    token: Token = None,
    load: Annotated[  # noqa: FBT002 - a flag
        bool,
        typer.Option("--load", help="Load small models for the trials if none is loaded, and unload them again."),
    ] = False,
    as_json: AsJson = False,  # noqa: FBT002 - a flag
) -> None:
    """Check the connection to LM Studio, its models, and what they can do.

    Nothing is loaded or unloaded without --load.
    """
    found: list[Check] = []
    console = results()
    for check in examine(host, token, load=load):
        found.append(check)
        if not as_json:
            show(console, check)
    if as_json:
        counts = checks.count_verdicts(found)
        print_json({"ok": not counts["problem"], "summary": counts, "checks": [check.to_dict() for check in found]})
    else:
        console.print(f"\n{checks.summary(found)}", markup=False)
    raise typer.Exit(int(any(check.verdict == "problem" for check in found)))


def examine(host: str | None, token: str | None, *, load: bool) -> Iterator[Check]:
    """Yield all checks, each as soon as it was made."""
    attempts = survey.find_server(host)
    responds = any(each.problem is None for each in attempts)
    # Without a server, the client is not made: the address may be invalid.
    with Client(host, token) if responds else contextlib.nullcontext() as client:
        server, failure = _connect(client) if client else (None, None)
        yield checks.server_check(attempts, failure, no_server())
        yield checks.version_check(server, failure)
        yield from _examine_this_side()
        yield checks.token_check(survey.find_token(host, token), server, failure)
        yield from _examine_models(client if server else None, load=load)


def _connect(client: Client) -> tuple[ServerVersion | None, LMStudioError | None]:
    try:
        return client.system.get_version(), None
    except LMStudioError as error:
        return None, error


def _examine_this_side() -> Iterator[Check]:
    own = survey.installed_version(NAME) or "(not installed)"
    yield checks.package_check(own, platform.python_version(), f"{platform.system()} {platform.machine()}".strip())
    yield checks.extras_check(survey.find_extras())


def _examine_models(client: Client | None, *, load: bool) -> Iterator[Check]:
    """Check the models; without a client, or if they cannot be listed, the other checks are skipped."""
    downloaded: list[ModelInfo] | None = None
    loaded: list[ModelInstanceInfo] | None = None
    failure: LMStudioError | None = None
    if client is not None:
        try:
            downloaded = downloaded_models(client)
            loaded = loaded_models(client)
        except LMStudioError as error:
            failure = error
    yield checks.models_check(downloaded, failure if downloaded is None else None)
    yield checks.loaded_check(loaded, None if downloaded is None else failure)
    if client is None or downloaded is None or loaded is None:
        yield from (checks.trial_check(checks.Trial(name, missing=checks.NO_SERVER)) for name in checks.TRIALS)
    else:
        yield from map(checks.trial_check, survey.attempt_trials(client, loaded, downloaded, load=load))


def show(console: Console, check: Check) -> None:
    """Print a check."""
    verdict = f"{check.verdict:<{_WIDTH}}", _STYLES[check.verdict]
    console.print(Text.assemble(verdict, f"  {check.name.replace('_', ' ')}: {check.found}"))
    indent = " " * (_WIDTH + 2)
    for detail in check.details:
        console.print(Text(f"{indent}- {detail}", style="dim"))
    if check.fix:
        console.print(Text(f"{indent}to fix: {check.fix}"))
