"""The chat templates of real models: what each does with thoughts is found, and its prompts continue each other."""

from collections.abc import Callable, Mapping
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
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


class Server:
    """A server whose model has a template."""

    def __init__(self, case: Case) -> None:
        self._render = renderer(case.source)
        self._fields = [{"key": key, "value": value} for key, value in case.template.prediction_fields.items()]
        self._instance = Instance("m")

    def call(
        self, _namespace: str, endpoint: str, parameter: Mapping[str, Any], read: Callable[[Any], Any], *, label: str
    ) -> Flow[Any]:
        yield from ()
        if endpoint == "getBasePredictionConfig":
            return read({"fields": self._fields})
        try:
            return read({"formatted": self._render(parameter["history"]["messages"])})
        except jinja2.TemplateError as error:
            raise LMStudioPromptTemplateError(f"{label}: {error}") from None

    def prompt(self, messages: list[Any]) -> str:
        """Return the prompt of a conversation as it is sent."""
        found: Any = self
        return self._render(
            run(sent_messages(found, self._instance, messages, DEFAULT_REASONING, OWN_TEMPLATE)).messages
        )


@each_case
def test_what_it_does_with_thoughts_is_found(case: Case) -> None:
    server: Any = Server(case)
    sent = run(replay_of(server, Instance("m"))).sent_by_place
    assert [*sent.values()] == [case.sends(place) for place in ("running_call", "call", "answer")]


@each_case
def test_a_prompt_begins_with_the_one_before_and_with_what_the_model_wrote(case: Case) -> None:
    server, template = Server(case), case.template
    thought = {"type": "reasoning", "text": "Where?", "startTag": template.start_tag, "endTag": template.end_tag}
    call = {"type": "function", "id": "1", "name": "look", "arguments": {"city": "Rome"}}
    result = {"type": "toolCallResult", "content": "Rain.", "toolCallId": "1", "name": "look"}
    user = {"role": "user", "content": [text_part("</think> <think>Well?</think>")]}
    messages: list[Any] = [user]
    first = server.prompt(messages)
    messages.append({"role": "assistant", "content": [thought, {"type": "toolCallRequest", "toolCallRequest": call}]})
    messages.append({"role": "tool", "content": [result]})
    second = server.prompt(messages)
    is_shown = case.outcomes.running_call in {"kept", "copied"}
    assert second.startswith(first + (template.write("Where?", "", ("look", {"city": "Rome"})) if is_shown else ""))
    messages += [{"role": "assistant", "content": [thought, text_part("It rains.")]}, user]
    if case.outcomes.call == case.outcomes.running_call:
        assert server.prompt(messages).startswith(second)
