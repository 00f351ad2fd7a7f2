"""Base64 in every form in which programs write it, and the errors about what is none."""

import base64
from collections.abc import Callable
from urllib.parse import quote

import pytest

from lmstudio_integrations.client.files.uploads import decode_base64, decode_data_url
from lmstudio_integrations.errors import LMStudioValueError
from tests.support.base64_forms import FORMS

CONTENT = bytes(range(250, 256)) + b"some content"


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_of_base64_has_its_content(form: Callable[[bytes], str]) -> None:
    for length in range(len(CONTENT)):
        text = form(CONTENT[:length])
        assert decode_base64(text, "it") == decode_base64(text.encode(), "it") == CONTENT[:length]
        assert decode_data_url(f"data:image/png;base64,{text}") == CONTENT[:length]
        assert decode_data_url(f"DATA:text/plain;name=a%20b.txt;Base64,{quote(text)}") == CONTENT[:length]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("abcde", "it is not base64: it was cut off"),
        ("ab=c", "it is not base64: it contains '='"),
        ("abc?", r"it is not base64: it contains '\?'"),
        ("äbcd", "it is not base64: it contains 'ä'"),
        (b"\xff" * 4, "it is not base64: it contains 'ÿ'"),
        ("data:image/png;base64,YWJj", "it is not base64: it contains ':'"),
    ],
)
def test_what_is_not_base64_is_an_error_that_names_the_problem(text: str | bytes, problem: str) -> None:
    with pytest.raises(LMStudioValueError, match=problem):
        decode_base64(text, "it")


def test_a_data_url_that_is_not_in_base64_is_an_error_that_shows_the_form() -> None:
    with pytest.raises(LMStudioValueError, match="must be data:<type>;base64,<content>; got 'data:text/plain,hi'"):
        decode_data_url("data:text/plain,hi")
    with pytest.raises(LMStudioValueError, match="the data URL's content is not base64: it was cut off"):
        decode_data_url("data:;base64," + base64.b64encode(b"abcd").decode()[:5])
