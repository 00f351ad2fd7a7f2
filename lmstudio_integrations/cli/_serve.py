"""`serve`: the emulator in the foreground."""

import contextlib
import errno
import json
import logging
import os
import stat
import time
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic_core import from_json

from lmstudio_integrations._support.environment import HOST_VARIABLE, SERVER_FILE_VARIABLE, TOKEN_VARIABLES, regular
from lmstudio_integrations._support.leaves import door
from lmstudio_integrations._support.typeguards import is_count, is_object
from lmstudio_integrations.cli._common import note, results
from lmstudio_integrations.cli._main import INTERRUPTED
from lmstudio_integrations.client.concurrency.flows import run
from lmstudio_integrations.client.concurrency.mailboxes import ThreadMailbox
from lmstudio_integrations.client.transport.connect.addresses import (
    DISCOVERY_PORTS,
    Address,
    local_candidates,
    public_candidates,
    server_file_from_environment,
)
from lmstudio_integrations.client.transport.connect.discovery import BIONIC, LM_STUDIO, Attempt, chosen, search
from lmstudio_integrations.client.transport.connect.records import bionic_file, shared_file
from lmstudio_integrations.emulator import Catalog, Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.scripted import ANY_TOOL, Rule, parse_rules
from lmstudio_integrations.emulator.models.catalog import (
    BUNDLED,
    parse_model,
    read_toml,
)
from lmstudio_integrations.emulator.models.catalog import load as load_catalog
from lmstudio_integrations.emulator.server.context import MIB, Limits
from lmstudio_integrations.errors import LMStudioOSError, LMStudioRuntimeError, LMStudioValueError
from lmstudio_integrations.protocol.envelope import TOKEN_FORM, split_token

_HOST = "127.0.0.1"
"""Where programs look for a server whose port is in the file."""

_MEMBERS = {"host", "pid", "port"}
"""What a server writes into it."""

_LONGEST = 1024
"""Bytes; the file of a server is shorter."""


def check_announcement(host: str, path: Path) -> None:
    """Check whether a server can be announced.

    Args:
        host: The address that it listens on.
        path: The file that is to announce it.

    Raises:
        LMStudioValueError: If programs would not find it there.
        LMStudioRuntimeError: If another server is announced in that file, and runs, or another one comes before it.
    """
    if host not in {_HOST, "localhost", "0.0.0.0"}:  # noqa: S104 - compared
        raise LMStudioValueError(
            f"--announce lets programs look for the server on {_HOST}, but it is to listen on {host}; omit --host or "
            "--announce"
        )
    _, attempts = run(search(ThreadMailbox))
    found = chosen(attempts)
    if found is None or found.server is None:
        return
    address = found.server.netloc
    if found.source in {str(path), SERVER_FILE_VARIABLE}:
        problem = f"{path} announces the server at {address}"
    elif found.package in LM_STUDIO and path == bionic_file():
        problem = f"programs find the server at {address} before one that plays Bionic"
    else:
        return
    raise LMStudioRuntimeError(f"{problem}; stop that one first, or omit --announce")


def file_of(catalog: Catalog | None) -> Path:
    """Return the file in which the application that a catalog plays writes where it listens.

    Raises:
        LMStudioOSError: If LM Studio's folder cannot be found.
    """
    is_bionic = catalog is not None and catalog.application == BIONIC and not server_file_from_environment()
    return bionic_file() if is_bionic else shared_file()


@contextlib.contextmanager
def announcement(port: int, path: Path) -> Generator[None]:
    """Let programs find the server on a port for the duration of the block.

    Raises:
        LMStudioOSError: If the file cannot be written.
    """
    content = json.dumps({"host": _HOST, "pid": os.getpid(), "port": port}).encode()
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    is_begun = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_replaceable(path)
        with draft.open("xb") as file:
            is_begun = True
            file.write(content)
        draft.replace(path)
    except OSError as error:
        if is_begun:
            with contextlib.suppress(OSError):
                draft.unlink()
        raise LMStudioOSError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            # No other server has announced itself since, and nobody has put something else there.
            if stat.S_ISREG(path.lstat().st_mode) and path.read_bytes() == content:
                path.unlink()


