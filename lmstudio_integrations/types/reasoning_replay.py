"""What a chat template does with thoughts of earlier messages, and lines before it that move them into a field."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lmstudio_integrations._support.typeguards import is_mapping
from lmstudio_integrations.types.reasoning import Tags, Treatment


@dataclass(frozen=True, slots=True)
class ReasoningReplay:
    """What the chat template of a model does with thoughts of earlier messages.

    Attributes:
        current_call: What it does with a thought before a tool call since the last user message.
        earlier_call: What it does with one before a tool call of an earlier turn.
        answer: What it does with one before an answer without calls.
        is_bare: Whether the template reads the text beside a call as the thought, without tags.
    """

    current_call: Treatment
    earlier_call: Treatment
    answer: Treatment
    is_bare: bool = False

    @property
    def keeps_all(self) -> bool:
        """Whether it shows a thought in each place."""
        return {*self.by_place.values()} == {"kept"}

    @property
    def keeps_turn(self) -> bool:
        """Whether it shows a thought in the current turn, and shows or omits those before."""
        return self.current_call == "kept" and {self.earlier_call, self.answer} <= {"kept", "stripped"}

    @property
    def by_place(self) -> dict[str, Treatment]:
        """What it does in each place, by the names of the attributes."""
        return {"current_call": self.current_call, "earlier_call": self.earlier_call, "answer": self.answer}

    @property
    def sent_by_place(self) -> dict[str, bool]:
        """Whether `auto` sends the thoughts in each place, by the same names.

        What a template copies is sent before calls, which a model should understand, and not before answers.
        """
        return {
            place: treatment in {"kept", "stripped"} or (treatment == "copied" and place != "answer")
            for place, treatment in self.by_place.items()
        }

    def switched(self, before: "ReasoningReplay") -> "ReasoningReplay":
        """Return what it does with its switch set: what only that makes it copy, it keeps.

        Args:
            before: What it does without.
        """
        were_known = {place for place, treatment in before.by_place.items() if treatment not in {"copied", "rejected"}}
        copied = {place for place, treatment in self.by_place.items() if treatment == "copied"}
        kept: dict[str, Any] = dict.fromkeys(were_known & copied, "kept")
        return replace(self, **kept)


REJECTS = ReasoningReplay("rejected", "rejected", "rejected")
"""What a template does that rejects conversations with thoughts."""


THOUGHT_FIELD = "reasoning_content"
"""The field of a message from which most templates read a thought, if they read one from a field."""

_MOVE_THOUGHTS = r"""
{%- set moved = namespace(messages=[], thought='', text='') -%}
{%- for message in messages -%}
{%- if message.role == 'assistant' and message.content is string and thought_tags[1] in message.content -%}
{%- set moved.thought = '' -%}{%- set moved.text = '' -%}
{%- for piece in message.content.split(thought_tags[0]) -%}
{%- if not loop.first and thought_tags[1] in piece -%}
{%- set halves = piece.split(thought_tags[1]) -%}
{%- set thought = halves[0].strip('\n') -%}
{%- set rest = halves[1:] | join(thought_tags[1]) -%}
{%- set moved.thought = moved.thought + ('\n\n' if moved.thought else '') + thought -%}
{%- set moved.text = moved.text + (rest if moved.text else rest.lstrip('\n')) -%}
{%- else -%}{%- set moved.text = moved.text + piece -%}{%- endif -%}
{%- endfor -%}
{%- set one = {'role': 'assistant', 'content': moved.text, 'reasoning_content': moved.thought} -%}
{%- if message.tool_calls -%}
{%- set one = {'role': 'assistant', 'content': moved.text, 'reasoning_content': moved.thought,
'tool_calls': message.tool_calls} -%}
{%- endif -%}
{%- set moved.messages = moved.messages + [one] -%}
{%- else -%}{%- set moved.messages = moved.messages + [message] -%}{%- endif -%}
{%- endfor -%}
{%- set messages = moved.messages %}
""".strip().replace("\n", " ")


_TAGS_LINE = r"\{%- set thought_tags = (\[.*?\]) -%\} "


def move_thoughts(tags: Tags) -> str:
    """Return the lines of Jinja before a chat template that move thoughts from texts into a field of their own.

    They write nothing. They omit line feeds around a thought, since such templates write their own.
    """
    return f"{{%- set thought_tags = {json.dumps([*tags], ensure_ascii=False)} -%}} {_MOVE_THOUGHTS}"


def split_moved(template: str) -> tuple[Tags | None, str]:
    """Return the tags of such lines at the beginning of a template, if there are any, and what follows them."""
    found = re.match(_TAGS_LINE, template)
    if found is None or not template.startswith(_MOVE_THOUGHTS, found.end()):
        return None, template
    return Tags(*json.loads(found[1])), template[found.end() + len(_MOVE_THOUGHTS) :]


def moves_thoughts(prompt_template: Mapping[str, Any] | None) -> bool:
    """Whether a setting has a template that begins with such lines."""
    jinja = (prompt_template or {}).get("jinjaPromptTemplate")
    return is_mapping(jinja) and split_moved(str(jinja.get("template")))[0] is not None
