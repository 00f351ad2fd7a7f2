"""`demo`: answers a question about three short documents by retrieval, on LM Studio or the emulator."""

import contextlib
import os
import re
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import SecretStr
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from lmstudio_integrations._support.environment import regular
from lmstudio_integrations._support.text import end_in_words
from lmstudio_integrations.cli._common import (
    Host,
    TextConsole,
    Token,
    downloaded_models,
    loaded_models,
    results,
)
from lmstudio_integrations.client.api.sync import Client, EmbeddingNamespace, LlmNamespace
from lmstudio_integrations.errors import LMStudioTimeoutError, LMStudioUnreachableError
from lmstudio_integrations.types.config import LoadPolicy, ModelKind
from lmstudio_integrations.types.models import ModelInfo, ModelInstanceInfo

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings
    from langchain_core.messages import AIMessageChunk

DOCUMENTS = {
    "library": "The town library is open from nine to six on weekdays. On Saturdays it closes at one in the afternoon.",
    "pool": "The swimming pool costs four euros for adults. Children under six swim for free.",
    "ferry": "The ferry to the island leaves every hour from the north pier. The crossing takes twenty minutes.",
}
"""The texts by title."""

QUESTION = "How long does the ferry to the island take?"

MESSAGES = [
    ("system", "You are a helpful assistant. Answer the question from the text, in one short sentence."),
    ("human", "{text}\n\nQuestion: {question}"),
]

TTL = 600
"""Idle seconds after which a model that the demo loaded is unloaded."""

MAX_TOKENS = 1000
"""Includes reasoning."""

SCRIPTED = "scripted"
"""The architecture of models of an emulator that respond by rules, and to the question with the question."""

SVG_WIDTH = 100
"""Columns of the image."""

SPACE_FOR_A_BAR = 24
"""Columns beside the text of a progress bar, with its numbers. A narrower terminal shows the numbers only."""

SIZE_LIMIT = 2_000_000_000
"""Bytes on disk; a larger model is never loaded without being requested."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A model to use: `name` is its identifier if it is loaded, else its key."""

    name: str
    loaded: bool


@dataclass(frozen=True, slots=True)
class DemoServer:
    """A server, and the models to use there. A `host` of `None` is the LM Studio of this machine."""

    host: str | None
    token: str | None = field(repr=False)
    chat: Choice
    embedding: Choice


def demo(
    host: Host = None,
    token: Token = None,
    svg: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Save what is printed as an SVG image, too.", show_default=False, dir_okay=False
        ),
    ] = None,
) -> None:
    """Answer a question over three short documents, by retrieval.

    Uses the LM Studio of this machine or the one that --host names, with the real models that are loaded, else with
    small ones that are downloaded. Without such models, and if no LM Studio runs on this machine, starts the emulator
    with a small real model.
    """
    if svg:
        check_writable(svg)
    # On a terminal, a recording console would also record each frame of a progress bar.
    console = TextConsole(record=True, width=SVG_WIDTH, force_terminal=False) if svg else results()
    with find_server(console, host, token) as server:
        run(console, server)
    if svg:
        regular(svg).write_text(svg_image(console), encoding="utf-8")


def check_writable(svg: Path) -> None:
    """Reject a file that could not be written after the work for it.

    Raises:
        typer.BadParameter: If it cannot be written.
    """
    reason = None
    try:
        if regular(svg).exists():
            reason = None if os.access(svg, os.W_OK) else "it is read-only"
        elif not svg.parent.is_dir():
            reason = f"there is no folder {svg.parent}"
        elif not os.access(svg.parent, os.W_OK):
            reason = f"{svg.parent} is read-only"
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    if reason is not None:
        raise typer.BadParameter(f"{str(svg)!r} cannot be written, because {reason}", param_hint="--svg")


def svg_image(console: Console) -> str:
    """Return what a recording console printed as an SVG image that loads nothing from elsewhere."""
    page = Console(record=True, width=SVG_WIDTH, file=StringIO())
    page.print(Text.from_ansi(console.export_text(styles=True)))  # an image cuts off lines that are not wrapped
    image = page.export_svg(title="lmsi demo", unique_id="demo")
    return re.sub(r"@font-face \{.*?\}", "", image, flags=re.DOTALL)


