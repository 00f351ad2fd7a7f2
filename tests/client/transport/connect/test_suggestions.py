"""What helps depends on the address, on the environment, and on whether this is a container."""

import pytest

from lmstudio_integrations._support import suggestions
from lmstudio_integrations._support.environment import HOST_VARIABLE, TOKEN_VARIABLES
from lmstudio_integrations.client.transport.connect.addresses import DEFAULT_PORT, Address, Target, source_of

TOKEN = "sk-lm-abcdefgh:0123456789abcdefghij"
LOCAL = Address("127.0.0.1", 4321)


@pytest.fixture(autouse=True, params=[False])
def is_container(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Let the process be in a container or not, and set no variable."""
    for name in (HOST_VARIABLE, *TOKEN_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(suggestions, "IN_CONTAINER", request.param)
    return bool(request.param)


@pytest.mark.parametrize("is_container", [False, True], indirect=True)
def test_in_a_container_its_host_is_suggested(is_container: bool) -> None:
    assert ("set host to host.docker.internal:4321" in suggestions.no_listener(4321, is_local=True)) is is_container
    text, *notes = suggestions.no_server(DEFAULT_PORT).split("\n  ")
    assert text.startswith("open LM Studio or Bionic, start llmster, or run `lmsi serve`")
    assert "on another machine or port, set LMSTUDIO_HOST" in text
    assert len(notes) == is_container
    for note in notes:
        assert note.startswith("this is a container: ")
        assert "set host to host.docker.internal:1234" in note
    assert "Serve on Local Network" in suggestions.no_listener(1234, is_local=False)


@pytest.mark.parametrize(
    ("value", "source"),
    [
        ("", ""),
        ("127.0.0.1:4321", " (LMSTUDIO_HOST)"),
        ("http://127.0.0.1:4321/v1", " (LMSTUDIO_HOST)"),
        ("localhost:1", ""),
        ("not an address:x", ""),
    ],
)
def test_an_address_from_the_environment_is_named_so(value: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOST_VARIABLE, value)
    assert source_of(LOCAL) == source


def test_the_suggestion_about_a_token_shows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LM_STUDIO_API_KEY", TOKEN)
    guest, client = Target(LOCAL), Target(LOCAL, TOKEN)
    assert guest.advice_after_rejection(guest).endswith("pass api_token= (not read: LM_STUDIO_API_KEY)")
    assert "LMSTUDIO_HOST=127.0.0.1:4321 or pass its address" in client.advice_after_rejection(guest)
    monkeypatch.setenv("LMSTUDIO_API_TOKEN", TOKEN)
    assert "in LMSTUDIO_API_TOKEN" in client.advice_after_rejection(client)
    other = Target(LOCAL, TOKEN[:-1] + "x")
    assert "given as api_token" in other.advice_after_rejection(other)
    assert TOKEN not in other.advice_after_rejection(other)
