"""How models mark tool calls: a table of the families. What stands between the markers is read by `call_parser.py`.

Models also use each other's markers, and servers drop some of them. So any body may follow on any marker.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple


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


_ROLES = ("<|start|>assistant ", "<|start|>assistant", "assistant", "")
_CHANNELS = ("<|channel|>commentary ", "<|channel|>analysis ", "<|channel|>", "commentary ", "analysis ")

_DEEPSEEK = [
    f"{bar}tool{gap}{part}{gap}%s{bar}"
    for bar, gap in (("｜", "▁"), ("|", "▁"), ("|", "_"))
    for part in ("calls", "call", "calls_section", "call_section")
]
_BARS = ("｜DSML｜", "｜｜DSML｜｜")

FORMATS = (
    Format(
        "Hermes, Qwen or GLM",
        ("<tool_call>", "<tool_calls>", "<tool>", "<tools>", "<function_call>", "<functioncall>", "<functioncall "),
        ("</tool_call>", "</tool_calls>", "</tool>", "</tools>", "</function_call>", "</functioncall>"),
        ("<tool_call id=",),
    ),
    Format("Qwen's XML", (), ("</function>", "</function_invocation>"), ("<function=", "<function name=")),
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
        "DeepSeek's XML",
        tuple(f"<{bars}{name}>" for bars in _BARS for name in ("function_calls", "tool_calls")),
        tuple(f"</{bars}{name}>" for bars in _BARS for name in ("function_calls", "tool_calls", "invoke")),
        tuple(f"<{bars}invoke name=" for bars in _BARS),
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
            *("<|start|>assistant to=functions.", "<|start|>functions.", "to=functions."),
        ),
        ("<|call|>", "<|end|>", "<|return|>"),
    ),
    Format(
        "Gemma",
        ("<start_function_call>", "<|tool_call>", "<tool_code>"),
        ("<end_function_call>", "</end_function_call>", "<tool_call|>", "</tool_code>"),
    ),
    Format("MiniMax", ("<minimax:tool_call>",), ("</minimax:tool_call>",)),
    Format("Anthropic's XML", ("<function_calls>",), ("</function_calls>", "</invoke>"), ("<invoke name=",)),
    Format("Nemotron", ("<TOOLCALL>",), ("</TOOLCALL>", "<SPECIAL_12>")),
    Format("Hunyuan", ("<answer><tool_calls>", "<answer>\n<tool_calls>"), ("</answer>",)),
    Format("Command", ("<|START_ACTION|>",), ("<|END_ACTION|>",)),
    Format("smolagents", ("Calling tools:", "Action:")),
)

_ENDS_OF_TURN = ("<|im_end|>", "<|endoftext|>", "<|end_of_text|>", "</s>", "<end_of_turn>", "<｜end▁of▁sentence｜>")

_AFTER_RESPONSE = (
    *_ENDS_OF_TURN,
    *("<eos>", "<|user|>", "<|observation|>", "<|tool_response|>", "<start_function_response>"),
    "<|start_header_id|>assistant<|end_header_id|>",
)
"""Special tokens that servers may leave after a response."""

_BEFORE_ARGUMENTS = (
    *("[ARGS]", "<|message|>", "<|channel|>", "<|constrain|>", "<｜tool▁sep｜>", "<|tool▁sep|>", "<|tool_sep|>"),
    "<|tool_call_argument_begin|>",
)
"""Markers between the name of a tool and the arguments."""

NEXT_TURNS = frozenset({*_ENDS_OF_TURN, "<|eot_id|>", "<|im_start|>user", "<|start_header_id|>user"})
"""After these, the model writes somebody else's turn."""

OF_DEFINITIONS = ("<tool>", "<tools>")
"""Tags with which models also list the tools that they have."""

BEGINNING_OF_REASONING, END_OF_REASONING = "<think>", "</think>"


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


_BEGINS = {each for known in FORMATS for each in (*known.begins, *known.bodies)} - {"functools"}

MARKERS = Tokens([*_BEGINS, END_OF_REASONING, *NEXT_TURNS])
"""What the first call in a text may begin with."""

BETWEEN = Tokens([*(each for known in FORMATS for each in (*known.begins, *known.ends)), *_AFTER_RESPONSE])
"""What may stand before calls, between them and after them."""

BEFORE_ARGUMENTS = Tokens(_BEFORE_ARGUMENTS)

ENDS = tuple(dict.fromkeys(end for known in FORMATS for end in known.ends))
"""What a call may end with."""


def format_at(text: str) -> str:
    """Return the models whose marker a text begins with."""
    return next(known.name for known in FORMATS if text.startswith((*known.begins, *known.bodies)))
