"""How models mark tool calls: a table of the families; and the tools that a request offers, which calls must fit.

What stands between the markers is read by `call_parser.py`. Models also use each other's markers, and servers drop some
of them. So any body may follow on any marker.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, NamedTuple

from lmstudio_integrations._support.text import dumps
from lmstudio_integrations._support.threads import BoundedCache
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.client.predictions.calls_in_text.lenient_json import (
    MAX_DEPTH,
    CutOffError,
    NoCallError,
    TextCursor,
    read_value,
)
from lmstudio_integrations.types._json_schemas import ArgumentSchema, Misfit
from lmstudio_integrations.types.reasoning import USUAL_TAGS

_NAMESPACES = ("functions.", "tools.", "default_api.")
"""What models put before the name of a tool."""

WRAPPERS = frozenset({"call", "function", "print", "tool"})
"""What may stand before the name of a tool, and be taken for one."""

BARE = "call:"
"""What Gemma writes before the name of a tool, and what is left where a server drops its markers."""

_UNSAFE = re.compile(r"[^\w-]")

_OF_ALL_TYPES: tuple[Any, ...] = (None, True, 0, [], {})

_schemas: BoundedCache[tuple[str, str], ArgumentSchema] = BoundedCache(128)
"""The last schemas by tool and text: it takes longer to make one than to check arguments."""


class OfferedTool:
    """One tool.

    Args:
        function: The `function` of its definition in wire form (`docs/protocol.md#tool-definitions`).
    """

    def __init__(self, function: Mapping[str, Any]) -> None:
        self.name: str = function["name"]
        parameters = function.get("parameters")
        self.schema: Mapping[str, Any] = parameters if is_object(parameters) else {}
        properties = self.schema.get("properties")
        self.parameters: Mapping[str, Any] = properties if is_object(properties) else {}

    def with_name(self, name: str) -> "OfferedTool":
        """Return the tool under another name."""
        return OfferedTool({"name": name, "parameters": self.schema})

    def problem(self, arguments: Mapping[str, Any], *, only_known: bool = False) -> str | None:
        """Return why arguments do not fit; `None` if they do.

        Args:
            arguments: The arguments.
            only_known: Whether arguments that the schema allows and does not name are a problem, too.

        Raises:
            NoCallError: If it cannot be known, because the schema cannot be used.
        """
        unknown = arguments.keys() - self.parameters.keys() if only_known else ()
        if unknown:
            return f"unknown arguments: {', '.join(sorted(unknown))}"
        return "; ".join(self._problems(arguments)) or None

    def fitting(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments with the values that strings stand for where only those fit, such as numbers."""
        return {
            name: self._fitting(name, value) if isinstance(value, str) else value for name, value in arguments.items()
        }

    def value_of(self, name: str, text: str, *, is_string: bool | None = None) -> Any:
        """Return what a text between the tags of an argument stands for, if that may be a string or something else.

        Chat templates write strings as they are, and everything else as JSON.

        Args:
            name: The argument.
            text: The text.
            is_string: What the tag says; `None` if it says nothing.
        """
        part = self.parameters.get(name)
        if is_string or not is_object(part) or (is_string is None and part.get("type") == "string"):
            return text
        with suppress(ValueError, RecursionError, NoCallError):
            value = json.loads(text)
            if (is_string is False or self._is_typed(part, value, text)) and self.accepts(value, part):
                return value
        return text

    def _is_typed(self, part: Mapping[str, Any], value: Any, text: str) -> bool:
        """Whether a text is JSON of no string, and the schema says which types are allowed."""
        if isinstance(value, str) or (isinstance(value, int | float) and json.dumps(value) != text.strip()):
            return False  # 3.10 is another version than 3.1
        return not all(self.accepts(each, part) for each in _OF_ALL_TYPES)

    def _fitting(self, name: str, text: str) -> Any:
        for value in _readings_of(text):
            if not any(each.startswith((f"{name}:", f"{name}.")) for each in self._problems({name: value})):
                return value
        return text

    def misfits(self, arguments: dict[str, Any]) -> list[Misfit]:
        """Return which values in arguments do not fit.

        Raises:
            NoCallError: If it cannot be known, because the schema cannot be used.
        """
        try:
            return self._validator.misfits(arguments)
        except Exception as error:  # servers accept schemas that `jsonschema` fails over in many ways
            raise NoCallError from error

    def accepts(self, value: Any, schema: Mapping[str, Any]) -> bool:
        """Whether a value fits a part of the schema.

        Raises:
            NoCallError: If it cannot be known, because the part cannot be used.
        """
        try:
            return self._validator.accepts(value, schema)
        except Exception as error:  # what is not an error before may use another part
            raise NoCallError from error

    def _problems(self, arguments: Mapping[str, Any]) -> list[str]:
        try:
            return self._validator.problems(arguments)
        except Exception as error:
            raise NoCallError from error

    @cached_property
    def _validator(self) -> ArgumentSchema:
        return _schemas.get_or_make((self.name, dumps(self.schema)), lambda: ArgumentSchema(self.schema, self.name))


