"""Parses what stands between the markers: the name of a tool and its arguments, in the forms that models write.

It raises `NoCallError` as soon as nothing that follows could make calls of the text, and `CutOffError` where the text
ends before they do. So a stream is held back no longer than necessary.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.client.predictions.calls_in_text.formats import (
    ARGUMENT_TAGS,
    BEFORE_ARGUMENTS,
    BETWEEN,
    ENDS,
    INVENTED_RESULT,
    KEY_BEGINS,
    KEY_ENDS,
    KEY_OR_VALUE_ENDS,
    OF_DEFINITIONS,
    REASONING,
    TOOL_CODE,
    VALUE_BEGINS,
    WRAPPERS,
    OfferedTool,
    OfferedTools,
    Tokens,
)
from lmstudio_integrations.client.predictions.calls_in_text.lenient_json import (
    MAX_DEPTH,
    CutOffError,
    NoCallError,
    TextCursor,
    read_members,
    read_object,
    read_value,
    read_whole_object,
)


class ParsedCall(NamedTuple):
    """A call that was read.

    Attributes:
        tool: The tool.
        arguments: The arguments.
    """

    tool: OfferedTool
    arguments: dict[str, Any]


_NAME = re.compile(r"[\w.$/-]+")
_GEMMA_QUOTE = '<|"|>'
_ESCAPE = re.compile(r"\\[abfnrtuvx\\\"']")
_PLAIN_VALUE = re.compile(r"[^,{}\[\]\n<>\"']+")
_IDENTIFIER = re.compile(r"[^\W\d]\w*")
_TEXT = re.compile(r"\s*\S")
_NUMBER_OF_CALL = re.compile(r"[:#]\d+")
_PUNCTUATION = re.compile(r"[\s▁,;:]+|<tool_call id=[^<>]*>")
_STRICT_PUNCTUATION = re.compile(r"[\s▁]+|<tool_call id=[^<>]*>")
_BRACKETS = re.compile(r"[\s▁,;\]})>]+")
_INVENTED_RESULT = re.compile(
    rf"{INVENTED_RESULT}.*?(?:</tool_response>|\Z)|<\|start\|>functions\.[\w.-]+ to=.*?(?:<\|end\|>|\Z)", re.DOTALL
)
"""The result of a tool, as Hermes' and Harmony's templates write it. If an answer follows, a text may show them all."""
_FENCE = re.compile(r"```[\w-]*")
_PART_OF_FENCE = re.compile(r"``?\Z")
_WORD = re.compile(r"(?:json|code|commentary|analysis)\b|\[CALL_ID\]\s*[\w-]*")
"""Words between the name of a tool and the arguments."""

_LONGEST_WORD = len("commentary") + 1

_END = f"(?:{'|'.join(map(re.escape, ENDS))})"
_PREFIX = r"(?:[|｜]+(?:DS|GC)ML[|｜]+ ?|\w+:)?"
_QUOTED = r"""\s*(?:(?:name|tool|key)\s*)?=\s*["']?(?P<name>[^\s"'<>=]+)["']?(?:\s+\w+="\w*")*"""
_XML_CALL = re.compile(rf"<{_PREFIX}(?:function|invoke|tool|call|r){_QUOTED}(?:\s*>|=(?={{))")
_ELEMENT = re.compile(r"<(?P<name>[\w.-]+)\s*/?>")
_ARGUMENT = r"(?:param(?:eter)?|argument)"
_ONLY_PARAMETER = re.compile(r"<([|｜]+DSML[|｜]+)m>")
"""The argument in DeepSeek's compact form, which has no name."""
_PARAMETER = re.compile(rf"<{_PREFIX}{_ARGUMENT}{_QUOTED}(?:\s*>|\n)")
_PARAMETER_ENDS = re.compile(rf"</{_PREFIX}{_ARGUMENT}>(?=\s*(?:<{_PREFIX}(?:param|argument)|</|\Z))")
_UNENDED_PARAMETER = re.compile(rf"<param(?:eter)?[= ]|{_END}\s*(?:</|\Z)")
_TYPE = re.compile(r"""\s(?:type=["']?|string=["']?(?=true|false))(\w+)|<ifm\|arg_type>(\w+)</ifm\|arg_type>\s*""")
"""What a tag says about the type of a value: DeepSeek and GigaChat, whether it is a string; Kimi K3 and K2, which."""
_CDATA = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.DOTALL)
_OWN_TAG = re.compile(
    rf"</?(?:{_PREFIX}(?:{_ARGUMENT}|invoke)|function|(?:longcat_|ifm\|)?(?:arg_key|arg_value|tool_call)(?::\w+)?)[>= ]"
)
_KEY, _KEY_END, _VALUE_END = (f"(?:{'|'.join(re.escape(tags[at]) for tags in ARGUMENT_TAGS)})" for at in (0, 1, 3))
_KEY_ENDS, _NEXT_KEY = re.compile(_KEY_END), re.compile(_KEY)
_VALUE_ENDS = re.compile(rf"{_VALUE_END}(?=\s*(?:{_KEY}|{_KEY_END}|{_VALUE_END}|{_END}|<\||\Z))")
_WRONG_KEY = re.compile(r"(?:<tool_call>|(?<=\s))([\w.-]*)")
_STRAY_END = re.compile(r"</[^<>\s]{0,40}(?:>|\Z)")

