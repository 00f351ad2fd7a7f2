"""Connecting: how hosts and tokens are given, and what is said of those that are wrong."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.transport.connect.addresses import Address, Credentials, Target
from lmstudio_integrations.emulator import Emulator
from tests.client.both import make_client
from tests.client.conftest import MODELS
from tests.support.ports import free_port
from tests.support.virtual_time import in_virtual_time

__all__ = ["make_client"]

TOKEN = "sk-lm-abcdefgh:0123456789abcdefghij"


@pytest.fixture(scope="module")
def strict_server() -> Iterator[Emulator]:
    """A server that wants a token."""
    with Emulator(MODELS, tokens=[TOKEN]) as server:
        yield server


# Hosts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected", "url"),
    [
        ("host", Address("host", 1234), "ws://host:1234/llm"),
        ("https://host", Address("host", 443, tls=True), "wss://host:443/llm"),
        ("wss://host/lms/", Address("host", 443, tls=True, prefix="/lms"), "wss://host:443/lms/llm"),
        ("[::1]:99", Address("::1", 99), "ws://[::1]:99/llm"),
        ("[::1]", Address("::1", 1234), "ws://[::1]:1234/llm"),
        ("http://host", Address("host", 1234), "ws://host:1234/llm"),
        ("http://host:80/api/v0", Address("host", 80), "ws://host:80/llm"),
        (" http://host:80/v1 ", Address("host", 80), "ws://host:80/llm"),
        ("host:80,", Address("host", 80), "ws://host:80/llm"),
    ],
)
def test_an_address_may_be_written_in_many_ways(text: str, expected: Address, url: str) -> None:
    assert Address.parse(text) == expected
    assert expected.url("llm") == url


@pytest.mark.parametrize("host", ["ftp://host", "host:99999", "ws://user:secret@host", "ws://h?x=1", "//"])
def test_an_invalid_address_is_rejected_in_the_constructor(host: str) -> None:
    with pytest.raises(lms.LMStudioValueError, match="host") as caught:
        lms.Client(host)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("http://::1:1234/v1", "is not an address; write an IPv6 address in brackets, such as [::1]:1234"),
        ("fd00::20", "is not an address; write an IPv6 address in brackets, such as [::1]:1234"),
        (" ", "is not an address; write host:port, or a ws:// or wss:// URL"),
        ("b:1:2", "is not an address: its port is no number from 1 to 65535; write host:port"),
        ("gpu:http", "is not an address: its port is no number from 1 to 65535; write host:port"),
    ],
)
@pytest.mark.parametrize("source", ["host", "LMSTUDIO_HOST"])
def test_the_error_of_a_bad_host_names_where_it_is_from(
    monkeypatch: pytest.MonkeyPatch, host: str, problem: str, source: str
) -> None:
    monkeypatch.setenv("LMSTUDIO_HOST", host if source != "host" else "studio:1")
    with pytest.raises(lms.LMStudioValueError) as caught:
        lms.Client(host if source == "host" else None)
    assert str(caught.value) == f"{source} {host!r} {problem}"


@pytest.mark.parametrize("hosts", ["a:1234, b:1234", ("a:1234", "b:1234")])
def test_several_hosts_are_an_error_with_the_remedy(monkeypatch: pytest.MonkeyPatch, hosts: Any) -> None:
    with pytest.raises(lms.LMStudioValueError) as caught:
        lms.Client(hosts)
    assert str(caught.value) == (
        "host 'a:1234, b:1234' names several servers, and a client has one; name one of them as host, or give them all "
        "to an adapter, such as ChatLMStudio(host=[…])"
    )
    monkeypatch.setenv("LMSTUDIO_HOST", "a:1234,b:1234")
    with pytest.raises(lms.LMStudioValueError, match=r"^LMSTUDIO_HOST 'a:1234,b:1234' names several servers"):
        lms.AsyncClient()
    assert lms.Client("a:1234").api_host == "a:1234"


@pytest.mark.parametrize("host", [[], 1234])
def test_a_host_that_is_no_string_is_an_error(host: Any) -> None:
    with pytest.raises(lms.LMStudioValueError, match="must be a string, such as host:port"):
        Address.parse(host)


@pytest.mark.parametrize("hosts", [TOKEN, f"{TOKEN}@a,b", "http://user:secret@a,b", ["http://user:secret@a", "b"]])
def test_the_error_about_a_host_with_a_secret_shows_none(hosts: Any) -> None:
    with pytest.raises(lms.LMStudioValueError, match=r"pass (it|the token) as api_token") as caught:
        lms.Client(hosts)
    assert TOKEN[-8:] not in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_an_unreachable_server_is_named_in_the_error_and_may_come_up() -> None:
    port = free_port()
    async with lms.AsyncClient(f"127.0.0.1:{port}") as client:
        for _ in range(2):
            with pytest.raises(lms.LMStudioUnreachableError, match=f"{port}: nothing listens there") as caught:
                await client.llm.model("chatty")
            assert caught.value.tried
        with Emulator(MODELS, port=port):
            assert (await client.llm.model("chatty")).identifier == "chatty"


# Tokens ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [None, "LM_API_TOKEN", "LMSTUDIO_API_TOKEN"])
async def test_a_valid_token_authenticates_and_a_wrong_one_does_not(
    monkeypatch: pytest.MonkeyPatch, strict_server: Emulator, name: str | None
) -> None:
    def client(token: str) -> lms.AsyncClient:
        if name is None:
            return lms.AsyncClient(strict_server.address, token)
        monkeypatch.setenv(name, token)
        return lms.AsyncClient(strict_server.address)

    async with client(TOKEN) as accepted:
        assert await accepted.list_downloaded_models()
    async with client(TOKEN[:-1] + "x") as rejected:
        with pytest.raises(lms.LMStudioAuthenticationError, match="rejected") as caught:
            await rejected.list_downloaded_models()
    assert TOKEN[-8:-1] not in str(caught.value)


async def test_a_malformed_token_is_reported_without_showing_it(strict_server: Emulator) -> None:
    async with lms.AsyncClient(strict_server.address, "sk-lm-secret") as client:
        with pytest.raises(lms.LMStudioAuthenticationError, match="given as api_token is malformed") as caught:
            await client.llm.model("chatty")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "placeholder"),
    [(None, "lm-studio"), (None, "sk-proj-0123456789"), ("LM_API_TOKEN", "EMPTY"), ("LMSTUDIO_API_TOKEN", "ollama")],
)
async def test_a_key_that_programs_for_other_apis_have_means_no_token(
    server: Emulator, strict_server: Emulator, monkeypatch: pytest.MonkeyPatch, placeholder: str, name: str | None
) -> None:
    if name:
        monkeypatch.setenv(name, placeholder)
    given = () if name else (placeholder,)
    async with lms.AsyncClient(server.address, *given) as client:
        assert await client.list_downloaded_models()
    async with lms.AsyncClient(strict_server.address, *given) as client:
        with pytest.raises(lms.LMStudioAuthenticationError, match=r"none of LM Studio's .*leave it out") as caught:
            await client.llm.model("chatty")
    assert (f"in {name}" if name else "given as api_token") in str(caught.value)
    assert placeholder not in str(caught.value).replace("LM_API_TOKEN", "")
    monkeypatch.setenv("LM_API_TOKEN", TOKEN)
    async with lms.AsyncClient(strict_server.address, placeholder) as client:  # it does not replace this one
        assert await client.list_downloaded_models()


async def test_secrets_are_in_no_repr_and_no_log_record(
    strict_server: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("websockets", "lmstudio_integrations"):
        caplog.set_level("DEBUG", name)
    async with lms.AsyncClient(strict_server.address, TOKEN, headers={"X-Secret": "hush"}) as client:
        assert await client.list_downloaded_models()
        target, credentials = Target.of("h", TOKEN, {"Authorization": TOKEN}), Credentials.from_token(TOKEN)
        shown = f"{client!r} {target!r} {credentials!r}"
    for secret in ("0123456789", "abcdefgh", "hush"):
        assert secret not in shown + caplog.text


@in_virtual_time
async def test_a_token_in_clear_text_to_another_machine_is_warned_of(
    caplog: pytest.LogCaptureFixture, make_client: Callable[..., Any]
) -> None:
    with pytest.raises(lms.LMStudioUnreachableError):
        await make_client("192.0.2.1:9", TOKEN).llm.model("chatty")
    assert "unencrypted" in caplog.text
    assert TOKEN not in caplog.text