class OfferedTools:
    """The tools of a request by name.

    Args:
        definitions: Their definitions in wire form.
    """

    def __init__(self, definitions: Iterable[Mapping[str, Any]]) -> None:
        functions = [each.get("function") for each in definitions if is_object(each)]
        with_names = [each for each in functions if is_object(each) and isinstance(each.get("name"), str)]
        self._tools = {tool.name: tool for tool in map(OfferedTool, with_names)}

    def __iter__(self) -> Iterator[OfferedTool]:
        return iter(self._tools.values())

    def find(self, name: str) -> OfferedTool | None:
        """Return the tool that a model means by a name."""
        for prefix in _NAMESPACES:
            if name not in self._tools:
                name = name.removeprefix(prefix)
        if name not in self._tools and (own := name[: len(name) // 2]) and name == f"{own}.{own}":  # Muse
            name = own
        return self._tools.get(name) or self._tools.get(_UNSAFE.sub("_", name))

    def begins(self, text: str) -> bool:
        """Whether a text begins with the name of a tool."""
        return text.startswith((*self._tools, *_NAMESPACES, BARE))

    def may_begin(self, text: str) -> bool:
        """Whether a text is the beginning of a name, or of what stands before one."""
        words = (*self._tools, *_NAMESPACES, *WRAPPERS, BARE)
        return any(word.startswith((text, _UNSAFE.sub("_", text))) for word in words)


def values_of(text: str) -> Sequence[Any]:
    """Return the value that a text stands for, if it stands for one."""
    # A bracket must follow on what is no string.
    cursor = TextCursor(text.strip() + "]")
    try:
        value = read_value(cursor)
    except (NoCallError, CutOffError):
        return ()
    return (value,) if cursor.at == len(cursor.text) - 1 else ()


def _readings_of(text: str) -> Iterator[Any]:
    """Yield what a text may stand for, the most likely first."""
    yield from (text, text.strip())
    yield from values_of(text)
    yield from elements_of(text)


_ELEMENT = re.compile(r"<(/?)([\w.-]+)>")


def elements_of(text: str) -> Sequence[Any]:
    """Return the list or the object of elements, which MiniMax M3 writes: with values as texts, and as JSON."""
    return [value for is_json in (False, True) for value in _elements_of(text, is_json=is_json)]


def _elements_of(text: str, *, is_json: bool) -> Sequence[Any]:
    at, opened = 0, [("", list[tuple[str, Any]]())]
    for tag in _ELEMENT.finditer(text):
        name, members = opened[-1]
        before, at = text[at : tag.start()], tag.end()
        if not tag[1] and not before.strip() and len(opened) <= MAX_DEPTH:
            opened.append((tag[2], []))
        elif name == tag[2] and not (members and before.strip()):
            opened.pop()
            value = _whole_of(members) if members else next(iter(values_of(before) if is_json else ()), before)
            opened[-1][1].append((name, value))
        else:
            return ()
    members = opened[0][1]
    return (_whole_of(members),) if members and len(opened) == 1 and not text[at:].strip() else ()


def _whole_of(members: Sequence[tuple[str, Any]]) -> Any:
    """Return the list or the object of elements. Several of the same name in an object are a list."""
    values: dict[str, list[Any]] = {}
    for name, value in members:
        values.setdefault(name, []).append(value)
    if values.keys() == {"item"}:
        return values["item"]
    return {name: each[0] if len(each) == 1 else each for name, each in values.items()}


class Format(NamedTuple):
    """How a family of models marks its tool calls.

    Attributes:
        name: The family.
        begins: Markers before a call, or before several.
        ends: Markers after a call, or after several.
        bodies: What a call without such a marker begins with.
    """

    name: str
    begins: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    bodies: tuple[str, ...] = ()


TOOL_CODE = "```tool_code"
"""The code block in which Gemma 3 writes calls in Python."""

MINIMAX_SEPARATOR = "]<]minimax[>["
"""What MiniMax M3 writes before each tag."""

_ROLES = ("<|start|>assistant ", "<|start|>assistant", "<|start|> assistant ", "<|start|> assistant", "assistant", "")
_CHANNELS = (
    *("<|channel|>commentary ", "<|channel|>analysis ", "<|channel|> commentary ", "<|channel|> analysis "),
    *("<|channel|>", "commentary ", "analysis "),
)

_DEEPSEEK = [
    f"{bar}tool{gap}{part}{gap}%s{bar}"
    for bar, gap in (("｜", "▁"), ("｜", "_"), ("|", "▁"), ("|", "_"))
    for part in ("calls", "call", "calls_section", "call_section")
]
_BARS = ("｜DSML｜", "｜｜DSML｜｜", "|DSML|", "||DSML||", "｜GCML｜")
_OF_DEEPSEEK = ("function_calls", "tool_calls", "toolcalls", " calls")
_OF_PLAMO = ("tool_requests", "tool_request", "tool_name")
_OPENSOURCE = tuple(f"{each}:opensource>" for each in ("tool_calls", "tool_call"))

FORMATS = (
    Format(
        "Hermes, Qwen or GLM",
        ("<tool_call>", "<tool_calls>", "<tool>", "<tools>", "<function_call>", "<functioncall>", "<functioncall "),
        ("</tool_call>", "</tool_calls>", "</tool>", "</tools>", "</function_call>", "</functioncall>"),
        ("<tool_call id=",),
    ),
    Format(
        "Qwen's XML",
        (),
        ("</function>", "</function_invocation>"),
        ("<function=", "<function name=", "<functionname="),
    ),
    Format("Llama", ("<|python_tag|>", "<|python_start|>"), ("<|python_end|>", "<|eom_id|>", "<|eot_id|>")),
    Format("Mistral", ("[TOOL_CALLS]",), ("[/TOOL_CALLS]",)),
    Format(
        "LM Studio",
        ("[TOOL_REQUEST]", "[TOOL_CALL]", "[tool_call]"),
        ("[END_TOOL_REQUEST]", "[/TOOL_CALL]", "[/tool_call]"),
    ),
    Format("LFM", ("<|tool_call_start|>",), ("<|tool_call_end|>",)),
    Format(
        "Granite or Phi",
        ("<|tool_call|>", "<|tool_calls|>", "functools"),
        ("<|/tool_call|>", "<|/tool_calls|>", "</|tool_call|>"),
        ("functools[", "functools ["),
    ),
    Format(
        "DeepSeek or Kimi",
        tuple(f"<{each % 'begin'}>" for each in _DEEPSEEK),
        tuple(f"<{each % 'end'}>" for each in _DEEPSEEK),
    ),
    Format(
        "DeepSeek's XML, or GigaChat 3.5's",
        tuple(f"<{bars}{name}>" for bars in _BARS for name in _OF_DEEPSEEK),
        tuple(f"</{bars}{name}>" for bars in _BARS for name in (*_OF_DEEPSEEK, "invoke", " invoke", "r")),
        tuple(f"<{bars}{each}=" for bars in _BARS for each in ("invoke name", " invoke name", "r")),
    ),
    Format(
        "Harmony",
        (
            *(
                f"{role}{channel}to={prefix}"
                for role in _ROLES
                for channel in _CHANNELS
                for prefix in ("functions.", "")
            ),
            *(f"<|start|>{blank}assistant to=functions." for blank in ("", " ")),
            *("<|start|>functions.", "to=functions."),
        ),
        ("<|call|>", "<|end|>", "<|return|>"),
    ),
    Format(
        "Gemma",
        ("<start_function_call>", "<|tool_call>", "<call>", "<tool_code>", TOOL_CODE),
        ("<end_function_call>", "</end_function_call>", "<tool_call|>", "</tool_code>"),
    ),
    Format(
        "MiniMax",
        ("<minimax:tool_call>", f"{MINIMAX_SEPARATOR}<tool_call>"),
        ("</minimax:tool_call>",),
        (f"{MINIMAX_SEPARATOR}<invoke name=",),
    ),
    Format(
        "Anthropic's XML",
        ("<function_calls>", "<atem:function_calls>"),
        ("</function_calls>", "</atem:function_calls>", "</invoke>", "</atem:invoke>", "</steptml:invoke>"),
        ("<invoke name=", "<atem:invoke name=", "<steptml:invoke name="),
    ),
    Format("Nemotron", ("<TOOLCALL>",), ("</TOOLCALL>", "<SPECIAL_12>")),
    Format(
        "Hunyuan",
        ("<answer><tool_calls>", "<answer>\n<tool_calls>", *(f"<{each}" for each in _OPENSOURCE)),
        ("</answer>", *(f"</{each}" for each in _OPENSOURCE)),
    ),
    Format("Command", ("<|START_ACTION|>",), ("<|END_ACTION|>",)),
    Format("smolagents", ("Calling tools:", "Action:")),
    Format("Seed", ("<seed:tool_call>",), ("</seed:tool_call>",)),
    Format("LongCat", ("<longcat_tool_call>",), ("</longcat_tool_call>",)),
    Format("Solar", ("<|tool_call:start|>",), ("<|tool_call:end|>",)),
    Format("Kimi K3", ("<|open|>tools<|sep|>",), ("<|close|>tools<|sep|>",)),
    Format("Apertus", ("<|tools_prefix|>",), ("<|tools_suffix|>",)),
    Format("InternLM", ("<|action_start|>", "<|plugin|>"), ("<|action_end|>",)),
    Format("GigaChat", ("<|function_call|>", "function call<|role_sep|>", "function call"), (), ("function call{",)),
    Format("Laguna", ("<user>",), ("</user>",)),
    Format("K2", ("<ifm|tool_calls>", "<ifm|tool_call>"), ("</ifm|tool_calls>", "</ifm|tool_call>")),
    Format(
        "PLaMo",
        tuple(f"<|plamo:begin_{each}:plamo|>" for each in _OF_PLAMO),
        tuple(f"<|plamo:end_{each}:plamo|>" for each in (*_OF_PLAMO, "tool_arguments")),
    ),
    Format("dots", ("<dots_function_call>",), ("</dots_function_call>",)),
    Format(
        "iQuest",
        ("<iquest_tool_call>", "<iquestcoder_tool_call>"),
        ("</iquest_tool_call>", "</iquestcoder_tool_call>"),
    ),
    Format("Inkling", ("<|message_model|>", "<|content_invoke_tool_json|>"), ("<|end_message|>",)),
    Format("HyperCLOVA X", ("-> tool/function_call",)),
    Format("GLM 5.3", ("<![",)),
)


class ArgumentTags(NamedTuple):
    """The tags around the name and the value of an argument.

    Attributes:
        key: What stands before the name.
        key_end: What stands after it.
        value: What stands before the value; the same if there is no other tag.
        value_end: What stands after it.
    """

    key: str
    key_end: str
    value: str
    value_end: str


ARGUMENT_TAGS = (
    *(
        ArgumentTags(f"<{key}>", f"</{key}>", f"<{value}>", f"</{value}>")
        for key, value in (
            ("arg_key", "arg_value"),  # GLM
            ("arg_key:opensource", "arg_value:opensource"),  # Hunyuan
            ("longcat_arg_key", "longcat_arg_value"),
            ("ifm|arg_key", "ifm|arg_value"),  # K2
        )
    ),
    ArgumentTags("<|tool_arg:start|>", "<|tool_arg:value|>", "<|tool_arg:value|>", "<|tool_arg:end|>"),  # Solar
)

_ENDS_OF_TURN = (
    *("<|im_end|>", "<|endoftext|>", "<|end_of_text|>", "</s>", "<end_of_turn>", "<turn|>", "<|eom|>"),
    *("<｜end▁of▁sentence｜>", "<|end▁of▁sentence|>", "<|role_end|>", "<|eot|>", "<|END_OF_TURN_TOKEN|>"),
    *("<|iquest_end|>", "<|plamo:tag|>"),
)

_AFTER_RESPONSE = (
    *_ENDS_OF_TURN,
    *("<eos>", "<|user|>", "<|observation|>", "<|tool_response|>", "<|tool_response>", "<start_function_response>"),
    *("<|start_header_id|>assistant<|end_header_id|>", "<|start|>assistant to="),
)
"""Special tokens that servers may leave after a response."""

INVENTED_RESULT = "<tool_response"
"""What models begin with that go on with the result of the tool, as if it had run."""

_STEP_SEPARATOR = "<｜tool_sep｜>"
"""What Step also writes between calls."""

_NAME_TAG = "<function>"
"""What Qwen and Gemma also write before the name of a tool, behind a marker."""

_BEFORE_ARGUMENTS = (
    *("[ARGS]", "<|message|>", "<|channel|>", "<|constrain|>", "<｜tool▁sep｜>", "<|tool▁sep|>", "<|tool_sep|>"),
    *("<|tool_call_argument_begin|>", _STEP_SEPARATOR, "<tool_sep>", "<tool_sep:opensource>"),
    *("<|plamo:end_tool_name:plamo|>", "<|plamo:begin_tool_arguments:plamo|>", "<|plamo:constrain|>", "<|plamo:msg|>"),
    *("<|content_invoke_tool_json|>", "<atem:function_calls>", ">", "</function>"),
)
"""Markers between the name of a tool and the arguments."""

ENDS_OF_TURN = frozenset({*_ENDS_OF_TURN, "<|eot_id|>"})
"""After these, the model writes somebody else's turn, unless it has begun its own again."""

NEXT_TURNS = ENDS_OF_TURN | {"<|im_start|>user", "<|start_header_id|>user"}
"""After these, the model writes somebody else's turn."""

OF_DEFINITIONS = ("<tool>", "<tools>", "<user>")
"""Tags with which models also list the tools that they have, or mark what they say about a user."""

COMMON = frozenset({"<user>", "<call>", "<!["})
"""Markers that texts have for other things, such as a name to put in. One without a call decides nothing."""

REASONING = {tags.end: tags.start for tags in USUAL_TAGS}
"""What ends thoughts in the text of a response, with what begins them there."""


class Tokens:
    """Fixed strings that are searched for, also where a text that grows ends within one."""

    def __init__(self, tokens: Iterable[str]) -> None:
        known = sorted(set(tokens), key=len, reverse=True)
        groups = {before: [each for each in known if _before(each) == before] for before in ("", *_BEFORE)}
        patterns = [before + _any_of(tokens) for before, tokens in groups.items() if tokens]
        self._pattern = re.compile("|".join(patterns))

    def find(self, text: str, at: int = 0) -> "re.Match[str] | None":
        """Return the first token, or the beginning of one that ends the text."""
        return self._pattern.search(text, at)

    def match(self, text: str, at: int) -> "re.Match[str] | None":
        """Return the token at this place, or the beginning of one that ends the text."""
        return self._pattern.match(text, at)

    def removed_from(self, text: str) -> str:
        """Return a text without these tokens."""
        return self._pattern.sub("", text)

    def is_whole(self, match: "re.Match[str]") -> bool:
        """Whether what was found is a whole token."""
        return match.lastindex is not None


_BEFORE = (r"(?<!\w)", r"(?<![^\n])")
"""What stands before a word that is a marker: the beginning of a word, or of a line if it may be part of a sentence."""


def _before(token: str) -> str:
    if not token[0].isalpha():
        return ""
    return _BEFORE[not token.endswith(("functions.", "["))]


def _any_of(tokens: Sequence[str]) -> str:
    """Return a pattern of tokens, and of the beginning of one that ends the text."""
    first = "".join(sorted({re.escape(each[0]) for each in tokens}))
    whole, partial = "|".join(map(re.escape, tokens)), "|".join(map(_beginnings, tokens))
    return rf"(?=[{first}])(?:({whole})|(?:{partial})\Z)"


def _beginnings(token: str) -> str:
    """Return a pattern of what a token begins with, at least one character of it."""
    pattern = ""
    for character in reversed(token[1:-1]):
        pattern = f"(?:{re.escape(character)}{pattern})?"
    return re.escape(token[0]) + pattern


_BEGINS = {each for known in FORMATS for each in (*known.begins, *known.bodies)} - {"functools", "function call"}

MARKERS = Tokens([*_BEGINS, *REASONING, *NEXT_TURNS])
"""What the first call in a text may begin with."""

BETWEEN = Tokens(
    [
        *(each for known in FORMATS for each in (*known.begins, *known.ends) if each != TOOL_CODE),
        *(*_AFTER_RESPONSE, INVENTED_RESULT, _STEP_SEPARATOR, _NAME_TAG),
    ]
)
"""What may stand before calls, between them and after them."""

BEFORE_ARGUMENTS = Tokens(_BEFORE_ARGUMENTS)

KEY_BEGINS, KEY_ENDS, VALUE_BEGINS = (Tokens(each[at] for each in ARGUMENT_TAGS) for at in (0, 1, 2))
KEY_OR_VALUE_ENDS = Tokens(end for each in ARGUMENT_TAGS for end in (each.key_end, each.value_end))

ENDS = tuple(dict.fromkeys(end for known in FORMATS for end in known.ends))
"""What a call may end with."""


_KIMI_TAG = re.compile(r"<\|(open|close)\|>([^<>]*)<\|sep\|>")
_UNENDED_KIMI_TAG = re.compile(r"<\|(?:open|close)\|>[^<>]*(?:<(?:\|(?:s(?:e(?:p\|?)?)?)?)?)?\Z")


def with_usual_tags(text: str, *, is_final: bool) -> str:
    """Return a text with the tags of MiniMax M3 and Kimi K3 as others write them, without one that has not ended.

    Args:
        text: The text.
        is_final: Whether it is complete, so that nothing at its end can become a tag.
    """
    if text.startswith("<|open|>"):
        text = _KIMI_TAG.sub(lambda tag: f"<{'/' if tag[1] == 'close' else ''}{tag[2]}>", text)
        text = _UNENDED_KIMI_TAG.sub("", text)
    if text.startswith(MINIMAX_SEPARATOR):
        text = text.replace(MINIMAX_SEPARATOR, "")
        parts = (MINIMAX_SEPARATOR[:length] for length in range(len(MINIMAX_SEPARATOR) - 1, 0, -1))
        text = text if is_final else text.removesuffix(next((part for part in parts if text.endswith(part)), ""))
    return text


def format_at(text: str) -> str:
    """Return the models whose marker a text begins with."""
    return next(known.name for known in FORMATS if text.startswith((*known.begins, *known.bodies)))
