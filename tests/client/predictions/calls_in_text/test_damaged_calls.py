"""Calls that a model has damaged, in every dialect: none is lost in silence.

One table: dialect by damage. Each cell is a call, an invalid call, a second request, or a text for a reason.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.predictions.calls_in_text.call_repair import LostCall
from lmstudio_integrations.client.predictions.calls_in_text.read_calls import ReadCalls
from lmstudio_integrations.client.predictions.calls_in_text.repair_calls import RepairCalls
from lmstudio_integrations.client.predictions.middleware import Events
from lmstudio_integrations.types.results import LlmPredictionFragment
from tests.client.predictions.middlewares import end, passed, plan_with
from tests.real.corpus import pieces

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": PARAMETERS}} for name in ("look_up", "book")]


@dataclass(frozen=True)
class Dialect:
    """How a family writes calls.

    Attributes:
        call: A call, with `NAME` and `WRITTEN`.
        begin: What stands before all calls.
        end: What stands behind them.
        between: What stands between two.
        arguments: The arguments that look up Oslo.
        broken: Arguments that nobody can read.
        empty: A response without a call between the markers, if the family marks the end.
        are_json: Whether the arguments are JSON, and so may be a string.
        is_nameless: Whether a call without a name can be told from a text, because a marker ends it.
        is_apart: Whether a call can be read behind a broken one.
    """

    call: str
    begin: str = ""
    end: str = ""
    between: str = ""
    arguments: str = '{"city": "Oslo"}'
    broken: str = '{"city" 5 "Oslo"}'
    empty: str | None = None
    are_json: bool = True
    is_nameless: bool = False
    is_apart: bool = True

    def written(self, name: str = "look_up", arguments: str | None = None) -> str:
        return self.call.replace("NAME", name).replace("WRITTEN", self.arguments if arguments is None else arguments)

    def response(self, *calls: str) -> str:
        return f"{self.begin}{self.between.join(calls)}{self.end}"


JSON = '{"name": "NAME", "arguments": WRITTEN}'


def of_json(begin: str, end: str, call: str = JSON, **more: object) -> Dialect:
    """A call in JSON between markers of its own."""
    return Dialect(f"{begin}{call}{end}", between="\n", empty=f"{begin}{end}", is_nameless=True, **more)  # type: ignore[arg-type]


def listed(begin: str, end: str, call: str = JSON) -> Dialect:
    """Calls in a list: what follows on a broken one cannot be told from it."""
    return Dialect(call, f"{begin}[", f"]{end}", ", ", is_apart=False)


def tagged(call: str, arguments: str, broken: str, begin: str = "", end: str = "", **more: object) -> Dialect:
    """Calls whose arguments are in tags, or in a form of their own."""
    return Dialect(call, begin, end, "\n", arguments, broken, are_json=False, **more)  # type: ignore[arg-type]


PARAMETER = '<parameter name="city">Oslo</parameter>'
DSML = "｜DSML｜"
CALLS_OF_DEEPSEEK = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")

DIALECTS = {
    "Hermes": of_json("<tool_call>\n", "\n</tool_call>"),
    "LM Studio": of_json("[TOOL_REQUEST]\n", "\n[END_TOOL_REQUEST]"),
    "dots": of_json("<dots_function_call>", "</dots_function_call>"),
    "InternLM": of_json("<|action_start|><|plugin|>\n", "\n<|action_end|>", '{"name": "NAME", "parameters": WRITTEN}'),
    "Inkling": of_json("<|content_invoke_tool_json|>", "<|end_message|>", '{"name": "NAME", "args": WRITTEN}'),
    "Llama": Dialect('{"name": "NAME", "parameters": WRITTEN}', begin="<|python_tag|>", between="; ", is_apart=False),
    "GigaChat": Dialect(f"<|function_call|>{JSON}", is_apart=False),
    "Granite": Dialect(f"<|tool_call|>{JSON}", between="\n", is_apart=False),
    "Granite's list": listed("<|tool_call|>", ""),
    "Phi": listed("functools", ""),
    "Mistral's list": listed("[TOOL_CALLS]", ""),
    "Nemotron": listed("<TOOLCALL>", "</TOOLCALL>"),
    "Command": listed("<|START_ACTION|>", "<|END_ACTION|>", '{"tool_name": "NAME", "parameters": WRITTEN}'),
    "Mistral": Dialect("[TOOL_CALLS]NAME[ARGS]WRITTEN", is_apart=False),
    "Mistral without [ARGS]": Dialect("[TOOL_CALLS]NAMEWRITTEN", is_apart=False),
    "Kimi": Dialect(
        "<|tool_call_begin|>functions.NAME:0<|tool_call_argument_begin|>WRITTEN<|tool_call_end|>",
        "<|tool_calls_section_begin|>",
        "<|tool_calls_section_end|>",
        empty="<|tool_calls_section_begin|><|tool_calls_section_end|>",
        is_nameless=True,
    ),
    "DeepSeek": Dialect(
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\n```json\nWRITTEN\n```<｜tool▁call▁end｜>",
        *CALLS_OF_DEEPSEEK,
        empty="".join(CALLS_OF_DEEPSEEK),
    ),
    "DeepSeek 3.1": Dialect(
        "<｜tool▁call▁begin｜>NAME<｜tool▁sep｜>WRITTEN<｜tool▁call▁end｜>", *CALLS_OF_DEEPSEEK, is_nameless=True
    ),
    "Harmony": Dialect(
        "<|start|>assistant<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>WRITTEN<|call|>"
    ),
    "Qwen's XML": tagged(
        "<tool_call>\n<function=NAME>\nWRITTEN\n</function>\n</tool_call>",
        "<parameter=city>\nOslo\n</parameter>",
        "<parameter>\nOslo\n</parameter>",
        empty="<tool_call>\n</function>\n</tool_call>",
    ),
    "Seed": tagged(
        "<seed:tool_call>\n<function=NAME>\nWRITTEN\n</function>\n</seed:tool_call>",
        "<parameter=city>Oslo</parameter>",
        "<parameter>Oslo</parameter>",
    ),
    "GLM": tagged(
        "<tool_call>NAME\nWRITTEN\n</tool_call>",
        "<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>",
        "<arg_key>city<arg_value>Oslo",
        empty="<tool_call>\n</tool_call>",
    ),
    "LongCat": tagged(
        "<longcat_tool_call>NAME\nWRITTEN\n</longcat_tool_call>",
        "<longcat_arg_key>city</longcat_arg_key>\n<longcat_arg_value>Oslo</longcat_arg_value>",
        "<longcat_arg_key>city<longcat_arg_value>Oslo",
    ),
    "Hunyuan": tagged(
        "<tool_call>NAME<tool_sep>\nWRITTEN\n</tool_call>",
        "<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>",
        "<arg_key>city<arg_value>Oslo",
        "<tool_calls>\n",
        "\n</tool_calls>",
    ),
    "Solar": tagged(
        "<|tool_call:start|>NAME<|tool_arg:start|>WRITTEN<|tool_call:end|>",
        "city<|tool_arg:value|>Oslo<|tool_arg:end|>",
        "city Oslo",
    ),
    "LFM": tagged(
        "NAME(WRITTEN)", 'city="Oslo"', 'city "Oslo"', "<|tool_call_start|>[", "]<|tool_call_end|>", is_apart=False
    ),
    "Gemma": tagged(
        "<|tool_call>call:NAMEWRITTEN<tool_call|>",
        '{city:<|"|>Oslo<|"|>}',
        '{city<|"|>Oslo<|"|>}',
        empty="<|tool_call><tool_call|>",
    ),
    "FunctionGemma": tagged(
        "<start_function_call>call:NAMEWRITTEN<end_function_call>",
        "{city:<escape>Oslo<escape>}",
        "{city<escape>Oslo<escape>}",
    ),
    "Gemma 3": tagged("NAME(WRITTEN)", 'city="Oslo"', 'city "Oslo"', "```tool_code\n", "\n```", is_apart=False),
    "DeepSeek's XML": tagged(
        f'<{DSML}invoke name="NAME">\nWRITTEN\n</{DSML}invoke>',
        f'<{DSML}parameter name="city" string="true">Oslo</{DSML}parameter>',
        f"<{DSML}parameter>Oslo</{DSML}parameter>",
        f"<{DSML}function_calls>\n",
        f"\n</{DSML}function_calls>",
        empty=f"<{DSML}function_calls>\n</{DSML}function_calls>",
    ),
    "MiniMax": tagged(
        '<invoke name="NAME">\nWRITTEN\n</invoke>',
        PARAMETER,
        "<parameter>Oslo</parameter>",
        "<minimax:tool_call>\n",
        "\n</minimax:tool_call>",
        empty="<minimax:tool_call>\n</minimax:tool_call>",
    ),
    "Anthropic": tagged(
        '<invoke name="NAME">\nWRITTEN\n</invoke>',
        PARAMETER,
        "<parameter>Oslo</parameter>",
        "<function_calls>\n",
        "\n</function_calls>",
    ),
    "PLaMo": Dialect(
        "<|plamo:begin_tool_request:plamo|><|plamo:begin_tool_name:plamo|>NAME<|plamo:end_tool_name:plamo|>"
        "<|plamo:begin_tool_arguments:plamo|>WRITTEN<|plamo:end_tool_arguments:plamo|><|plamo:end_tool_request:plamo|>",
        "<|plamo:begin_tool_requests:plamo|>",
        "<|plamo:end_tool_requests:plamo|>",
        is_nameless=True,
    ),
}
"""Apertus, whose calls have their names as keys, is not here: of two in a list, the second is lost with the first."""


def damaged_first(dialect: Dialect) -> str:
    return dialect.response(dialect.written("book", dialect.broken), dialect.written())


def damaged_second(dialect: Dialect) -> str:
    return dialect.response(dialect.written(), dialect.written("book", dialect.broken))


def cut(dialect: Dialect) -> str:
    whole = dialect.response(dialect.written())
    return whole[: whole.index("Oslo") + 2]


DAMAGES: dict[str, Callable[[Dialect], str | None]] = {
    "none": lambda each: each.response(each.written()),
    "arguments are a string": lambda each: (
        each.response(each.written(arguments=json.dumps(each.arguments))) if each.are_json else None
    ),
    "arguments are a text": lambda each: each.response(each.written(arguments='"Oslo"')) if each.are_json else None,
    "arguments are broken": lambda each: each.response(each.written(arguments=each.broken)),
    "no name": lambda each: each.response(each.written("")) if each.is_nameless else None,
    "nothing between the markers": lambda each: each.empty,
    "no end": lambda each: each.response(each.written()).removesuffix(each.end) if each.end else None,
    "cut off": cut,
    "the first of two": damaged_first,
    "the second of two": damaged_second,
    "a separator before it": lambda each: f"; {each.response(each.written())}",
    "an invented result behind it": lambda each: (
        f"{each.response(each.written())}\n<tool_response>sunny</tool_response>"
    ),
    "an invented result that is cut off": lambda each: f"{each.response(each.written())}\n<tool_response>sun",
}

CALL, UNREADABLE, LOST = (["look_up"], ["look_up"]), (["invalid"], ["look_up?"]), (["invalid"], ["any?"])
EXPECTED: dict[str, tuple[list[str], list[str]]] = {
    "none": CALL,
    "arguments are a string": CALL,
    "arguments are a text": UNREADABLE,
    "arguments are broken": UNREADABLE,
    "no name": LOST,
    "nothing between the markers": LOST,
    "no end": CALL,
    "cut off": UNREADABLE,
    "the first of two": (["invalid", "look_up"], ["book?", "look_up"]),
    "the second of two": (["look_up", "invalid"], ["look_up", "book?"]),
    "a separator before it": CALL,
    "an invented result behind it": CALL,
    "an invented result that is cut off": CALL,
}
"""What comes of a damage, without repairs and with them. `?` means that the model is asked for it once more."""

NOT_APART = (["invalid"], ["book?", "look_up?"])
"""What comes of two calls if the end of the first, which is broken, is not marked."""


def outcome(parts: list[str], *, repairs: bool) -> list[str]:
    """Return what becomes of a response: the calls, in order, those that cannot be made, and what is asked for."""
    plan = plan_with(TOOLS, keeps_misfits=True)
    plan = replace(plan, options=replace(plan.options, rescue_tool_calls=True, repair_tool_calls=repairs))
    batches: list[Events] = [[LlmPredictionFragment(part)] for part in parts]
    _, events = passed(ReadCalls(plan), [*batches, [end()]])
    if repairs:
        middleware = RepairCalls(plan)
        _, events = passed(middleware, [[event] for event in events])
        if not any(type(event) is lms.PredictionEnd for event in events):
            return [
                "any?"
                if isinstance(call.wrong, LostCall)
                else f"{call.wrong.tool.name}?"
                if call.wrong
                else next(event.name for event in call.events if type(event) is lms.ToolCallEnd)
                for call in middleware._pending
            ]
    return [
        event.name if type(event) is lms.ToolCallEnd else "invalid"
        for event in events
        if type(event) in {lms.ToolCallEnd, lms.ToolCallFailed}
    ]


CELLS = {
    (name, damage): text
    for name, dialect in DIALECTS.items()
    for damage, damaged in DAMAGES.items()
    if (text := damaged(dialect)) is not None
}


@pytest.mark.parametrize(("name", "damage"), CELLS)
def test_no_damaged_call_is_lost_in_silence(name: str, damage: str) -> None:
    dialect, text = DIALECTS[name], CELLS[name, damage]
    expected = NOT_APART if damage == "the first of two" and not dialect.is_apart else EXPECTED[damage]
    for size in (None, 3):
        found = tuple(outcome(pieces(text, size), repairs=repairs) for repairs in (False, True))
        assert found == expected


@pytest.mark.parametrize("name", DIALECTS)
def test_a_call_behind_which_the_response_goes_on_is_only_shown(name: str) -> None:
    dialect = DIALECTS[name]
    for behind in ("\nDone, it is sunny.", "\n<tool_response>sunny</tool_response>\nIt is sunny in Oslo."):
        text = dialect.response(dialect.written()) + behind
        assert [outcome([text], repairs=repairs) for repairs in (False, True)] == [[], []]