MOST_CALLS = 64
"""No response calls more tools."""

_LONGEST_TAG = 200
"""Characters; a tag that does not end by then is none."""

_NEAR = 32
"""Characters before a name in which the tag of a definition is looked for."""

NAMES = frozenset({"name", "tool", "tool_name", "function"})
_ARGUMENTS = frozenset({"arguments", "parameters", "params", "args", "tool_arguments"})
_ENVELOPES = frozenset({"function", "function_call", "tool_call", "tool_calls", "function_calls"})
_BESIDE = frozenset({"id", "type", "tool_call_id", "description"})
_TYPES = ("function", "function_call", "tool_call", "tool_use")


class _Loose(NamedTuple):
    """How arguments are written, of which a value may be damaged.

    Attributes:
        begins: A pattern of what stands before a name.
        assigns: A pattern of what stands between it and the value.
        end: What stands behind the last, with what follows on the call.
        is_unmarked: Whether such a call needs no marker.
    """

    begins: str
    assigns: str
    end: "re.Pattern[str]"
    is_unmarked: bool


_GEMMA = _Loose(
    r"""[{,]\s*["']?""", r"""["']?\s*:""", re.compile(r"\}\s*(?=<\||<tool_call\||call:|\Z)"), is_unmarked=True
)
_PYTHON = _Loose(r"[(,]\s*", r"\s*=", re.compile(r"\)(?=\s*\]?\s*<\|)"), is_unmarked=False)


