"""What is found out about the chat template of an instance, and which thoughts it gets for that."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.concurrency.flows import run
from lmstudio_integrations.client.models.reasoning import sent_messages
from lmstudio_integrations.client.models.reasoning_replay import replay_of
from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.types.chat import text_part
from lmstudio_integrations.types.reasoning import ReasoningOptions, Tags, Treatment
from lmstudio_integrations.types.reasoning_replay import REJECTS, move_thoughts
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
    jinja,
    part,
    sent,
    sent_by,
)
from tests.docs.snippets import read
from tests.support import chat_templates, template_functions
from tests.support.template_functions import THINK, Said, Template, answers

HARMONY = Tags("<|channel|>analysis<|message|>", "<|end|>")
TAGS = (THINK, BRACKETS, GEMMA)


def measured(server: Server, tags: Tags | None = None, instance: Instance | None = None) -> lms.ReasoningReplay:
    found: Any = server
    return run(replay_of(found, instance or Instance("m"), tags))


# What a template does -------------------------------------------------------------------------------------------------

SHOWN: dict[Treatment, Callable[[Said, Tags], str]] = {
    "kept": template_functions.kept,
    "stripped": template_functions.stripped,
    "copied": template_functions.copied,
    "misplaced": template_functions.after_empty,
}


def by_place(said: Said, tags: Tags, *, current: Any, earlier: Any, answer: Any) -> str:
    shown: str = ((current if said.is_current else earlier) if said.is_call else answer)(said, tags)
    return shown


@pytest.mark.parametrize("tags", TAGS, ids=str)
def test_each_treatment_is_found_in_each_place(tags: Tags) -> None:
    for current, earlier, answer in product(SHOWN, repeat=3):
        template = partial(by_place, tags=tags, current=SHOWN[current], earlier=SHOWN[earlier], answer=SHOWN[answer])
        # A template that omits a thought has a notion of thoughts, so that it takes what it copies for one.
        right = "kept" if (current, earlier) == ("copied", "stripped") else current
        assert measured(Server(template), tags) == lms.ReasoningReplay(right, earlier, answer)


def kept_in_turn(said: Said) -> str:
    return template_functions.kept(said) if said.is_current else template_functions.stripped(said)


def text_of_calls_is_omitted(said: Said) -> str:
    return "" if said.is_call else template_functions.copied(said)


def everywhere(treatment: Treatment) -> lms.ReasoningReplay:
    return lms.ReasoningReplay(treatment, treatment, treatment)


ALIKE: dict[Treatment, dict[str, Template]] = {
    "misplaced": {
        "a thought behind its text": template_functions.behind,
        "a thought without tags behind an empty one": lambda said: "<think></think>{}\n---\n{}".format(
            *template_functions.split(said.text)
        ),
        "an end tag on a line of its own": lambda said: f"</think>\n{said.text}",
        "a thought in the text, without tags": lambda said: "{}\n{}".format(*template_functions.split(said.text)),
        "a thought behind an empty one with tags of the template's own": lambda said: (
            f"<|open|>think<|sep|><|close|>think<|sep|><|open|>response<|sep|>{said.text}"
        ),
        "a thought behind an end tag of the template's own": lambda said: f"</mm:think>{said.text}",
        "a thought behind an empty channel": lambda said: f"<|channel>thought\n<channel|>{said.text}",
        "a start tag twice": lambda said: said.text.replace("<think>\n", "<think>\n<think>"),
    },
    "kept": {
        "tags of the template's own": lambda said: "<<{}>>{}".format(*template_functions.split(said.text)),
        "a line break less before a thought": lambda said: said.text.replace("<think>\n", "<think>"),
        "a thought without the line breaks around it": lambda said: re.sub(
            r"<think>\n*(.*?)\n*</think>\n*", r"<think>\1</think>", said.text, flags=re.DOTALL
        ),
    },
    "copied": {
        "a mode of thinking behind each message of the user": lambda said: f"/think\n{said.text}",
        "only answers to results are stripped": lambda said: (
            template_functions.stripped(said) if said.is_answer_to_result else said.text
        ),
    },
}
"""Templates that do the same with each thought between `<think>` and `</think>`, by what that is."""

OTHERS: dict[str, tuple[Template, Tags, lms.ReasoningReplay]] = {
    "answers behind a line break": (
        lambda said: said.text if said.is_call else f"\n{template_functions.stripped(said)}",
        THINK,
        lms.ReasoningReplay("copied", "copied", "stripped"),
    ),
    "no text beside calls": (text_of_calls_is_omitted, THINK, lms.ReasoningReplay("stripped", "stripped", "copied")),
    "channels": (
        partial(template_functions.channels, tags=HARMONY),
        HARMONY,
        lms.ReasoningReplay("kept", "kept", "copied", is_bare=True),
    ),
    "channels, tags that it does not know": (
        template_functions.lenient_channels,
        THINK,
        lms.ReasoningReplay("kept", "kept", "copied", is_bare=True),
    ),
    "tags are rejected": (template_functions.rejected, THINK, REJECTS),
}

TEMPLATES = OTHERS | {
    name: (template, THINK, everywhere(treatment))
    for treatment, some in ALIKE.items()
    for name, template in some.items()
}
"""Templates, the tags of the thoughts, and what they do. Those of real models follow below."""


@pytest.mark.parametrize(("template", "tags", "expected"), TEMPLATES.values(), ids=TEMPLATES)
def test_what_templates_do(template: Template, tags: Tags, expected: lms.ReasoningReplay) -> None:
    server = Server(template)
    assert measured(server, tags) == expected
    assert server.calls == [RENDER]


CALL = "{% for call in message.tool_calls %}<call>{{ call.function.arguments | tojson }}</call>{% endfor %}"
TEXT = "{{ message.content.split('</think>')[-1] }}"


def with_calls(assistant: str) -> Server:
    """Return a server whose template shows the assistant like this."""
    others = "{% if message.role != 'assistant' %}{{ message.content }}{% else %}"
    return Server(
        render=chat_templates.renderer(
            f"{{% for message in messages %}}<|{{{{ message.role }}}}|>{others}{assistant}{{% endif %}}\n{{% endfor %}}"
        )
    )


def test_a_thought_that_takes_the_place_of_a_call_is_not_sent() -> None:
    server, instance = with_calls(f"{{% if message.content %}}{TEXT}{{% else %}}{CALL}{{% endif %}}"), Instance("m")
    found = measured(server, THINK, instance)
    assert found == lms.ReasoningReplay("misplaced", "misplaced", "stripped")
    assert server.calls == [RENDER] * 2
    assert sent(server, instance, conversation(*THREE)) == [WITHOUT[0], ALL[1], WITHOUT[2]]


def test_a_thought_that_only_the_last_message_shows_is_not_sent() -> None:
    shown = "{% if loop.index0 > messages | length - 3 %}{{ message.content }}{% else %}"
    server, instance = with_calls(f"{shown}{TEXT}{{% endif %}}{CALL}"), Instance("m")
    assert measured(server, THINK, instance) == lms.ReasoningReplay("misplaced", "stripped", "stripped")
    assert sent(server, instance, conversation(*THREE)) == [*ALL[:2], WITHOUT[2]]


@pytest.mark.parametrize(
    ("assistant", "renderings"),
    [(f"{TEXT}{CALL}", 1), (TEXT, 2), (f"{{{{ raise_exception('empty') if not message.content }}}}{TEXT}", 2)],
    ids=["calls are shown", "calls are never shown", "a call without a text is rejected"],
)
def test_a_thought_that_changes_nothing_about_calls_is_sent(assistant: str, renderings: int) -> None:
    server = with_calls(assistant)
    assert measured(server, THINK) == everywhere("stripped")
    assert server.calls == [RENDER] * renderings


def test_another_failure_is_not_taken_for_what_the_template_does() -> None:
    server, instance = Server(tags=THINK, errors=[lms.LMStudioServerError("the server is busy")]), Instance("m")
    instance.reasoning.written[THINK] = None
    assert sent(server, instance, conversation(*THREE)) == WITHOUT
    assert sent(server, instance, conversation(*THREE)) == ALL


# What is sent ---------------------------------------------------------------------------------------------------------

BARE = ["one\n\nI look.", "It rains.", "three\n\nAgain."]

SENT: dict[str, tuple[Template, list[str]]] = {
    "kept": (template_functions.kept, ALL),
    "copied": (template_functions.copied, [ALL[0], WITHOUT[1], ALL[2]]),
    "misplaced": (template_functions.after_empty, WITHOUT),
    "rejected": (template_functions.rejected, WITHOUT),
    "bare": (partial(template_functions.channels, tags=HARMONY), BARE),
    "bare, tags are copied": (template_functions.lenient_channels, BARE),
}


@pytest.mark.parametrize(("template", "expected"), SENT.values(), ids=SENT)
def test_what_the_template_decides_is_sent(template: Template, expected: list[str]) -> None:
    messages = conversation(*THREE)
    assert sent(Server(template), Instance("m"), messages) == expected
    assert messages == conversation(*THREE), "they were changed"


def test_a_bare_thought_beside_a_call_without_a_text_is_sent_without_white_space() -> None:
    messages = conversation(part("\n one\n"), *THREE[1:])
    del messages[1]["content"][1]
    server = Server(partial(template_functions.channels, tags=HARMONY))
    assert sent(server, Instance("m"), messages) == ["one", *BARE[1:]]


# A template that is made to keep them ---------------------------------------------------------------------------------

PRESERVE = "{%- set preserve_thinking = true %}"
BOTH = f"{PRESERVE}{{%- set clear_thinking = false %}}"
SWITCHED = jinja(f"{PRESERVE}{{% if preserve_thinking %}}")
FIELD = "ext.virtualModel.customField.qwen.qwen3.627b.preserveThinking"


def keeping(
    server: Any, instance: Instance, thoughts: Sequence[dict[str, Any]] = THREE, **settings: Any
) -> tuple[list[str], dict[str, Any]]:
    """Return the texts of the assistant as they are sent, and the settings that go with them."""
    options, own = ReasoningOptions(keep=True), lms.LlmPredictionConfig(**settings)
    found = run(sent_messages(server, instance, conversation(*thoughts), options, own))
    return answers(found.messages), {} if found.changes is None else found.changes.to_fields()


KEPT: dict[str, tuple[Server, dict[str, Any], dict[str, Any]]] = {
    "by itself": (Server(), {}, {}),
    "with a switch": (
        Server(kept_in_turn, source="{% if preserve_thinking %}", switches={PRESERVE: template_functions.kept}),
        {},
        {"llm.prediction.promptTemplate": SWITCHED},
    ),
    "with a switch that makes the template copy what it omitted": (
        Server(kept_in_turn, source="{% if preserve_thinking %}", switches={PRESERVE: template_functions.copied}),
        {},
        {"llm.prediction.promptTemplate": SWITCHED},
    ),
    "with two switches": (
        Server(
            kept_in_turn, source="{{ preserve_thinking or clear_thinking }}", switches={BOTH: template_functions.kept}
        ),
        {},
        {"llm.prediction.promptTemplate": jinja(f"{BOTH}{{{{ preserve_thinking or clear_thinking }}}}")},
    ),
    "with a switch in the template of the request": (
        Server(kept_in_turn, switches={PRESERVE: template_functions.kept}),
        {"prompt_template": jinja("{% if preserve_thinking %}")},
        {"llm.prediction.promptTemplate": SWITCHED},
    ),
    "with a field, and the template of the request": (
        Server(kept_in_turn, key="qwen/qwen3.6-27b", switches={FIELD: template_functions.kept}),
        {"prompt_template": jinja("{{ messages }}")},
        {"llm.prediction.promptTemplate": jinja("{{ messages }}"), FIELD: True},
    ),
    "with a field of a model of the catalog": (
        Server(kept_in_turn, key="qwen/qwen3.6-27b", switches={FIELD: template_functions.kept}),
        {},
        {FIELD: True},
    ),
}


@pytest.mark.parametrize(("server", "settings", "expected"), KEPT.values(), ids=KEPT)
def test_a_template_is_made_to_keep_thoughts(
    server: Server, settings: dict[str, Any], expected: dict[str, Any]
) -> None:
    instance = Instance("m")
    assert keeping(server, instance, **settings) == (ALL, expected)
    asked = len(server.calls)
    assert keeping(server, instance, (), **settings) == (WITHOUT, expected), "the prompt would begin otherwise"
    assert server.calls[asked:] in ([], ["getModelInfo"])
    assert sent(server, instance, conversation(*THREE)) == ALL


NOT_KEPT: dict[str, tuple[Server, str]] = {
    "no switch": (
        Server(kept_in_turn, source="{{ messages }}"),
        "the template as it is, a switch in it, but it has none",
    ),
    "a switch in a template that copies everything": (
        Server(
            template_functions.copied,
            source="{{ preserve_thinking }}",
            switches={PRESERVE: template_functions.copied},
        ),
        "the template as it is, its switch preserve_thinking",
    ),
    "an unknown template": (
        Server(kept_in_turn),
        "the template as it is, a switch in it, but the server does not show it",
    ),
    "a switch without effect": (
        Server(kept_in_turn, source="{{ clear_thinking }}"),
        "the template as it is, its switch clear_thinking",
    ),
    "a switch of a template that reads only a field": (
        Server(template_functions.after_empty, source="{{ drop_thinking }}", key="qwen/qwen3.6-27b"),
        f"the template as it is, its switch drop_thinking, the custom field {FIELD}",
    ),
    "a server without both": (Server(lacks=(CONFIG, RENDER)), "a switch in it, but the server does not show it"),
    "a template without a notion of thoughts": (Server(template_functions.copied), "send_reasoning='always'"),
}


MANUAL = {"type": "manual", "manualPromptTemplate": {"beforeUser": "Q: ", "afterUser": "\n"}, "stopStrings": []}


def test_a_manual_template_that_does_not_keep_them_is_an_error_that_says_so() -> None:
    with pytest.raises(lms.LMStudioUnsupportedError, match="a switch in it, but it is no Jinja template"):
        keeping(Server(kept_in_turn), Instance("m"), prompt_template=MANUAL)


@pytest.mark.parametrize(("server", "expected"), NOT_KEPT.values(), ids=NOT_KEPT)
def test_a_template_that_cannot_be_made_to_keep_them_is_an_error(server: Server, expected: str) -> None:
    with pytest.raises(lms.LMStudioUnsupportedError) as raised:
        keeping(server, Instance("m"))
    assert expected in str(raised.value)


def test_a_failure_to_ask_is_not_taken_for_what_the_template_does() -> None:
    server, instance = Server(tags=THINK, errors=[lms.LMStudioServerError("the server is busy")]), Instance("m")
    instance.reasoning.written[THINK] = None
    for _ in range(2):
        with suppress(lms.LMStudioServerError):
            found = keeping(server, instance)
    assert found == (ALL, {})


# A template that reads thoughts from a field --------------------------------------------------------------------------

READS_FIELD = (
    "{% for message in messages %}<|{{ message.role }}|>{% if message.role == 'assistant' %}"
    "<think>{{ message.reasoning_content }}</think>{% endif %}{{ message.content }}"
    "{% for call in message.tool_calls %}<call>{{ call.function.arguments | tojson }}</call>{% endfor %}\n{% endfor %}"
)
"""A template that shows the thoughts of all turns, in the manner of DeepSeek V4."""

CURRENT = READS_FIELD.replace(
    "{{ message.reasoning_content }}", "{% if loop.index0 > 3 %}{{ message.reasoning_content }}{% endif %}"
)
"""The same for the current turn of a small conversation, in the manner of Kimi K2 Thinking."""


SHOW = "[{{ m.content }}|{{ m.reasoning_content }}|{{ (m.tool_calls or []) | length }}]"


def field_server(source: str = READS_FIELD, **changes: Any) -> Server:
    given: dict[str, Any] = {"source": source, "render": chat_templates.renderer(source), "takes_templates": True}
    return Server(**(given | changes))


def shown_thoughts(prompt: str) -> list[str]:
    return re.findall(r"<\|assistant\|><think>(.*?)</think>", prompt, re.DOTALL)


def test_a_template_that_reads_a_field_gets_thoughts_there_on_request() -> None:
    server, instance = field_server(), Instance("m")
    messages = conversation(*(part(text, WHITE) for text in ("one", "two", "three")))
    assert sent(server, instance, messages) == WITHOUT
    found = run(sent_messages(server, instance, messages, ReasoningOptions(keep=True), lms.LlmPredictionConfig()))  # type: ignore[arg-type]
    assert found.changes is not None
    source = found.changes.to_fields()["llm.prediction.promptTemplate"]["jinjaPromptTemplate"]["template"]
    assert source == f"{move_thoughts(THINK)}{READS_FIELD}"
    prompt = chat_templates.renderer(source)(found.messages)
    assert shown_thoughts(prompt) == ["one", "two", "three"]
    plain = chat_templates.renderer(READS_FIELD)(conversation())
    assert re.sub("one|two|three", "", prompt) == plain
    asked = [*server.calls]
    run(sent_messages(server, instance, messages, ReasoningOptions(keep=True), lms.LlmPredictionConfig()))  # type: ignore[arg-type]
    assert server.calls == asked, "it was measured again"


def test_such_a_template_decides_which_turns_it_shows() -> None:
    server, instance = field_server(CURRENT), Instance("m")
    texts, fields = keeping(server, instance)
    source = fields["llm.prediction.promptTemplate"]["jinjaPromptTemplate"]["template"]
    assert texts == ALL
    assert source.endswith(CURRENT)
    replay = run(replay_of(server, instance, THINK, fields))  # type: ignore[arg-type]
    assert replay == lms.ReasoningReplay("kept", "stripped", "stripped")


def test_a_template_that_reads_thoughts_from_the_text_as_well_is_left_as_it_is() -> None:
    server = field_server(chat_templates.TEMPLATES["keeps_running_turn"].source + "{# reasoning_content #}")
    with pytest.raises(lms.LMStudioUnsupportedError, match="does not keep the reasoning"):
        keeping(server, Instance("m"))


UNCLEAR: dict[str, Server] = {
    "the server does not show it": replace(field_server(), source=None),
    "the server shows another": field_server(render=chat_templates.renderer(f"{READS_FIELD}.")),
    "a request cannot bring one": field_server(takes_templates=False),
    "it reads another field": field_server(READS_FIELD.replace("reasoning_content", "thinking")),
    "it shows no thought": field_server(
        READS_FIELD.replace("<think>{{ message.reasoning_content }}", "<think>{# reasoning_content #}")
    ),
}


@pytest.mark.parametrize("server", UNCLEAR.values(), ids=UNCLEAR)
def test_thoughts_are_not_moved_where_anything_is_unclear(server: Server) -> None:
    with pytest.raises(lms.LMStudioUnsupportedError, match="does not keep the reasoning"):
        keeping(server, Instance("m"))
    assert sent(server, Instance("m"), conversation(*THREE)) == WITHOUT


MOVED: dict[str, tuple[str, str, str]] = {
    "a thought": ("<think>\n one \n</think>\n\nText.", " one ", "Text."),
    "two": ("<think>one</think>a<think>two</think>\n\nb", "one\n\ntwo", "a\n\nb"),
    "a tag in the text behind it": ("<think>one</think>Use </think>.", "one", "Use </think>."),
    "an end tag alone": ("Use </think>.", "", "Use </think>."),
    "a thought that was left open": ("a<think>one</think>b<think>two", "one", "abtwo"),
    "none": ("Text.", "", "Text."),
}


@pytest.mark.parametrize(("content", "thought", "text"), MOVED.values(), ids=MOVED)
def test_what_the_lines_before_a_template_make_of_a_message(content: str, thought: str, text: str) -> None:
    render = chat_templates.renderer(f"{move_thoughts(THINK)}{{% for m in messages %}}{SHOW}{{% endfor %}}")
    call = {"type": "function", "id": "1", "name": "look", "arguments": {}}
    for calls in ([], [{"type": "toolCallRequest", "toolCallRequest": call}]):
        messages = [
            {"role": "user", "content": [text_part(content)]},
            {"role": "assistant", "content": [text_part(content), *calls]},
        ]
        assert render(messages) == f"[{content}||0][{text}|{thought}|{len(calls)}]"


def test_the_lines_for_a_template_in_the_application_are_those_that_requests_bring() -> None:
    lines = read("cookbook/reasoning_field.jinja").rstrip("\n")
    show = "Begin.{% for m in messages %}{{ m.reasoning_content }}{% endfor %}"
    with_breaks, in_one = (chat_templates.renderer(f"{each}\n{show}") for each in (lines, move_thoughts(THINK)))
    assert re.sub(r"%\}\s*\{%", "%}{%", lines) == re.sub(r"%\}\s*\{%", "%}{%", move_thoughts(THINK))
    messages = [{"role": "assistant", "content": [text_part("<think>one</think>Yes.")]}]
    assert with_breaks(messages) == in_one(messages) == "Begin.one"


# Templates of real models ---------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A chat template, perhaps with its switch set, and what it does with thoughts as they are sent."""

    template: chat_templates.Template
    source: str
    outcomes: chat_templates.Outcomes

    def server(self) -> Server:
        """Return a server whose model has the template."""
        return Server(fields=self.template.prediction_fields, render=chat_templates.renderer(self.source))


