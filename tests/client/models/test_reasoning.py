"""Which thoughts of a conversation an instance gets, and as which text."""

import sys
from collections.abc import Sequence
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations._support.leaves import MissingLeafError
from lmstudio_integrations.client.concurrency.flows import run
from lmstudio_integrations.client.models.reasoning import sent_messages
from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.types.chat import text_part
from lmstudio_integrations.types.reasoning import REJECTED_REASONING, ReasoningOptions, SendReasoning, Tags
from tests.client.models.rendering import (
    ALL,
    BRACKETS,
    CONFIG,
    GEMMA,
    RENDER,
    THREE,
    WHITE,
    WITHOUT,
    Server,
    conversation,
    part,
    sent,
    sent_by,
)
from tests.support.template_functions import THINK, answers

# What is asked --------------------------------------------------------------------------------------------------------

ALWAYS = pytest.param("always", [])
MEASURED = pytest.param("auto", [RENDER], marks=pytest.mark.leaf("reasoning_replay"))
"""How thoughts are sent, and what is asked for it besides the tags: `auto` asks what the template does."""

ASKED: dict[str, tuple[Server, Sequence[dict[str, Any]], list[str]]] = {
    "thoughts": (Server(), THREE, [CONFIG]),
    "two kinds of tags, of which the server says nothing": (
        Server(lacks=(CONFIG,)),
        [part("one"), part("two", BRACKETS)],
        [CONFIG],
    ),
    "a server without both": (Server(lacks=(CONFIG, RENDER)), THREE, [CONFIG]),
    "there is none": (Server(), [], []),
    "one that was left open": (Server(), [part("one", end="")], [CONFIG]),
}


@pytest.mark.parametrize(("mode", "more"), [ALWAYS, pytest.param("turn", []), MEASURED])
@pytest.mark.parametrize(("server", "thoughts", "tags"), ASKED.values(), ids=ASKED)
def test_each_instance_is_asked_once(
    server: Server, thoughts: Sequence[dict[str, Any]], tags: list[str], mode: SendReasoning, more: list[str]
) -> None:
    expected = tags + more if thoughts else []
    for instance in (Instance("m"), Instance("m")):  # as after another load, or on another host
        server.calls.clear()
        first = sent(server, instance, conversation(*thoughts), mode)
        assert server.calls == expected
        assert sent(server, instance, conversation(*thoughts), mode) == first
        assert server.calls == expected


def test_nothing_is_asked_if_none_is_sent() -> None:
    server = Server()
    sent(server, Instance("m"), conversation(*THREE), False)
    assert server.calls == []


@pytest.mark.parametrize(("mode", "asked"), [ALWAYS, MEASURED])
def test_the_tags_of_a_model_that_has_thought_are_known(mode: SendReasoning, asked: list[str]) -> None:
    server, instance = Server(), Instance("m")
    instance.reasoning.written[THINK] = None
    assert sent(server, instance, conversation(*THREE), mode) == ALL
    assert server.calls == asked


@pytest.mark.parametrize(
    ("mode", "written"),
    [
        ("always", {}),
        *(pytest.param("auto", each, marks=pytest.mark.leaf("reasoning_replay")) for each in ({}, {THINK: None})),
    ],
)
def test_an_error_that_concerns_the_whole_request_is_raised(mode: SendReasoning, written: dict[Tags, None]) -> None:
    server, instance = Server(errors=[lms.LMStudioModelNotFoundError("gone")]), Instance("m")
    instance.reasoning.written.update(written)
    with pytest.raises(lms.LMStudioModelNotFoundError):
        sent(server, instance, conversation(*THREE), mode)
    assert sent(server, instance, conversation(*THREE), mode) == ALL


@pytest.mark.parametrize(
    ("configured", "thought", "expected"),
    [(THINK, BRACKETS, BRACKETS), (None, Tags("", ""), BRACKETS), (None, THINK, BRACKETS), (THINK, GEMMA, THINK)],
)
def test_tags_that_a_model_has_written_stay_and_replace_others_if_the_server_names_none(
    configured: Tags | None, thought: Tags, expected: Tags
) -> None:
    instance = Instance("m")
    instance.reasoning.written[BRACKETS] = None
    first, *_ = sent(Server(tags=configured), instance, conversation(part("one", thought)), "always")
    assert first == f"{expected.start}one{expected.end}I look."


# What is sent ---------------------------------------------------------------------------------------------------------

SENT: dict[SendReasoning, list[str]] = {
    "always": ALL,
    True: ALL,
    "turn": [*WITHOUT[:2], ALL[2]],
    False: WITHOUT,
}


@pytest.mark.parametrize(("mode", "expected"), SENT.items(), ids=map(str, SENT))
def test_a_setting_decides_what_is_sent(mode: SendReasoning, expected: list[str]) -> None:
    messages = conversation(*THREE)
    assert sent(Server(), Instance("m"), messages, mode) == expected
    assert messages == conversation(*THREE), "they were changed"


def test_a_copy_that_does_not_measure_templates_sends_those_of_the_turn_by_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "lmstudio_integrations.client.models.reasoning_replay", None)
    server: Any = Server()
    for _ in range(2):
        assert sent(server, Instance("m"), conversation(*THREE)) == SENT["turn"]
    assert server.calls == [CONFIG] * 2
    with pytest.raises(MissingLeafError, match="is without the measuring of chat templates"):
        run(sent_messages(server, Instance("m"), [], ReasoningOptions(keep=True), lms.LlmPredictionConfig()))


