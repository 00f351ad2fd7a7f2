"""Prints one response of a model as it arrives. Ctrl-C stops the response, on the server as well."""

import contextlib
import signal
import sys
from collections.abc import Generator, Iterable
from dataclasses import dataclass

from lmstudio_integrations.cli._common import notes, on_interrupt
from lmstudio_integrations.client.api.sync import PredictionStream
from lmstudio_integrations.errors import LMStudioCancelledError
from lmstudio_integrations.types.results import LlmPredictionFragment, LlmPredictionStats, PredictionEvent

_STOP_REASONS = {
    "userStopped": "stopped",
    "contextLengthReached": "the context window is full",
    "maxPredictedTokensReached": "the token limit is reached",
    "modelUnloaded": "the model was unloaded",
}
"""What is worth knowing about an end."""


@dataclass(frozen=True, slots=True)
class ChatResponse:
    """What came of a response. `stats` is `None` if the server sent none because it was stopped."""

    text: str
    stopped: bool
    stats: LlmPredictionStats | None = None


class ResponsePrinter:
    """Prints the fragments of a response: its text on stdout, its reasoning on stderr if that is a terminal."""

    def __init__(self) -> None:
        self._console = notes()
        self._parts: list[str] = []
        self._in_reasoning = False
        self._at_line_start = True

    @property
    def text(self) -> str:
        """The text so far, without reasoning."""
        return "".join(self._parts)

    def show(self, events: Iterable[PredictionEvent]) -> None:
        for event in events:
            if type(event) is not LlmPredictionFragment:
                continue
            if event.reasoning_type == "reasoning":
                self._show_reasoning(event.content)
            elif event.reasoning_type == "none" and not event.is_structural:
                self._show_text(event.content)
        sys.stdout.flush()

    def end(self) -> None:
        """End the reasoning and the line, if either is still open."""
        self._end_reasoning()
        if not self._at_line_start:
            sys.stdout.write("\n")
        sys.stdout.flush()

    def _show_text(self, text: str) -> None:
        self._end_reasoning()
        self._parts.append(text)
        sys.stdout.write(text)
        if text:
            self._at_line_start = text.endswith("\n")

    def _show_reasoning(self, text: str) -> None:
        if not self._console.is_terminal:
            return
        style = "" if self._console.no_color else "dim"
        label = "" if self._in_reasoning else "Reasoning: "
        self._in_reasoning = True
        self._console.write(label + text, style)

    def _end_reasoning(self) -> None:
        if self._in_reasoning:
            self._console.line(2)
            self._in_reasoning = False


def print_response(stream: PredictionStream) -> ChatResponse:
    """Print a response up to its end, or up to Ctrl-C."""
    printer = ResponsePrinter()
    try:
        with cancelled_by_interrupt(stream):
            for batch in stream.batches():
                printer.show(batch)
        stats = stream.result().stats
    except (KeyboardInterrupt, LMStudioCancelledError):
        return ChatResponse(printer.text, stopped=True)
    finally:
        printer.end()
    return ChatResponse(printer.text, stats.stop_reason == "userStopped", stats)


@contextlib.contextmanager
def cancelled_by_interrupt(stream: PredictionStream) -> Generator[None, None, None]:
    """Let the first Ctrl-C in the block cancel a stream, which then ends with what has arrived.

    The next one raises `KeyboardInterrupt`, in case the server does not respond.
    """

    def cancel() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stream.cancel()

    with on_interrupt(cancel):
        yield


def stats_line(stats: LlmPredictionStats) -> str:
    """Return the stats of a response as one line; what the server did not measure is absent."""
    parts = [
        _with_unit(stats.prompt_tokens_count, "", "tokens read"),
        _with_unit(stats.predicted_tokens_count, "", "written"),
        _with_unit(stats.tokens_per_second, ".1f", "tokens/s"),
        _with_unit(stats.time_to_first_token_sec, ".2f", "s to the first token"),
        _STOP_REASONS.get(stats.stop_reason),
    ]
    return ", ".join(part for part in parts if part)


def _with_unit(value: float | None, form: str, unit: str) -> str | None:
    return None if value is None else f"{value:{form}} {unit}"