def _check_replaceable(path: Path) -> None:
    """Reject a file that no server has written, because the environment may name any.

    Raises:
        OSError: If it is a link, or anything but the file of a server.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    known = None
    if stat.S_ISREG(mode):
        with path.open("rb") as file, contextlib.suppress(ValueError):
            known = from_json(file.read(_LONGEST))
    if not (is_object(known) and known.keys() <= _MEMBERS and is_count(known.get("port"))):
        raise OSError(errno.EEXIST, "it exists, and no server has written it; delete it or name another one", str(path))


Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="KEY[=WEIGHTS]",
        help="A model to offer; WEIGHTS is a bundled model or a GGUF file. May be repeated. "
        "Without it and --catalog: the two bundled models, and scripted ones that call tools, rerank and decide.",
    ),
]

FOUND = "Programs on this machine find it."

SCRIPTED_PACE = 200.0
"""The default speed of scripted models, in tokens per second."""


def serve(  # noqa: PLR0917 - one parameter for each flag
    host: Annotated[str, typer.Option(metavar="HOST", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=0,
            max=65535,
            help="The port; 0 for any free one. By default the first free one of LM Studio's discovery ports.",
            show_default=False,
        ),
    ] = None,
    model: Models = None,
    load: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="A model to load at the start. May be repeated.")
    ] = None,
    catalog: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A TOML file with [[model]], [[preset]] and [[plugin]] tables, or a folder of GGUF files.",
        ),
    ] = None,
    scripted: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--scripted", help="Let models without weights give scripted responses; see --rules.")
    ] = False,
    rules: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A TOML file with [[rule]] tables, for scripted LLMs without rules of their own, and for the model "
            "`scripted-tools` that `serve` has.",
        ),
    ] = None,
    token: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOKEN",
            help="An API token to accept; with one, clients without a token are rejected. May be repeated. Other users "
            "of this machine see it in the process list: use --token-file, or the variable LM_API_TOKEN.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A file with API tokens to accept, one per line; # begins a comment."),
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Respond with a recording of LM Studio, instead of with models.", show_default=False
        ),
    ] = None,
    quiet: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--quiet", "-q", help="Do not log loads, unloads, requests and calls of tools.")
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never fetch weights.")] = False,  # noqa: FBT002 - a flag
    worker_memory: Annotated[
        int | None,
        typer.Option(
            metavar="MIB",
            min=1,
            help="Memory limit of the process of one model, in MiB, on Linux. By default three quarters of the memory.",
            show_default=False,
        ),
    ] = None,
    announce: Annotated[  # noqa: FBT002 - a flag
        bool,
        typer.Option(
            "--announce",
            help="Let programs on this machine find the server on any port: until it stops, its port is in the file "
            "in which LM Studio writes its own.",
        ),
    ] = False,
) -> None:
    """Run a server that speaks LM Studio's protocol, without LM Studio.

    The first line of the output is the address, and Ctrl-C stops the server. Each load, unload, request and call of a
    tool is a line on stderr.
    """
    tokens = accepted_tokens(token or (), token_file)
    ports = DISCOVERY_PORTS if port is None else (port,)
    listen: dict[str, Any] = {"host": host, "port": ports, "tokens": tokens}
    if replay:
        if model or load or catalog or rules:
            raise typer.BadParameter("a cassette has its own models; omit --model, --load, --catalog and --rules")
        with door("cassettes"):
            from lmstudio_integrations.cassettes import Replay  # noqa: PLC0415 - a leaf
        try:
            emulator: Emulator = Replay(replay, **listen)
        except LMStudioOSError as error:
            raise typer.BadParameter(str(error), param_hint="--replay") from None
    else:
        offered = build_catalog(model or (), catalog, rules, scripted=scripted)
        memory = None if worker_memory is None else worker_memory * MIB
        limits = Limits(records=1)  # nobody reads them
        emulator = Emulator(
            catalog=offered, load=load or (), offline=offline, worker_memory=memory, limits=limits, **listen
        )
    file = file_of(emulator.catalog) if announce else None
    if file is not None:
        check_announcement(host, file)
    if is_exposed(host, tokens):
        note(f"Warning: everyone who can reach {host} can use this server; restrict it with --token-file.")
    variable = None if token or token_file else token_variable()
    # Programs find an announced server anyway, and one on any free port never.
    first = None if announce or port == 0 else find_first()
    with contextlib.ExitStack() as stack:
        if not quiet:
            stack.enter_context(log_as_notes())

        def on_ready() -> None:
            stack.enter_context(contextlib.nullcontext() if file is None else announcement(emulator.port, file))
            reach = FOUND if announce else how_to_reach(host, emulator.port, first)
            show(emulator, reach, token_note(variable) if tokens else None, replay)

        emulator.serve_forever(on_ready)
    raise typer.Exit(INTERRUPTED)


def is_exposed(host: str, tokens: Collection[str]) -> bool:
    """Return whether other machines can use the server without a token."""
    return not tokens and not Address(host, 0).is_loopback


class _Notes(logging.Handler):
    """Prints the log on stderr, with the time of day."""

    def emit(self, record: logging.LogRecord) -> None:
        note(f"{time.strftime('%H:%M:%S', time.localtime(record.created))}  {record.getMessage()}")


@contextlib.contextmanager
def log_as_notes() -> Generator[None]:
    """Print a line for each load, unload, prediction and call of a tool of the block."""
    logger, handler = logging.getLogger("lmstudio_integrations.emulator"), _Notes()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def token_note(variable: str | None) -> str:
    """Return which token clients need: that of an environment variable, or one that the user gave."""
    if variable:
        return f"Clients need the API token in {variable}."
    return f"Clients need one of the API tokens you gave: export {TOKEN_VARIABLES[0]}=TOKEN"


def show(
    emulator: Emulator,
    reach: str,
    about_tokens: str | None = None,
    cassette: Path | None = None,
) -> None:
    """Print the address of the server, and its models and plugins, or its cassette.

    On stderr, print how clients reach it and what stops it.
    """
    console = results()
    console.write_line(f"ws://{emulator.address}")
    for entry in emulator.catalog.models:
        details = {entry.kind: None, (entry.weights or "") if entry.needs_weights else entry.engine: None}
        console.write_line(f"  {entry.key} ({', '.join(name for name in details if name not in {'', entry.key})})")
    if cassette is not None:
        console.write_line(f"  {cassette} (recorded)")
    for plugin in emulator.catalog.plugins:
        console.write_line(f"  {plugin.identifier} (plugin, {plugin.kind})")
    note(reach)
    if about_tokens:
        note(about_tokens)
    note("Ctrl-C stops the server.")


def find_first() -> Attempt | None:
    """Return the server that programs without a host find now; `None` if there is none, or tests block all of them."""
    with contextlib.suppress(LMStudioRuntimeError):
        return chosen(run(search(ThreadMailbox))[1])
    return None


def how_to_reach(host: str, port: int, first: Attempt | None = None) -> str:
    """Return how clients reach the server.

    Args:
        host: The address that it listens on.
        port: Its port.
        first: The server that programs without a host found before this one was started.
    """
    address = Address(host, port)
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - compared
        return f"To use it from another machine: export {HOST_VARIABLE}=NAME-OF-THIS-MACHINE:{port}"
    places = (*local_candidates(), *public_candidates())
    if address not in places:
        return f"To use it: export {HOST_VARIABLE}={address.netloc}"
    if first is None or first.server is None or first.server in places[places.index(address) :]:
        return FOUND
    if first.package == BIONIC and address in local_candidates():
        return FOUND
    return (
        f"Programs that name no host find the server at {first.server.netloc} first: stop that one, or "
        f"export {HOST_VARIABLE}={address.netloc}"
    )


def scripted_entries(rules: tuple[Rule, ...] = ()) -> tuple[ModelEntry, ...]:
    """Return scripted models for what the bundled ones are too small for: tools and reranking.

    There is no decision model, because the official SDKs reject a list that has one. Unless it is given rules, the
    first calls the first tool it is offered, and then quotes what the tool returned. With it, a first agent runs.
    """
    call = {"when": {"role": "user", "tools": [ANY_TOOL]}, "then": [{"tool": ANY_TOOL}]}
    quote = {"when": {"role": "tool"}, "then": "I am a scripted model. The tool returned: {last}"}
    return (
        ModelEntry(key="scripted-tools", rules=rules or (call, quote)),
        ModelEntry(key="scripted-reranker", tools=False),
    )


def build_catalog(
    names: Iterable[str] = (), path: Path | None = None, rules: Path | None = None, *, scripted: bool = False
) -> Catalog:
    """Return a catalog with the models of the command line; without any, with those of `serve` itself.

    Args:
        names: Models as `KEY` or `KEY=WEIGHTS`.
        path: A catalog, or a folder of GGUF files.
        rules: A file with rules for scripted LLMs.
        scripted: Whether keys without weights are scripted models.

    Raises:
        LMStudioValueError: If an option or a file has an invalid value; the message names it.
    """
    base = load_catalog(path) if path else Catalog()
    default_rules = load_rules(rules) if rules else ()
    own: Sequence[ModelEntry] = ()
    if not (names := tuple(names)) and not path:
        names, own = tuple(BUNDLED), scripted_entries(default_rules)
    entries = [*base.models, *(parse_model(name, scripted=scripted) for name in names), *own]
    models = [_complete(entry, default_rules) for entry in entries]
    if default_rules and not any(model.rules == default_rules for model in models):
        raise LMStudioValueError(
            f"no model follows the rules in {rules}: they are for scripted LLMs without rules of their own; add "
            "--scripted --model NAME"
        )
    return Catalog.parse({**dict(base), "models": models})


def _complete(entry: ModelEntry, rules: tuple[Rule, ...]) -> ModelEntry:
    """Set the speed and the rules of a scripted model that has none of its own."""
    if entry.needs_weights:
        return entry
    return entry.model_copy(
        update={
            "tokens_per_second": entry.tokens_per_second or SCRIPTED_PACE,
            "rules": entry.rules or (rules if entry.kind == "llm" else ()),
        }
    )


def load_rules(path: Path) -> tuple[Rule, ...]:
    """Read the `[[rule]]` tables of a TOML file.

    Raises:
        LMStudioValueError: If the file cannot be read, or a rule is invalid; the message names it.
    """
    return read_toml(path, "rules", _rules_of)


def _rules_of(tables: Mapping[str, Any]) -> tuple[Rule, ...]:
    unknown = tables.keys() - {"rule"}
    if unknown:
        raise LMStudioValueError(f"unknown table {min(unknown)!r}; the file may have [[rule]] only")
    return parse_rules(tables.get("rule", []))


# The API tokens that are accepted ------------------------------------------------------------------------------------
# None is ever printed.


def accepted_tokens(options: Sequence[str], file: Path | None) -> tuple[str, ...]:
    """Return the tokens of the options and of the file; without any, the one of the environment.

    Raises:
        LMStudioValueError: If the file cannot be used, or a token is malformed; the message contains its place.
    """
    tokens = [(token, "--token") for token in options]
    if file is not None:
        tokens += _read(file)
    variable = token_variable()
    if not tokens and variable is not None:
        tokens = [(os.environ[variable], variable)]
    for token, where in tokens:
        if split_token(token) is None:
            raise LMStudioValueError(f"the API token of {where} is malformed; it must be {TOKEN_FORM}")
    return tuple(token for token, _ in tokens)


def token_variable() -> str | None:
    """Return the environment variable that contains a token, as for clients."""
    return next((name for name in TOKEN_VARIABLES if os.environ.get(name)), None)


def _read(file: Path) -> list[tuple[str, str]]:
    """Return the tokens of a file, each with its line. `#` begins a comment."""
    try:
        lines = regular(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise LMStudioValueError(f"cannot read the token file {str(file)!r}: {reason}") from None
    entries = [(line.partition("#")[0].strip(), f"{file}, line {number}") for number, line in enumerate(lines, 1)]
    tokens = [(token, where) for token, where in entries if token]
    if not tokens:
        raise LMStudioValueError(f"the token file {str(file)!r} contains no token, and every guest would be accepted")
    return tokens
