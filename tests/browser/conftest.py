"""The browser, the built site, and a visit of all its pages."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
import pytest_asyncio

from tests.browser.visits import DESKTOP_WIDTH, PHONE_WIDTH, SECONDS, Visits, origin, visit_all
from tests.structure.vocabulary import ROOT

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

REQUIRED = "BROWSER_TESTS_REQUIRED"
"""The environment variable that makes a missing browser an error, as the workflow does."""

NO_BROWSER = "needs Chromium and the docs group: apt-get install chromium && uv sync --inexact --group docs"
"""The only reason to skip these tests."""

PROGRAMS = ["chromium", "chromium-browser", "google-chrome"]

OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
"""Lets the browser find no other host."""


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files and prints nothing."""

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder on the loopback interface; the value is its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(SECONDS)


def find_executable(own: str) -> str | None:
    """Return the path of the browser: Playwright's own if that is installed, else one of this machine."""
    return own if Path(own).exists() else next(filter(None, map(shutil.which, PROGRAMS)), None)


def reject() -> NoReturn:
    """Skip the tests, or fail if a browser is required."""
    if REQUIRED in os.environ:
        pytest.fail(NO_BROWSER)
    pytest.skip(NO_BROWSER)


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def browser() -> "AsyncIterator[Browser]":
    """A headless browser that finds this machine only."""
    if not (find_spec("playwright") and find_spec("mkdocs")):
        reject()
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        path = find_executable(playwright.chromium.executable_path) or reject()
        # Playwright passes `--no-sandbox`, without which root cannot start Chromium. It opens only our own pages.
        browser = await playwright.chromium.launch(executable_path=path, args=[OFFLINE], timeout=SECONDS * 1000)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="package")
async def page(browser: "Browser", site: str) -> "AsyncIterator[Page]":
    """The home page of the site, in a new profile and a wide window. No request may go elsewhere."""
    context = await browser.new_context(viewport={"width": DESKTOP_WIDTH, "height": 800}, base_url=site)
    context.set_default_timeout(SECONDS * 1000)
    requests: list[str] = []
    context.on("request", lambda request: requests.append(request.url))
    page = await context.new_page()
    await page.goto("")
    yield page
    await context.close()
    assert {origin(request) for request in requests} == {origin(site)}


def page_urls(folder: Path, url: str) -> list[str]:
    """Return the URLs of all pages in a folder that is served under a URL."""
    return [url + path.relative_to(folder).as_posix().removesuffix("index.html") for path in folder.rglob("index.html")]


async def visit_folder(browser: "Browser", folder: Path, url: str) -> Visits:
    """Visit every page of a folder that is served under a URL, with a phone."""
    context = await browser.new_context(viewport={"width": PHONE_WIDTH, "height": 844})
    context.set_default_timeout(SECONDS * 1000)
    visits = await visit_all(context, page_urls(folder, url))
    await context.close()
    return visits


@pytest.fixture(scope="package")
def site_folder(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. It is not built without a browser, hence the parameter."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="package")
def site(site_folder: Path) -> Iterator[str]:
    """The URL of the built site."""
    with serving(site_folder) as url:
        yield url


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def visits(browser: "Browser", site_folder: Path, site: str) -> Visits:
    """What a phone found on each page of the site."""
    return await visit_folder(browser, site_folder, site)
