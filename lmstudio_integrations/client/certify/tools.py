"""The row `tools`: forty requests, each with the same twelve tools, of which one, several or none is needed."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from lmstudio_integrations._support.text import dumps
from lmstudio_integrations._support.typeguards import is_list, is_mapping
from lmstudio_integrations.client.certify.examiner import Case, Examiner, Row, Summary, most_common, successes
from lmstudio_integrations.client.predictions.calls_in_text.call_arguments import mend
from lmstudio_integrations.client.predictions.calls_in_text.call_repair import MeantTools
from lmstudio_integrations.client.predictions.calls_in_text.parser import StreamingToolParser
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.types.cards import Observation, failures_of
from lmstudio_integrations.types.config_dicts import LlmPredictionConfigDict
from lmstudio_integrations.types.results import PredictionResult

CALL_ID = "abc123def"
"""The id of a call that was made: some chat templates require nine letters and digits."""

T = TypeVar("T")
Arguments = Mapping[str, Any]
Calls = Sequence[tuple[str, Arguments]]


def _object(**properties: Any) -> Arguments:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _tool(name: str, description: str, **properties: Any) -> dict[str, Any]:
    function = {"name": name, "description": description, "parameters": _object(**properties)}
    return {"type": "function", "function": function}


_TEXT: Arguments = {"type": "string"}
_NUMBER: Arguments = {"type": "number"}
_INTEGER: Arguments = {"type": "integer"}
_DAY: Arguments = {"type": "string", "enum": ["monday", "tuesday", "wednesday", "thursday", "friday"]}

DEFINITIONS: Sequence[dict[str, Any]] = (
    _tool("get_weather", "Return the weather in a city.", city=_TEXT),
    _tool("convert_currency", "Convert an amount of money.", amount=_NUMBER, source=_TEXT, target=_TEXT),
    _tool("send_email", "Send an email.", to=_TEXT, subject=_TEXT, body=_TEXT),
    _tool("search_flights", "Find flights between two cities.", origin=_TEXT, destination=_TEXT),
    _tool("set_timer", "Start a timer.", minutes=_INTEGER),
    _tool("open_hours", "Return when the museum is open on a weekday.", day=_DAY),
    _tool("set_light", "Switch a lamp.", room=_TEXT, state={"type": "string", "enum": ["on", "off"]}),
    _tool("add_contact", "Save a person.", person=_object(name=_TEXT, address=_object(street=_TEXT, city=_TEXT))),
    _tool("order_items", "Order goods.", items={"type": "array", "items": _object(product=_TEXT, count=_INTEGER)}),
    _tool("read_file", "Return the text of a file.", path=_TEXT),
    _tool("get_stock_price", "Return the price of a share.", symbol=_TEXT),
    _tool("translate_text", "Translate a text.", text=_TEXT, language=_TEXT),
)
"""The tools of each request."""


class Request(NamedTuple):
    """A request, and the calls that it needs.

    Attributes:
        name: The part of the row, and the number.
        prompt: The message of the user.
        calls: The calls that it needs, in any order: a name, and arguments that must be among those of the call.
        choice: The tool choice: `auto`, `required`, or the name of the only tool, which is then required.
        says: What the text must contain if no call is needed.
        made: A call that was made after the message, and its result.
    """

    name: str
    prompt: str
    calls: Calls = ()
    choice: str = "auto"
    says: str = ""
    made: tuple[str, Arguments, str] | None = None

    def messages(self, prompt: str) -> list[dict[str, Any]]:
        """Return the conversation, with a variant of the prompt."""
        user = {"role": "user", "content": prompt}
        if self.made is None:
            return [user]
        name, arguments, result = self.made
        call = {"type": "function", "id": CALL_ID, "name": name, "arguments": dict(arguments)}
        return [
            user,
            {"role": "assistant", "content": [{"type": "toolCallRequest", "toolCallRequest": call}]},
            {"role": "tool", "content": [{"type": "toolCallResult", "content": result, "toolCallId": CALL_ID}]},
        ]


_WEATHER, _READ, _PRICE, _TIMER = "get_weather", "read_file", "get_stock_price", "set_timer"
_CURRENCY, _FLIGHTS, _ORDER = "convert_currency", "search_flights", "order_items"


def _items(**counts: int) -> Arguments:
    return {"items": [{"product": product, "count": count} for product, count in counts.items()]}


REQUESTS: Sequence[Request] = (
    Request("one/1", "What is the weather in Oslo?", [(_WEATHER, {"city": "Oslo"})]),
    Request("one/2", "Start a timer for 12 minutes.", [(_TIMER, {"minutes": 12})]),
    Request("one/3", "What does the file notes/todo.txt say?", [(_READ, {"path": "notes/todo.txt"})]),
    Request(
        "one/4",
        "How much is 250 USD in EUR?",
        [(_CURRENCY, {"amount": 250, "source": "USD", "target": "EUR"})],
    ),
    Request("one/5", "What is the price of the share AAPL?", [(_PRICE, {"symbol": "AAPL"})]),
    Request("one/6", "Find flights from Rome to Lisbon.", [(_FLIGHTS, {"origin": "Rome", "destination": "Lisbon"})]),
    Request("one/7", "Translate 'good morning' into French.", [("translate_text", {"language": "French"})]),
    Request(
        "one/8",
        "Email ana@example.org with the subject Lunch, and ask her whether noon suits her.",
        [("send_email", {"to": "ana@example.org", "subject": "Lunch"})],
    ),
    Request(
        "several/1",
        "What is the weather in Rome and in Cairo?",
        [(_WEATHER, {"city": "Rome"}), (_WEATHER, {"city": "Cairo"})],
    ),
    Request(
        "several/2",
        "Start two timers: one for 3 minutes and one for 10 minutes.",
        [(_TIMER, {"minutes": 3}), (_TIMER, {"minutes": 10})],
    ),
    Request(
        "several/3",
        "Get the price of the shares MSFT and NVDA.",
        [(_PRICE, {"symbol": "MSFT"}), (_PRICE, {"symbol": "NVDA"})],
    ),
    Request(
        "several/4",
        "Read the files a.txt and b.txt.",
        [(_READ, {"path": "a.txt"}), (_READ, {"path": "b.txt"})],
    ),
    Request(
        "several/5",
        "Tell me the weather in Lima, and start a timer for 5 minutes.",
        [(_WEATHER, {"city": "Lima"}), (_TIMER, {"minutes": 5})],
    ),
    Request("none/1", "Hello, how are you?"),
    Request("none/2", "What is 2 plus 2? Reply with the number only.", says="4"),
    Request("none/3", "Thank you, that was all."),
    Request("none/4", "Which color do blue and yellow make when they are mixed?", says="green"),
    Request("none/5", "Write the word ferry in capital letters, without any tool.", says="FERRY"),
    Request(
        "nested/1",
        "Save the person Ana Silva, who lives in Main Street 5 in Porto.",
        [("add_contact", {"person": {"name": "Ana Silva", "address": {"city": "Porto"}}})],
    ),
    Request(
        "nested/2",
        "Save a contact: Li Wei, Park Road 9, Leeds.",
        [("add_contact", {"person": {"name": "Li Wei", "address": {"city": "Leeds"}}})],
    ),
    Request("nested/3", "Order 3 pens and 2 notebooks.", [(_ORDER, _items(pen=3, notebook=2))]),
    Request("nested/4", "Order one lamp.", [(_ORDER, _items(lamp=1))]),
    Request("nested/5", "Order 10 apples, 4 pears and 1 melon.", [(_ORDER, _items(apple=10, pear=4, melon=1))]),
    Request("enum/1", "When is the museum open on Tuesday?", [("open_hours", {"day": "tuesday"})]),
    Request("enum/2", "Is the museum open on Friday?", [("open_hours", {"day": "friday"})]),
    Request("enum/3", "Turn on the lamp in the kitchen.", [("set_light", {"room": "kitchen", "state": "on"})]),
    Request("enum/4", "It is too bright in the bedroom: switch the lamp off.", [("set_light", {"state": "off"})]),
    Request("required/1", "I am in Bergen. Do I need an umbrella?", [(_WEATHER, {"city": "Bergen"})], "required"),
    Request("required/2", "Tea needs 4 minutes.", [(_TIMER, {"minutes": 4})], "required"),
    Request("required/3", "It is dark in the hall.", [("set_light", {"state": "on"})], "required"),
    Request("required/4", "What about the share TSLA?", [(_PRICE, {"symbol": "TSLA"})], "required"),
    Request("named/1", "Athens", [(_WEATHER, {"city": "Athens"})], _WEATHER),
    Request("named/2", "Report.txt, please.", [(_READ, {})], _READ),
    Request("named/3", "Good night, in Spanish.", [("translate_text", {"language": "Spanish"})], "translate_text"),
    Request("named/4", "Monday", [("open_hours", {"day": "monday"})], "open_hours"),
    Request(
        "result/1", "What is the weather in Oslo?", says="snow", made=(_WEATHER, {"city": "Oslo"}, "snow, -7 degrees")
    ),
    Request("result/2", "What is the price of AAPL?", says="231", made=(_PRICE, {"symbol": "AAPL"}, "231 USD")),
    Request("result/3", "What is in code.txt?", says="4711", made=(_READ, {"path": "code.txt"}, "The code is 4711.")),
    Request("end/1", "Start a timer for 12 minutes.", made=(_TIMER, {"minutes": 12}, "started")),
    Request("end/2", "Order a lamp.", made=(_ORDER, _items(lamp=1), "ordered")),
)
"""In the parts `one`, `several`, `none`, `nested`, `enum`, `required`, `named`, `result` (is it used?) and `end`."""

MAX_TOKENS = 96
"""Tokens of a response: three calls with their arguments."""

_BY_NAME = {each["function"]["name"]: each for each in DEFINITIONS}
_OFFERED = MeantTools(DEFINITIONS)


def _ask(request: Request, examiner: Examiner) -> Flow[None]:
    offered, mode = list(DEFINITIONS), request.choice
    if mode in _BY_NAME:  # on the wire, a choice names no tool
        offered, mode = [_BY_NAME[mode]], "required"
    messages = request.messages(examiner.vary(request.prompt))
    config: LlmPredictionConfigDict = {
        "raw_tools": {"type": "toolArray", "tools": offered},
        "tool_choice": {"type": "generic", "mode": mode},
    }
    result = yield from examiner.respond({"messages": messages}, MAX_TOKENS, config=config, check_response=False)
    made = [(call.name, dict(call.arguments or {})) for call in result.tool_call_requests]
    outcome = _judge(request, made, result)
    said = dumps([{name: arguments} for name, arguments in made]) if made else result.raw_content or result.content
    examiner.verdict(request.name, outcome, "" if outcome == "right" else said)


def _judge(request: Request, made: Calls, result: PredictionResult) -> str:
    failed = any(call.failure for call in result.tool_calls)
    if result.stats.stop_reason == "maxPredictedTokensReached" and (made or failed or result.reasoning_tokens):
        return "too long"
    if made:
        return _judge_calls(request.calls, made)
    in_text = _calls_in(result.content)
    if request.calls:
        is_right = _matches_all(request.calls, in_text)
        return "in the text" if is_right else "malformed" if failed or in_text else "no call"
    says_it = bool(result.content.strip()) and request.says.casefold() in result.content.casefold()
    return "right" if says_it and not in_text else "wrong text"


def _judge_calls(needed: Calls, made: Calls) -> str:
    if not needed:
        return "needless call"
    if _matches_all(needed, made):
        return "right"
    if _matches_all(needed, _mended(made)):
        return "mended"
    names, needed_names = (Counter(name for name, _ in calls) for calls in (made, needed))
    return "wrong arguments" if names == needed_names else "needless call" if names > needed_names else "wrong tool"


def _calls_in(text: str) -> Calls:
    """Return the calls that the server left in the text."""
    parser = StreamingToolParser(_OFFERED, marked_only=False)
    parser.add(text)
    found = parser.finish()
    return [(tool.name, arguments) for tool, arguments in found[1].calls] if found else []


def _mended(made: Calls) -> Calls:
    """Return calls as `repair_tool_calls` mends them without the model."""
    tools = [(_OFFERED.meant(name), dict(arguments)) for name, arguments in made]
    return [(tool.name, mend(tool, arguments) or arguments) for tool, arguments in tools if tool is not None]


def _matches_all(needed: Calls, made: Calls) -> bool:
    """Whether exactly the needed calls were made, in any order, and fit their tools."""
    tools = [_OFFERED.find(name) for name, _ in made]
    fit = [tool is not None and tool.problem(call[1]) is None for tool, call in zip(tools, made, strict=True)]
    return all(fit) and _pairs(
        made, needed, lambda call, wanted: call[0] == wanted[0] and _contains(call[1], wanted[1])
    )


def _pairs(values: Sequence[T], needed: Sequence[T], matches: Callable[[T, T], bool]) -> bool:
    """Whether each value is one that is needed, in any order."""
    left = list(values)
    for each in needed:
        match = next((value for value in left if matches(value, each)), None)
        if match is None:
            return False
        left.remove(match)
    return not left


def _contains(value: Any, needed: Any) -> bool:
    """Whether a value has what is needed: of a text the first words, as in `Oslo, Norway`, and also in the plural."""
    if is_mapping(needed):
        return is_mapping(value) and all(_contains(value.get(name), each) for name, each in needed.items())
    if is_list(needed):
        return is_list(value) and _pairs(value, needed, _contains)
    if isinstance(needed, str):
        return (
            isinstance(value, str) and re.match(rf"{re.escape(needed)}s?(?!\w|\.\w)", value, re.IGNORECASE) is not None
        )
    return not isinstance(value, bool) and bool(value == needed)


_ADVICE = {
    "does not fit": "load it with a larger context_length: the definitions of twelve tools do not fit",
    "in the text": "rescue_tool_calls=True reads the calls that stay in the text",
    "mended": "repair_tool_calls=True mends the calls that do not fit their tool",
    "malformed": "repair_tool_calls=True mends the calls that cannot be read",
    "no call": "tool_choice with required_tool_fallback=True requests the calls by grammar that the model owes",
    "wrong tool": "offer fewer tools at once",
    "wrong arguments": "describe the arguments of the tools, or take a larger model",
    "needless call": "offer the tools only where they may be needed",
}
"""What helps if most failures are of this kind."""


def _summarize(observations: Sequence[Observation]) -> Summary:
    text, failures = successes(observations, "right"), [each.outcome for each in failures_of(observations)]
    if 2 * len(failures) > len(observations) and not {"in the text", "does not fit"} & {*failures}:
        return Summary(text, "use another model for agents")
    return Summary(text, _ADVICE["in the text"] if "in the text" in failures else most_common(_ADVICE, observations))


TOOLS = Row(
    name="tools",
    question="Does the model call the right tool with the right arguments, and none where none is needed?",
    anchor="predict-packets",
    cases=[Case(request.name, partial(_ask, request)) for request in REQUESTS],
    prompt_tokens=56_000,
    predicted_tokens=5_000,
    summarize=_summarize,
    # A call that was left in the text, or had to be mended, is none for most programs.
    scores={"right": 1.0, "in the text": 0.5, "mended": 0.5},
)
