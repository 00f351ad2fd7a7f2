"""How errors are printed: their parts on lines of their own, and advice in terms of commands and options."""

import pytest

from lmstudio_integrations.cli._errors import for_commands, report
from lmstudio_integrations.client.support.advice import advised_error
from lmstudio_integrations.client.transport.connect.addresses import Address, Target
from lmstudio_integrations.client.transport.connect.advice import no_listener, not_found, token_advice
from lmstudio_integrations.errors import (
    LMStudioError,
    LMStudioTimeoutError,
    LMStudioUnreachableError,
    LMStudioValueError,
)

NOT_LOADED = {"code": "generic.noModelMatchingQuery", "query": {"identifier": "a b"}, "loadedModelsSample": ["c"]}


LOG = "the server's log may say why: `lms log stream`"


def wire(title: str, **details: object) -> LMStudioError:
    return advised_error({"title": title, **details}, "Model load")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            wire("Failed to load model", cause="no\nmemory", suggestion="Close programs."),
            ["Error: Failed to load model", "  cause: no memory", "  suggestion: Close programs."],
        ),
        (
            wire("Failed to load model"),
            [
                "Error: Failed to load model",
                f"  suggestion: try a smaller --context-length or another model; {LOG}",
            ],
        ),
        (
            wire("Nothing matches", displayData=NOT_LOADED),
            ["Error: Nothing matches", "  suggestion: loaded are c; load it with `lmsi load 'a b'`"],
        ),
        (
            LMStudioUnreachableError("not found\n  tried: ws://a:1: nobody\n  suggestion: start it"),
            ["Error: not found", "  tried: ws://a:1: nobody", "  suggestion: start it"],
        ),
        (
            LMStudioTimeoutError("Call: load_timeout expired after 9 s; raise load_timeout, or set it to None"),
            ["Error: Call: load_timeout expired after 9 s"],
        ),
        (LMStudioValueError("host 'x y' is not an address; write host:port"),
         ["Error: host 'x y' is not an address; write host:port"]),
    ],
)  # fmt: skip
def test_each_part_of_an_error_is_a_line(error: LMStudioError, expected: list[str]) -> None:
    assert report(error).splitlines() == expected


TOKEN = "sk-lm-abcdefgh:abcdefghij0123456789"


@pytest.mark.parametrize(
    ("advice", "expected"),
    [
        (token_advice(Target.of("a:1", None)), "or pass --token"),
        (token_advice(Target.of("a:1", TOKEN)), "given as --token"),
        (no_listener(Address("127.0.0.1", 1)), "set --host to the right port"),
        (not_found(["ws://a:1: nothing listens there"]), "set LMSTUDIO_HOST or pass it as --host"),
        (str(wire("exceeds the context", displayData=None)), "load the model with --context-length;"),
        ("instance_identifier is empty", "--identifier is empty"),
        ("line 1 has 9 tokens, and the model takes 8, its max_context_length", "the model accepts at most 8"),
        ('use client.llm.model("x")', "`lmsi ls --embedding` lists embedding models"),
        ('write client.llm.model("x"), and the model is loaded on first use', "load one with `lmsi load x`"),
        ("unload them: client.llm.unload('a'), client.embedding.unload('b')", "`lmsi unload a`, `lmsi unload b`"),
    ],
)
def test_the_advice_of_the_client_is_about_commands(advice: str, expected: str) -> None:
    shown = for_commands(advice)
    assert expected in shown
    assert "api_token" not in shown
    assert "client." not in shown
