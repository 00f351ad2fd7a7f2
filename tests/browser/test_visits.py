"""Each check of the site finds a planted fault, and only that."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.browser.conftest import serving, visit_folder
from tests.browser.visits import (
    Visits,
    broken_references,
    failures,
    foreign_requests,
    scrolling_programs,
    unnamed_images,
    visit,
    wide_elements,
)

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(120)]

PAGE = """<!doctype html>
<html lang="en"><head><title>{title}</title><link rel="icon" href="data:,"></head>
<body style="margin: 0"><main><article>{body}</article></main></body></html>
"""
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACw="
LONG = "x" * 200
FOREIGN = "http://planted.test/a.png"

SCROLLING = f"<pre style='overflow-x: auto'><code>{LONG}</code></pre>"

FAULTLESS = f"""
<h1 id="top-of-all">A page</h1>
<a href="#top-of-all">up</a> <a href="#">top</a> <a href="../other/#there">other</a> <a href="../file.txt">file</a>
<a href="https://example.org/nothing">elsewhere</a> <p id="there">There.</p>
<img src="{PIXEL}" alt="A pixel"> <span role="img" aria-label="A drawing"></span>
<pre style="white-space: pre-wrap; overflow-wrap: anywhere"><code>{LONG}</code></pre>
<div style="overflow-x: auto">{LONG}</div>
<p style="overflow-wrap: anywhere">{LONG}</p>
"""


@dataclass(frozen=True, slots=True)
class Planted:
    """A page, and the beginnings of what each check finds on it."""

    body: str
    found: Mapping[str, list[str]] = field(default_factory=dict)
    title: str = "A title"


NO_HOST = "Failed to load resource: net::ERR_NAME_NOT_RESOLVED"
NO_FILE = "Failed to load resource: the server responded with a status of 404"

PLANTED = {
    "other": Planted(FAULTLESS),
    "no title": Planted(FAULTLESS, {"failures": ["no title"]}, title=""),
    "a program that scrolls": Planted(
        f"<pre style='overflow-x: auto'><code>{LONG}</code></pre>", {"programs": ["<pre"]}
    ),
    "an error on the console": Planted("<script>console.error('planted')</script>", {"failures": ["planted"]}),
    "an exception": Planted("<script>throw Error('planted')</script>", {"failures": ["planted"]}),
    "no file": Planted("<img src=nothing.png alt=Nothing>", {"failures": [NO_FILE]}),
    "a foreign image": Planted(f"<img src={FOREIGN} alt=Planted>", {"failures": [NO_HOST], "foreign": [FOREIGN]}),
    "a foreign style": Planted(f"<style>@import '{FOREIGN}'</style>", {"failures": [NO_HOST], "foreign": [FOREIGN]}),
    "a foreign response": Planted(
        f"<script>fetch('{FOREIGN}').catch(() => 0)</script>",
        {"failures": [NO_HOST], "foreign": [FOREIGN]},
    ),
    "long text": Planted(f"<p>{LONG}</p>", {"wide": ["the page"]}),
    "long code": Planted(f"<pre><code>{LONG}</code></pre>", {"wide": ["the page", "<code>x"], "programs": ["<pre"]}),
    "a table that is cut off": Planted(
        "<div style='overflow: hidden'><table width=600><tr><td>1</table></div>",
        {"wide": ["<table", "<tbody", "<tr", "<td"]},
    ),
    "a wide box that scrolls": Planted(
        "<div style='width: 600px; overflow-x: auto'>wide</div>", {"wide": ["the page", "<div"]}
    ),
    "an image without a text": Planted(f"<img src='{PIXEL}'>", {"images": ["<img"]}),
    "an image with an empty text": Planted(f"<img src='{PIXEL}' alt=' '>", {"images": ["<img"]}),
    "a drawing without a text": Planted("<span role=img>x</span>", {"images": ["<span"]}),
    "a link to no page": Planted("<a href=nowhere/>planted</a>", {"links": ["http://127.0.0.1"]}),
    "a link to no file": Planted("<a href=../file.md>planted</a>", {"links": ["http://127.0.0.1"]}),
    "a link to no anchor": Planted("<a href=#nowhere>planted</a>", {"links": ["http://127.0.0.1"]}),
    "a link to no anchor elsewhere": Planted("<a href=../other/#nowhere>x</a>", {"links": ["http://127.0.0.1"]}),
}
"""By name of its folder."""


@pytest.fixture(scope="module")
def planted_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of all planted pages."""
    folder = tmp_path_factory.mktemp("planted")
    for name, planted in PLANTED.items():
        page = folder / name.replace(" ", "-") / "index.html"
        page.parent.mkdir()
        page.write_text(PAGE.format(title=planted.title, body=planted.body), encoding="utf-8")
    (folder / "file.txt").touch()
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def planted_visits(browser: "Browser", planted_folder: Path) -> Visits:
    """What a phone found on the planted pages, by the path."""
    with serving(planted_folder) as url:
        return await visit_folder(browser, planted_folder, url)


@pytest.mark.parametrize("name", PLANTED)
async def test_a_planted_fault_is_found_by_its_check_only(planted_visits: Visits, name: str) -> None:
    problems = {
        "failures": failures(planted_visits),
        "foreign": foreign_requests(planted_visits),
        "wide": wide_elements(planted_visits),
        "programs": scrolling_programs(planted_visits),
        "images": unnamed_images(planted_visits),
        "links": broken_references(planted_visits, {"/file.txt"}),
    }
    start = f"/{name.replace(' ', '-')}/: "
    here = {check: [each.partition(start)[2] for each in found if start in each] for check, found in problems.items()}
    expected = {
        "failures": [],
        "foreign": [],
        "wide": [],
        "programs": [],
        "images": [],
        "links": [],
        **PLANTED[name].found,
    }
    cut = {
        check: [each[: len(beginning)] for each, beginning in zip(found, expected[check], strict=True)]
        for check, found in here.items()
    }
    assert cut == expected


async def test_a_page_that_is_not_there_is_found(browser: "Browser", planted_folder: Path) -> None:
    with serving(planted_folder) as url:
        context = await browser.new_context()
        visits = {url: await visit(context, f"{url}nowhere/")}
        await context.close()
    assert any("status 404" in each for each in failures(visits))
