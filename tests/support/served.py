"""The server that most files of tests have: a fixture that runs one with models of their own."""

from collections.abc import Iterator
from typing import Any, Literal

import pytest

from lmstudio_integrations.emulator import Emulator


def served(
    *models: Any, scope: Literal["module", "function"] = "module", make: type[Emulator] = Emulator, **more: Any
) -> Any:
    """Return a fixture: a server that runs, by default one for all tests of the module.

    Args:
        models: The models, if they are not those of the class.
        scope: Whether each test has a server of its own.
        make: The class of the server.
        more: Further arguments of the class.
    """

    @pytest.fixture(scope=scope)
    def server() -> Iterator[Emulator]:
        with make(*models, **more) as running:
            yield running

    return server
