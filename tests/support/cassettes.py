"""Cassettes that a test makes itself."""

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from lmstudio_integrations.emulator.testing.cassette import Interaction, Writer


def save(path: Path, interactions: Iterable[Interaction]) -> None:
    """Write a cassette, in the place of one that exists."""
    path.unlink(missing_ok=True)
    with closing(Writer(path)) as writer:
        for each in interactions:
            writer.write(each)
