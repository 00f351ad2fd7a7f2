"""What a model thought before it responded, as conversations keep it, and what a chat template does with it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self, TypeAlias, get_args

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

REJECTED_REASONING: Mapping[str, Treatment] = dict.fromkeys(("current_call", "earlier_call", "answer"), "rejected")
"""What is known of a template that rejects conversations with thoughts: in each place of `ReasoningReplay`."""


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
