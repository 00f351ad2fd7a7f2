"""Servers with the cookbook's models, for the recipes and for the examples in the documentation; a browser."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import llama_index.core
import pytest
import pytest_asyncio
from llama_index.core import Settings

from lmstudio_integrations._support.environment import HOST_VARIABLE, TOKEN_VARIABLES
from lmstudio_integrations.client.api.official import reset_default_client
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.models.catalog import BUNDLED, parse_model
from lmstudio_integrations.types.functions import ToolCallContext
from tests.cookbook.browser import open_page, start_browser
from tests.cookbook.recipes import CATALOG
from tests.cookbook.recipes import scripted as scripted_models
from tools.outputs import IMAGES

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page


@pytest.fixture(autouse=True)
def plain_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset the environment variables of tokens, except in live tests."""
    if request.node.get_closest_marker("live"):
        return
    for name in TOKEN_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def forecast(context: ToolCallContext, city: str) -> str:
    """Return the weather forecast of a city."""
    context.status(f"asking the weather station of {city}")
    return f"rain in {city} in the afternoon"


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A server with the cookbook's models, the reranker of docstrings and a plugin; the bundled models are scripted."""
    models = [parse_model(model.key, scripted=True) if model.key in BUNDLED else model for model in CATALOG.models]
    models.append(parse_model("qwen3-reranker-0.6b", scripted=True))
    with Emulator(models, plugins={"mcp/weather": [forecast]}) as server:
        monkeypatch.setenv(HOST_VARIABLE, server.address)
        yield server


@pytest.fixture(scope="module")
def recipe_server() -> Iterator[Emulator]:
    """A server with the models that the recipes name, scripted and fast, which the recipes of a module share."""
    with Emulator(catalog=scripted_models(CATALOG)) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> "AsyncIterator[Browser]":
    """A browser for the page of a recipe."""
    async with start_browser() as browser:
        yield browser


@pytest.fixture
def emulator(running: tuple[str, Emulator]) -> Emulator:
    """The emulator behind a chat, which the test's module starts as `running`."""
    return running[1]


@pytest_asyncio.fixture(loop_scope="module")
async def tab(browser: "Browser", running: tuple[str, Emulator]) -> "AsyncIterator[Page]":
    """The page of that chat."""
    async with open_page(browser, running[0]) as page:
        yield page


@pytest.fixture
def framework_defaults(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what programs of a page set for the whole process; they run beside the images of the pages."""
    monkeypatch.chdir(IMAGES)
    monkeypatch.setattr(llama_index.core, "global_tokenizer", llama_index.core.global_tokenizer)
    for name, value in vars(Settings).items():
        monkeypatch.setattr(Settings, name, value)
    reset_default_client()
    logger = logging.getLogger("lmstudio_integrations")
    level = logger.level
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)  # LlamaIndex uses the loop of the thread, or makes one that nobody closes
    yield
    asyncio.set_event_loop(None)
    loop.close()
    reset_default_client()
    logger.setLevel(level)
    logging.disable(logging.NOTSET)
