"""Names of arguments: those that nothing reads are refused."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from lmstudio_integrations.errors import LMStudioValueError


def check_names(options: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse arguments that nothing reads.

    Raises:
        LMStudioValueError: If a name is unknown; the nearest known one is suggested.
    """
    names = list(known)
    for name in options:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(names))}"
            raise LMStudioValueError(f"unknown argument {name!r}; {hint}")
