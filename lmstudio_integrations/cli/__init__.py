"""The command line: `lmstudio-integrations serve`, `lmstudio-integrations demo`.

This module imports nothing of the `cli` extra, so that it can report that the extra is missing.
"""

import sys

from lmstudio_integrations._installation import install_command
from lmstudio_integrations.errors import LMStudioError

_EXTRA = {"typer", "rich"}


def main() -> None:
    """Run the command in `sys.argv`. An error becomes one message and the exit status 1."""
    try:
        from lmstudio_integrations.cli._app import app  # noqa: PLC0415 - see the module's docstring
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.exit(f"The command line needs its extra; run: {install_command('cli')}")
    try:
        app()
    except (LMStudioError, ImportError) as error:
        sys.exit(f"Error: {error}")
