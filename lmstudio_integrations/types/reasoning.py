"""What a model thought before it responded, as conversations keep it, and what a chat template does with it."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self, TypeAlias, get_args

from lmstudio_integrations._support.typeguards import is_mapping
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._wire_model import TaggedModel

SendReasoning: TypeAlias = Literal["auto", "always", "turn"] | bool
"""Which earlier thoughts go back to the model; `True` means `always`."""

_MODES: tuple[Literal["auto", "always", "turn"], ...] = ("auto", "always", "turn")

Treatment: TypeAlias = Literal["kept", "stripped", "copied", "misplaced", "rejected"]
"""What a template does with a thought: it shows it as one, or omits it; copies it as it copies any text; shows it in a
wrong place, for example after an empty thought of its own, in the place of a call, or in the last message only; or
rejects the conversation."""

WORST_FIRST: tuple[Treatment, ...] = ("rejected", "misplaced", "copied", "stripped", "kept")


class ReasoningOptions(NamedTuple):
    """What a user has set about earlier thoughts.

    Attributes:
        send: Which of them go back to the model.
        keep: Whether the template is made to keep those of all turns.
    """

    send: SendReasoning = "auto"
    keep: bool = False

    @classmethod
    def of(cls, send_reasoning: object, keep_reasoning: bool) -> Self:  # noqa: FBT001 - the value of a setting
        """Return the options of these names.

        Raises:
            LMStudioValueError: If there is no such value, or one contradicts the other.
        """
        if not (isinstance(send_reasoning, bool) or send_reasoning in _MODES):
            modes = ", ".join(map(repr, _MODES))
            raise LMStudioValueError(f"send_reasoning must be {modes}, True or False; got {send_reasoning!r}")
        if keep_reasoning and send_reasoning in {False, "turn"}:
            raise LMStudioValueError(
                f"keep_reasoning=True contradicts send_reasoning={send_reasoning!r}, which omits the reasoning of "
                "earlier turns; omit one of them"
            )
        return cls(send_reasoning, keep_reasoning)


DEFAULT_REASONING = ReasoningOptions()

ReasoningEffort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
EFFORTS: tuple[str, ...] = get_args(ReasoningEffort)
"""From the least to the most."""


class RequestedEffort(NamedTuple):
    """How much a model is asked to reason.

    Attributes:
        requested: The effort.
        key: The model's key, if it is known.
        sent: What is sent for it, as the server calls it: `on`, `off` or a level; `None` if nothing can be sent.
        warn: Called with the reason if the effort has no effect; only the first call warns.
    """

    requested: str
    key: str | None
    sent: str | None
    warn: Callable[[str], None]


class Tags(NamedTuple):
    """The tags around a thought, without white space."""

    start: str
    end: str

    @classmethod
    def of(cls, start: object, end: object) -> Self:
        """Return the tags of what stands around a thought; what is missing is empty."""
        return cls(str(start or "").strip(), str(end or "").strip())


USUAL_TAGS = (
    Tags("<think>", "</think>"),
    Tags("[THINK]", "[/THINK]"),
    Tags("<|channel>thought", "<channel|>"),
    Tags("<seed:think>", "</seed:think>"),
    Tags("<|START_THINKING|>", "<|END_THINKING|>"),
    Tags("<|think:start|>", "<|think:end|>"),
    Tags("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    Tags("<thinking>", "</thinking>"),
    Tags("<mm:think>", "</mm:think>"),
    *(Tags(f"<ifm|{each}>", f"</ifm|{each}>") for each in ("think", "think_fast", "think_faster")),
    Tags("<|plamo:begin_think:plamo|>", "<|plamo:end_think:plamo|>"),
)
"""Those that models write; the corpus of outputs has each of them."""


@dataclass(frozen=True, slots=True)
class Thought:
    """What a model wrote between its tags.

    Attributes:
        text: The thought, without its tags.
        start_tag: What opens it, as the model wrote it; empty if the model did not.
        end_tag: What closes it, with the white space that the server reports as markup; empty if it was cut off.
        at: How many characters of the response stand before it.
    """

    text: str
    start_tag: str = ""
    end_tag: str = ""
    at: int = 0

    @property
    def tags(self) -> Tags:
        """Its tags, without white space."""
        return Tags.of(self.start_tag, self.end_tag)


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


class ReasoningPart(TaggedModel):
    """A thought in an assistant message. It is not sent like this: each request sends it as text, or omits it.

    Attributes:
        text: The thought, without its tags.
        start_tag: What opens it; without any tag, it gets those of the model that it is sent to.
        end_tag: What closes it; a thought that has only a start tag was cut off, as was one without tags that ends a
            message.
    """

    type: Literal["reasoning"] = "reasoning"
    text: str
    start_tag: str = ""
    end_tag: str = ""


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
        return {self.current_call, self.earlier_call, self.answer} == {"kept"}

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

        def now(place: str) -> Treatment:
            treatment = self.by_place[place]
            return (
                "kept" if treatment == "copied" and before.by_place[place] not in {"copied", "rejected"} else treatment
            )

        return ReasoningReplay(now("current_call"), now("earlier_call"), now("answer"), is_bare=self.is_bare)


REJECTED_REASONING = ReasoningReplay("rejected", "rejected", "rejected")
"""What is known of a template that rejects conversations with thoughts."""


def with_thoughts(text: str, thoughts: Sequence[Thought]) -> list[str | ReasoningPart]:
    """Return a response as texts and thoughts, in their order."""
    parts: list[str | ReasoningPart] = []
    done = 0
    for thought in thoughts:
        if thought.at > done:
            parts.append(text[done : thought.at])
            done = thought.at
        parts.append(ReasoningPart(text=thought.text, start_tag=thought.start_tag, end_tag=thought.end_tag))
    return [*parts, text[done:]] if text[done:] or not parts else parts
