"""Secrets are never shown: a table of where one can be given, by mistake or not, and of how it could leak."""

import copy
import pickle
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from langchain_core.load import dumps
from pydantic import SecretStr, ValidationError

import lmstudio_integrations as lms
from lmstudio_integrations._secrets import holds_secret, is_secret_name, redact, without_secrets
from lmstudio_integrations.client._telemetry import CONTENT_VARIABLE
from lmstudio_integrations.client.transport.addresses import Credentials, Target
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.types.config import EmbeddingLoadModelConfig, LlmLoadModelConfig, LlmPredictionConfig
from tests.support.adapters import ADAPTERS, classes
from tests.support.leaks import TOKEN, error_of, shown_by, shows_token
from tests.support.telemetry import Telemetry, telemetry

__all__ = ["telemetry"]

CLIENTS: list[Any] = [lms.Client, lms.AsyncClient]
CONFIGS: list[Any] = [LlmLoadModelConfig, LlmPredictionConfig, EmbeddingLoadModelConfig]
PROXY_KEY = "proxy-4711-0815"
Way = Callable[[Any, dict[str, Any]], Any]

MISTAKES: dict[str, dict[str, Any]] = {
    "another name": {"token": TOKEN},
    "a mistyped name": {"api_tokn": TOKEN},
    "a list": {"api_token": [TOKEN]},
    "a mistyped name of a list": {"api_tokn": [TOKEN]},
    "a dict": {"api_key": {"value": [TOKEN]}},
    "a token as a host": {"api_key": {TOKEN: "x"}},
    "bytes": {"api_token": TOKEN.encode()},
    "a header": {"Authorization": f"Bearer {TOKEN[6:]}"},
    "an unknown name": {"colour": TOKEN},
    "a name of something else": {"password": TOKEN[15:]},
    "credentials in the host": {"host": f"http://user:{TOKEN[15:]}@localhost:1234"},
    "credentials without a scheme": {"host": f"user:{TOKEN[15:]}@localhost:99999"},
    "a query in the host": {"base_url": f"http://localhost:99999?token={TOKEN[15:]}"},
    "the token as host": {"base_url": TOKEN},
    "a token by both names": {"api_token": TOKEN, "api_key": TOKEN},
    "headers as a list": {"headers": [TOKEN[15:]]},
    "headers as a string": {"headers": f"X-Key: {TOKEN[15:]}"},
    "headers with a control character": {"headers": {"X-Key": f"{TOKEN[15:]}\n"}},
    "headers with a name that cannot be sent": {"headers": {"X Key": TOKEN[15:]}},
    "headers with a value that is a list": {"headers": {"X-Key": [TOKEN[15:]]}},
    "headers by another name": {"default_headers": {"X-Key": TOKEN[15:]}},
    "headers by a mistyped name": {"heders": {"X-Key": SecretStr("x"), "X-Other": TOKEN[15:]}},
    "headers of another library": {"client_kwargs": {"headers": {"X-Key": TOKEN[15:]}}},
    "a header beside a file that is missing": {"headers": {"X-Key": TOKEN[15:]}, "ca_file": "/nowhere"},
}
"""Wrong settings by what is wrong with them."""

WRONG_VALUES: dict[str, dict[str, Any]] = {
    "the token as a number": {"ttl": TOKEN},
    "the token as model, in a list": {"model": [TOKEN]},
    "the token among load settings": {"load_config": {"api_token": TOKEN}},
    "the token as load settings": {"load_config": TOKEN},
    "the token as a value of load settings": {"load_config": {"gpu": TOKEN}},
    "two names of one setting": {"model": TOKEN, "model_name": "b"},
    "something else is wrong": {"api_token": TOKEN, "tempature": 1},
    "a value of something else is wrong": {"api_key": TOKEN, "max_retries": -1},
    "a value beside headers is wrong": {"headers": {"X-Key": TOKEN[15:]}, "max_retries": -1},
    "a name beside headers is wrong": {"headers": {"X-Key": TOKEN[15:]}, "tempature": 1},
}
"""More of them, for what checks the values of known settings."""


def assign(adapter: Any, values: dict[str, Any]) -> None:
    made = adapter(model="m")
    for name, value in values.items():
        setattr(made, name, value)


