"""The entry point of `lmsi`: runs the command in `sys.argv`, and ends the process with its status.

This module imports nothing of the `cli` extra, so that it can report that the extra is missing.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Generator
from importlib import import_module

from lmstudio_integrations._support.text import one_line
from lmstudio_integrations.cli._formatting import protect_terminals, report
from lmstudio_integrations.errors import LMStudioError, LMStudioValueError

_EXTRA = {"typer", "rich"}

INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells have it: 128 and the number of the signal. SIGTERM does the same."""

WRONG_USAGE = 2
"""The exit status of wrong arguments, as typer has it."""


def main() -> None:
    """Run the command in `sys.argv`.

    The exit status is 0 if all is done, 1 after an error (one message on stderr), 2 if the command, its options or what
    they name is wrong, and 130 after Ctrl-C or SIGTERM.
    """
    protect_terminals()
    try:
        with _ended_by_sigterm():
            _run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


@contextlib.contextmanager
def _ended_by_sigterm() -> Generator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that no display leaves the terminal without its cursor."""
    previous = signal.getsignal(signal.SIGTERM)
    if previous is not signal.SIG_DFL or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _run() -> None:
    try:
        import_module("rich")  # commands need it later
        from lmstudio_integrations.cli._app import run_app  # noqa: PLC0415 - see the module's docstring
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        from lmstudio_integrations._support.installation import install_command  # noqa: PLC0415 - slow

        sys.exit(f"The command line needs its extra; run: {install_command('cli')}")
    try:
        status = run_app()
        if sys.stdout is not None:  # a process may have none
            sys.stdout.flush()
    except LMStudioValueError as error:
        sys.stderr.write(f"{report(error)}\n")
        sys.exit(WRONG_USAGE)
    except LMStudioError as error:
        sys.exit(report(error))
    except BrokenPipeError:
        _discard_output()
        sys.exit(1)
    except OSError as error:
        _discard_output()
        file = f": {error.filename}" if error.filename else ""
        sys.exit(f"Error: {error.strerror or error}{file}")
    except ImportError as error:
        sys.exit(f"Error: {one_line(error)}")
    sys.exit(status)


def _discard_output() -> None:
    """Discard results that cannot be written: the end of the process would try it again, and report that."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
