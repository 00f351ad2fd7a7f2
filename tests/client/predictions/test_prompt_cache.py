"""Which prompts are reported as leaving the server's prompt cache, and which are not."""

import re
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Any

import pytest

from lmstudio_integrations.client.predictions.entries.cache_warning import PromptCache
from lmstudio_integrations.protocol.prompt_fingerprint import fingerprint_of
from lmstudio_integrations.types.functions import ToolCallRequest
from lmstudio_integrations.types.results import PredictionEnd, PredictionResult

Message = dict[str, Any]
Messages = list[Message]


def message(role: str, *texts: str) -> Message:
    return {"role": role, "content": [{"type": "text", "text": text} for text in texts]}


def system(text: str = "Be brief. " * 20) -> Message:
    return message("system", text)


def user(text: str) -> Message:
    return message("user", text)


def call(name: str, number: int) -> Message:
    request = {"type": "function", "id": f"{number}", "name": name, "arguments": {"city": f"city {number}"}}
    return {"role": "assistant", "content": [{"type": "toolCallRequest", "toolCallRequest": request}]}


def called(number: int, text: str) -> Message:
    return {"role": "tool", "content": [{"type": "toolCallResult", "content": text, "toolCallId": f"{number}"}]}


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": f"Look for the {name} of a city. " * 5}}


A, B, C = map(tool, ("weather", "population", "altitude"))


class Simulation:
    """A server with a cache for all prompts and responses, and a client that notices what is not in it.

    Attributes:
        memory: What the client remembers.
        lost: How many tokens of the prompt and the response before are not in the cache for the last prompt.
    """

    def __init__(self, *, counts: bool = True) -> None:
        self.memory = PromptCache()
        self.lost = 0
        self._counts = counts
        self._cached: deque[list[str]] = deque(maxlen=40)

    def respond(self, messages: Messages, tools: Sequence[Any] = (), response: Message | None = None) -> Message:
        """Respond to a prompt, by default with what it says last."""
        response = response or message("assistant", f"You said: {messages[-1]['content'][0]}. What else?")
        written = [repr(tools) if tools else "", *_written(messages)]
        cached = _tokens(written[: max((_common(each, written) for each in self._cached), default=0)])
        self.lost = _tokens(self._cached[-1]) - cached if self._cached else 0
        self._cached.append([*written, *_written([response])])
        stats = {"promptTokensCount": _tokens(written), "predictedTokensCount": _tokens(_written([response]))}
        (part,) = response["content"]
        calls = [ToolCallRequest.from_dict(part["toolCallRequest"])] if "toolCallRequest" in part else []
        result = PredictionResult(
            part.get("text", ""),
            "",
            PredictionEnd(stats, {"identifier": "m"}, {}, {}),
            tool_call_requests=tuple(calls),
            cached_tokens=cached if self._counts else None,
        )
        self.memory.add(fingerprint_of(messages, tools), result)
        return response


def _written(messages: Messages) -> list[str]:
    return [f"<{each['role']}>{part}" for each in messages for part in each["content"]]


def _common(one: list[str], other: list[str]) -> int:
    pairs = zip(one, other, strict=False)
    return next((at for at, (first, second) in enumerate(pairs) if first != second), min(len(one), len(other)))


def _tokens(texts: Iterable[str]) -> int:
    return sum(len(text) for text in texts) // 8


# Reported ------------------------------------------------------------------------------------------------------------

Change = Callable[[Messages, int], Messages]
"""What a program makes of the messages of a conversation, in its turns."""


def front(messages: Messages, first: Message, *, in_place: bool = True) -> Messages:
    return [first, *messages[in_place:]]


