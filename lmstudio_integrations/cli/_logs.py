"""`logs`: prints what a server logs. `top` shows such lines as well."""

import json
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

from lmstudio_integrations._support.secrets import redact
from lmstudio_integrations._support.text import counted, one_line, printable_line
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.cli._common import AsJson, Host, Prompts, TextConsole, Token, note, print_json, results
from lmstudio_integrations.cli._completion import loaded_identifiers
from lmstudio_integrations.cli._formatting import clock_time, finite, wrapped
from lmstudio_integrations.cli._wrapping import dim_style
from lmstudio_integrations.types.logs import LogEntry, ModelInputEntry, ModelOutputEntry, RuntimeEntry, ServerEntry
from lmstudio_integrations.types.results import LlmPredictionStats


class Source(StrEnum):
    """What writes lines of the log."""

    MODEL = "model"
    RUNTIME = "runtime"
    SERVER = "server"


_STYLES = {"error": "bold red", "warn": "yellow", "debug": "dim"}
"""How lines of these levels are shown."""

_TEXTS = {"input", "output", "data"}
"""What may hold prompts and responses."""


def logs(
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Only what names the model with this identifier.",
            autocompletion=loaded_identifiers,
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        list[Source] | None,
        typer.Option(
            metavar="SOURCE",
            help="Only lines of model (predictions), runtime (engines) or server. May be repeated.",
            show_default=False,
        ),
    ] = None,
    *,
    prompts: Prompts = False,
    as_json: AsJson = False,
    host: Host = None,
    token: Token = None,
) -> None:
    """Print what the server logs, until Ctrl-C: predictions, requests, loads and errors.

    Of prompts and responses, it prints the sizes and the statistics. With --json, each entry is one line.
    """
    from lmstudio_integrations.client.api.sync import Client  # noqa: PLC0415 - slow

    console = results()
    with Client(host, token) as client:
        entries = client.logs()
        note("What the server logs from now on appears here. Ctrl-C ends it.")
        for entry in entries:
            about_model = getattr(entry, "model_identifier", None)
            if (source and source_of(entry) not in source) or (model and model != about_model):
                continue
            if as_json:
                print_json(for_json(members_of(entry, prompts=prompts)), on_one_line=True)
            else:
                _write(console, entry, prompts=prompts)


def _write(console: TextConsole, entry: LogEntry, *, prompts: bool) -> None:
    """Print an entry: a line, and further ones indented, so that no text looks like an entry."""
    about, text = described(entry)
    first, *further = redact(about).splitlines() or [""]
    level = level_of(entry)
    marked = first if level == "info" else f"{level}: {first}"
    line = redact(f"{clock_time(entry.timestamp)}  {source_of(entry):<7}  {marked}")
    for part in wrapped(printable_line(line), console.width).split("\n") if console.is_terminal else [line]:
        console.write_line(part, _STYLES.get(level, ""))
    for part in (*further, *(redact(text).splitlines() if prompts and text else ())):
        console.write_line(f"    {part}", dim_style(console))


def source_of(entry: LogEntry) -> str:
    """Return what an entry is from, by the first part of its kind."""
    first = one_line(entry.type.partition(".")[0])
    return "model" if first == "llm" else first


def level_of(entry: LogEntry) -> str:
    """Return the level of an entry; predictions have none, which is `info`."""
    return one_line(getattr(entry, "level", "info"))


def members_of(entry: LogEntry, *, prompts: bool) -> dict[str, Any]:
    """Return an entry for JSON; without `prompts`, with the sizes of texts in place of them."""
    members = entry.to_dict()
    if prompts:
        return members
    return {
        f"{name}Characters" if name in _TEXTS else name: _size(value) if name in _TEXTS else value
        for name, value in members.items()
    }


def for_json(value: Any) -> Any:
    """Return a value as it may be printed: without tokens, and null for numbers that JSON does not have."""
    if is_object(value):
        return {redact(name): for_json(each) for name, each in value.items()}
    if is_list(value):
        return [for_json(each) for each in value]
    if isinstance(value, float):
        return finite(value)
    return redact(value) if isinstance(value, str) else value


def described(entry: LogEntry) -> tuple[str, str]:
    """Return what an entry says, and the prompt or response that it has."""
    match entry:
        case ModelInputEntry(model_identifier=model, input=text):
            return f"{model}: prompt of {counted(len(text), 'character')}", text
        case ModelOutputEntry(model_identifier=model, output=text, stats=stats):
            parts = f"response of {counted(len(text), 'character')}", *(_in_words(stats) if stats else ())
            return f"{model}: {', '.join(parts)}", text
        case ServerEntry(content=content):
            return content, ""
        case RuntimeEntry(engine_name=engine, message=message):
            return f"{engine}: {message}", ""
        case _:
            return f"{entry.type}: {counted(_size(entry.data), 'character')}", json.dumps(
                entry.data, ensure_ascii=False
            )


def _in_words(stats: LlmPredictionStats) -> Iterator[str]:
    if stats.predicted_tokens_count is not None:
        yield counted(stats.predicted_tokens_count, "token")
    if stats.tokens_per_second is not None:
        yield f"{stats.tokens_per_second:.1f} tokens/s"
    if stats.time_to_first_token_sec is not None:
        yield f"first token after {stats.time_to_first_token_sec:.2f} s"
    yield stats.stop_reason


def _size(value: object) -> int:
    return len(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