@contextlib.contextmanager
def find_server(console: TextConsole, host: str | None, token: str | None) -> Generator[DemoServer, None, None]:
    """Provide a server with two models, LM Studio or else an emulator, and print which."""
    with Client(host, token) as client:
        place = f"at {client.api_host}" if client.api_host else "on this machine"
        outcome = survey(client, f"LM Studio {place}")
        is_emulator = not isinstance(outcome, str) and client.system.get_version().is_emulator
    if not isinstance(outcome, str):
        console.print(f"Using {'the emulator' if is_emulator else 'LM Studio'} {place}.")
        yield DemoServer(host, token, *outcome)
        return
    console.print(f"{outcome} Starting the built-in emulator with small real models.")
    with bundled_emulator() as server:
        yield server


def survey(client: Client, name: str) -> tuple[Choice, Choice] | str:
    """Return a chat model and an embedding model of the server, or why it cannot be used."""
    try:
        chat, embedding = _real_model(client, "llm"), _real_model(client, "embedding")
    except (LMStudioUnreachableError, LMStudioTimeoutError) as error:
        if client.api_host:  # whoever names a server wants that one
            raise
        if isinstance(error, LMStudioTimeoutError):
            return f"{name} did not respond ({error.timeout_name})."
        return f"There is no {name}."
    if chat and embedding:
        return chat, embedding
    missing = "chat" if embedding else "embedding" if chat else "chat and no embedding"
    limit = f"{SIZE_LIMIT / 1e9:g} GB"
    return f"{name} has no {missing} model that is real, and loaded, or downloaded and below {limit}."


def _real_model(client: Client, kind: ModelKind) -> Choice | None:
    """Return a model of a server that is not scripted."""
    return choose(
        (info for info in loaded_models(client, kind) if info.architecture != SCRIPTED),
        (info for info in downloaded_models(client, kind) if info.architecture != SCRIPTED),
    )


def choose(loaded: Iterable[ModelInstanceInfo], downloaded: Iterable[ModelInfo]) -> Choice | None:
    """Return a loaded model, else the smallest downloaded one below `SIZE_LIMIT`, else `None`.

    Of several loaded models, the last used one is chosen. All must be of the same kind.
    """
    last_used = max(loaded, key=lambda info: info.last_used_time or 0, default=None)
    if last_used:
        return Choice(last_used.identifier, loaded=True)
    small = [info for info in downloaded if info.size_bytes < SIZE_LIMIT]
    if small:
        return Choice(min(small, key=lambda info: info.size_bytes).model_key, loaded=False)
    return None


@contextlib.contextmanager
def bundled_emulator() -> Generator[DemoServer, None, None]:
    """Run the emulator with the two bundled models."""
    from lmstudio_integrations.emulator import Emulator  # noqa: PLC0415 - only without LM Studio
    from lmstudio_integrations.emulator.models.catalog import BUNDLED  # noqa: PLC0415

    keys = {kind: Choice(key, loaded=False) for key, kind in BUNDLED.items()}
    with Emulator() as emulator:
        yield DemoServer(emulator.address, None, keys["llm"], keys["embedding"])


def run(console: TextConsole, server: DemoServer) -> None:
    """Find the document, answer the question from it, and print the stats.

    Each model is loaded right before its use, as the server may unload one for the other.
    """
    from langchain_core.prompts import ChatPromptTemplate  # noqa: PLC0415 - needs an extra, and takes half a second

    from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings  # noqa: PLC0415

    secret = None if server.token is None else SecretStr(server.token)
    with Client(server.host, server.token) as client:
        embedder = load(console, client.embedding, server.embedding)
        embeddings = LMStudioEmbeddings(model=embedder.identifier, host=server.host, api_token=secret)
        title, text = find_document(QUESTION, embeddings)
        chat_model = load(console, client.llm, server.chat)
    console.line()
    console.print(f"Question: {QUESTION}")
    console.print(f"Found:    {text} ({title}; 1 of {len(DOCUMENTS)} documents)")
    model = ChatLMStudio(
        model=chat_model.identifier,
        host=server.host,
        api_token=secret,
        temperature=0,
        max_tokens=MAX_TOKENS,
        repeat_penalty=1.0,  # the response should repeat words of the text
    )
    chain = ChatPromptTemplate.from_messages(MESSAGES) | model
    response = stream(console, chain, {"text": text, "question": QUESTION})
    console.print(stats_table(response, chat_model))