CREATING: dict[str, Way] = {
    "constructor": lambda adapter, values: adapter(**{"model": "m", **values}),
    "model_validate": lambda adapter, values: adapter.model_validate({"model": "m", **values}),
}
CHANGING: dict[str, Way] = {
    "model_copy": lambda adapter, values: adapter(model="m").model_copy(update=values),
    "assignment": assign,
}
"""Neither checks the values of other settings; the call does."""


def rows(*tables: tuple[dict[str, Way], dict[str, dict[str, Any]]]) -> list[Any]:
    """Return every way with every mistake."""
    return [
        pytest.param(way, values, id=f"{name}-{what}")
        for ways, mistakes in tables
        for name, way in ways.items()
        for what, values in mistakes.items()
    ]


@pytest.mark.parametrize("adapter", classes())
@pytest.mark.parametrize(
    ("way", "values"),
    rows((CREATING, {**MISTAKES, **WRONG_VALUES}), (CHANGING, MISTAKES)),
)
def test_a_wrong_setting_does_not_show_a_secret(adapter: Any, way: Way, values: dict[str, Any]) -> None:
    assert not shows_token(shown_by(error_of(lambda: way(adapter, values))))


@pytest.mark.parametrize("adapter", classes())
def test_a_wrong_setting_without_a_secret_is_shown(adapter: Any) -> None:
    with pytest.raises(ValidationError, match="input_value=-5") as caught:
        adapter(model="m", api_token=TOKEN, ttl=-5)
    assert caught.value.errors()[0]["input"] == -5


@pytest.mark.parametrize("adapter", classes())
def test_an_unknown_setting_of_a_copy_is_an_error(adapter: Any) -> None:
    with pytest.raises(lms.LMStudioValueError, match="unknown setting 'idle_timeuot'; did you mean 'idle_timeout'"):
        adapter(model="m").model_copy(update={"idle_timeuot": 5})


CLIENT_MISTAKES: list[dict[str, Any]] = [
    {"api_tokn": TOKEN},
    {"token": [TOKEN]},
    {"api_token": [TOKEN]},
    {"api_token": {"value": TOKEN}},
    {"api_token": TOKEN.encode()},
    {"api_host": TOKEN},
    {"api_host": [TOKEN]},
    {"api_host": f"http://user:{TOKEN[15:]}@localhost:1234"},
    {"api_host": f"user:{TOKEN[15:]}@localhost:99999"},
    {"api_host": f"http://user:pass/{TOKEN[15:]}@localhost"},
    {"api_host": f"http://localhost:99999?token={TOKEN[15:]}"},
    {"keep_idle": TOKEN},
    {"timeout": TOKEN},
    {"headers": [TOKEN]},
    {"headers": {"Authorization": f"{TOKEN}\n"}},
    {"headers": {f"{TOKEN}\n": "x"}},
    {"headers": {"X-Key": f"{TOKEN[15:]}\n"}},
    {"headers": {"X Key": TOKEN[15:]}},
    {"headers": {5: TOKEN[15:]}},
    {"hedaers": {"X-Key": TOKEN[15:]}},
]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("values", CLIENT_MISTAKES, ids=str)
def test_a_wrong_argument_of_a_client_does_not_show_a_secret(client: Any, values: dict[str, Any]) -> None:
    assert not shows_token(shown_by(error_of(lambda: client(**values))))


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("values", [{"api_tokn": TOKEN}, {"raw": TOKEN}, {"raw": [{"api_key": TOKEN[15:]}]}], ids=str)
@pytest.mark.parametrize("way", ["constructor", "from_dict", "parse"])
def test_a_wrong_native_setting_does_not_show_a_secret(config: Any, values: dict[str, Any], way: str) -> None:
    make = {"constructor": lambda given: config(**given)}.get(way) or getattr(config, way)
    with pytest.raises(lms.LMStudioValueError) as caught:
        make(values)
    assert not shows_token(shown_by(caught.value))


MADE = [pytest.param(adapter, id=adapter.__name__) for adapter in classes()]

SHOWING: dict[str, Callable[[Any], object]] = {
    "repr": repr,
    "str": str,
    "pickle": pickle.dumps,
    "pickle of a copy": lambda made: pickle.dumps(made.model_copy()),
    "pickle of a deep copy": lambda made: pickle.dumps(copy.deepcopy(made)),
    "dumps": dumps,
    "model_dump": lambda made: made.model_dump(),
    "model_dump_json": lambda made: made.model_dump_json(exclude={"callback_manager", "rate_limiter"}),
    "fields": vars,
    "private": lambda made: made.__pydantic_private__,
}