CHANGES: dict[str, tuple[Change, str]] = {
    "a clock": (lambda messages, turn: front(messages, system("Rules. " * 40 + f"12:0{turn}")), "message 0 (system)"),
    "a first message that is rewritten": (
        lambda messages, turn: [messages[0], user(f"[{turn}] What is rain?"), *messages[2:]],
        "message 1 (user)",
    ),
    "context at the front": (
        lambda messages, turn: (
            front(messages, system(f"Context {turn}. " * turn), in_place=False) if turn else messages
        ),
        "message 0 (system)",
    ),
    "one more part of the first message": (
        lambda messages, turn: front(messages, message("system", "Rules. " * 40, *[f"It is {turn}."] * (turn > 0))),
        "message 0 (system) differs from the call before",
    ),
    "an earlier response that is rewritten": (
        lambda messages, turn: [
            message("assistant", f"{turn}. A response.") if at == 2 else each for at, each in enumerate(messages)
        ],
        "message 2 (assistant)",
    ),
    "context before the first question": (
        lambda messages, turn: [
            messages[0],
            *([message("assistant", "Context. " * 9)] if turn > 1 else []),
            *messages[1:],
        ],
        "message 1 (assistant) was not in the call before",
    ),
}


def tokens_of(text: str) -> int:
    """Return how many tokens a report names."""
    (tokens,) = re.findall(r"processes (\d+) tokens again", text)
    return int(tokens)


@pytest.mark.parametrize(
    ("change", "place", "counts"),
    [*((*case, True) for case in CHANGES.values()), (*CHANGES["a clock"], False)],
    ids=[*CHANGES, "an estimate"],
)
def test_a_prompt_that_begins_differently_is_reported_once(change: Change, place: str, counts: bool) -> None:
    server, messages, lost = Simulation(counts=counts), [system()], list[int]()
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        for turn in range(6):
            before = len(given)
            messages.append(user(f"What is rain, and what is question {turn} about it?"))
            messages.append(server.respond(change(messages, turn)))
            lost += [server.lost] * (len(given) - before)
    (report,), (expected,) = given, lost
    text = str(report.message)
    assert text.startswith(place)
    assert "into the newest message" in text
    assert tokens_of(text) == pytest.approx(expected, rel=0.05 if counts else 0.3)


def test_other_tools_are_those_of_another_agent() -> None:
    server, messages = Simulation(), [system(), user("What is the weather in Rome?")]
    for turn in range(4):  # a warning would be an error
        response = server.respond(messages, ([A, B, C], [C, A, B])[turn % 2], call("weather", turn))
        messages += [response, called(turn, "Rain, and more rain in the evening.")]


def test_a_conversation_with_a_clock_is_remembered_by_its_newest_prompt_alone() -> None:
    server, ticks, conversations = Simulation(), count(), [list[Message]() for _ in range(2)]
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        for number in (0, *[1] * 70, 0):  # more than a client remembers
            messages, clock = conversations[number], system("Rules. " * 90 + f"{next(ticks)}")
            messages.append(user("Continue"))
            answer = message("assistant", f"This is story {number}, which goes on and on in the same way.")
            messages.append(server.respond([clock, *messages], response=answer))
    assert len(given) == 2, "each conversation has one warning"


# Not reported --------------------------------------------------------------------------------------------------------

QUESTION = user("What is rain, and where does all of it come from?")
ANSWER, LATER_ANSWER = (message("assistant", f"{text} It comes from clouds. " * 9) for text in ("Water.", "Snow, too."))
NEXT, LAST = user("And what is snow made of?"), user("And how much of it is there?")
SEEN = user(f"{'An article about clouds. ' * 20}What is rain?")
CALLED = [call("weather", 1), called(1, "Rain in the morning, and rain in the evening. " * 20)]

Step = tuple[Messages, Sequence[Any], Message]
"""A prompt, its tools, and the response."""

