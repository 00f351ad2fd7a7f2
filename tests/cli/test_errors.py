"""How errors are printed: their parts on lines of their own, and suggestions in terms of commands and options."""

import re

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close

import lmstudio_integrations as lms
from lmstudio_integrations._support.suggestions import KEEP_LOADED, MAKE_ROOM, no_listener, token_suggestion
from lmstudio_integrations.cli._formatting import _COMMANDS, for_commands, report
from lmstudio_integrations.client.transport.connect.addresses import Target
from lmstudio_integrations.client.transport.connect.discovery import not_found
from lmstudio_integrations.client.transport.connect.probe import _CERTIFICATE_ERRORS
from lmstudio_integrations.client.transport.socket_session import _lost_error
from lmstudio_integrations.protocol.endpoints import ENDPOINTS
from lmstudio_integrations.protocol.errors import context_overflow, to_exception
from lmstudio_integrations.protocol.exchange import Exchange, expired_timeout
from tests.protocol.pair import RecordingReceiver

NOT_LOADED = {"code": "generic.noModelMatchingQuery", "query": {"identifier": "a b"}, "loadedModelsSample": ["c"]}

LATER = "1013 (try again later)"
LOG = "the server's log may say why: `lms log stream`"


def wire(title: str, **details: object) -> lms.LMStudioError:
    return to_exception({"title": title, **details}, "Model load")


def expired(name: str) -> lms.LMStudioError:
    exchange = Exchange(
        ENDPOINTS["llm"]["listLoaded"], None, RecordingReceiver(), {name: 9}, 0, "Call", timeout_name=name
    )
    error = expired_timeout(exchange, 9, "ws://a:1", None)
    assert error is not None
    return error


def refusal(host: str) -> str:
    with pytest.raises(lms.LMStudioError) as caught:
        Target.of(host, None)
    return str(caught.value)


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
            ["Error: Nothing matches", "  suggestion: loaded are c; load it with `lms load 'a b'`"],
        ),
        (
            lms.LMStudioUnreachableError("not found\n  tried: ws://a:1: nobody\n  suggestion: start it"),
            ["Error: not found", "  tried: ws://a:1: nobody", "  suggestion: start it"],
        ),
        (expired("total_timeout"), ["Error: Call: it took too long in total: total_timeout expired after 9 s"]),
        (
            expired("connect_timeout"),
            [
                "Error: Call: ws://a:1 does not respond: connect_timeout expired after 9 s",
                "  suggestion: check its address, its port and the firewall",
            ],
        ),
        (_lost_error(ConnectionClosedError(Close(1013, ""), Close(1013, ""), rcvd_then_sent=True)),
         [f"Error: the connection to LM Studio was lost (received {LATER}, then sent {LATER})",
          "  suggestion: the next call reconnects"]),
        (lms.LMStudioValueError("the catalog 'a': model number 1: key: required\n  preset 'p': no; did you mean 'x'?"),
         ["Error: the catalog 'a': model number 1: key: required", "  preset 'p': no; did you mean 'x'?"]),
        (lms.LMStudioValueError("line 3: model 'a': context_length: not a number"),
         ["Error: line 3: model 'a': context_length: not a number"]),
    ],
)  # fmt: skip
def test_each_part_of_an_error_is_a_line(error: lms.LMStudioError, expected: list[str]) -> None:
    assert report(error).splitlines() == expected


TOKEN = "sk-lm-abcdefgh:abcdefghij0123456789"


SUGGESTIONS = [
    (token_suggestion(None), "or pass --token"),
    (token_suggestion(TOKEN), "given as --token"),
    (refusal("a:1,b:1"), "name one of them as --host"),
    (no_listener(1, is_local=True), "set --host to the right port"),
    (not_found([]), "set LMSTUDIO_HOST or pass it as --host"),
    (_CERTIFICATE_ERRORS[10], "has expired; renew it"),
    ("already in use; choose another port, or 0 for any free one", "choose another one with --port, or 0"),
    (str(context_overflow("Call", 9, 8, None)), "load the model with --context-length=16;"),
    (str(wire("Nothing matches", displayData=NOT_LOADED)), "load it with `lms load 'a b'`"),
    (
        "so unload it first, with client.llm.unload(KEY) or an adapter's unload()",
        "so unload it first with `lms unload`",
    ),
    (KEEP_LOADED, "load one of them with `lms load`"),
    (MAKE_ROOM, "make room by `lms unload`"),
    (
        "load it with context_length=256; load_policy='fit_any' evicts those without a TTL as well",
        "with --context-length=256",
    ),
    (str(expired("first_token_timeout")), "; shorten the prompt"),
]
"""What the client advises, and what of it the command line says."""


@pytest.mark.parametrize(("suggestion", "expected"), SUGGESTIONS)
def test_each_suggestion_of_the_client_is_about_commands(suggestion: str, expected: str) -> None:
    shown = for_commands(suggestion)
    assert expected in shown
    for name in ("api_token", "client.", "ssl_context", "load_policy", "evict=", "raise "):
        assert name not in shown


def test_every_pattern_is_in_a_suggestion() -> None:
    unused = [
        pattern for pattern, _ in _COMMANDS if not any(re.search(pattern, suggestion) for suggestion, _ in SUGGESTIONS)
    ]
    assert unused == []
