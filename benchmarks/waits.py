"""Measure what a user waits for: how much of each prompt comes from the prompt cache, and the time to the first token.

`python -m benchmarks.waits [--only CASE …] [--turns N]` runs the emulator with the real engine and the bundled weights.
Results are printed, and kept in `benchmarks/waits.json`, of which `python -m benchmarks.page` makes the chart of
`docs/guides/speed.md`.
`python -m benchmarks.waits --host ADDRESS … --model KEY` measures an LM Studio that runs.

A conversation could have as many tokens of a prompt from the cache as its last two prompts have in common at their
beginning; that is the optimum, and the tokens that the server reports as cached are set against it, turn by turn. What
the first turn of a conversation finds is not counted. Afterwards, prompts are sent again behind a number, so that
nothing of them is cached. `--stay-nowhere` switches off what the client does: it then chooses hosts as if none had
anything cached.
"""

import argparse
import contextlib
import itertools
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from statistics import median
from typing import Any, NamedTuple, TypeAlias

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    message_chunk_to_message,
)
from langchain_core.utils.function_calling import convert_to_openai_tool

import lmstudio_integrations as lms
from benchmarks import environment
from benchmarks.speed import to_json
from lmstudio_integrations._adapters.request_messages import encode
from lmstudio_integrations.client.hosts.host import HostRecord
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.langchain._messages import convert

RESULTS = environment.ROOT / "benchmarks" / "waits.json"

AGENTS = 8
"""How many agents run at once."""

TURN = 8
"""The turn, from 1, of which the time to the first token is compared."""

MODEL = ModelEntry(key="chat", weights="smollm2-135m-instruct", context_length=8192, slots=4, preload=True)

_WORDS = (
    "harbor lantern river copper window garden thunder paper mountain silver engine basket morning velvet island market"
)


def words(seed: object, count: int) -> str:
    """Return words that are the same for the same seed."""
    return " ".join(random.Random(str(seed)).choices(_WORDS.split(), k=count))


class Turn(NamedTuple):
    """A prompt, and how it is sent.

    Attributes:
        messages: The conversation so far.
        tools: The tools that are offered.
        arguments: Other arguments of the call.
    """

    messages: list[BaseMessage]
    tools: Sequence[dict[str, Any]] = ()
    arguments: dict[str, Any] = {}  # noqa: RUF012 - never changed


Conversation: TypeAlias = Generator[Turn, AIMessage, None]
"""Yields turns, and gets the response to each."""

SYSTEM = SystemMessage(f"You help the people of a harbor town. {words('rules', 100)}.")


def chat(name: int, turns: int, **arguments: Any) -> Conversation:
    """Questions, one after another."""
    messages: list[BaseMessage] = [SYSTEM]
    for turn in range(turns):
        messages.append(HumanMessage(f"{words((name, turn), 30)}?"))
        messages.append((yield Turn(list(messages), arguments=arguments)))


def reasoning(name: int, turns: int) -> Conversation:
    """The same with a model that reasons first. Its template copies thoughts, so those before answers are not sent."""
    grammar = 'root ::= "<think>" [a-z ]{20,40} "</think>" [a-z ]{20,40}'
    yield from chat(
        name, turns, prediction_config={"raw": {"llm.prediction.structured": {"type": "gbnf", "gbnfGrammar": grammar}}}
    )


def structured(name: int, turns: int) -> Conversation:
    """The same with responses in JSON."""
    place = {"type": "object", "properties": {"place": {"type": "string", "maxLength": 20}}, "required": ["place"]}
    yield from chat(
        name, turns, response_format={"type": "json_schema", "json_schema": {"name": "place", "schema": place}}
    )


def _tool(name: str) -> dict[str, Any]:
    text = {"type": "string", "maxLength": 12, "description": words((name, "text"), 5)}
    return {
        "name": name,
        "description": words((name, "description"), 10),
        "parameters": {"type": "object", "properties": {"text": text}, "required": ["text"]},
    }


TOOLS = [convert_to_openai_tool(_tool(name)) for name in ("search", "read", "write", "send", "plan")]


def agent(name: int, turns: int) -> Conversation:
    """An agent with five tools. It has to call one for each question, and then does as it likes."""
    messages: list[BaseMessage] = [SYSTEM]
    response = AIMessage("")
    for turn in range(turns):
        if not response.tool_calls:
            messages.append(HumanMessage(f"{words((name, turn), 20)}?"))
        choice = "auto" if response.tool_calls else "any"
        response = yield Turn(list(messages), TOOLS, {"tool_choice": choice, "max_tokens": 96})
        result = words((name, turn, "result"), 40)
        messages += [response, *(ToolMessage(result, tool_call_id=call["id"]) for call in response.tool_calls)]


