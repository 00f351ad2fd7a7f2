"""The page of the recipe `fastapi_chat.py` in a browser: the model stops when its user does, or closes the tab."""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from lmstudio_integrations.emulator import Emulator
from tests.cookbook.chat_server import chat_server
from tests.cookbook.recipes import recipe_of

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

REQUIRED = "BROWSER_TESTS_REQUIRED"
"""The environment variable that makes a missing browser an error, as the workflow does."""

PROGRAMS = ["chromium", "chromium-browser", "google-chrome"]

OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
"""Lets the browser find no other host."""

MILLISECONDS = 20_000
"""How long the browser may take for one thing."""

MISSING = recipe_of("fastapi_chat").missing
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.exhaustive,
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(MISSING), reason=MISSING),
]


def reject() -> NoReturn:
    """Skip the tests, or fail if a browser is required."""
    reason = "needs Chromium and the docs group: apt-get install chromium && uv sync --inexact --group docs"
    if REQUIRED in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)


def find_executable(own: str) -> str | None:
    """Return the path of the browser: Playwright's own if that is installed, else one of this machine."""
    return own if Path(own).exists() else next(filter(None, map(shutil.which, PROGRAMS)), None)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> "AsyncIterator[Browser]":
    """A headless browser that finds this machine only."""
    if not find_spec("playwright"):
        reject()
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        path = find_executable(playwright.chromium.executable_path) or reject()
        # Playwright passes `--no-sandbox`, without which root cannot start Chromium. It opens only our own pages.
        browser = await playwright.chromium.launch(executable_path=path, args=[OFFLINE], timeout=MILLISECONDS)
        yield browser
        await browser.close()


def origin(url: str) -> str:
    """Return the host and port of a URL, or its scheme if it has none."""
    parts = urlsplit(url)
    return parts.netloc or parts.scheme


@pytest.fixture(scope="module")
def running(browser: "Browser") -> Iterator[tuple[str, Emulator]]:
    """The URL of the chat, and the emulator behind it. They are not started without a browser, hence the parameter."""
    with chat_server() as running:
        yield running


@pytest.fixture
def emulator(running: tuple[str, Emulator]) -> Emulator:
    return running[1]


@pytest_asyncio.fixture(loop_scope="module")
async def tab(browser: "Browser", running: tuple[str, Emulator]) -> "AsyncIterator[Page]":
    """The page, on a phone. It logs no error, and no request goes elsewhere."""
    context = await browser.new_context(viewport={"width": 390, "height": 800}, base_url=running[0])
    context.set_default_timeout(MILLISECONDS)
    requests: list[str] = []
    errors: list[str] = []
    context.on("request", lambda request: requests.append(request.url))
    context.on("weberror", lambda error: errors.append(str(error.error)))
    page = await context.new_page()
    await page.goto("/")
    yield page
    await context.close()
    assert {origin(each) for each in requests if not each.startswith("data:")} == {origin(running[0])}
    assert errors == []


async def send(tab: "Page", text: str) -> None:
    """Send a message; return when the model has written some text."""
    await tab.get_by_label("Message").fill(text)
    await tab.get_by_role("button", name="Send").click()
    await tab.locator("article:last-child .text").wait_for()


def stop_reason(emulator: Emulator) -> str | None:
    """Wait until the last prediction has ended; return why it did."""
    emulator.wait_for(lambda: emulator.predictions[-1].state == "ended")
    return emulator.predictions[-1].stop_reason


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


async def test_an_error_is_shown(tab: "Page") -> None:
    await send(tab, "Please fail.")
    await tab.locator(".error").wait_for()
    assert "The engine failed" in await tab.locator(".error").inner_text()


async def test_the_page_fits_on_a_phone(tab: "Page") -> None:
    await send(tab, "When does the ferry leave? " + "x" * 300)
    assert await tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
