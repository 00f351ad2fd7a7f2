"""API tokens and their halves."""

import pytest

from lmstudio_integrations.protocol.envelope import split_token


@pytest.mark.parametrize("space", ["", " ", "\n"])
def test_a_token_is_split_into_identifier_and_passkey(space: str) -> None:
    assert split_token(f"{space}sk-lm-abcdEF12:0123456789abcdefghij{space}") == ("abcdEF12", "0123456789abcdefghij")


@pytest.mark.parametrize(
    "text",
    ["", "lm-studio", "sk-lm-abcdEF12", "sk-lm-abcdEF1:0123456789abcdefghij", "sk-lm-abcdEF12:0123456789abcdefghi-"],
)
def test_a_string_that_is_no_token_is_not_split(text: str) -> None:
    assert split_token(text) is None
