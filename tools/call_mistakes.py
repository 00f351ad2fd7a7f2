"""The mistakes of models in tool calls, for `fifty_turns.py`: calls that do not fit, or are left in the text."""

import json
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, NamedTuple


class Written(NamedTuple):
    """A call as a model writes it.

    Attributes:
        tool: The name of the tool.
        arguments: The arguments.
        malformed: What it writes in place of the arguments, if that cannot be parsed.
    """

    tool: str
    arguments: Mapping[str, Any]
    malformed: str | None = None

    def step(self) -> dict[str, Any]:
        """Return the step of a rule with which a server parses the call, or fails to."""
        return {"tool": self.tool, "arguments": dict(self.arguments), "malformed": self.malformed}

    def body(self) -> str:
        """Return the arguments as text."""
        return self.malformed or json.dumps(self.arguments, ensure_ascii=False)


UNKNOWN = "do_it"
"""A tool that nobody offers."""

_Mistake = Callable[[Random, Written], Written | None]
"""Makes a mistake in a call that fits; `None` if the call gives no occasion for it."""


def _argument_name(chance: Random, call: Written) -> Written:
    name = chance.choice(list(call.arguments))
    first, *others = name.split("_")
    wrong = chance.choice([first + "".join(map(str.title, others)), f"the_{name}", f"{name}s", "payload"])
    return call._replace(arguments={wrong if key == name else key: value for key, value in call.arguments.items()})


def _tool_name(chance: Random, call: Written) -> Written:
    first, *others = call.tool.split("_")
    camel = first + "".join(map(str.title, others))
    return call._replace(tool=chance.choice([camel, f"functions.{call.tool}", call.tool.upper(), UNKNOWN]))


def _missing(chance: Random, call: Written) -> Written:
    name = chance.choice(list(call.arguments))
    return call._replace(arguments={key: value for key, value in call.arguments.items() if key != name})


def _wrapped(_: Random, call: Written) -> Written:
    return call._replace(arguments={"arguments": call.arguments})


def _of_one(is_meant: Callable[[Any], bool], change: Callable[[Random, Any], Any]) -> _Mistake:
    """Return the mistake that changes one argument."""

    def mistake(chance: Random, call: Written) -> Written | None:
        names = [name for name, value in call.arguments.items() if is_meant(value)]
        if not names:
            return None
        name = chance.choice(names)
        return call._replace(arguments={**call.arguments, name: change(chance, call.arguments[name])})

    return mistake


def _bracket(_: Random, call: Written) -> Written:
    return call._replace(malformed=json.dumps(call.arguments).rstrip("]}"))


def _half_a_string(chance: Random, call: Written) -> Written | None:
    text = json.dumps(call.arguments)
    names = [name for name, value in call.arguments.items() if isinstance(value, str)]
    if not names:
        return None
    begin = text.index(f'"{chance.choice(names)}": "')
    return call._replace(malformed=text[: text.index('": "', begin) + 6])


_WORDS = {"celsius": "C", "fahrenheit": "F", "kelvin": "K"}

_NO_JSON = "no JSON"

MISFITS: dict[str, _Mistake] = {
    "name of an argument": _argument_name,
    "name of the tool": _tool_name,
    "missing argument": _missing,
    "arguments in an argument": _wrapped,
    "string for a number": _of_one(
        lambda value: type(value) is int, lambda chance, value: chance.choice([str(value), f"number {value}"])
    ),
    "JSON in a string": _of_one(lambda value: isinstance(value, list), lambda _, value: json.dumps(value)),
    "another case, or letter": _of_one(
        lambda value: isinstance(value, str) and value in _WORDS,
        lambda chance, value: chance.choice([value.upper(), value.title(), _WORDS[value]]),
    ),
    "list for an item": _of_one(lambda value: not isinstance(value, list), lambda _, value: [value]),
    "item for a list": _of_one(lambda value: isinstance(value, list) and len(value) == 1, lambda _, value: value[0]),
    "missing bracket": _bracket,
    "half a string": _half_a_string,
    _NO_JSON: lambda _, call: call._replace(malformed="entry, please}"),
}
"""What models write in place of arguments that fit, and of the name of a tool."""


def _is_cut_off(call: Written) -> bool:
    return call.malformed is not None and not call.malformed.endswith("}")


def _object(call: Written, key: str = "arguments") -> str:
    return f'{{"name": {json.dumps(call.tool)}, "{key}": {call.body()}' + ("" if call.malformed else "}")


def _xml(call: Written) -> str:
    if call.malformed is not None:
        return f"<tool_call>\n<function={call.tool}>\n<parameter=entry_number>\n{call.arguments['entry_number']}"
    values = {name: each if isinstance(each, str) else json.dumps(each) for name, each in call.arguments.items()}
    parameters = "".join(f"<parameter={name}>\n{value}\n</parameter>\n" for name, value in values.items())
    return f"<tool_call>\n<function={call.tool}>\n{parameters}</function>\n</tool_call>"


def _tagged(call: Written) -> str:
    return f"<tool_call>\n{_object(call)}" + ("" if _is_cut_off(call) else "\n</tool_call>")


FORMATS: dict[str, Callable[[Written], str]] = {
    "<tool_call>": _tagged,
    "Qwen's XML": _xml,
    "Mistral": lambda call: f"[TOOL_CALLS][{_object(call)}" + ("" if call.malformed else "]"),
    "LM Studio": lambda call: f"[TOOL_REQUEST]{_object(call)}" + ("" if _is_cut_off(call) else "[END_TOOL_REQUEST]"),
    "Llama": lambda call: f"<|python_tag|>{_object(call, 'parameters')}",
    "JSON": _object,
    "code block": lambda call: f"```json\n{_object(call)}" + ("" if call.malformed else "\n```"),
}
"""How models leave calls in the text."""


def misfit(chance: Random, call: Written, form: str | None) -> tuple[str, Written]:
    """Return a kind of mistake, and a call with it.

    Args:
        chance: What decides.
        call: The call.
        form: The format in which it is left in the text; `None` if the server parses it. In a text, only what calls an
            offered tool, or one that resembles it, is a call.
    """
    kinds = [kind for kind in MISFITS if form is None or _is_recognized(kind, form)]
    while True:
        kind = chance.choice(kinds)
        written = MISFITS[kind](chance, call)
        if written is not None and written != call and (form is None or written.tool != UNKNOWN):
            return kind, written


def _is_recognized(kind: str, form: str) -> bool:
    """Whether a text with a mistake is a call with a mistake: in XML, every value is a string."""
    if kind == "list for an item":
        return form != "Qwen's XML"
    return kind != _NO_JSON or form in {"<tool_call>", "LM Studio"}