@pytest.mark.parametrize("adapter", MADE)
@pytest.mark.parametrize("show", SHOWING.values(), ids=SHOWING)
@pytest.mark.parametrize(
    "secret",
    [
        {"api_token": TOKEN},
        {"api_token": SecretStr(TOKEN)},
        {"headers": {"X-Key": TOKEN[15:]}},
        {"headers": {"X-Key": SecretStr(TOKEN[15:])}},
    ],
    ids=["plain token", "hidden token", "plain header", "hidden header"],
)
def test_what_shows_an_adapter_does_not_show_its_secrets(
    adapter: Any, show: Callable[[Any], object], secret: dict[str, Any]
) -> None:
    made = adapter(model="m", **secret)
    shown = show(made)
    assert not shows_token(shown.decode("latin-1") if isinstance(shown, bytes) else repr(shown))


@pytest.mark.parametrize("adapter", classes())
def test_a_token_that_is_assigned_later_is_hidden(adapter: Any) -> None:
    made = adapter(model="m")
    made.api_token = TOKEN
    copied = adapter(model="m").model_copy(update={"api_token": TOKEN})
    assert not shows_token(repr(made) + str(made) + repr(copied))
    assert made.api_token.get_secret_value() == copied.api_token.get_secret_value() == TOKEN
    made.api_token = None
    assert made.api_token is None


@pytest.mark.parametrize("adapter", classes())
def test_headers_that_are_assigned_later_are_hidden(adapter: Any) -> None:
    made = adapter(model="m")
    made.headers = {"X-Key": TOKEN[15:]}
    copied = adapter(model="m").model_copy(update={"headers": {"X-Key": TOKEN[15:]}})
    assert not shows_token(repr(made) + repr(copied) + repr(copy.deepcopy(made)))
    assert made.headers["X-Key"].get_secret_value() == copied.headers["X-Key"].get_secret_value() == TOKEN[15:]
    assert "headers" not in made.model_dump()


@pytest.mark.parametrize(
    "made",
    [
        lms.Client("127.0.0.1:1", TOKEN),
        lms.Client("127.0.0.1:1", headers={"X-Key": TOKEN[15:]}),
        lms.AsyncClient("127.0.0.1:1", headers={"X-Key": TOKEN[15:]}),
        lms.AsyncClient("127.0.0.1:1", TOKEN),
        Target.of("127.0.0.1:1", TOKEN, {"Authorization": f"Bearer {TOKEN}"}),
        Credentials.from_token(TOKEN),
        Emulator(tokens=[TOKEN]),
    ],
    ids=lambda made: type(made).__name__,
)
def test_what_holds_a_token_does_not_show_it(made: object) -> None:
    assert not shows_token(repr(made) + str(made))


async def test_a_server_that_rejects_a_token_does_not_have_it_shown() -> None:
    with Emulator(tokens=[TOKEN]) as server:
        for wrong in (f"{TOKEN[:-1]}x", f"sk-lm-zyxwvuts{TOKEN[14:]}"):
            async with lms.AsyncClient(server.address, wrong) as client:
                with pytest.raises(lms.LMStudioAuthenticationError) as caught:
                    await client.llm.list_loaded()
            assert not shows_token(shown_by(caught.value))
            assert "zyxwvuts" not in shown_by(caught.value)


def test_an_error_of_this_package_hides_what_is_shaped_like_a_token() -> None:
    error = lms.LMStudioServerError(f"the server says {TOKEN}")
    assert str(error) == "the server says **********"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert lms.LMStudioError(5).args == (5,)


# What looks like a secret -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("api_token", "api_tokn", "api_tken", "apiToken", "lm_api_token", "token", "tokn", "hf_token", "access_token"),
        *("API-KEY", "apikey", "api_ky", "openai_api_key", "passkey", "clientPasskey", "secret", "client_secret"),
        *("headers", "header", "hedaers", "default_headers", "extra_headers"),
        *("password", "pasword", "passwd", "Authorization", "authorisation", "auth", "bearer", "credentials"),
    ],
)
def test_a_name_near_that_of_a_secret_is_one(name: str) -> None:
    assert is_secret_name(name)