def find_document(question: str, embeddings: "Embeddings") -> tuple[str, str]:
    """Return title and text of the document most similar to a question."""
    from langchain_core.vectorstores import InMemoryVectorStore  # noqa: PLC0415 - needs an extra

    metadata: list[dict[str, Any]] = [{"title": title} for title in DOCUMENTS]
    store = InMemoryVectorStore.from_texts(list(DOCUMENTS.values()), embeddings, metadatas=metadata)
    (document,) = store.similarity_search(question, k=1)
    return document.metadata["title"], document.page_content


def load(console: TextConsole, models: LlmNamespace | EmbeddingNamespace, choice: Choice) -> ModelInstanceInfo:
    """Return the info of a model; if it is not loaded, load it with a progress bar.

    Args:
        console: Where the bar is shown.
        models: The client's models of one kind.
        choice: The model.
    """
    if choice.loaded:
        return models.model(choice.name, load_policy="require_loaded").get_info()
    with progress_bar(f"Loading {choice.name}", console) as show:
        # Loading the chat model would evict an embedding model that was loaded just in time.
        policy: LoadPolicy = "explicit" if isinstance(models, EmbeddingNamespace) else "get_or_load"
        handle = models.model(choice.name, ttl=TTL, load_policy=policy, on_load_progress=show)
        show(1.0)
    return handle.get_info()


@contextlib.contextmanager
def progress_bar(label: str, console: TextConsole) -> Generator[Callable[[float], None], None, None]:
    """Show a bar while the block runs, and provide the function that moves it.

    Args:
        label: The text in front of the bar.
        console: Where it is shown and stays; if it is no terminal, only its end is.

    Yields:
        A function that takes the progress, from 0.0 to 1.0.
    """
    numbers = TaskProgressColumn(), TimeElapsedColumn()
    has_space = console.width > cell_len(label) + SPACE_FOR_A_BAR
    with Progress(
        "{task.description}",  # a format string; rich's own columns do not escape
        *((BarColumn(), *numbers) if has_space else numbers),
        console=console,
        redirect_stdout=False,  # rich would obey the codes in what it redirects
        redirect_stderr=False,
    ) as progress:
        task = progress.add_task(label, total=1.0)

        def show(part: float) -> None:
            progress.update(task, completed=part)

        yield show


def stream(console: TextConsole, chain: Any, inputs: dict[str, str]) -> "AIMessageChunk":
    """Print a response as it arrives, and return the complete message."""
    console.write("Answer:   ")
    message: AIMessageChunk | None = None
    for chunk in chain.stream(inputs):
        console.write(chunk.text)
        message = chunk if message is None else message + chunk
    console.line(2)
    assert message is not None, "a stream ends with its statistics, or with an exception"
    return message


def stats_table(response: "AIMessageChunk", info: ModelInstanceInfo) -> Table:
    metadata, usage = response.response_metadata, response.usage_metadata
    (measured,) = metadata["predictions"]
    rows = {
        "Model": describe(info),
        "Weights": info.path,
        "Tokens": f"{usage['input_tokens']} read, {usage['output_tokens']} written" if usage else "?",
        "Tokens per second": _number(measured.get("tokens_per_second"), ".1f"),
        "Time to first token": _number(measured.get("time_to_first_token_sec"), ".2f", " s"),
        "Stop reason": end_in_words(metadata.get("stop_reason", "?")),
    }
    table = Table(Column(no_wrap=True), Column(overflow="fold"), show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def describe(info: ModelInstanceInfo) -> str:
    """Return the key of a model with its real architecture: a server may offer any weights under any key."""
    quantization = info.quantization.name if info.quantization else None
    details = [detail for detail in (info.architecture, info.params_string, quantization) if detail]
    return f"{info.model_key} ({', '.join(details)})" if details else info.model_key


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "?" if value is None else f"{value:{form}}{unit}"
