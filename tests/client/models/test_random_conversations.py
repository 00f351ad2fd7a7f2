"""Random conversations under every chat template: what is sent of thoughts, and how prompts continue each other.

They have calls, edits, branches, summaries, thoughts that were cut off, and responses of several models.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from random import Random
from typing import Any, NamedTuple

import jinja2
import pytest

from lmstudio_integrations.client.models.reasoning.replay import OWN_TEMPLATE, replay_of
from lmstudio_integrations.client.models.reasoning.sent import sent_messages
from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.client.transport.flows import Flow, run
from lmstudio_integrations.errors import LMStudioPromptTemplateError
from lmstudio_integrations.types.chat import text_part
from lmstudio_integrations.types.reasoning import DEFAULT_REASONING
from tests.support.chat_templates import TEMPLATES, Outcomes, Template, renderer

CONVERSATIONS = 500
"""How many there are: of all templates together in the fast tier, of each in the exhaustive one."""

Message = Mapping[str, Any]
Messages = list[Message]


class Case(NamedTuple):
    """A chat template, perhaps with its switch set, and what it does with thoughts as they are sent."""

    template: Template
    source: str
    outcomes: Outcomes

    def sends(self, place: str) -> bool:
        """Whether thoughts are sent in a place."""
        outcome = getattr(self.outcomes, place)
        return outcome in {"kept", "stripped"} or (outcome == "copied" and place != "answer")


CASES = {
    **{name: Case(each, each.source, each.bare or each.tagged) for name, each in TEMPLATES.items()},
    **{
        f"{name}, switched": Case(each, each.switched_source, each.switched)
        for name, each in TEMPLATES.items()
        if each.switched
    },
}

# A server that renders ------------------------------------------------------------------------------------------------


class Server:
    """A server whose model has a template."""

    def __init__(self, case: Case) -> None:
        self.render = renderer(case.source)
        self._fields = [{"key": key, "value": value} for key, value in case.template.prediction_fields.items()]

    def call(
        self, _namespace: str, endpoint: str, parameter: Mapping[str, Any], read: Callable[[Any], Any], *, label: str
    ) -> Flow[Any]:
        yield from ()
        if endpoint == "getBasePredictionConfig":
            return read({"fields": self._fields})
        try:
            return read({"formatted": self.render(parameter["history"]["messages"])})
        except jinja2.TemplateError as error:
            raise LMStudioPromptTemplateError(f"{label}: {error}") from None


# Conversations --------------------------------------------------------------------------------------------------------

WORDS = ("yes", "two  spaces", "a\n\nb", "1 < 2", '"{}"', "\\", "é \U0001f600", "[]")
QUESTIONS = ("</think>", "<think>Well?</think>", "<|channel>thought", "<|final|>")
"""A user may write tags."""


def message(role: str, *parts: Mapping[str, Any]) -> Message:
    return {"role": role, "content": [*parts]}


def thought_part(text: str, start: str, end: str) -> Mapping[str, Any]:
    return {"type": "reasoning", "text": text, "startTag": start, "endTag": end}


class Writer:
    """Writes random conversations with the models of templates."""

    def __init__(self, template: Template, seed: int) -> None:
        self._draw = Random(seed)
        self._template = template
        self._numbers = count()

    def conversations(self) -> Iterator[Messages]:
        """Yield what a model is sent, time after time."""
        messages: Messages = []
        for _ in range(self._draw.randint(2, 4)):
            messages = self._changed(messages) if messages and self._draw.random() < 0.4 else messages
            messages = [*messages, message("user", text_part(f"{self._text()} {self._draw.choice(QUESTIONS)}"))]
            for _ in range(self._draw.randint(0, 3)):
                yield messages
                response = self._response(calls=self._draw.randint(1, 3))
                messages = [*messages, response, *self._results(response)]
            yield messages
            messages = [*messages, self._response(calls=0)]

    def _text(self) -> str:
        """Return a text that begins and ends with its number."""
        number = next(self._numbers)
        return f"«{number}: {' '.join(self._draw.choices(WORDS, k=3))} {number}»"

    def _response(self, *, calls: int) -> Message:
        """Return a response of the model, or of another one."""
        draw = self._draw
        author = self._template if draw.random() < 0.75 else draw.choice([*TEMPLATES.values(), None])
        parts = [*self._thinking(author), *([text_part(self._text())] if not calls or draw.random() < 0.5 else [])]
        for _ in range(calls):
            arguments = {key: draw.choice(WORDS) for key in draw.sample("zab", 2)}
            call = {"type": "function", "id": str(next(self._numbers)), "name": "look", "arguments": arguments}
            parts.append({"type": "toolCallRequest", "toolCallRequest": call})
        return message("assistant", *parts)

    def _thinking(self, author: Template | None) -> list[Mapping[str, Any]]:
        """Return thoughts, as a server separates them."""
        draw, kind = self._draw, self._draw.choice(["none", *["whole"] * 5, "two", "cut off"])
        if kind == "none":
            return []
        if author is None:  # of a provider whose messages have no tags
            return [thought_part(self._text(), "", ""), text_part(self._text())]
        if kind == "cut off":
            return [thought_part(self._text()[:-5], author.start_tag, "")]
        thought = self._text()
        if draw.random() < 0.5:
            found = [thought_part(thought, author.start_tag, author.end_tag)]
        else:  # white space is no part of the tags
            start, end = author.parsing
            before, after = author.start_tag.removeprefix(start), author.end_tag.rpartition(end)[2]
            inner = f"{before}{thought}{author.end_tag.partition(end)[0]}"
            found = [thought_part(inner, start, end), *([text_part(after)] if after else [])]
        assert written(found) == author.tag(thought)
        return [*found, text_part(self._text()), *self._thinking(author)] if kind == "two" else found

    def _results(self, response: Message) -> Messages:
        """Return the results of calls, in one message or in several."""
        results = [
            {"type": "toolCallResult", "content": self._text(), "toolCallId": call["id"], "name": call["name"]}
            for call in calls_of(response)
        ]
        return [message("tool", *results)] if self._draw.random() < 0.5 else [message("tool", each) for each in results]

    def _changed(self, messages: Messages) -> Messages:
        """Return a conversation that goes on from an earlier turn, or is edited, or summarized."""
        kind = self._draw.choice(["branch", "edit", "remove thoughts", "summarize"])
        turns = [at for at, each in enumerate(messages) if each["role"] == "user"]
        if kind == "branch":
            return messages[: self._draw.choice(turns)]
        if kind == "summarize":
            summary = message("user", text_part(f"So far: {self._text()}"))
            return [summary, *messages[turns[-1] + 1 :]]
        at = self._draw.randrange(len(messages))
        parts = messages[at]["content"]
        if kind == "edit":
            parts = [text_part("Other.") if part["type"] == "text" else part for part in parts]
        else:
            parts = [part for part in parts if part["type"] != "reasoning"] or [text_part("")]
        return [*messages[:at], {**messages[at], "content": parts}, *messages[at + 1 :]]


def calls_of(response: Message) -> list[Mapping[str, Any]]:
    return [part["toolCallRequest"] for part in response["content"] if part["type"] == "toolCallRequest"]


def written(parts: Sequence[Mapping[str, Any]]) -> str:
    """Return parts as a model wrote them, without its calls."""
    return "".join(
        f"{part.get('startTag', '')}{part['text']}{part.get('endTag', '')}"
        for part in parts
        if part["type"] in {"text", "reasoning"}
    )


# What is expected -----------------------------------------------------------------------------------------------------


def is_whole(part: Mapping[str, Any]) -> bool:
    """Whether a part is a thought that was not cut off."""
    return part["type"] == "reasoning" and bool(part["endTag"] or not part["startTag"])


def last_user(messages: Messages) -> int:
    return max(at for at, each in enumerate(messages) if each["role"] == "user")


def expected(case: Case, response: Message, *, is_current: bool) -> str:
    """Return the text of a response as it is sent."""
    place = "answer" if not calls_of(response) else "running_call" if is_current else "call"
    parts = response["content"]
    if not case.sends(place):
        return written([part for part in parts if part["type"] != "reasoning"])
    texts = [part for part in parts if is_whole(part) or part["type"] == "text"]
    if case.template.bare:
        gap = "\n\n" if any(part["type"] == "text" for part in parts) else ""
        return "".join(part["text"] if part["type"] == "text" else f"{part['text'].strip()}{gap}" for part in texts)
    start, end = case.template.parsing
    return written(
        [
            {**part, "startTag": start, "endTag": end}
            if part["type"] == "reasoning" and (part["startTag"].strip(), part["endTag"].strip()) != (start, end)
            else part
            for part in texts
        ]
    )


def is_rewritten(case: Case, response: Message, *, was_there: bool) -> bool:
    """Whether a template shows a response otherwise once its turn is over.

    Args:
        case: The template.
        response: The response.
        was_there: Whether it was in the earlier prompt already.
    """
    if case.outcomes.call == case.outcomes.running_call:
        return False
    if case.template.opens:  # a block of thoughts in the running turn only, which even the prompt begins
        return True
    has_thought = any(is_whole(part) for part in response["content"])
    # The text beside a call is a thought to a template that reads bare ones.
    has_text = bool(case.template.bare) and any(part["type"] == "text" for part in response["content"])
    return was_there and (has_thought or has_text)


def generated(case: Case, response: Message, *, is_current: bool) -> str:
    """Return what the model wrote as a response, if a prompt can go on with it, else nothing.

    It can if the template shows its thought where and as the model wrote it. A template that reads bare thoughts puts
    the text beside a call into them, and what is sent of two thoughts, or of another model, is no text of this model.
    """
    calls, parts = calls_of(response), response["content"]
    place = "answer" if not calls else "running_call" if is_current else "call"
    outcome = getattr(case.outcomes, place)
    thoughts = [part["text"].strip() for part in parts if part["type"] == "reasoning"]
    text = "".join(part["text"] for part in parts if part["type"] == "text").lstrip("\n")
    is_shown = case.sends(place) and outcome != "stripped" and not (case.template.bare and text)
    if not is_shown or len(thoughts) != 1 or written(parts) != f"{case.template.tag(thoughts[0])}{text}":
        return ""
    return case.template.write(thoughts[0], text, *((call["name"], call["arguments"]) for call in calls))


# The test -------------------------------------------------------------------------------------------------------------

IN_FAST_TIER = CONVERSATIONS // len(CASES) + 1


@pytest.mark.parametrize("name", CASES)
def test_what_is_sent_is_what_was_written_and_each_prompt_begins_with_the_one_before(name: str) -> None:
    check(CASES[name], range(IN_FAST_TIER))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", CASES)
def test_the_same_holds_in_500_conversations_of_each_template(name: str) -> None:
    check(CASES[name], range(IN_FAST_TIER, CONVERSATIONS))


def check(case: Case, seeds: range) -> None:
    """Have conversations and check what is sent in them."""
    server, went_on = Server(case), 0
    found: Any = server
    for seed in seeds:
        instance = Instance("m")
        earlier: list[tuple[Messages, str]] = []
        for messages in Writer(case.template, seed).conversations():
            sent = run(sent_messages(found, instance, messages, DEFAULT_REASONING, OWN_TEMPLATE)).messages
            check_sent(case, messages, sent)
            prompt = server.render(sent)
            check_thoughts_are_whole(messages, prompt)
            for before, shown in earlier:
                if messages[: len(before)] == before:
                    went_on += check_beginning(case, prompt, messages, shown, before)
            earlier.append((messages, prompt))
        replay = run(replay_of(found, instance))
        assert [*replay.sent_by_place.values()] == [case.sends(place) for place in ("running_call", "call", "answer")]
    # Where no thought is shown, no prompt goes on with one.
    assert bool(went_on) == bool({"kept", "copied"} & {case.outcomes.running_call, case.outcomes.call})


def check_sent(case: Case, messages: Messages, sent: Sequence[Message]) -> None:
    """Check that of each response, as much is sent as the template takes, as it was written, and all else as it is."""
    current = last_user(messages)
    for at, (own, each) in enumerate(zip(sent, messages, strict=True)):
        if each["role"] == "assistant":
            assert written(own["content"]) == expected(case, each, is_current=at > current)
            assert calls_of(own) == calls_of(each)
        else:
            assert own == each


def check_thoughts_are_whole(messages: Messages, prompt: str) -> None:
    """Check that a prompt has each thought as a whole, or nothing of it."""
    for part in (part for each in messages for part in each["content"] if part["type"] == "reasoning"):
        thought = part["text"].strip()
        if f"{thought.partition(':')[0]}:" in prompt:
            assert is_whole(part)
            assert prompt.count(thought) == 1


def check_beginning(case: Case, prompt: str, messages: Messages, shown: str, before: Messages) -> bool:
    """Check that a prompt begins with an earlier one of the conversation, unless the template shows it otherwise now.

    Returns:
        Whether it also has the thought that the model wrote then, byte for byte.
    """
    start, current = last_user(before), last_user(messages)
    over = [(at, each) for at, each in enumerate(messages[:current]) if at > start and each["role"] == "assistant"]
    if any(is_rewritten(case, each, was_there=at < len(before)) for at, each in over):
        assert not prompt.startswith(shown)
        return False
    written_then = generated(case, messages[len(before)], is_current=len(before) > current)
    assert prompt.startswith(f"{shown}{written_then}")
    return bool(written_then)
