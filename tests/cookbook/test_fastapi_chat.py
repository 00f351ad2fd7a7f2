"""The recipe of a chat in the browser, tested without one: a client that disconnects stops the model.

`test_fastapi_chat_in_a_browser.py` tests the page.
"""

import json
import re
from collections.abc import Iterator

import httpx
import pytest

from lmstudio_integrations.emulator import Emulator
from tests.cookbook.chat_server import chat_server
from tests.cookbook.recipe_runs import patient
from tests.cookbook.recipes import recipe_of

MISSING = recipe_of("fastapi_chat").missing
pytestmark = [pytest.mark.slow, patient, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

SECONDS = 600.0


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[str, Emulator]]:
    with chat_server("fastapi_chat:app") as running:
        yield running


@pytest.fixture
def client(running: tuple[str, Emulator]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running[0], timeout=SECONDS, trust_env=False) as client:
        yield client


def conversation(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def joined(fragments: list[dict[str, str]], kind: str) -> str:
    return "".join(each["text"] for each in fragments if each["type"] == kind)


def wait_for_end(emulator: Emulator, number: int) -> str | None:
    """Wait until a prediction has ended; return why it did."""
    emulator.wait_for(
        lambda: len(emulator.predictions) > number and emulator.predictions[number].state == "ended", SECONDS
    )
    return emulator.predictions[number].stop_reason


def test_the_page_is_served_and_names_no_other_site(client: httpx.Client) -> None:
    response = client.get("/")
    assert response.headers["content-type"].startswith("text/html")
    assert "<script>" in response.text
    assert not re.search(r"https?:|//\w|@import|(?:src|href)=\"(?!data:)", response.text)


def test_reasoning_and_text_arrive_separately_while_the_model_still_runs(
    client: httpx.Client, emulator: Emulator
) -> None:
    number = len(emulator.predictions)
    earlier = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Good morning."}]
    with client.stream("POST", "/chat", json=[*earlier, *conversation("When?")]) as response:
        fragments: list[dict[str, str]] = []
        lines = response.iter_lines()  # by name: the connection is closed when the iterator is collected
        for line in lines:
            fragments.append(json.loads(line))
            if joined(fragments, "text") == "Hourly":
                break
        assert emulator.predictions[number].state == "running"
    assert [each["content"] for each in emulator.predictions[number].messages] == ["Hello.", "Good morning.", "When?"]
    assert joined(fragments, "reasoning") == "The timetable!"
    assert wait_for_end(emulator, number) == "userStopped"


def test_a_client_that_disconnects_in_the_middle_stops_the_model(client: httpx.Client, emulator: Emulator) -> None:
    number = len(emulator.predictions)
    with client.stream("POST", "/chat", json=conversation("Let it flow.")) as response:
        next(response.iter_lines())
    assert wait_for_end(emulator, number) == "userStopped"


def test_a_client_that_disconnects_before_the_first_fragment_stops_the_model(
    client: httpx.Client, emulator: Emulator
) -> None:
    number = len(emulator.predictions)
    with client.stream("POST", "/chat", json=conversation("Please stall.")):
        emulator.wait_for(lambda: len(emulator.predictions) > number)
    assert wait_for_end(emulator, number) == "userStopped"


def test_an_error_in_the_middle_of_a_response_is_a_line(client: httpx.Client) -> None:
    lines = client.post("/chat", json=conversation("Please fail.")).text.splitlines()
    fragments = [json.loads(line) for line in lines]
    assert joined(fragments, "text") == "Every"
    assert "The engine failed" in joined(fragments, "error")
