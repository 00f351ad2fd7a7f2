"""Chat templates that treat thoughts in different ways, and what each does with them.

Each file is a short Jinja template for the roles system, user, assistant and tool, with tools, calls and results. Some
model families work like each; see `TEMPLATES`. `Template.write` is a response as a model of that template writes it, and
`grammar_of` the setting that makes any model write it, so that a model without knowledge (`tools/recurrent_model.py`)
takes part in a conversation.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

Outcome: TypeAlias = Literal["kept", "stripped", "copied", "misplaced", "rejected"]
"""What happens to a thought that is sent as text: it stays a thought; the template drops it; it stays in the text with
its tags, as any text; it comes after an empty thought of the template's own; the template raises an error."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What a template does with a thought in each place.

    Attributes:
        call: Beside a call in a finished turn.
        answer: In the answer of a finished turn.
        running_call: Beside a call in the turn that runs, before the result of the tool.
    """

    call: Outcome
    answer: Outcome
    running_call: Outcome


@dataclass(frozen=True, slots=True)
class Template:
    """A chat template, and how it treats thoughts.

    Attributes:
        name: The name of its file.
        like: A model whose template does the same.
        sent: What happens to thoughts that are sent between their tags.
        start_tag: What a model writes before a thought, with white space.
        end_tag: The same after it.
        parsing: The tags without white space, as in the setting `reasoning.parsing`.
        opens: Whether the start tag is at the end of the prompt, so that the model does not write it.
        bare: What happens to thoughts that are sent without tags, where that differs from any text.
        switch: The template's variable that keeps the thoughts of all turns, and its value.
        switched: What happens to thoughts between their tags then.
    """

    name: str
    like: str
    sent: Outcomes
    start_tag: str = "<think>\n"
    end_tag: str = "\n</think>\n\n"
    parsing: tuple[str, str] = ("<think>", "</think>")
    opens: bool = False
    bare: Outcomes | None = None
    switch: tuple[str, bool] | None = None
    switched: Outcomes | None = None

    @property
    def path(self) -> Path:
        """Its file."""
        return Path(__file__).parent / f"{self.name}.jinja"

    @property
    def source(self) -> str:
        """Its text."""
        return self.path.read_text(encoding="utf-8")

    @property
    def load_fields(self) -> Json:
        """The setting with which any model is loaded with this template, by its wire key."""
        return {"llm.load.promptTemplate": {"type": "jinja", "jinjaPromptTemplate": {"template": self.source}}}

    @property
    def fields(self) -> Json:
        """The tags as a setting of a prediction, by its wire key."""
        start, end = self.parsing
        return {"llm.prediction.reasoning.parsing": {"enabled": True, "startString": start, "endString": end}}

    def write(self, thought: str | None, text: str = "", *calls: tuple[str, Mapping[str, Any]]) -> str:
        """Return a response as a model of this template writes it: to the byte what the template makes of it again."""
        start = "" if self.opens else self.start_tag
        before = "" if thought is None else f"{start}{thought}{self.end_tag}"
        return "".join([before, text, *(_write_call(name, arguments) for name, arguments in calls)])


def _write_call(name: str, arguments: Mapping[str, Any]) -> str:
    call = json.dumps({"name": name, "arguments": dict(arguments)}, ensure_ascii=False)
    return f"<tool_call>\n{call}\n</tool_call>"


def grammar_of(text: str) -> Json:
    """Return the setting that makes a model write just this text, by its wire key."""
    grammar = f"root ::= {json.dumps(text, ensure_ascii=False)}"
    return {"llm.prediction.structured": {"type": "gbnf", "gbnfGrammar": grammar}}


_ALL_KEPT = Outcomes("kept", "kept", "kept")
_OF_RUNNING_TURN = Outcomes("stripped", "stripped", "kept")
_ALL_STRIPPED = Outcomes("stripped", "stripped", "stripped")
_ALL_COPIED = Outcomes("copied", "copied", "copied")
_ALL_MISPLACED = Outcomes("misplaced", "misplaced", "misplaced")
_ALL_REJECTED = Outcomes("rejected", "rejected", "rejected")

TEMPLATES = {
    template.name: template
    for template in (
        Template("keeps_running_turn", "Qwen3", _OF_RUNNING_TURN),
        Template("opens_thought", "Qwen3.5", _OF_RUNNING_TURN, opens=True),
        Template(
            "preserves_on_request",
            "Qwen3.6",
            _OF_RUNNING_TURN,
            opens=True,
            switch=("preserve_thinking", True),
            switched=_ALL_KEPT,
        ),
        Template("reads_field_only", "Qwen3.8, Kimi K2", _ALL_MISPLACED, opens=True),
        Template(
            "bare_beside_calls",
            "gpt-oss",
            _ALL_REJECTED,
            start_tag="<|analysis|>",
            end_tag="<|final|>",
            parsing=("<|analysis|>", "<|final|>"),
            bare=Outcomes("stripped", "copied", "kept"),
        ),
        Template(
            "strips_always",
            "Gemma 4",
            _ALL_STRIPPED,
            start_tag="<|channel>thought\n",
            end_tag="\n<channel|>",
            parsing=("<|channel>thought", "<channel|>"),
        ),
        Template(
            "drops_except_calls",
            "DeepSeek V3.1",
            Outcomes("copied", "stripped", "copied"),
            start_tag="<think>",
            end_tag="</think>",
        ),
        Template("plain_text", "a model without thoughts", _ALL_COPIED),
        Template(
            "clears_by_default",
            "GLM 4.7",
            _OF_RUNNING_TURN,
            start_tag="<think>",
            end_tag="</think>\n",
            switch=("clear_thinking", False),
            switched=_ALL_KEPT,
        ),
    )
}
"""The templates by their names."""
