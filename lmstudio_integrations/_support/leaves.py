"""The doors of leaves: parts of the package that can be deleted, each with its tests and its pages.

`[tool.leaves]` in `pyproject.toml` lists them. A leaf is imported at one place, its door, on first use.
"""

from collections.abc import Generator
from contextlib import contextmanager

_PACKAGE = "lmstudio_integrations"


@contextmanager
def door(leaf: str) -> Generator[None]:
    """Import a leaf inside of this: if it was deleted, the error says that in one sentence.

    Args:
        leaf: What users call it, as it continues "is without".

    Raises:
        ImportError: The leaf is not in this installation.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not missing.startswith(f"{_PACKAGE}."):
            raise
        raise ImportError(
            f"This copy of {_PACKAGE} is without {leaf}: it has no module {missing}.", name=missing
        ) from None