class CallParser:
    """Parses calls up to the end of a text.

    Attributes:
        read: The calls that were read, also if those that follow cannot be.
        read_to: Where the last of them ends.
        named: The tool of the call that was begun after them, if its name is complete.

    Args:
        text: The text, at the first marker or the first call.
        tools: The tools that the request offers.
        is_marked: Whether a marker says that it is a call. Otherwise a call must have arguments, and one in Python be
            in a list: such texts may be something else.
        is_final: Whether the text is complete. If it still grows, nothing is mended that what follows could explain.
        is_in_block: Whether the text is one of code blocks, the first of which has begun.
        is_strict: Whether nothing superfluous may stand between the calls and behind them.
        cuts_results: Whether a result may stand behind the calls that the model has invented.
    """

    def __init__(
        self,
        text: TextCursor,
        tools: OfferedTools,
        *,
        is_marked: bool,
        is_final: bool,
        is_in_block: bool,
        is_strict: bool = False,
        cuts_results: bool = False,
    ) -> None:
        self.read: list[ParsedCall] = []
        self.read_to: int = text.at
        self.named: OfferedTool | None = None
        self._text = text
        self._tools = tools
        self._is_marked = is_marked
        self._is_final = is_final
        self._is_strict = is_strict
        self._cuts_results = cuts_results
        self._punctuation = _STRICT_PUNCTUATION if is_strict else _PUNCTUATION
        if is_tool_code := text.text.startswith(TOOL_CODE, text.at):
            text.at += len(TOOL_CODE)
        self._has_blocks = self._is_in_block = is_in_block or is_tool_code
        self._has_reasoned = False
        """Whether thoughts end behind the calls that were read."""
        self._missing: set[re.Pattern[str]] = set()
        """The tags that do not follow any more."""

    def calls(self) -> list[ParsedCall]:
        """Return the calls.

        Raises:
            NoCallError: If the text has anything else, or calls a tool that is not offered.
            CutOffError: If it ends too early.
        """
        while not self._skip_markup(brackets=bool(self.read)):
            if self._has_reasoned:  # they were examples in thoughts
                raise NoCallError
            self._body()
            if len(self.read) > MOST_CALLS:
                raise NoCallError
        if not self.read:
            raise CutOffError
        return self.read

    @property
    def begun(self) -> OfferedTool | None:
        """The tool of the first call, as far as its name is complete."""
        return self.read[0].tool if self.read else self.named

    @property
    def rest(self) -> str:
        """What follows on the last call that was read."""
        return self._text.text[self.read_to :]

    def _add(self, call: ParsedCall) -> list[ParsedCall]:
        self.read.append(call)
        self.read_to, self.named = self._text.at, None
        return [call]

    def _skip_markup(self, *, brackets: bool) -> bool:
        """Skip what stands between calls, superfluous brackets too; return whether the text ends there."""
        text = self._text
        while not text.is_at_end:
            match = self._punctuation.match(text.text, text.at)
            if match is None and brackets and self._cuts_results:
                match = _INVENTED_RESULT.match(text.text, text.at)
            match = match or self._marker()
            match = match or self._fence(may_begin=self._has_blocks or not brackets)
            if brackets and not self._is_strict:
                match = match or _BRACKETS.match(text.text, text.at) or _STRAY_END.match(text.text, text.at)
            if match is None:
                return not self._is_final and _PART_OF_FENCE.match(text.text, text.at) is not None
            self._has_reasoned = self._has_reasoned or match.group() in REASONING
            text.at = match.end()
        return True

    def _marker(self) -> "re.Match[str] | None":
        """Return the marker that begins here. If the text is complete, a part of one at its end is superfluous."""
        marker = BETWEEN.match(self._text.text, self._text.at)
        is_part = marker is not None and not BETWEEN.is_whole(marker)
        return None if is_part and self._is_strict and self._is_final else marker

    def _fence(self, *, may_begin: bool) -> "re.Match[str] | None":
        """Return the fence of a code block that begins or ends here; one that began before the calls is none."""
        match = _FENCE.match(self._text.text, self._text.at)
        if match is not None:
            if not (may_begin or self._is_in_block):
                raise NoCallError
            self._is_in_block = not self._is_in_block
        return match

    def _body(self) -> list[ParsedCall]:
        text = self._text
        if text.text.startswith("call:{", text.at):
            text.at += len("call:")
        match text.text[text.at]:
            case "{":
                return self._object()
            case "[":
                return self._list()
            case "<":
                return self._add(self._xml())
            case _:
                return self._add(self._read_named())

    # JSON -------------------------------------------------------------------------------------------------------------

    def _list(self, depth: int = 0) -> list[ParsedCall]:
        """Read a list of calls in JSON, or in Python."""
        text, calls = self._text, list[ParsedCall]()
        text.expect("[")
        while not (calls and self._lacks_bracket("<[")) and not text.is_closed("]"):
            calls += self._object(depth) if text.text[text.at] == "{" else self._add(self._read_named(in_list=True))
        if not calls:
            raise NoCallError
        return calls

    def _object(self, depth: int = 0) -> list[ParsedCall]:
        """Read a call in JSON, or an object around calls."""
        if depth > MAX_DEPTH:
            raise NoCallError
        members: dict[str, Any] = {}
        for key in self._keys(members):
            name, value = self._member(key, depth)
            if name in members:
                raise NoCallError
            members[name] = value
        calls, tool = members.get("calls"), members.get("tool")
        if (calls is None) is (tool is None) or (calls is not None and "arguments" in members):
            raise NoCallError
        if calls is not None:
            return list(calls)
        arguments = _arguments(members.get("arguments"))
        if "arguments" not in members and not self._is_marked:
            raise NoCallError
        if _is_definition(members["tool"], arguments, described="description" in members):
            raise NoCallError
        return self._add(ParsedCall(members["tool"], arguments))

    def _keys(self, members: Mapping[str, Any]) -> Iterator[str]:
        """Yield the keys of an object, until its end or the place where that is missing."""
        keys = read_members(self._text)
        while True:
            is_complete = "calls" in members or {"tool", "arguments"} <= members.keys()
            if is_complete and self._lacks_bracket("<[]"):
                return
            key = next(keys, None)
            if key is None:
                return
            yield key

    def _member(self, key: str, depth: int) -> tuple[str, Any]:
        """Read a value; return it with what it is."""
        text = self._text
        if key in _ENVELOPES and text.text[text.at] in "{[":
            return "calls", self._list(depth + 1) if text.text[text.at] == "[" else self._object(depth + 1)
        if key in NAMES:
            return "tool", self._tool(read_value(text))
        if key in _ARGUMENTS:
            return "arguments", read_value(text)
        if key not in _BESIDE:
            if not self._is_marked:
                raise NoCallError
            return "calls", self._add(ParsedCall(self._tool(key), read_object(text)))  # Apertus
        value = read_value(text)
        if key == "type" and value not in _TYPES:
            raise NoCallError
        return key, value

    def _lacks_bracket(self, following: str) -> bool:
        """Whether the model forgot a bracket around calls, whose arguments are complete.

        Args:
            following: What may follow instead of it.
        """
        text = self._text
        text.skip_space()
        if text.is_at_end:
            return self._is_final
        return text.text[text.at] in following

    def _tool(self, name: object) -> OfferedTool:
        tool = self._tools.find(name) if isinstance(name, str) else None
        if tool is None:
            raise NoCallError
        self.named = tool
        return tool

    # XML --------------------------------------------------------------------------------------------------------------

    def _xml(self) -> ParsedCall:
        """Read `<function=NAME>` or `<NAME>`, with parameters or with JSON."""
        text = self._text
        head = self._tag(_XML_CALL) or self._tag(_ELEMENT)
        if head is None:
            raise NoCallError
        tool = self._tool(head.group("name"))
        if head.group().endswith("/>"):
            return ParsedCall(tool, {})
        text.skip_space()
        arguments: dict[str, Any] = {}
        if text.text.startswith("{", text.at):
            arguments = self._unwrapped(tool, read_object(text))
        else:
            while self._read_parameter(tool, arguments):
                text.skip_space()
            self._expect_end()
        end = re.compile(rf"\s*</{_PREFIX}(?:function|invoke|tool|call|r|{re.escape(head.group('name'))})>").match(
            text.text, text.at
        )
        text.at = text.at if end is None else end.end()
        return ParsedCall(tool, arguments)

    def _read_parameter(self, tool: OfferedTool, arguments: dict[str, Any]) -> bool:
        """Read `<parameter=NAME>VALUE</parameter>` or `<NAME>VALUE</NAME>`, if it is here."""
        tag = self._tag(_PARAMETER)
        if tag is not None:
            stop = _parameter_of(tuple(tool.parameters))
            value = self._until(_PARAMETER_ENDS, stop, _UNENDED_PARAMETER, begun=tag.group().endswith("\n"))
        elif (only := self._tag(_ONLY_PARAMETER)) is not None:
            required = tool.schema.get("required", ())
            if arguments or len(required) != 1:
                raise NoCallError
            arguments[required[0]] = tool.value_of(
                required[0], self._until(re.compile(f"</{re.escape(only.group(1))}m>"))
            )
            return True
        else:
            tag = _ELEMENT.match(self._text.text, self._text.at)
            if tag is None or tag.group("name") not in tool.parameters:
                return False
            self._text.at = tag.end()
            name = re.escape(tag.group("name"))
            value = self._until(re.compile(f"</{name}>"))
            if re.search(rf"<{name}[\s/>]", value):
                raise NoCallError
        if tag.group("name") in arguments:  # which of the two is meant?
            raise NoCallError
        is_string = _says_string(_TYPE.search(tag.group()))
        arguments[tag.group("name")] = tool.value_of(tag.group("name"), value, is_string=is_string)
        return True

    def _tag(self, pattern: "re.Pattern[str]") -> "re.Match[str] | None":
        text = self._text
        match = pattern.match(text.text, text.at)
        if match is not None and match.end() - text.at <= _LONGEST_TAG:
            text.at = match.end()
            return match
        rest = text.text[text.at : text.at + _LONGEST_TAG]
        if rest.startswith("<") and ">" not in rest and len(rest) < _LONGEST_TAG:
            raise CutOffError
        return None

    def _until(
        self,
        end: "re.Pattern[str]",
        stop: "re.Pattern[str] | None" = None,
        beyond: "re.Pattern[str] | None" = None,
        *,
        begun: bool = False,
    ) -> str:
        """Return the text up to the tag that ends it; without the line breaks if it has lines of its own.

        Args:
            end: The tag.
            stop: What follows where the model forgot it.
            beyond: What follows where the model forgot the tag, and no other follows.
            begun: Whether the line break before it was read.
        """
        text, begin = self._text, self._text.at
        match = None if end in self._missing else end.search(text.text, begin)
        if match is not None:
            if not (self._is_final or _TEXT.match(text.text, match.end())):  # it may be part of the text
                raise CutOffError
            early = None if stop is None else stop.search(text.text, begin, match.start())
            text.at, match = (match.end(), match) if early is None else (early.start(), early)
        else:
            self._missing.add(end)
            match = beyond.search(text.text, begin) if beyond is not None and self._is_final else None
            if match is None:
                raise CutOffError
            text.at = match.start()
        value = text.text[begin : match.start()]
        if match.re is not end:  # in a line of its own, what follows is behind a line break
            value = value.removesuffix("\n").removesuffix("\r")
        quoted = _CDATA.fullmatch(value.strip())
        if quoted is not None:
            return quoted.group(1)
        if _OWN_TAG.search(value):  # does it end here, or has the model forgotten a tag?
            raise NoCallError
        own_lines = value.removeprefix("\r").removeprefix("\n")
        return own_lines.removesuffix("\n").removesuffix("\r") if begun or own_lines != value else value

    def _expect_end(self) -> None:
        """Raise an error unless a tag or marker follows: further arguments may have been cut off."""
        if self._text.is_at_end:
            raise CutOffError
        if self._text.text[self._text.at] not in "<[":
            raise NoCallError

    # Names ------------------------------------------------------------------------------------------------------------

    def _read_named(self, *, in_list: bool = False, wrapper: str | None = None) -> ParsedCall:
        """Read the name of a tool with its arguments: as JSON, as a call in Python, or in tags."""
        text = self._text
        if wrapper is not None or self._is_marked:
            self._skip_namespaces()
        begin, name = text.at, text.match(_NAME).group()
        if not (self._tools.begins(name) or self._tools.may_begin(name)):
            raise NoCallError
        self._word(_NAME)
        is_called = text.text.startswith("(", text.at)
        if in_list and text.text.startswith("]", text.at):  # [NAME] {…}
            in_list, text.at = False, text.at + 1
        if name in WRAPPERS and wrapper is None and self._tools.find(name) is None:
            return self._read_wrapped(name)
        if is_called:
            if not (self._is_marked or in_list or name.endswith(".call")):
                raise NoCallError
            tool = self._tool(name.removesuffix(".call"))
            return ParsedCall(tool, self._loosely(tool, self._keyword_arguments, _PYTHON))
        end = text.at
        if self._skip(KEY_ENDS):  # without `<arg_key>` before it
            tool, text.at = self._tool_before_key(name, end)
            return ParsedCall(tool, self._tagged_arguments(tool))
        tool = self._tool(name if self._tools.find(name) else name.removesuffix("json"))
        text.skip(f":{name}")  # Gemma may repeat it
        self._skip_to_arguments()
        arguments = self._arguments_of(tool, wrapper)
        if arguments is None:
            self.named = None  # no arguments have begun: prose may begin like that
            self._expect_end()
            if not self._is_marked or text.text[max(0, begin - _NEAR) : begin].rstrip().endswith(OF_DEFINITIONS):
                raise NoCallError
        return ParsedCall(tool, arguments or {})

    def _skip_namespaces(self) -> None:
        """Skip what Gemma writes before the name of a tool."""
        text = self._text
        while (name := text.match(_NAME)).group() not in WRAPPERS and self._tools.find(name.group()) is None:
            if name.end() == len(text.text) and not self._is_final:
                raise CutOffError
            if not text.text.startswith(":", name.end()):
                return
            text.at = name.end() + 1

    def _arguments_of(self, tool: OfferedTool, wrapper: str | None) -> dict[str, Any] | None:
        """Return the arguments behind the name of a tool, as far as there are any."""
        text = self._text
        if text.text.startswith("{", text.at):
            if wrapper == "call":
                return self._loosely(tool, lambda: read_object(text), _GEMMA)
            return self._unwrapped(tool, read_object(text))
        if text.text.startswith('"', text.at):
            return _arguments(read_value(text))
        if self._skip_all(KEY_BEGINS) or self._skips_wrong_key(tool):
            return self._tagged_arguments(tool)
        head = _XML_CALL.match(text.text, text.at)
        is_twice = head is not None and self._tools.find(head.group("name")) is tool  # in the output of Step
        return self._xml().arguments if is_twice else None

    def _unwrapped(self, tool: OfferedTool, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return arguments without a name beside them: Inkling writes a call in JSON behind the name of the tool."""
        if not 1 <= len(arguments) <= 2:
            return arguments
        (first, name), *rest = arguments.items()
        if first not in NAMES or not isinstance(name, str) or self._tools.find(name) is not tool:
            return arguments
        for second, inner in rest:
            return _arguments(inner) if second in _ARGUMENTS and second not in tool.parameters else arguments
        may_be_meant = first in tool.parameters and first not in tool.schema.get("required", ())
        return arguments if may_be_meant else {}

    def _tool_before_key(self, text: str, end: int) -> tuple[OfferedTool, int]:
        """Return the tool in the name of a tool and that of an argument, and where the argument's name begins."""
        for tool in self._tools:
            for parameter in tool.parameters:
                if text.endswith(parameter) and self._tools.find(text.removesuffix(parameter)) is tool:
                    return tool, end - len(parameter)
        raise NoCallError

    def _read_wrapped(self, wrapper: str) -> ParsedCall:
        """Read a call in `print(…)`, or after a word such as `call:`."""
        text = self._text
        if not text.skip("("):
            self._skip_to_arguments()
            return self._xml() if text.text.startswith("<", text.at) else self._read_named(wrapper=wrapper)
        if wrapper != "print":
            raise NoCallError
        call = self._read_named(wrapper=wrapper)
        text.skip_space()
        text.expect(")")
        return call

    def _word(self, pattern: "re.Pattern[str]") -> str:
        text = self._text
        match = text.match(pattern)
        text.at = match.end()
        if text.is_at_end:
            raise CutOffError
        return match.group()

    def _skip_to_arguments(self) -> None:
        text = self._text
        number = _NUMBER_OF_CALL.match(text.text, text.at)
        text.at = text.at if number is None else number.end()
        while not text.is_at_end:
            text.skip_space()
            match = BEFORE_ARGUMENTS.match(text.text, text.at) or _WORD.match(text.text, text.at)
            match = match or self._fence(may_begin=True)
            if match is not None:
                text.at = match.end()
            elif not text.skip(":"):
                break
        rest = text.text[text.at : text.at + _LONGEST_WORD]
        is_part_of_word = rest.isalpha() and len(rest) < _LONGEST_WORD
        if not rest.strip("`") or rest == "#" or is_part_of_word or "[CALL_ID]".startswith(rest):  # more may follow
            raise CutOffError

    def _keyword_arguments(self) -> dict[str, Any]:
        text, arguments = self._text, dict[str, Any]()
        text.expect("(")
        text.skip("**")
        if text.text.startswith("{", text.at):
            arguments = read_object(text)
            text.skip_space()
            text.expect(")")
            return arguments
        while not text.is_closed(")"):
            name = self._word(_IDENTIFIER)
            text.skip_space()
            if not text.skip(":"):
                text.expect("=")
            if name in arguments:
                raise NoCallError
            arguments[name] = read_value(text)
        return arguments

    def _loosely(self, tool: OfferedTool, read: Callable[[], dict[str, Any]], form: "_Loose") -> dict[str, Any]:
        """Read arguments; if they cannot be read, then between the names of those that the tool has.

        Strings may have lost what is around them, or have the same quotes in them.
        """
        text, begin = self._text, self._text.at
        try:
            return read()
        except CutOffError:
            if not self._is_final:
                raise
        except NoCallError:
            pass
        member = _member_of(tuple(tool.parameters), form.begins, form.assigns)
        if not (form.is_unmarked or self._is_marked) or not member.match(text.text, begin):
            raise NoCallError
        end = form.end.search(text.text, begin) if self._is_final else None
        if end is None:
            raise CutOffError
        text.at = end.end()
        _, *members = member.split(text.text[begin : end.start()])
        names, values = members[::2], [_unquoted(value) for value in members[1::2]]
        if len(set(names)) < len(names):
            raise NoCallError
        return dict(zip(names, values, strict=True))

    def _skip(self, tokens: Tokens) -> bool:
        """Skip white space, and a token if there is one."""
        text = self._text
        text.skip_space()
        match = tokens.match(text.text, text.at)
        if match is not None:
            if not tokens.is_whole(match):
                raise CutOffError
            text.at = match.end()
        return match is not None

    def _skip_all(self, tokens: Tokens) -> bool:
        """Skip white space and tokens; return whether there are any."""
        is_here = self._skip(tokens)
        while self._skip(tokens):
            pass
        return is_here

    def _skips_wrong_key(self, tool: OfferedTool) -> bool:
        """Skip the marker of a call, or nothing, if a model has written that in place of the tag of an argument."""
        text, end = self._text, ARGUMENT_TAGS[0].key_end
        match = _WRONG_KEY.match(text.text, text.at)
        if match is None:
            return False
        name, rest = match.group(1), text.text[match.end() : match.end() + len(end)]
        is_part = any(each.startswith(name) for each in tool.parameters) and end.startswith(rest)
        if is_part and rest != end and not self._is_final:
            raise CutOffError
        if rest != end or name not in tool.parameters:
            return False
        text.at = match.start(1)
        return True

    def _tagged_arguments(self, tool: OfferedTool) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        while True:
            name = self._until(_KEY_ENDS).strip()
            if "<" in name:  # of a later argument, or call
                raise NoCallError
            self._skip_all(KEY_OR_VALUE_ENDS)
            kind = _TYPE.match(self._text.text, self._text.at)
            self._text.at = self._text.at if kind is None else kind.end()
            self._skip(VALUE_BEGINS)
            if name in arguments:
                raise NoCallError
            value = self._until(_VALUE_ENDS, _NEXT_KEY)
            arguments[name] = tool.value_of(name, value, is_string=_says_string(kind))
            self._skip_all(KEY_OR_VALUE_ENDS)
            if not self._skip_all(KEY_BEGINS):
                self._expect_end()
                return arguments


@lru_cache(maxsize=64)
def _parameter_of(names: tuple[str, ...]) -> "re.Pattern[str]":
    """Return the pattern of the tag of a parameter that a tool has."""
    return re.compile(rf"\n<param(?:eter)?=(?:{'|'.join(map(re.escape, names))})>")


@lru_cache(maxsize=64)
def _member_of(names: tuple[str, ...], begins: str, assigns: str) -> "re.Pattern[str]":
    """Return the pattern of what stands before the value of a parameter that a tool has."""
    return re.compile(f"{begins}({'|'.join(map(re.escape, names)) or '(?!)'}){assigns}")


def _says_string(tag: "re.Match[str] | None") -> bool | None:
    """Whether a tag says that a value is a string; `None` if it says nothing."""
    return None if tag is None else (tag[1] or tag[2]) in {"string", "true"}


def _unquoted(value: str) -> str:
    """Return a value without its quotes, behind which one of Gemma's may stand alone.

    Raises:
        NoCallError: If where it ends is a guess, or whether it has escapes.
    """
    text = value.strip()
    if text.startswith(_GEMMA_QUOTE):
        inner = text[len(_GEMMA_QUOTE) : -len(_GEMMA_QUOTE)]
        if _GEMMA_QUOTE in inner or text != f"{_GEMMA_QUOTE}{inner}{_GEMMA_QUOTE}":
            raise NoCallError
        return inner
    text = text.removesuffix(_GEMMA_QUOTE)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        if _ESCAPE.search(text):
            raise NoCallError
        return text[1:-1]
    if not _PLAIN_VALUE.fullmatch(text):
        raise NoCallError
    return text


def _is_definition(tool: OfferedTool, arguments: Mapping[str, Any], *, described: bool) -> bool:
    """Whether this is the definition of a tool, rather than a call of it."""
    if arguments.get("type") == "object" and "properties" in arguments and "properties" not in tool.parameters:
        return True
    return described and not arguments


def _arguments(value: object) -> dict[str, Any]:
    """Return arguments that may be given as a string."""
    if isinstance(value, str) and value.strip():
        try:
            value = read_whole_object(value)
        except CutOffError:
            raise NoCallError from None
    if not value and value in (None, "", {}):
        return {}
    if not is_object(value):
        raise NoCallError
    return value
