"""The page of the recipe `fastapi_chat.py` in a browser: the model stops when its user does, or closes the tab."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from lmstudio_integrations.emulator import Emulator
from tests.cookbook.chat_server import chat_server, stop_reason
from tests.cookbook.recipes import recipe_of

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

MISSING = recipe_of("fastapi_chat").missing
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.exhaustive,
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(MISSING), reason=MISSING),
]


@pytest.fixture(scope="module")
def running(browser: "Browser") -> Iterator[tuple[str, Emulator]]:
    """The URL of the chat, and the emulator behind it. They are not started without a browser, hence the parameter."""
    with chat_server("fastapi_chat:app") as running:
        yield running


async def send(tab: "Page", text: str) -> None:
    """Send a message; return when the model has written some text."""
    await tab.get_by_label("Message").fill(text)
    await tab.get_by_role("button", name="Send").click()
    await tab.locator("article:last-child .text").wait_for()


async def test_closing_the_tab_stops_the_model(tab: "Page", emulator: Emulator) -> None:
    await send(tab, "When does the ferry leave?")
    assert emulator.predictions[-1].state == "running"
    await tab.close()
    assert stop_reason(emulator) == "userStopped"


async def test_the_stop_button_stops_the_model_and_the_conversation_goes_on(tab: "Page", emulator: Emulator) -> None:
    await send(tab, "When does the ferry leave?")
    await tab.get_by_role("button", name="Stop").click()
    assert stop_reason(emulator) == "userStopped"
    await tab.get_by_role("button", name="Send", disabled=False).wait_for()
    await send(tab, "And back?")
    contents = [each["content"] for each in emulator.predictions[-1].messages]
    assert contents == ["When does the ferry leave?", "Hourly", "And back?"]


async def test_reasoning_is_shown_apart_and_nothing_as_html(tab: "Page", emulator: Emulator) -> None:
    await send(tab, "When does the ferry leave?")
    assert not await tab.locator(".reasoning").is_visible()
    await tab.get_by_text("Reasoning").click()
    assert await tab.locator(".reasoning").inner_text() == "The timetable!"
    await tab.get_by_role("button", name="Stop").click()
    await tab.get_by_role("button", name="Send", disabled=False).wait_for()
    await send(tab, "As HTML, please.")
    await tab.get_by_role("button", name="Send", disabled=False).wait_for()
    assert await tab.locator("article:last-child .text").inner_text() == "<b>Every</b> hour"
