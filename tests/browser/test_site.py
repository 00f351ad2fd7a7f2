"""The built site in a browser: what a reader sees and does, on every page and at the width of a phone."""

import re
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, is_typeddict

import pytest
from langchain_core.language_models import BaseChatModel

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio
from tests.browser.visits import (
    DESKTOP_WIDTH,
    Visits,
    broken_references,
    failures,
    foreign_requests,
    scrolling_programs,
    unnamed_images,
    wide_elements,
)

if TYPE_CHECKING:
    from playwright.async_api import Page

COLOR, BACKGROUND = (f"element => getComputedStyle(element).{name}" for name in ("color", "backgroundColor"))

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(120)]


def paths_in(folder: Path) -> set[str]:
    """Return the paths of the files in a folder as those of URLs."""
    return {f"/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*") if path.is_file()}


def is_documented(value: object) -> bool:
    """Whether a public name is a class or a function of ours, and not a type of wire data in a dict."""
    ours = isinstance(value, type | FunctionType) and value.__module__.startswith(lms.__name__)
    return ours and not is_typeddict(value)


@pytest.fixture
def how_to(site_folder: Path) -> str:
    """The path of a how-to page with a program."""
    pages = sorted((site_folder / "how-to").glob("*/index.html"))
    found = next(page for page in pages if 'class="kn"' in page.read_text(encoding="utf-8"))
    return f"how-to/{found.parent.name}/"


async def test_every_page_loads_has_a_title_and_logs_no_error(visits: Visits) -> None:
    assert len(visits) > 30
    assert not list(failures(visits))


async def test_no_request_goes_elsewhere(visits: Visits) -> None:
    assert all(visit.requests for visit in visits.values())
    assert not list(foreign_requests(visits))


async def test_nothing_scrolls_a_phone_sideways(visits: Visits) -> None:
    assert not list(wide_elements(visits))


async def test_no_program_scrolls_a_desktop_sideways(visits: Visits) -> None:
    assert not list(scrolling_programs(visits))


async def test_every_image_has_an_alternative_text(visits: Visits) -> None:
    assert not list(unnamed_images(visits))


async def test_every_reference_within_the_site_leads_somewhere(visits: Visits, site_folder: Path) -> None:
    assert not list(broken_references(visits, paths_in(site_folder)))


async def test_the_home_page_shows_what_this_is(page: "Page") -> None:
    assert await page.title() == "Overview - lmstudio-integrations"
    assert await page.get_by_role("heading", level=1).is_visible()
    assert "LangChain" in await page.get_by_role("main").inner_text()


async def test_the_tabs_lead_to_every_part_and_fit_beside_each_other(page: "Page", visits: Visits) -> None:
    tabs = page.locator(".md-tabs__link")
    names = [name.strip() for name in await tabs.all_inner_texts()]
    assert {"Get started", "How-to", "Emulator & testing", "Compare", "Reference", "Protocol"} <= set(names)
    urls = {await tab.evaluate("link => link.href") for tab in await tabs.all()}
    assert urls <= visits.keys()
    assert len(urls) == len(names)
    right_edges = [await tab.evaluate("link => link.getBoundingClientRect().right") for tab in await tabs.all()]
    assert max(right_edges) <= DESKTOP_WIDTH


async def test_a_how_to_page_shows_its_program_after_the_result(page: "Page", how_to: str) -> None:
    await page.goto(how_to)
    first, second = (page.locator("article pre").nth(number) for number in (0, 1))
    assert (await first.inner_text()).strip()
    assert await first.locator(".kn").count() == 0
    assert await second.locator(".kn").count() > 0
    assert await page.get_by_role("heading", level=1).is_visible()
    program = page.locator("pre code", has=page.locator(".kn")).first
    keyword = program.locator(".kn").first
    assert await keyword.is_visible()
    assert await keyword.evaluate(COLOR) != await program.evaluate(COLOR), "keywords are highlighted"


async def test_the_reference_shows_every_setting_of_the_chat_model(page: "Page", visits: Visits) -> None:
    name = f"{ChatLMStudio.__module__.rpartition('.')[0]}.{ChatLMStudio.__qualname__}"
    (url,) = (url for url, visit in visits.items() if name in visit.anchors)
    await page.goto(url)
    assert await page.locator(f"[id='{name}']").is_visible()
    for setting in ChatLMStudio.model_fields.keys() - BaseChatModel.model_fields.keys():
        heading = page.locator(f"[id='{name}.{setting}']")
        assert await heading.is_visible(), setting
        assert len(await heading.locator("xpath=..").inner_text()) > len(await heading.inner_text()), setting


async def test_the_reference_shows_types_and_defaults(page: "Page") -> None:
    await page.goto("reference/langchain/")
    signatures = [" ".join(text.split()) for text in await page.locator(".doc-attribute pre").all_inner_texts()]
    assert "ttl: float | None = None" in signatures
    assert "max_tokens: int | Literal[False] | None = None" in signatures
    assert "connect_timeout: float | None = 5.0" in signatures
    assert not [each for each in signatures if ":" not in each]


async def test_the_reference_begins_with_the_main_classes(page: "Page") -> None:
    for path, name in (("langchain", "ChatLMStudio"), ("llama_index", "LMStudio"), ("client", "Client")):
        await page.goto(f"reference/{path}/")
        assert name in await page.locator("article h2").first.inner_text()


async def test_the_reference_has_every_public_class_and_function(visits: Visits) -> None:
    anchors = {anchor for visit in visits.values() for anchor in visit.anchors}
    shown = {anchor.rpartition(".")[2] for anchor in anchors if anchor.startswith(f"{lms.__name__}.")}
    public = {name for name in lms.__all__ if is_documented(getattr(lms, name))}
    assert len(public) > 50
    # The official SDK has several names for some classes.
    assert {name for name in public if not {name, getattr(lms, name).__name__} & shown} == set()


async def test_the_search_finds_the_time_to_live(page: "Page") -> None:
    await page.get_by_role("textbox", name="Search").fill("ttl")
    result = page.locator(".md-search-result__item a", has_text=re.compile("ttl", re.IGNORECASE)).first
    await result.wait_for()
    url = await result.get_attribute("href")
    await result.click()
    assert url
    await page.wait_for_url(url)
    assert "ttl" in (await page.get_by_role("main").inner_text()).lower()


async def test_the_dark_scheme_is_one_click_away_and_stays(page: "Page") -> None:
    body = page.locator("body")
    light = await body.evaluate(BACKGROUND)
    await page.get_by_title("Switch to dark").locator("visible=true").click()
    dark = await body.evaluate(BACKGROUND)
    assert dark != light
    await page.reload()
    assert await body.evaluate(BACKGROUND) == dark
