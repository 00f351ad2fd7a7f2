"""The page of the recipe `gradio_chat.py` in a browser: the model stops when its user does."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from lmstudio_integrations.emulator import Emulator
from tests.cookbook.chat_server import chat_server, stop_reason
from tests.cookbook.recipes import recipe_of

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

MISSING = recipe_of("gradio_chat").missing
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.exhaustive,
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(MISSING), reason=MISSING),
]


@pytest.fixture(scope="module")
def running(browser: "Browser") -> Iterator[tuple[str, Emulator]]:
    """The URL of the chat, and the emulator behind it. They are not started without a browser, hence the parameter."""
    with chat_server("--factory", "gradio_chat:create_app") as running:
        yield running


async def send(tab: "Page", emulator: Emulator, text: str) -> None:
    """Send a message; return when the model responds."""
    number = len(emulator.predictions)
    await tab.get_by_role("textbox").fill(text)
    await tab.get_by_role("textbox").press("Enter")
    await tab.locator(".stop-button").wait_for()
    emulator.wait_for(lambda: len(emulator.predictions) > number)


async def stop(tab: "Page") -> None:
    """Click Stop; return when the next message can be sent."""
    await tab.locator(".stop-button").click()
    await tab.locator(".submit-button").wait_for()


async def test_the_stop_button_stops_the_model_and_the_conversation_goes_on(tab: "Page", emulator: Emulator) -> None:
    await send(tab, emulator, "When does the ferry leave?")
    await tab.get_by_text("Hourly").wait_for()
    assert emulator.predictions[-1].state == "running"
    await tab.get_by_text("Reasoning").wait_for()
    await stop(tab)
    assert stop_reason(emulator) == "userStopped"
    await send(tab, emulator, "And back?")
    contents = [each["content"] for each in emulator.predictions[-1].messages]
    assert contents == ["When does the ferry leave?", "Hourly", "And back?"]
    await stop(tab)


async def test_closing_the_tab_stops_a_model_that_writes(tab: "Page", emulator: Emulator) -> None:
    await send(tab, emulator, "Let it flow.")
    await tab.get_by_text("Every hour").wait_for()
    await tab.close()
    assert stop_reason(emulator) == "userStopped"


async def test_an_error_is_shown_and_the_conversation_goes_on(tab: "Page", emulator: Emulator) -> None:
    await send(tab, emulator, "Please fail.")
    await tab.get_by_text("The engine failed.").wait_for()
    await tab.locator(".submit-button").wait_for()
    await send(tab, emulator, "And now?")
    contents = [each["content"] for each in emulator.predictions[-1].messages]
    assert contents == ["Please fail.", "Every", "And now?"]