def retrieval(name: int, turns: int, *, in_front: bool = False) -> Conversation:
    """Questions with passages that differ each time, in the newest message or in the system message."""
    history: list[BaseMessage] = []
    for turn in range(turns):
        passages, question = words((name, turn, "passages"), 150), f"{words((name, turn), 20)}?"
        if in_front:
            messages = [SystemMessage(f"{SYSTEM.content}\n\n{passages}"), *history, HumanMessage(question)]
        else:
            messages = [SYSTEM, *history, HumanMessage(f"{passages}\n\n{question}")]
        history += [HumanMessage(question), (yield Turn(messages))]


def retrieval_in_front(name: int, turns: int) -> Conversation:
    """Retrieval as many programs do it."""
    yield from retrieval(name, turns, in_front=True)


def summarized(name: int, turns: int) -> Conversation:
    """A chat, half of which is summarized in the middle."""
    messages: list[BaseMessage] = [SYSTEM]
    for turn in range(turns):
        if turn == turns // 2:
            messages[1:-2] = [HumanMessage(f"Summary of what was said: {words((name, 'summary'), 40)}.")]
        messages.append(HumanMessage(f"{words((name, turn), 30)}?"))
        messages.append((yield Turn(list(messages))))


class Case(NamedTuple):
    """What is measured.

    Attributes:
        title: What it is called.
        converse: What the conversations are.
        conversations: How many run at once.
        hosts: On how many hosts.
        context_length: The context window of each.
    """

    title: str
    converse: Callable[[int, int], Conversation]
    conversations: int = 1
    hosts: int = 1
    context_length: int = 8192


CASES = {
    "chat": Case("a chat", chat),
    "agent": Case("an agent with five tools, forced calls", agent),
    "retrieval": Case("retrieval, passages in the newest message", retrieval),
    "in_front": Case("retrieval, passages in the system message", retrieval_in_front),
    "summarized": Case("a chat that is summarized", summarized),
    "structured": Case("a chat with structured output", structured),
    "reasoning": Case("a chat with reasoning", reasoning),
    "agents": Case("eight agents at once, one host", agent, AGENTS),
    "hosts_2": Case("eight agents at once, two hosts", agent, AGENTS, hosts=2),
    "hosts_4": Case("eight agents at once, four hosts", agent, AGENTS, hosts=4),
}


class Measured(NamedTuple):
    """One turn.

    Attributes:
        turn: What was sent.
        response: What came back.
        seconds: The time until the prompt was processed, with the wait for a slot.
    """

    turn: Turn
    response: AIMessage
    seconds: float


def converse(model: ChatLMStudio, conversation: Conversation) -> list[Measured]:
    """Have a conversation and measure its turns."""
    measured: list[Measured] = []
    turn = next(conversation)
    with contextlib.suppress(StopIteration):
        while True:
            measured.append(_respond(model, turn))
            turn = conversation.send(measured[-1].response)
    return measured


def _respond(model: ChatLMStudio, turn: Turn) -> Measured:
    bound: Any = model.bind_tools(turn.tools) if turn.tools else model
    started, times, chunks = time.perf_counter(), list[float](), list[Any]()

    def record(progress: float = 1.0) -> None:
        if progress == 1:
            times.append(time.perf_counter() - started)

    # Text that may become a tool call is held back, so the first chunk may come after the first token.
    for chunk in bound.stream(turn.messages, on_prompt_progress=record, **turn.arguments):
        record()
        chunks.append(chunk)
    response: Any = message_chunk_to_message(sum(chunks[1:], chunks[0]))
    return Measured(turn, response, times[0])


_numbers = itertools.count()


def _uncached(turn: Turn) -> Turn:
    """Return a turn that has a new number at the beginning: of the messages and the tools, as a template may begin with
    either."""
    number = f"{next(_numbers)} at {time.time()}"
    system, *others = turn.messages
    tools = [
        {**tool, "function": {**tool["function"], "description": f"{number} {tool['function']['description']}"}}
        for tool in turn.tools
    ]
    return Turn([SystemMessage(f"{number} {system.content}"), *others], tools, turn.arguments)


class Waits(NamedTuple):
    """What a case came to.

    Attributes:
        found: The tokens that came from the cache.
        optimum: Those that could have.
        processed: The tokens of all prompts that were processed.
        seconds: For each turn, the times to the first token.
        uncached: The same with nothing cached; empty for turns that were not sent again.
        places: How many calls each instance had, on each host.
    """

    found: int
    optimum: int
    processed: int
    seconds: list[list[float]]
    uncached: list[list[float]]
    places: list[int]

    @property
    def share(self) -> float:
        """What came from the cache of what could have."""
        return self.found / self.optimum if self.optimum else 1.0

    @property
    def imbalance(self) -> float:
        """The calls of the instance that had most, relative to the mean."""
        return max(self.places) * len(self.places) / sum(self.places)

    def ratio(self, turn: int) -> float:
        """The time to the first token of a turn relative to that with nothing cached, in the worst conversation."""
        return max(own / other for own, other in zip(self.seconds[turn], self.uncached[turn], strict=True))


