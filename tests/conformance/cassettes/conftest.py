"""The option that says where the TypeScript SDK is."""

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of the command that runs the conformance tests."""
    parser.addoption("--sdk-folder", required=True, type=Path, help="where the TypeScript SDK is installed")
