"""Chat templates that treat the reasoning of earlier messages differently, and what each does with it.

Each file is a short Jinja template for the roles system, user, assistant and tool, with tools, calls and results.
`TEMPLATES` names them all, and models whose templates do the same; `renderer` makes prompts without an engine.
`Template.write` is a response as a model of that template writes it, and `grammar_of` the setting that makes any model
write it: with it, the model of `recurrent_model.py`, which knows nothing, has conversations.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import jinja2

Outcome: TypeAlias = Literal["kept", "stripped", "copied", "misplaced", "rejected"]
"""What happens to reasoning that is sent in the text of a message. *kept*: it is reasoning in the prompt, too.
*stripped*: the template drops it. *copied*: it stays in the text, as any text. *misplaced*: so too, but behind an empty
block of the template's own. *rejected*: the template raises an error."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What a template does with reasoning in each place.

    Attributes:
        call: Beside a call in a finished turn.
        answer: In the answer of a finished turn.
        running_call: Beside a call in the running turn.
    """

    call: Outcome
    answer: Outcome
    running_call: Outcome


@dataclass(frozen=True, slots=True)
class Template:
    """A chat template, and how it treats reasoning.

    Attributes:
        name: The name of its file.
        like: A model whose template does the same.
        tagged: What it does with reasoning between its tags.
        start_tag: What a model writes before its reasoning, with white space.
        end_tag: The same after it.
        parsing: The tags without white space.
        opens: Whether the start tag is at the end of the prompt, so that the model does not write it.
        bare: What it does with reasoning without tags; `None` if that is a text like any other.
        switch: A variable of the template and the value with which it keeps more; `None` if there is none.
        switched: What it does with reasoning between its tags then.
    """

    name: str
    like: str
    tagged: Outcomes
    start_tag: str = "<think>\n"
    end_tag: str = "\n</think>\n\n"
    parsing: tuple[str, str] = ("<think>", "</think>")
    opens: bool = False
    bare: Outcomes | None = None
    switch: tuple[str, bool] | None = None
    switched: Outcomes | None = None

    @property
    def source(self) -> str:
        """The text of its file."""
        return (Path(__file__).parent / f"{self.name}.jinja").read_text(encoding="utf-8")

    @property
    def switched_source(self) -> str:
        """The same behind a line that sets the switch, as a prediction may send it."""
        name, value = self.switch or ("unknown", True)
        return f"{{%- set {name} = {str(value).lower()} %}}\n{self.source}"

    @property
    def load_fields(self) -> Json:
        """The setting that loads a model with this template, by its wire key."""
        return {"llm.load.promptTemplate": {"type": "jinja", "jinjaPromptTemplate": {"template": self.source}}}

    @property
    def prediction_fields(self) -> Json:
        """The setting of a prediction that names its tags, by its wire key."""
        start, end = self.parsing
        return {"llm.prediction.reasoning.parsing": {"enabled": True, "startString": start, "endString": end}}

    def tag(self, reasoning: str) -> str:
        """Return reasoning between the tags."""
        return f"{self.start_tag}{reasoning}{self.end_tag}"

    def write(self, reasoning: str, text: str = "", *calls: tuple[str, Mapping[str, Any]]) -> str:
        """Return what a model of this template generates: just what the next prompt has if reasoning is kept."""
        generated = self.tag(reasoning).removeprefix(self.start_tag if self.opens else "")
        return "".join([generated, text, *(_write_call(name, arguments) for name, arguments in calls)])


def _write_call(name: str, arguments: Mapping[str, Any]) -> str:
    call = json.dumps({"name": name, "arguments": dict(arguments)}, ensure_ascii=False)
    return f"<tool_call>\n{call}\n</tool_call>"


def grammar_of(text: str) -> Json:
    """Return the setting of a prediction that makes a model write just this text, by its wire key."""
    grammar = f"root ::= {json.dumps(text, ensure_ascii=False)}"
    return {"llm.prediction.structured": {"type": "gbnf", "gbnfGrammar": grammar}}


def renderer(source: str) -> Callable[[Sequence[Mapping[str, Any]]], str]:
    """Return what makes a prompt of messages in wire form, as the engine does, under a template without tools.

    A template that rejects a conversation raises `jinja2.TemplateError`.
    """

    def reject(text: str) -> None:
        raise jinja2.TemplateError(text)

    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    environment.globals["raise_exception"] = reject
    template = environment.from_string(source)

    def render(messages: Sequence[Mapping[str, Any]]) -> str:
        shown = [each for message in messages for each in _shown(message)]
        return template.render(messages=shown, add_generation_prompt=True)

    return render


def _shown(message: Mapping[str, Any]) -> Iterator[Json]:
    """Yield a message in wire form as templates read it."""
    role, parts = message["role"], message["content"]
    if role == "tool":
        yield from ({"role": role, "content": part["content"]} for part in parts)
        return
    text = "".join(part["text"] for part in parts if part["type"] == "text")
    calls = [{"function": part["toolCallRequest"]} for part in parts if part["type"] == "toolCallRequest"]
    yield {"role": role, "content": text} | ({"tool_calls": calls} if calls else {})


_IN_RUNNING_TURN = Outcomes("stripped", "stripped", "kept")
_KEPT = Outcomes("kept", "kept", "kept")
_STRIPPED = Outcomes("stripped", "stripped", "stripped")
_COPIED = Outcomes("copied", "copied", "copied")
_MISPLACED = Outcomes("misplaced", "misplaced", "misplaced")
_REJECTED = Outcomes("rejected", "rejected", "rejected")

_ALL = (
    Template("keeps_running_turn", "Qwen3", _IN_RUNNING_TURN),
    Template("opens_reasoning", "Qwen3.5", _IN_RUNNING_TURN, opens=True),
    Template(
        "preserves_on_request",
        "Qwen3.6",
        _IN_RUNNING_TURN,
        opens=True,
        switch=("preserve_thinking", True),
        switched=_KEPT,
    ),
    Template("reads_field_only", "Qwen3.8, Kimi K2", _MISPLACED, opens=True),
    Template(
        "bare_beside_calls",
        "gpt-oss",
        _REJECTED,
        start_tag="<|analysis|>",
        end_tag="<|final|>",
        parsing=("<|analysis|>", "<|final|>"),
        bare=Outcomes("stripped", "copied", "kept"),
    ),
    Template(
        "strips_always",
        "Gemma 4",
        _STRIPPED,
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
    Template("plain_text", "Gemma 3, which does not reason", _COPIED),
    Template(
        "clears_by_default",
        "GLM 4.7",
        _IN_RUNNING_TURN,
        start_tag="<think>",
        end_tag="</think>\n",
        switch=("clear_thinking", False),
        switched=_KEPT,
    ),
)

TEMPLATES = {template.name: template for template in _ALL}
"""The templates by their names."""
