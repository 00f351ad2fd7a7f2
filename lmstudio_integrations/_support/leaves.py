"""The doors of leaves: parts of the package that can be deleted, each with its tests and its pages.

`[tool.leaves]` in `pyproject.toml` lists them. A leaf is imported at one place, its door, on first use.
"""

from collections.abc import Generator
from contextlib import contextmanager

_PACKAGE = "lmstudio_integrations"


class MissingLeafError(ImportError):
    """A leaf is not in this copy of the package. A package that a leaf needs is another matter."""


@contextmanager
def door(leaf: str) -> Generator[None]:
    """Import a leaf inside of this: if it was deleted, the error says that in one sentence.

    Args:
        leaf: What users call it, as it continues "is without".

    Raises:
        MissingLeafError: The leaf is not in this copy.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not missing.startswith(f"{_PACKAGE}."):
            raise
        raise MissingLeafError(
            f"This copy of {_PACKAGE} is without {leaf}: it has no module {missing}.", name=missing
        ) from None
