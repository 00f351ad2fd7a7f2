"""Chromium, for the recipes with a page."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

REQUIRED = "BROWSER_TESTS_REQUIRED"
"""The environment variable that makes a missing browser an error, as the workflow does."""

PROGRAMS = ["chromium", "chromium-browser", "google-chrome"]

OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
"""Lets the browser find no other host."""

MILLISECONDS = 20_000
"""How long the browser may take for one thing."""


def reject() -> NoReturn:
    """Skip the tests, or fail if a browser is required."""
    reason = "needs Chromium and the docs group: apt-get install chromium && uv sync --inexact --group docs"
    if REQUIRED in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)


def find_executable(own: str) -> str | None:
    """Return the path of the browser: Playwright's own if that is installed, else one of this machine."""
    return own if Path(own).exists() else next(filter(None, map(shutil.which, PROGRAMS)), None)


def origin(url: str) -> str:
    """Return the host and port of a URL, or its scheme if it has none."""
    parts = urlsplit(url)
    return parts.netloc or parts.scheme


@asynccontextmanager
async def start_browser() -> "AsyncIterator[Browser]":
    """Start a headless browser that finds this machine only."""
    if not find_spec("playwright"):
        reject()
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        path = find_executable(playwright.chromium.executable_path) or reject()
        # Playwright passes `--no-sandbox`, without which root cannot start Chromium. It opens only our own pages.
        browser = await playwright.chromium.launch(executable_path=path, args=[OFFLINE], timeout=MILLISECONDS)
        yield browser
        await browser.close()


@asynccontextmanager
async def open_page(browser: "Browser", url: str) -> "AsyncIterator[Page]":
    """Open a page on a phone. It logs no error, and no request goes elsewhere."""
    context = await browser.new_context(viewport={"width": 390, "height": 800}, base_url=url)
    context.set_default_timeout(MILLISECONDS)
    requests: list[str] = []
    errors: list[str] = []
    context.on("request", lambda request: requests.append(request.url))
    context.on("weberror", lambda error: errors.append(str(error.error)))
    page = await context.new_page()
    await page.goto("/")
    yield page
    await context.close()
    assert {origin(each) for each in requests if not each.startswith("data:")} == {origin(url)}
    assert errors == []
