"""The option of the tests of evidence. pytest reads only this file before it reads a command line without tests."""

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names a recording of a real LM Studio.

    A file outside of this folder needs the form with `=`: otherwise pytest takes its folder for the root of the tests.
    """
    parser.addoption(
        "--from-cassette",
        type=Path,
        metavar="FILE",
        help="with -m live: check only this recording of a real LM Studio, made by `tools.probe`",
    )
