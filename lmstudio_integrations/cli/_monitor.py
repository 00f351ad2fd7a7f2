"""What `top` shows of servers: what their models do, asked again and again, and what their logs say meanwhile."""

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import Any

from rich.text import Text

from lmstudio_integrations._support.secrets import redact
from lmstudio_integrations._support.text import one_line, printable_line
from lmstudio_integrations.cli._activity import ModelActivity, activity_lines, activity_members
from lmstudio_integrations.cli._common import TextConsole
from lmstudio_integrations.cli._devices import device_names
from lmstudio_integrations.cli._errors import parts_of
from lmstudio_integrations.cli._formatting import clock_time, device_name, duration, finite
from lmstudio_integrations.cli._loaded_models import info_of
from lmstudio_integrations.cli._logs import described, level_of
from lmstudio_integrations.cli._wrapping import dim_style
from lmstudio_integrations.client.api.sync import LLM, Client, EmbeddingModel
from lmstudio_integrations.errors import (
    LMStudioError,
    LMStudioModelNotFoundError,
    LMStudioProtocolError,
    LMStudioServerError,
)
from lmstudio_integrations.types.logs import LogEntry, ModelInputEntry, ModelOutputEntry
from lmstudio_integrations.types.models import ModelInstanceInfo

_EXCERPT = 300
"""Characters that are shown of a prompt or an error."""

_Speeds = tuple[float | None, float | None]
"""Tokens per second of a prediction, and seconds to its first token."""


class Monitor:
    """What a server does. It is asked in threads of a pool, until its client is closed.

    Attributes:
        name: Its address.
        models: The loaded models, as they were in its last response.
        error: Why it could not be asked; `None` if it could.
        log_error: Why its log cannot be read.
        last_error: The last line of its log that is an error.
        last_prompt: The beginning of the last prompt.
    """

    def __init__(self, client: Client) -> None:
        self.name: str = client.api_host or "this machine"
        self.models: list[ModelActivity] = []
        self.error: LMStudioError | None = None
        self.log_error: LMStudioError | None = None
        self.last_error = ""
        self.last_prompt = ""
        self._client = client
        self._speeds: dict[str, _Speeds] = {}
        """Those of predictions that have ended since the server was asked, by the identifier of the model."""
        self._asked_at = 0.0
        self._asking: Future[list[ModelActivity]] | None = None
        self._reading: Future[None] | None = None

    @property
    def problem(self) -> str:
        """Why it could not be asked, or for how long it has not responded, in one line."""
        if self._asking:
            return f"does not respond: waiting for {duration(monotonic() - self._asked_at)}"
        return parts_of(self.error)[0] if self.error else ""

    def ask(self, pool: ThreadPoolExecutor) -> Future[list[ModelActivity]]:
        """Ask the server what its models do, unless it has not responded yet."""
        if self._asking is None:
            self._asked_at = monotonic()
            self._asking = pool.submit(self._list_models)
        return self._asking

    def follow_log(self, pool: ThreadPoolExecutor) -> None:
        """Read the log of a server that responds, unless that is going on, or has failed since the server came back."""
        if self._reading is None and not self.problem and not self.log_error:
            self._reading = pool.submit(self._read_log)

    def update(self) -> None:
        """Show what has arrived. Raises what is no error of a server."""
        if self._asking and self._asking.done():
            failed, self.error = self.error, _error_of(self._asking)
            self.models = [] if self.error else self._asking.result()
            self._asking = None
            if failed and not self.error:
                self.log_error = None
        if self._reading and self._reading.done():
            error, self._reading = _error_of(self._reading), None
            # If the server is gone, the next question fails as well.
            self.log_error = error if isinstance(error, LMStudioServerError | LMStudioProtocolError) else None

    def _list_models(self) -> list[ModelActivity]:
        speeds, self._speeds = self._speeds, {}
        loaded = [(handle, info) for handle in self._client.list_loaded_models() if (info := info_of(handle))]
        devices = device_names(self._client, (info for _, info in loaded))
        found = (
            self._activity(handle, info, device_name(info, devices), speeds.get(info.identifier))
            for handle, info in loaded
        )
        return sorted((each for each in found if each), key=lambda each: each.info.identifier)

    def _activity(
        self, handle: LLM | EmbeddingModel, info: ModelInstanceInfo, device: str, speeds: _Speeds | None
    ) -> ModelActivity | None:
        """Return what a model does; `None` if it was unloaded since."""
        # An identifier is used again after a reload, a reference is not.
        known = next((each for each in self.models if each.info.instance_reference == info.instance_reference), None)
        if speeds is None:
            speeds = (known.tokens_per_second, known.first_token_sec) if known else (None, None)
        slots, state = known.slots if known else None, None
        try:
            if not known and isinstance(handle, LLM):
                slots = handle.get_load_config().max_parallel_predictions
            state = handle.get_processing_state()
        except LMStudioModelNotFoundError:
            return None
        except LMStudioServerError:  # older ones cannot say it
            pass
        return ModelActivity(info, device, state, slots, *speeds)

    def _read_log(self) -> None:
        for entry in self._client.logs():
            self._record(entry)

    def _record(self, entry: LogEntry) -> None:
        match entry:
            case ModelInputEntry(input=text, model_identifier=model):
                self.last_prompt = _excerpt(f"{model}: {text}")
            case ModelOutputEntry(stats=stats, model_identifier=model) if stats:
                self._speeds[model] = finite(stats.tokens_per_second), finite(stats.time_to_first_token_sec)
            case _ if level_of(entry) == "error":
                self.last_error = _excerpt(f"{clock_time(entry.timestamp)} {described(entry)[0]}")
            case _:
                pass