def test_no_other_setting_has_the_name_of_a_secret() -> None:
    names = {name for kind in (*classes(), *CONFIGS) for name in kind.model_fields}
    assert {name for name in names if is_secret_name(name)} == {"api_token", "headers"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"key={TOKEN}, ok", "key=**********, ok"),
        ("sk-proj-4f9a8b7c", "**********"),
        (TOKEN[6:], "**********"),
        ("Authorization: Bearer abcdef123456", "Authorization: Bearer **********"),
        ("ws://user:pass@word@host:1/llm", "ws://**********@host:1/llm"),
        ("user:pass@host", "**********@host"),
        ("http://host/?a=1&api_key=abc&b=2", "http://host/?a=1&**********&b=2"),
        ("a task-list-of-things, see https://host/a@b", "a task-list-of-things, see https://host/a@b"),
        ("it must be sk-lm-, 8 letters", "it must be sk-lm-, 8 letters"),
    ],
)
def test_what_is_shaped_like_a_secret_is_taken_out_of_a_text(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    ("value", "name", "holds"),
    [
        (None, "api_token", False),
        (SecretStr(TOKEN), "api_token", False),
        ("x", "api_token", True),
        (TOKEN, "", True),
        ([1, {"a": (TOKEN,)}], "", True),
        ({"password": "x"}, "", True),
        ({"headers": {"X-Key": "x"}}, "", True),
        ({"headers": {"X-Key": SecretStr("x")}}, "", False),
        ({"headers": {"X-Key": SecretStr("x"), "X-Other": ["x"]}}, "", True),
        ({TOKEN: 1}, "", True),
        ([1, {"a": ("x",)}], "temperature", False),
    ],
)
def test_a_value_holds_a_secret_by_its_name_or_its_shape(value: object, name: str, holds: bool) -> None:
    assert holds_secret(value, name) is holds


def test_an_error_without_secrets_stays_as_it_is() -> None:
    with pytest.raises(ValidationError) as caught:
        ChatLMStudio(temperature=-1)
    assert without_secrets(caught.value) is caught.value


def test_of_several_problems_only_the_secret_ones_are_hidden() -> None:
    with pytest.raises(ValidationError) as caught:
        ChatLMStudio.model_validate({"temperature": -1, "seed": TOKEN})
    assert {each["loc"][0]: each["input"] for each in caught.value.errors()} == {
        "temperature": -1,
        "seed": "**********",
    }
    assert {each["type"] for each in caught.value.errors()} == {"greater_than_equal", "int_parsing"}


def test_the_spec_of_a_handle_does_not_show_a_secret() -> None:
    llm = ChatLMStudio(model="m", host="h:1", api_token=SecretStr(TOKEN), headers={"X-Key": TOKEN})
    shown = repr(llm._resolve_call({}).handle)
    assert "h:1" in shown
    assert not shows_token(shown)


@pytest.mark.parametrize("content", ["false", "true"])
@pytest.mark.parametrize("name", ADAPTERS)
def test_no_span_and_no_metric_has_a_secret(
    name: str, content: str, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONTENT_VARIABLE, content)
    adapter = ADAPTERS[name]
    entry = ModelEntry(key="m", kind="embedding" if adapter.kind == "embedding" else "llm")
    attempts: list[dict[str, Any]] = [
        {},
        {"api_token": f"{TOKEN[:-4]}AAAA"},
        {"host": "ws://127.0.0.1:1", "max_retries": 0},
        {"model": TOKEN},
    ]
    with Emulator([entry], tokens=[TOKEN]) as server:
        given = {"model": "m", "host": server.address, "api_token": TOKEN, "headers": {"X-Proxy-Key": PROXY_KEY}}
        for settings in attempts:
            with suppress(lms.LMStudioError):
                adapter.call(adapter.make(**{**given, **settings}), "hi")
    exported = telemetry.everything()
    assert "LMStudioAuthenticationError" in exported
    assert "LMStudioUnreachableError" in exported
    assert not shows_token(exported)
    assert PROXY_KEY not in exported


def test_the_credentials_of_a_proxy_are_in_no_span(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ws_proxy", f"http://user:{PROXY_KEY}@127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    with lms.Client("studio.invalid:1234") as client, pytest.raises(lms.LMStudioUnreachableError):
        client.list_loaded_models()
    assert "connect" in telemetry.names
    assert PROXY_KEY not in telemetry.everything()