def test_a_conversation_that_a_template_once_rejected_is_sent_without() -> None:
    instance = Instance("m")
    instance.reasoning.is_rejected = True
    server: Any = Server()
    found = run(
        sent_messages(server, instance, conversation(*THREE), ReasoningOptions("always"), lms.LlmPredictionConfig())
    )
    assert (answers(found.messages), found.by_place) == (WITHOUT, REJECTED_REASONING)


TAGGED: dict[str, tuple[dict[str, Any], Tags | None, object, str]] = {
    "the model's own, with white space": (part(" one ", WHITE), THINK, None, "<think>\n one \n</think>\n\n"),
    "unknown": (part("one", Tags("", "")), BRACKETS, None, "[THINK]one[/THINK]"),
    "unknown, and the server says nothing": (part("one", Tags("", "")), None, None, "<think>one</think>"),
    "of another model": (part("one", BRACKETS), THINK, None, "<think>one</think>"),
    "of another model, and the server says nothing": (part("one", BRACKETS), None, None, "[THINK]one[/THINK]"),
    "opened by the prompt": (part("one", Tags("", "</think>\n\n")), THINK, None, "<think>one</think>\n\n"),
    "opened by the prompt, and the server says nothing": (
        part("one", Tags("", "</think>")),
        None,
        None,
        "<think>one</think>",
    ),
    "set by the user": (
        part("one", Tags("", "")),
        THINK,
        {"enabled": True, "startString": "[THINK]", "endString": "[/THINK]"},
        "[THINK]one[/THINK]",
    ),
    "the model's own, and others are set by the user": (
        part("one"),
        THINK,
        {"enabled": True, "startString": "[THINK]", "endString": "[/THINK]"},
        "<think>one</think>",
    ),
    "unknown, and the server's are empty": (part("one", Tags("", "")), Tags("", ""), None, "<think>one</think>"),
    "left open": (part("one", end=""), THINK, None, "<think>one"),
}


@pytest.mark.parametrize(("thought", "tags", "parsing", "expected"), TAGGED.values(), ids=TAGGED)
def test_the_tags_of_a_thought(thought: dict[str, Any], tags: Tags | None, parsing: object, expected: str) -> None:
    server = Server(tags=tags, lacks=() if tags else (CONFIG,))
    first, *_ = sent(server, Instance("m"), conversation(thought), "always", parsing)
    assert first == f"{expected}I look."


def test_tags_that_are_set_by_their_wire_key_are_those_of_the_request() -> None:
    parsing = {"enabled": True, "startString": "[THINK]", "endString": "[/THINK]"}
    settings = lms.LlmPredictionConfig(raw={"llm.prediction.reasoning.parsing": parsing})
    found = answers(sent_by(Server(), Instance("m"), conversation(part("one")), "always", settings))
    assert found[0] == "[THINK]one[/THINK]I look."


@pytest.mark.parametrize(
    "tags", [Tags("", ""), Tags("<think>", "")], ids=["opened by the prompt", "opened by the model"]
)
def test_a_thought_after_which_nothing_comes_was_cut_off(tags: Tags) -> None:
    server = Server()
    user, *_ = conversation()
    cut_off = {"role": "assistant", "content": [text_part("a"), part("one"), part("two", tags)]}
    assert sent(server, Instance("m"), [user, cut_off, user], "always") == ["a<think>one</think>"]
    (_, found) = sent_by(server, Instance("m"), [user, {**cut_off, "content": [part("two", tags)]}], "always")
    assert found["content"] == [text_part("")]


def test_a_call_whose_thought_is_omitted_has_no_empty_text() -> None:
    _, message, *_ = conversation(part("one"))
    thought, _, call = message["content"]
    (found,) = sent_by(Server(), Instance("m"), [{**message, "content": [thought, call]}], False)
    assert found["content"] == [call]


TEXTS: list[tuple[list[dict[str, Any]], str, str]] = [
    (
        [part("1"), text_part("a"), part("2"), part("3"), text_part("b")],
        "<think>1</think>a<think>2</think><think>3</think>b",
        "ab",
    ),
    *(
        ([part("1"), text_part(text)], f"<think>1</think>{text}", kept)
        for text, kept in (
            ("\n\n  a\n", "  a\n"),
            (" \n\t\n a", " a"),
            ("  a\n\nb", "  a\n\nb"),
            ("a", "a"),
            ("\n \n", ""),
        )
    ),
    ([text_part("a"), part("1"), text_part("\n\nb")], "a<think>1</think>\n\nb", "a\n\nb"),
]
"""Contents of a message, and its text with and without the thoughts; blank lines behind the first one go with it."""


@pytest.mark.parametrize(("content", "with_thoughts", "without"), TEXTS)
def test_thoughts_and_texts_become_one_text_in_their_order(
    content: list[dict[str, Any]], with_thoughts: str, without: str
) -> None:
    message = {"role": "assistant", "content": content}
    modes: list[tuple[SendReasoning, str]] = [("always", with_thoughts), (False, without)]
    for mode, text in modes:
        assert sent_by(Server(), Instance("m"), [message], mode) == [
            {"role": "assistant", "content": [text_part(text)]}
        ]


def test_what_has_no_thought_is_sent_as_it_is() -> None:
    two = [text_part("</think>"), text_part("<think>Well?")]
    messages = [{"role": role, "content": two} for role in ("user", "assistant")]
    messages += [{"role": "tool", "content": []}]
    thought = {"role": "assistant", "content": [part("one")]}
    assert sent_by(Server(), Instance("m"), [*messages, thought], "always")[:3] == messages
