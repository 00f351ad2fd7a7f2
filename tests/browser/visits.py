"""Visits pages in a browser, and finds what is wrong with them.

The checks work on what a visit recorded, so that each of them can be tried on planted pages.
"""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, ConsoleMessage, Error, Request

PHONE_WIDTH = 390
DESKTOP_WIDTH = 1280
"""Widths of the viewport in CSS pixels."""

TABS = 4
"""How many pages are open at the same time."""

SECONDS = 20
"""The timeout of everything that the browser does."""

_CONTENTS = """() => {
    const scrolls = (element) => ['auto', 'scroll'].includes(getComputedStyle(element).overflowX);
    const contained = (element) => {
        for (let parent = element; parent !== document.body; parent = parent.parentElement)
            if (scrolls(parent) && parent.getBoundingClientRect().right <= innerWidth + 1) return true;
        return false;
    };
    const main = document.querySelector('main') ?? document.body;
    const wide = [...main.querySelectorAll('article *, main > *')].filter((element) => {
        const { right, width } = element.getBoundingClientRect();
        return width > 0 && right > innerWidth + 1 && !contained(element);
    });
    const describe = (element) => element.outerHTML.slice(0, 80);
    return {
        title: document.title,
        wide: [
            ...(document.scrollingElement.scrollWidth > innerWidth ? ['the page'] : []),
            ...wide.map(describe),
        ],
        unnamed_images: [...document.querySelectorAll('img, [role=img]')]
            .filter((image) => !(image.getAttribute('alt') ?? image.getAttribute('aria-label') ?? '').trim())
            .map(describe),
        references: [...document.querySelectorAll('a[href]')].map((element) => element.href),
        anchors: [...document.querySelectorAll('[id]')].map((element) => element.id),
    };
}"""
"""Reads a page as it is shown."""

_SCROLLING_PROGRAMS = """() =>
    [...document.querySelectorAll('pre, pre > code')]
        .filter((element) => element.scrollWidth > element.clientWidth)
        .map((element) => element.outerHTML.slice(0, 80))
"""
"""Finds the programs that are wider than their box."""


@dataclass(slots=True)
class Visit:
    """What a page is and does at the width of a phone."""

    title: str = ""
    status: int = 0
    errors: list[str] = field(default_factory=list)
    """Errors on the console, and exceptions of scripts."""
    requests: list[str] = field(default_factory=list)
    wide: list[str] = field(default_factory=list)
    """What is wider than the phone and not within an element that scrolls."""
    scrolling: list[str] = field(default_factory=list)
    """Programs that a desktop computer scrolls sideways."""
    unnamed_images: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    anchors: list[str] = field(default_factory=list)


Visits = Mapping[str, Visit]
"""By URL."""


async def visit(context: "BrowserContext", url: str) -> Visit:
    """Open a page in a new tab, record what it is and does until it is loaded, and widen the window."""
    result = Visit()

    def record_message(message: "ConsoleMessage") -> None:
        if message.type == "error":
            result.errors.append(message.text)

    def record_exception(error: "Error") -> None:
        result.errors.append(error.message)

    def record_request(request: "Request") -> None:
        result.requests.append(request.url)

    page = await context.new_page()
    page.on("console", record_message)
    page.on("pageerror", record_exception)
    page.on("request", record_request)
    response = await page.goto(url, wait_until="load")
    assert response, "the first visit of a tab loads the page"
    result.status = response.status
    for name, value in (await page.evaluate(_CONTENTS)).items():
        setattr(result, name, value)
    await page.set_viewport_size({"width": DESKTOP_WIDTH, "height": 800})
    result.scrolling = await page.evaluate(_SCROLLING_PROGRAMS)
    await page.close()
    return result


async def visit_all(context: "BrowserContext", urls: list[str]) -> Visits:
    """Visit pages, several at the same time."""
    free_tabs = asyncio.Semaphore(TABS)

    async def visit_in_turn(url: str) -> Visit:
        async with free_tabs:
            return await visit(context, url)

    return dict(zip(urls, await asyncio.gather(*map(visit_in_turn, urls)), strict=True))


def failures(visits: Visits) -> Iterator[str]:
    """Yield the pages that could not be loaded, have no title, or report errors."""
    for url, each in visits.items():
        if each.status != 200:
            yield f"{url}: status {each.status}"
        if not each.title:
            yield f"{url}: no title"
        yield from (f"{url}: {error}" for error in each.errors)


def foreign_requests(visits: Visits) -> Iterator[str]:
    """Yield the requests that would leave the server of the page."""
    for url, each in visits.items():
        yield from (f"{url}: {request}" for request in each.requests if origin(request) not in {origin(url), "data"})


def wide_elements(visits: Visits) -> Iterator[str]:
    """Yield what makes a phone scroll sideways."""
    for url, each in visits.items():
        yield from (f"{url}: {element}" for element in each.wide)


def scrolling_programs(visits: Visits) -> Iterator[str]:
    """Yield the programs that must be scrolled sideways on a desktop computer."""
    for url, each in visits.items():
        yield from (f"{url}: {program}" for program in each.scrolling)


def unnamed_images(visits: Visits) -> Iterator[str]:
    """Yield the images without an alternative text."""
    for url, each in visits.items():
        yield from (f"{url}: {image}" for image in each.unnamed_images)


def broken_references(visits: Visits, files: set[str]) -> Iterator[str]:
    """Yield the links to the same server that lead nowhere.

    Args:
        visits: The pages that have anchors.
        files: The paths of other files on the server.
    """
    anchors = {urlsplit(url).path: {*each.anchors, "", "top"} for url, each in visits.items()}
    for url, each in visits.items():
        for reference in each.references:
            path, anchor = urlsplit(reference).path, unquote(urlsplit(reference).fragment)
            if origin(reference) == origin(url) and path not in files and anchor not in anchors.get(path, ()):
                yield f"{url}: {reference}"


def origin(url: str) -> str:
    """Return the host and port of a URL, or its scheme if it has none."""
    parts = urlsplit(url)
    return parts.netloc or parts.scheme
