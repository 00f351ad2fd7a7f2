"""The rules of a scripted model that is good at each row of the card; the others need none."""

import json
import re
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmstudio_integrations.client.certify.tools import Request

Rule = dict[str, Any]


def _filled(schema: dict[str, Any], needed: Any) -> Any:
    """Return a value of a schema that has what is needed."""
    if schema["type"] == "object":
        return {name: _filled(each, (needed or {}).get(name)) for name, each in schema["properties"].items()}
    if schema["type"] == "array":
        return [_filled(schema["items"], each) for each in needed]
    if needed is None:
        return "text" if schema["type"] == "string" else 1
    return needed


def calls_of(request: "Request") -> list[Rule]:
    """Return the steps that make the calls of a request."""
    from lmstudio_integrations.client.certify.tools import DEFINITIONS

    parameters = {each["function"]["name"]: each["function"]["parameters"] for each in DEFINITIONS}
    return [
        {"tool": name, "arguments": _filled(parameters[name], dict(arguments))} for name, arguments in request.calls
    ]


@cache
def tools() -> tuple[Rule, ...]:
    """Return the rules of a model that calls tools. The row, like its answers, needs another leaf."""
    from lmstudio_integrations.client.certify.tools import REQUESTS

    return tuple(map(_rule_of, REQUESTS))


def _rule_of(request: "Request") -> Rule:
    last, role = (request.prompt, "user") if request.made is None else (request.made[2], "tool")
    then = calls_of(request) or [{"text": f"{request.says} is what I can say."}]
    return {"when": {"last": f"(^|\\. ){re.escape(last)}", "role": role}, "then": then}


def calling(change: Callable[[Rule], list[Rule]]) -> tuple[Rule, ...]:
    """Return these rules with other steps in the place of each tool call."""
    return tuple(
        {**rule, "then": [new for step in rule["then"] for new in (change(step) if "tool" in step else [step])]}
        for rule in tools()
    )


def as_text(step: Rule) -> list[Rule]:
    """Return a call that is left in the text."""
    return [{"text": f"<tool_call>{json.dumps({'name': step['tool'], 'arguments': step['arguments']})}</tool_call>"}]


def with_texts(step: Rule) -> list[Rule]:
    """Return a call whose numbers are texts."""
    texts = {name: str(value) if isinstance(value, int) else value for name, value in step["arguments"].items()}
    return [{**step, "arguments": texts}]


LONG_THOUGHT = "Let me think. " * 20
REASONING: tuple[Rule, ...] = (
    {
        "when": {"last": "(A farmer has|Which number is larger|Tom is older|A train leaves)"},
        "then": [{"reasoning": LONG_THOUGHT}, {"text": "9"}],
    },
)
SPEED: tuple[Rule, ...] = (
    {"when": {"last": "^Write a long story about these things"}, "then": [{"text": "Once upon a time, " * 20}]},
)
HONESTY: tuple[Rule, ...] = (
    {
        "when": {"last": "A text"},
        "then": [
            {"text": " seven quick wizards quote old physics books while a lazy fox jumps over my brown dog at night"}
        ],
    },
)
"""Its text has nothing that a penalty could keep it from repeating."""

VISION: tuple[Rule, ...] = tuple(
    {"when": {"last": rf"Image {number}\.", "image": True}, "then": [{"text": f"{color}."}]}
    for number, color in enumerate(("Red", "Green", "Blue", "Yellow"), 1)
)


TEAMS = ("billing", "support", "sales")


def decisions(wrong: int = 0) -> list[Rule]:
    """Return the rules of a model that decides; its first answers may be wrong."""
    from lmstudio_integrations.client.certify.decisions import MESSAGES

    made: list[Rule] = []
    for number, (message, team, is_complaint) in enumerate(MESSAGES):
        answer = TEAMS[(TEAMS.index(team) + (number < wrong)) % 3]
        for letter in "ABC":
            shares = {each: 0.9 if each == letter else 0.05 for each in "ABC"}
            last = f"{message}(.|\\n)*{letter}\\. {answer}"
            made.append({"when": {"last": last}, "then": [{"probabilities": shares}]})
        yes = 0.8 if is_complaint != (number < wrong) else 0.3
        last = f"{message}(.|\\n)*complaint"
        made.append({"when": {"last": last}, "then": [{"probabilities": {"yes": yes, "no": 1 - yes}}]})
    return made