def measure(case: Case, turns: int, hosts: Sequence[str], key: str) -> Waits:
    """Have the conversations of a case at once, then send their prompts again with nothing cached."""
    model = ChatLMStudio(
        model=key,
        host=list(hosts),
        temperature=0,
        seed=1,
        max_tokens=24,
        timeouts={"idle_timeout": None},  # several engines may be slow on one machine
    )
    model.load()
    last = min(TURN, turns)
    again = range(turns) if case.conversations == 1 else range(last - 2, last)
    with ThreadPoolExecutor(case.conversations) as pool:
        have = pool.map(lambda number: converse(model, case.converse(number, turns)), range(case.conversations))
        conversations = list(have)
        repeat = pool.map(lambda each: [_respond(model, _uncached(each[at].turn)) for at in again], conversations)
        repeated = list(repeat)
    places = Counter(_place(each.response) for each in itertools.chain(*conversations))
    counts = [*places.values(), *[0] * (case.hosts - len(places))]
    with lms.Client(hosts[0]) as client:
        native = client.llm.model(key)
        found, optimum, processed = map(sum, zip(*(_cached(native, each) for each in conversations), strict=True))
    seconds, uncached = _by_turn(conversations), [list[float]() for _ in range(turns)]
    uncached[again.start : again.stop] = _by_turn(repeated)
    return Waits(found, optimum, processed, seconds, uncached, counts)


def _place(response: AIMessage) -> tuple[str, str]:
    return response.response_metadata["host"], response.response_metadata["instance_identifier"]


def _by_turn(conversations: Sequence[Sequence[Measured]]) -> list[list[float]]:
    return [[round(each.seconds, 3) for each in turn] for turn in zip(*conversations, strict=True)]


def _cached(model: lms.LLM, conversation: Sequence[Measured]) -> tuple[int, int, int]:
    """Return the tokens of a conversation that came from the cache, that could have, and that were processed."""
    found = optimum = processed = 0
    before: list[int] | None = None
    for measured in conversation:
        tools = [dict(tool) for tool in measured.turn.tools]
        tokens = model.tokenize(model.apply_prompt_template(encode(convert(measured.turn.messages), {}), tools=tools))
        usage: Any = measured.response.usage_metadata
        cached = usage.get("input_token_details", {}).get("cache_read", 0)
        processed += usage["input_tokens"] - cached
        if before is not None:
            pairs = zip(before, tokens, strict=False)
            common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
            optimum += common
            found += min(cached, common)
        before = tokens
    return found, optimum, processed


@contextlib.contextmanager
def emulators(case: Case) -> Iterator[list[str]]:
    """Run emulators with the real engine, and give their addresses."""
    model = MODEL.model_copy(update={"context_length": case.context_length})
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Emulator((model,))).address for _ in range(case.hosts)]


def table(results: Mapping[str, Waits]) -> str:
    """Return the results as a table in Markdown."""
    lines = [
        f"| case | from the cache | processed | first token, turn {TURN} | nothing cached | ratio | busiest |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, waits in results.items():
        at = min(TURN, len(waits.seconds)) - 1
        own, other = (f"{median(each):.1f} s" for each in (waits.seconds[at], waits.uncached[at]))
        lines.append(
            f"| {CASES[name].title} | {waits.share:.1%} | {waits.processed:,} "
            f"| {own} | {other} | {waits.ratio(at):.2f} | {waits.imbalance:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.waits")
    parser.add_argument("--only", choices=CASES, nargs="+", default=list(CASES), help="some cases instead of all")
    parser.add_argument("--turns", type=int, default=10, help="the turns of each conversation")
    parser.add_argument("--host", nargs="+", default=[], help="servers that run, instead of emulators")
    parser.add_argument("--model", default=MODEL.key, help="the model on these servers")
    parser.add_argument("--stay-nowhere", action="store_true", help="choose hosts as if none had anything cached")
    arguments = parser.parse_args()
    if arguments.stay_nowhere:
        HostRecord.cached_parts = lambda *_: 0  # type: ignore[method-assign]
    results: dict[str, Waits] = {}
    for name in arguments.only:
        case = CASES[name]
        with emulators(case) if not arguments.host else contextlib.nullcontext(arguments.host) as hosts:
            if case.hosts <= len(hosts):
                results[name] = measure(case, arguments.turns, hosts[: case.hosts], arguments.model)
                print(table({name: results[name]}).splitlines()[-1], file=sys.stderr, flush=True)
                if not (arguments.host or arguments.stay_nowhere):
                    _keep(name, results[name])
    print(table(results))


def _keep(name: str, waits: Waits) -> None:
    kept = json.loads(RESULTS.read_text(encoding="utf-8"))
    cases = {**kept["cases"], name: waits._asdict()}
    kept |= {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": environment.machine(),
        "cases": {case: cases[case] for case in CASES if case in cases},
    }
    RESULTS.write_text(to_json(kept), encoding="utf-8")


if __name__ == "__main__":
    main()