CASES = {
    **{name: Case(each, each.source, each.bare or each.tagged) for name, each in chat_templates.TEMPLATES.items()},
    **{
        f"{name}, switched": Case(each, each.switched_source, each.switched)
        for name, each in chat_templates.TEMPLATES.items()
        if each.switched
    },
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_a_real_template_does_with_thoughts_is_found(case: Case) -> None:
    does: Any = case.outcomes
    expected = lms.ReasoningReplay(does.running_call, does.call, does.answer, is_bare=case.template.bare is not None)
    assert measured(case.server()) == expected


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_prompt_begins_with_the_one_before_and_with_what_the_model_wrote(case: Case) -> None:
    server, instance, template = case.server(), Instance("m"), case.template

    def prompt() -> str:
        assert server.render is not None
        return server.render(sent_by(server, instance, messages))

    thought = {"type": "reasoning", "text": "Where?", "startTag": template.start_tag, "endTag": template.end_tag}
    call = {"type": "function", "id": "1", "name": "look", "arguments": {"city": "Rome"}}
    result = {"type": "toolCallResult", "content": "Rain.", "toolCallId": "1", "name": "look"}
    user = {"role": "user", "content": [text_part("</think> <think>Well?</think>")]}
    messages: list[Any] = [user]
    first = prompt()
    messages.append({"role": "assistant", "content": [thought, {"type": "toolCallRequest", "toolCallRequest": call}]})
    messages.append({"role": "tool", "content": [result]})
    second = prompt()
    is_shown = case.outcomes.running_call in {"kept", "copied"}
    assert second.startswith(first + (template.write("Where?", "", ("look", {"city": "Rome"})) if is_shown else ""))
    messages += [{"role": "assistant", "content": [thought, text_part("It rains.")]}, user]
    if case.outcomes.call == case.outcomes.running_call:
        assert prompt().startswith(second)
