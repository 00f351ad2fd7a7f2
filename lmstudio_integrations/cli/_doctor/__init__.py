"""`doctor`: checks the way to a server and its models, if asked also one use of each, and prints what to fix."""

import contextlib
import itertools
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated

import typer

from lmstudio_integrations._support.environment import __version__
from lmstudio_integrations._support.installation import NAME
from lmstudio_integrations._support.text import printable_line
from lmstudio_integrations.cli._common import AsJson, TextConsole, Token, print_json, results
from lmstudio_integrations.cli._doctor import checks, survey
from lmstudio_integrations.cli._doctor.checks import Check
from lmstudio_integrations.cli._formatting import wrapped
from lmstudio_integrations.cli._ls import downloaded_models, loaded_models
from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.client.transport.connect.discovery import Attempt, chosen
from lmstudio_integrations.client.transport.connect.suggestions import no_server
from lmstudio_integrations.errors import LMStudioError
from lmstudio_integrations.types.models import ModelInfo, ModelInstanceInfo, ServerVersion

_STYLES: dict[checks.Verdict, str] = {"ok": "green", "warning": "yellow", "problem": "bold red", "skipped": "dim"}
_WIDTH = max(map(len, _STYLES))

_TIMEOUT = 4.0
"""Seconds for each answer of the server: a report takes 10 seconds at most, unless models are tried."""


def doctor(
    host: Annotated[
        str | None,
        typer.Option(
            metavar="HOST",
            help="The LM Studio to check, as host:port or a URL; several with commas.",
            show_default=False,
        ),
    ] = None,
    token: Token = None,
    try_models: Annotated[  # noqa: FBT002 - a flag
        bool,
        typer.Option(
            "--try",
            help="Also try a model for tool calls and JSON, and one for embeddings, which may take minutes. Small ones "
            "are loaded if none is loaded, and unloaded again.",
        ),
    ] = False,
    as_json: AsJson = False,  # noqa: FBT002 - a flag
) -> None:
    """Check the connection to LM Studio, and its models.

    Nothing is loaded, run or unloaded without --try. Several hosts are also compared with each other.
    """
    report: list[Check] = []
    console = results()
    for check in examine(host, token, try_models=try_models):
        report.append(check)
        if not as_json:
            show(console, check)
    if as_json:
        counts = checks.count_verdicts(report)
        print_json({"ok": not counts["problem"], "summary": counts, "checks": [check.to_dict() for check in report]})
    else:
        console.line()
        console.write_line(checks.summary(report))
    raise typer.Exit(int(any(check.verdict == "problem" for check in report)))


def examine(host: str | None, token: str | None, *, try_models: bool) -> Iterator[Check]:
    """Yield all checks, each as soon as it was made. Of several hosts, all are examined before the first is shown."""
    servers = [_Server(name, token, attempts) for name, attempts in survey.find_servers(host).items()]
    with contextlib.ExitStack() as stack:
        for server in servers:
            stack.callback(server.close)
        if len(servers) > 1:
            yield from _examine_several(servers, try_models=try_models)
        else:
            yield from servers[0].examine(_examine_this_side)
            if try_models:
                yield from servers[0].attempt_trials()


def _examine_several(servers: Sequence["_Server"], *, try_models: bool) -> Iterator[Check]:
    yield from _examine_this_side()
    for server, of_server in [(server, list(server.examine())) for server in servers]:
        for check in itertools.chain(of_server, server.attempt_trials() if try_models else ()):
            yield replace(check, host=server.name)
    yield checks.comparison_check({str(server.name): server.loaded for server in servers})


def _examine_this_side() -> Iterator[Check]:
    own = __version__ if survey.installed_version(NAME) else f"{__version__} (not installed)"
    yield checks.package_check(own, platform.python_version(), f"{platform.system()} {platform.machine()}".strip())
    yield checks.extras_check(survey.find_extras())


class _Server:
    """A server under examination, and what it was found to have.

    Attributes:
        name: Its host, if one was given.
        downloaded: Its downloaded models; `None` as long as they are not known.
        loaded: Its loaded models; `None` as long as they are not known.
    """

    def __init__(self, name: str | None, token: str | None, attempts: Sequence[Attempt]) -> None:
        self.name = name
        self.downloaded: list[ModelInfo] | None = None
        self.loaded: list[ModelInstanceInfo] | None = None
        self._attempts = attempts
        self._token = survey.find_token(name, token)
        responds = any(each.problem is None for each in attempts)
        # Without a server, the client is not made: the address may be invalid.
        self._client = Client(name, token) if responds else None
        self._checked = self._client and self._client.with_timeouts(connect_timeout=_TIMEOUT, idle_timeout=_TIMEOUT)
        """The same client, for everything but the trials."""

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def examine(self, examine_more: Callable[[], Iterable[Check]] = tuple) -> Iterator[Check]:
        """Yield all checks but the trials.

        Args:
            examine_more: Yields the checks that are shown after those of the way to the server.
        """
        version, failure = self._connect()
        yield checks.server_check(self._attempts, failure, no_server(), version)
        used = chosen(self._attempts)
        yield checks.version_check(version, failure, used.status if used else None)
        yield from examine_more()
        yield checks.token_check(self._token, version, failure)
        failure = self._list_models() if version else None
        yield checks.models_check(self.downloaded, failure if self.downloaded is None else None)
        yield checks.loaded_check(self.loaded, None if self.downloaded is None else failure)
        yield checks.reasoning_check(*self._find_replays())

    def attempt_trials(self) -> Iterator[Check]:
        """Yield the uses of models; they are skipped if the models are not known."""
        if self._client is None or self.downloaded is None or self.loaded is None:
            yield from (checks.untried_check(row, checks.NO_SERVER) for row in checks.OF_MODELS)
        else:
            yield from survey.attempt_trials(self._client, self.loaded, self.downloaded)

    def _connect(self) -> tuple[ServerVersion | None, LMStudioError | None]:
        try:
            return (self._checked.system.get_version() if self._checked else None), None
        except LMStudioError as error:
            return None, error

    def _list_models(self) -> LMStudioError | None:
        """List the models; return why that failed."""
        try:
            if self._checked is not None:
                self.downloaded = downloaded_models(self._checked)
                self.loaded = loaded_models(self._checked)
        except LMStudioError as error:
            return error
        return None

    def _find_replays(self) -> tuple[checks.Replays | None, LMStudioError | None]:
        """Return what chat templates do with earlier thoughts, or why that is not known."""
        try:
            if self._checked is not None and self.loaded is not None:
                return survey.find_replays(self._checked, self.loaded), None
        except LMStudioError as error:
            return None, error
        return None, None


def show(console: TextConsole, check: Check) -> None:
    verdict, indent = f"{check.verdict:<{_WIDTH}}", " " * (_WIDTH + 2)
    console.write(verdict, _STYLES[check.verdict])
    _write(console, f"{verdict}  {check.title}: {check.found}", len(verdict))
    for detail in check.details:
        _write(console, f"{indent}- {detail}", style="dim")
    if check.fix:
        _write(console, f"{indent}to fix: {check.fix}")


def _write(console: TextConsole, line: str, written: int = 0, style: str = "") -> None:
    """Print a line, of which the first characters are written already; on a terminal, no word is broken in two."""
    if not console.is_terminal:
        console.write_line(line[written:], style)
        return
    for part in wrapped(printable_line(line), console.width, indent=_WIDTH + 4)[written:].split("\n"):
        console.write_line(part, style)