SILENT: dict[str, list[Step]] = {
    "a conversation that grows": [
        ([system(), QUESTION], [A], ANSWER),
        ([system(), QUESTION, ANSWER, NEXT], [A], LATER_ANSWER),
        ([system(), QUESTION, ANSWER, NEXT, LATER_ANSWER, LAST], [A], ANSWER),
    ],
    "the same prompt again": [([system(), QUESTION], [A], answer) for answer in (ANSWER, LATER_ANSWER, ANSWER)],
    "an earlier turn that goes on in another way": [
        ([system(), QUESTION], [], ANSWER),
        ([system(), QUESTION, ANSWER, NEXT], [], LATER_ANSWER),
        ([system(), QUESTION, ANSWER, LAST], [], LATER_ANSWER),
    ],
    "another conversation with the same system message": [
        ([system(), QUESTION], [], ANSWER),
        ([system(), NEXT], [], ANSWER),
        ([system(), NEXT, ANSWER, QUESTION], [], ANSWER),
    ],
    "short questions and answers that many conversations begin with": [
        ([system("You help Ann. " * 40), user("Hi")], [], message("assistant", "Hello")),
        ([system("You help Bob. " * 40), user("Hi"), message("assistant", "Hello"), QUESTION], [], ANSWER),
    ],
    "the same question with another response": [
        ([system("You help Ann. " * 40), QUESTION], [], ANSWER),
        ([system("You help Bob. " * 40), QUESTION, LATER_ANSWER, NEXT], [], ANSWER),
    ],
    "trimmed": [
        ([system(), QUESTION, ANSWER, NEXT], [], LATER_ANSWER),
        ([system(), NEXT, LATER_ANSWER, LAST], [], ANSWER),
    ],
    "summarized": [
        ([system(), QUESTION, ANSWER, NEXT], [], LATER_ANSWER),
        ([system(), user("We talked about rain. " * 40), NEXT, LATER_ANSWER, LAST], [], ANSWER),
    ],
    "a result of a tool that is cleared": [
        ([system(), QUESTION, *CALLED, ANSWER, NEXT], [A], LATER_ANSWER),
        ([system(), QUESTION, CALLED[0], called(1, "[cleared]"), ANSWER, NEXT, LATER_ANSWER, LAST], [A], ANSWER),
    ],
    "documents in the newest message only": [
        ([system(), SEEN], [], ANSWER),
        ([system(), user("What is rain?"), ANSWER, SEEN], [], LATER_ANSWER),
        ([system(), user("What is rain?"), ANSWER, user("What is rain?"), LATER_ANSWER, LAST], [], ANSWER),
    ],
    "the last round, without tools": [
        ([system(), QUESTION], [A], CALLED[0]),
        ([system(), QUESTION, *CALLED], [], ANSWER),
        ([system(), QUESTION, *CALLED, ANSWER, NEXT], [A], LATER_ANSWER),
    ],
    "another agent": [
        ([system("You look. " * 40), QUESTION], [A], ANSWER),
        ([system("You judge. " * 40), QUESTION, ANSWER, NEXT], [B], LATER_ANSWER),
    ],
    "a change that costs little": [
        ([system(), *[QUESTION, ANSWER] * 40, user("Say [1]."), message("assistant", "1"), NEXT], [], LATER_ANSWER),
        (
            [system(), *[QUESTION, ANSWER] * 40, user("Say [2]."), message("assistant", "1"), NEXT, LATER_ANSWER, LAST],
            [],
            ANSWER,
        ),
    ],
    "a small prompt": [
        ([system("It is 12."), QUESTION], [], message("assistant", "Water.")),
        ([system("It is 13."), QUESTION, message("assistant", "Water."), NEXT], [], ANSWER),
    ],
}


@pytest.mark.parametrize("steps", SILENT.values(), ids=SILENT)
def test_what_grows_or_is_ambiguous_is_not_reported(steps: list[Step]) -> None:
    server = Simulation()
    for messages, tools, response in steps:
        server.respond(messages, tools, response)  # a warning would be an error


def test_without_counts_of_tokens_nothing_is_recorded() -> None:
    memory = PromptCache()
    for second in ("1", "2"):
        end = PredictionEnd({"stopReason": "eosFound"}, {}, {}, {})
        memory.add(fingerprint_of([system(second), QUESTION]), PredictionResult("Yes", "", end))