def _excerpt(text: str) -> str:
    """Return the beginning of a text, without tokens: also without one that would be cut, and not recognized."""
    return one_line(redact(text[: 10 * _EXCERPT])[:_EXCERPT])


def _error_of(future: Future[Any]) -> LMStudioError | None:
    """Return why what is done has failed, if a server is the reason; raise what is no error of a server."""
    error = future.exception()
    if error is None or isinstance(error, LMStudioError):
        return error
    raise error


def view_lines(
    monitors: Sequence[Monitor], now: float, console: TextConsole, *, prompts: bool
) -> Iterator[tuple[str, str]]:
    """Yield the lines of a view, each with its style.

    Args:
        monitors: The servers; of several, each has its name above its models.
        now: The time, in seconds since 1970.
        console: Where they are shown.
        prompts: Whether the last prompts are shown.
    """
    width, dim, one_host = console.width, dim_style(console), monitors[0].name if len(monitors) == 1 else ""
    yield f"{clock_time(now * 1000)}  {one_host}".rstrip(), dim
    activities = [each for monitor in monitors for each in monitor.models]
    lines = iter(activity_lines(activities, now, width) if activities else ())
    if activities:
        yield next(lines), "bold"
    elif not all(monitor.problem for monitor in monitors):
        yield "No model is loaded.", ""
    for monitor in monitors:
        if not one_host:
            yield monitor.name, "bold"
        for line in itertools.islice(lines, len(monitor.models)):
            yield line, ""
        last_error = monitor.last_error and f"last error: {monitor.last_error}"
        for text, style in ((monitor.problem, "bold red"), (last_error, "red")):
            yield from ((line, style) for line in (_folded(text, console) if text else ()))
        if monitor.log_error and not monitor.problem:
            yield f"the log cannot be read: {parts_of(monitor.log_error)[0]}", dim
        if prompts and monitor.last_prompt:
            yield f"last prompt: {monitor.last_prompt}", dim


def _folded(text: str, console: TextConsole) -> Iterator[str]:
    """Yield a text in lines that fit, even if a word does not; the further ones are indented."""
    for number, line in enumerate(Text(printable_line(text)).wrap(console, max(console.width - 4, 2))):
        yield f"{'    ' if number else ''}{line}".rstrip()


def view_members(monitors: Sequence[Monitor], now: float, *, prompts: bool) -> dict[str, Any]:
    """Return a view for JSON; what is not known is null. See `view_lines`."""
    return {
        "time": round(now * 1000),
        "hosts": [
            {
                "host": monitor.name,
                "error": monitor.problem or None,
                "logError": parts_of(monitor.log_error)[0] if monitor.log_error else None,
                "lastError": monitor.last_error or None,
                **({"lastPrompt": monitor.last_prompt or None} if prompts else {}),
                "models": [activity_members(each, now) for each in monitor.models],
            }
            for monitor in monitors
        ],
    }
