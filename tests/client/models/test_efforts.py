"""The request for the efforts that models allow: what is sent, and which responses are read."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations._support.environment import SERVER_FILE_VARIABLE, USER_AGENT
from lmstudio_integrations.client.api.base import context_of
from lmstudio_integrations.client.concurrency.flows import arun, run
from lmstudio_integrations.client.models.efforts import AllowedEfforts, list_efforts
from lmstudio_integrations.client.transport.operation import Operation
from tests.support.web import Request, Web, web_server

PATH = "/lm/api/v1/models"
TOKEN = "sk-lm-abcdefgh:0123456789abcdefghij"
SWITCHED = AllowedEfforts(("off", "on"), "on")
REASONING = {"allowed_options": ["off", "on"], "default": "on"}


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as running:
        yield running


def client_of(web: Web, **settings: Any) -> lms.Client:
    return lms.Client(f"127.0.0.1:{web.port}/lm", **settings)


def page(keys: list[str]) -> bytes:
    return json.dumps({"models": [{"key": key, "capabilities": {"reasoning": REASONING}} for key in keys]}).encode()


def test_the_token_and_the_headers_are_sent(web: Web) -> None:
    web.pages[PATH] = lambda request: request.respond(page(["m"]))
    given: list[dict[str, Any]] = [
        {"api_token": TOKEN, "headers": {"X-Team": "a", "user-agent": "mine"}},
        {"api_token": TOKEN, "headers": {"authorization": "Basic proxy"}},
        {},
    ]
    for settings in given:
        with client_of(web, **settings) as client:
            assert run(list_efforts(Operation(context_of(client)))) == {"m": SWITCHED}
    names = ("Authorization", "X-Team", "User-Agent")
    sent = [[request.headers.get_all(name, [None]) for name in names] for request in web.requests]
    assert sent == [
        [[f"Bearer {TOKEN}"], ["a"], ["mine"]],
        [["Basic proxy"], [None], [USER_AGENT]],
        [[None], [None], [USER_AGENT]],
    ]


async def test_a_list_of_hundreds_of_models_is_read(web: Web) -> None:
    keys = [f"model-{number:04}-{'x' * 400}" for number in range(500)]
    web.pages[PATH] = lambda request: request.respond(page(keys))
    async with lms.AsyncClient(f"127.0.0.1:{web.port}/lm") as client:
        assert (await arun(list_efforts(Operation(context_of(client))))).keys() == {*keys}


def _redirect(request: Request) -> None:
    request.head(302, Location="http://127.0.0.1:9/")


@pytest.mark.parametrize(
    "respond",
    [
        _redirect,
        lambda request: request.head(404),
        lambda request: request.head(500),
        lambda request: request.respond(page(["m"])[:-1]),
        lambda request: request.respond(b"<html>"),
    ],
    ids=["a redirect", "404", "500", "half of a list", "HTML"],
)
def test_another_response_says_nothing(web: Web, respond: Any) -> None:
    web.pages[PATH] = respond
    with client_of(web, api_token=TOKEN) as client:
        assert run(list_efforts(Operation(context_of(client)))) == {}


def test_nobody_is_asked_where_no_server_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVER_FILE_VARIABLE, "/nothing/here.json")
    with lms.Client() as client:
        assert run(list_efforts(Operation(context_of(client)))) == {}
