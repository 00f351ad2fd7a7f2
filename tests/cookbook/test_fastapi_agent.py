"""The recipe of an agent behind FastAPI: a client that disconnects stops the model, and the agent remembers."""

import json
from collections.abc import Iterator

import httpx
import pytest

from lmstudio_integrations.emulator import Emulator
from tests.cookbook.chat_server import chat_server, stop_reason
from tests.cookbook.recipe_runs import patient
from tests.cookbook.recipes import recipe_of

MISSING = recipe_of("fastapi_agent").missing
pytestmark = [pytest.mark.slow, patient, pytest.mark.skipif(bool(MISSING), reason=MISSING)]


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[str, Emulator]]:
    with chat_server("fastapi_agent:app") as running:
        yield running


@pytest.fixture
def server(running: tuple[str, Emulator]) -> Emulator:
    return running[1]


@pytest.fixture
def client(running: tuple[str, Emulator]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running[0], timeout=600, trust_env=False) as client:
        yield client


def disconnect_after(client: httpx.Client, chat: str, text: str, kind: str) -> None:
    """Ask, and disconnect after the first step of a kind."""
    with client.stream("POST", f"/chats/{chat}", json={"text": text}) as response:
        lines = response.iter_lines()  # by name: the connection is closed when the iterator is collected
        assert any(json.loads(line)["type"] == kind for line in lines)


@pytest.mark.parametrize("text", ["Let it flow.", "Look it up."])
def test_a_client_that_disconnects_stops_the_model_also_after_a_tool(
    client: httpx.Client, server: Emulator, text: str
) -> None:
    disconnect_after(client, text, text, "text")
    assert stop_reason(server) == "userStopped"
    assert server.predictions[-1].fragments < 1000


def test_a_client_that_disconnects_before_the_first_step_stops_the_model(
    client: httpx.Client, server: Emulator
) -> None:
    number = len(server.predictions)
    with client.stream("POST", "/chats/stalled", json={"text": "Please stall."}):
        server.wait_for(lambda: len(server.predictions) > number)
    assert stop_reason(server) == "userStopped"


def test_a_chat_goes_on_after_a_client_has_disconnected(client: httpx.Client, server: Emulator) -> None:
    client.post("/chats/anna", json={"text": "In HTML?"})
    disconnect_after(client, "anna", "Let it flow.", "text")
    assert stop_reason(server) == "userStopped"
    disconnect_after(client, "anna", "And on?", "text")
    asked = [each["content"] for each in server.predictions[-1].messages if each["role"] == "user"]
    assert asked == ["In HTML?", "Let it flow.\n\nAnd on?"]


def test_an_error_in_the_middle_of_a_response_is_a_line(client: httpx.Client) -> None:
    lines = client.post("/chats/failed", json={"text": "Please fail."}).text.splitlines()
    assert json.loads(lines[-1])["type"] == "error"
