"""Prints one response of a model as it arrives. Ctrl-C stops the response, on the server as well.

The model of a chat with tools writes a response in rounds: text and calls of tools, then text about their results.
"""

import contextlib
import signal
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass

from lmstudio_integrations._support.stop_reasons import COMPLETE, end_in_words
from lmstudio_integrations.cli._chat.tools import ChatTools
from lmstudio_integrations.cli._common import notes, on_interrupt, results
from lmstudio_integrations.cli._wrapping import WordWrapper, dim_style
from lmstudio_integrations.client.api.responses import PredictionStream
from lmstudio_integrations.client.api.sync import LLM
from lmstudio_integrations.errors import LMStudioCancelledError
from lmstudio_integrations.types.chat import AssistantMessage, Chat, Message, ToolMessage
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    LlmPredictionStats,
    PredictionEvent,
    PredictionRoundResult,
)

_STATS = (
    ("prompt_tokens_count", "Prompt", "{:,} tokens"),
    ("predicted_tokens_count", "Response", "{:,} tokens"),
    ("dropped_tokens", "Dropped", "{:,} tokens of the conversation"),
    ("tokens_per_second", "Speed", "{:,.1f} tokens per second"),
    ("time_to_first_token_sec", "First token after", "{:,.2f} seconds"),
    ("total_time_sec", "Total time", "{:,.2f} seconds"),
    ("model_load_time_sec", "Model load time", "{:,.2f} seconds"),
    ("used_draft_model_key", "Draft model", "{}"),
    ("accepted_draft_tokens_count", "Accepted drafts", "{:,} tokens"),
    ("rejected_draft_tokens_count", "Rejected drafts", "{:,} tokens"),
)
"""The stats that a table shows: member, name, and value with its unit."""


@dataclass(frozen=True, slots=True)
class ChatResponse:
    """What came of a response.

    Attributes:
        messages: What it adds to the conversation; nothing if it was stopped before it began.
        stopped: Whether it was stopped.
        stats: Its stats, or those of its last round; `None` if it was stopped before the server sent them.
    """

    messages: Sequence[Message]
    stopped: bool
    stats: LlmPredictionStats | None = None


class ResponsePrinter:
    """Prints the fragments of a response: its text on stdout, its reasoning on stderr if that is a terminal."""

    def __init__(self) -> None:
        self._results = WordWrapper(results())
        self._notes = notes()
        self._reasoning: WordWrapper | None = None
        self._parts: list[str] = []
        self._is_in_line = False

    @property
    def text(self) -> str:
        """The text so far, without reasoning."""
        return "".join(self._parts)

    def clear(self) -> None:
        """Forget the text so far."""
        self._parts.clear()

    def show(self, events: Iterable[PredictionEvent]) -> None:
        for event in events:
            if type(event) is not LlmPredictionFragment:
                continue
            if event.reasoning_type == "reasoning":
                self._show_reasoning(event.content)
            elif event.reasoning_type == "none" and not event.is_structural and event.content:
                self._show_text(event.content)

    def end(self) -> None:
        """End the reasoning and the line, if either is still open."""
        self._end_reasoning()
        if self._is_in_line:
            self._results.write("\n")
        self._is_in_line = False

    def _show_text(self, text: str) -> None:
        self._end_reasoning()
        self._parts.append(text)
        self._is_in_line = not text.endswith("\n")
        self._results.write(text)

    def _show_reasoning(self, text: str) -> None:
        if not self._notes.is_terminal:
            return
        if self._reasoning is None:
            self._reasoning = WordWrapper(self._notes, dim_style(self._notes))
            text = f"Reasoning: {text}"
        self._reasoning.write(text)

    def _end_reasoning(self) -> None:
        if self._reasoning is not None:
            self._notes.line(2)
            self._reasoning = None


def print_response(stream: PredictionStream) -> ChatResponse:
    """Print a response up to its end, or up to Ctrl-C."""
    printer, stats = ResponsePrinter(), None
    try:
        with cancelled_by_interrupt(stream):
            for batch in stream.batches():
                printer.show(batch)
        stats = stream.result().stats
    except (KeyboardInterrupt, LMStudioCancelledError):
        pass
    finally:
        printer.end()
    stopped = _is_stopped(stats)
    messages = [Chat().add_assistant_response(printer.text)] if printer.text or not stopped else []
    return ChatResponse(messages, stopped, stats)


def print_response_with_tools(model: LLM, chat: Chat, tools: ChatTools) -> ChatResponse:
    """Print a response, and the calls of tools between its texts, up to its end or up to Ctrl-C."""
    printer, messages, rounds = ResponsePrinter(), list[Message](), list[PredictionRoundResult]()
    stats = None

    def end_text(result: PredictionRoundResult) -> None:
        printer.end()
        rounds.append(result)

    def add_message(message: AssistantMessage | ToolMessage) -> None:
        printer.clear()
        messages.append(message)

    try:
        model.act(
            chat,
            tools.tools,
            check_context=True,
            on_prediction_fragment=lambda fragment, _round: printer.show([fragment]),
            on_prediction_completed=end_text,
            guard_tool_call=tools.guard,
            handle_invalid_tool_request=tools.report_failure,
            on_message=add_message,
        )
        stats = rounds[-1].stats
    except (KeyboardInterrupt, LMStudioCancelledError):
        # A call without a result is no part of a conversation, the text before it is.
        if printer.text:
            messages.append(Chat().add_assistant_response(printer.text))
    finally:
        printer.end()
    return ChatResponse(messages, _is_stopped(stats), stats)


def _is_stopped(stats: LlmPredictionStats | None) -> bool:
    return stats is None or stats.stop_reason == "userStopped"


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
    end = end_in_words(stats.stop_reason)
    parts = [
        _with_unit(stats.prompt_tokens_count, "", "tokens read"),
        _with_unit(stats.predicted_tokens_count, "", "written"),
        _with_unit(stats.tokens_per_second, ".1f", "tokens/s"),
        _with_unit(stats.time_to_first_token_sec, ".2f", "s to the first token"),
        end if end != COMPLETE else None,
    ]
    return ", ".join(part for part in parts if part)


def stats_table(stats: LlmPredictionStats) -> list[tuple[str, str]]:
    """Return the stats of a response as rows of names and values; what the server did not measure is absent."""
    values = [(name, form, getattr(stats, member)) for member, name, form in _STATS]
    rows = [(name, form.format(value)) for name, form, value in values if value is not None]
    return [*rows, ("End", end_in_words(stats.stop_reason))]


def _with_unit(value: float | None, form: str, unit: str) -> str | None:
    return None if value is None else f"{value:{form}} {unit}"
