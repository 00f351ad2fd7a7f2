"""API tokens and their halves."""

import pytest

from lmstudio_integrations.protocol.credentials import split_token


@pytest.mark.parametrize("space", ["", " ", "\n"])
def test_a_token_has_two_halves(space: str) -> None:
    assert split_token(f"{space}sk-lm-abcdEF12:0123456789abcdefghij{space}") == ("abcdEF12", "0123456789abcdefghij")


@pytest.mark.parametrize(
    "text",
    ["", "lm-studio", "sk-lm-abcdEF12", "sk-lm-abcdEF1:0123456789abcdefghij", "sk-lm-abcdEF12:0123456789abcdefghi-"],
)
def test_what_is_no_token_has_none(text: str) -> None:
    assert split_token(text) is None
