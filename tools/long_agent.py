"""Agents that make 200 tool calls in a window of 4,096 tokens: `python -m tools.long_agent --seeds 100`.

They add up the entries of a ledger, which a tool returns one by one. The model is scripted and knows only what it
reads, so whatever is lost on the way makes the sum wrong. It thinks before each call, and sees these thoughts until the
turn is over. By a seeded chance it forgets what to do, ends early, and of
a prompt that does not fit reads a part without a word. Both frameworks shorten the conversation by exact counts and by
the true window. With `--real`, a real model makes the calls; its answers are not judged.
"""

import argparse
import asyncio
import re
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any, Literal

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelRequest, SummarizationMiddleware
from langchain_core.messages import HumanMessage
from langchain_core.utils.function_calling import convert_to_openai_tool
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.memory import BaseMemory, ChatMemoryBuffer, Memory
from sqlalchemy.ext.asyncio import create_async_engine

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.engines.base import EngineEvent, GenerateRequest
from lmstudio_integrations.emulator.engines.scripted import chat_template, words
from lmstudio_integrations.emulator.models.catalog import BUNDLED
from lmstudio_integrations.errors import LMStudioContextOverflowError, LMStudioToolCallError, LMStudioTruncationWarning
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio, LMStudioTokenizer
from lmstudio_integrations.types.chat import Message
from lmstudio_integrations.types.reasoning import SendReasoning
from tools.played_models import PlayedEngine, perform, running_turn

TURNS, WINDOW = 200, 4096
Framework = Literal["LangChain", "LlamaIndex"]
FRAMEWORKS: tuple[Framework, ...] = ("LangChain", "LlamaIndex")
MODEL = "accountant"
REAL = next(key for key, kind in BUNDLED.items() if kind == "llm")

_SYSTEM = "You add up a ledger. Read its entries one by one with the tool `entry`, from the first to the last."
_GO_ON = "Go on with the next entry."
_SUMMARY_PROMPT = "Write down how many entries were read, and their total:\n{messages}"
_KNOWN = re.compile(r"Total after (\d+) entries: (\d+)|Entry (\d+): (\d+)")
_ANSWER = re.compile(r"The sum is (\d+)")
_AT_MOST = re.compile(r"at most (\d+)")

_THOUGHT = "The total is right so far, so I read the next one."
"""What the model thinks before each call. It knows nothing from it."""

_PER_RUN = 10
"""Entries that an agent of LlamaIndex reads until it reports: its memory is shortened only between two runs."""

_FORGETS, _SAYS_NOTHING, _IS_CUT_OFF = 0.02, 0.01, 0.02
"""How likely each misbehavior of the model is, for each prediction."""

_MARGIN = 1.02
"""A client takes no notice of a prompt that is longer by less."""

_MOST_RUNS = 2 * TURNS


class Ledger:
    """The entries, and the tool that returns one. They vary in length.

    Args:
        chance: Chooses amounts and lengths.
        entries: How many there are.
    """

    def __init__(self, chance: Random, entries: int) -> None:
        self.amounts = [chance.randrange(1, 10_000) for _ in range(entries)]
        self.calls = 0
        self._details = [" ".join(chance.choices("0123456789", k=chance.randrange(5, 80))) for _ in self.amounts]

    def entry(self, number: int) -> str:
        """Return an entry of the ledger."""
        self.calls += 1
        at = (number - 1) % len(self.amounts)
        return f"Entry {at + 1}: {self.amounts[at]}. {self._details[at]}"


# The model ----------------------------------------------------------------------------------------------------------


class Accountant(PlayedEngine):
    """An engine whose models add up what they read, and are as unreliable as chance will have it.

    Args:
        chance: What decides.
        entries: Entries of the ledger.

    Attributes:
        overflowed: Predictions whose prompt did not fit.
        truncated: Those of them of which a part was read, without a word, and more than a few tokens were lost.
        thoughtless: Predictions whose prompt had a call of the running turn without the thought before it.
    """

    def __init__(self, chance: Random, entries: int) -> None:
        super().__init__()
        self.overflowed = 0
        self.truncated = 0
        self.thoughtless = 0
        self._chance = chance
        self._entries = entries

    def play(self, request: GenerateRequest) -> Iterator[EngineEvent]:
        """Yield what a model does."""
        assert request.history is not None, "agents have conversations"
        messages = request.history.messages
        self.thoughtless += any(_has_lost_its_thought(message) for message in running_turn(messages))
        faults: list[dict[str, Any]] = []
        tokens = words.count(chat_template.render(messages, request.tools))
        if tokens >= request.context_length:
            self.overflowed += 1
            fault = self._chance.choice(["truncate", "empty", None])
            self.truncated += fault == "truncate" and tokens > request.context_length * _MARGIN
            faults = [{"fault": fault}] if fault else []
            messages = messages[len(messages) // 2 :]
        steps = self._respond(messages) if request.tools else [{"text": _note(messages)}]
        if request.tools and self._chance.random() < _IS_CUT_OFF:
            config = request.config.model_copy(update={"max_tokens": self._chance.randrange(1, 4)})
            request = replace(request, config=config)
        yield from perform([*faults, *steps], request)

    def _respond(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        luck = self._chance.random()
        if luck < _SAYS_NOTHING:
            return []
        if luck < _SAYS_NOTHING + _FORGETS:
            return [{"text": "I have read a part of the ledger."}]
        read, total = _sum_of(messages)
        if read >= self._entries:
            return [{"text": f"The sum is {total}"}]
        if _is_time_to_report(messages):
            return [{"text": _note(messages)}]
        return [{"reasoning": _THOUGHT}, {"tool": "entry", "arguments": {"number": read + 1}}]


def _note(messages: Sequence[Message]) -> str:
    """Return what a conversation says of the ledger. What a summary lacks is lost, so that this never goes wrong."""
    return "Total after {} entries: {}".format(*_sum_of(messages))


def _sum_of(messages: Sequence[Message]) -> tuple[int, int]:
    """Return how many entries were read, and their total, as far as a conversation says."""
    read = total = 0
    for match in _KNOWN.finditer(chat_template.render(messages, ())):
        after, noted, number, amount = (int(group or 0) for group in match.groups())
        if number > read:
            read, total = number, total + amount
        elif after >= read:
            read, total = after, noted
    return read, total


def _is_time_to_report(messages: Sequence[Message]) -> bool:
    """Whether as many entries were read as the last question allows."""
    question, *turn = running_turn(messages)
    most = _AT_MOST.search(chat_template.message_text(question))
    return most is not None and sum(message.role == "tool" for message in turn) >= int(most[1])


def _has_lost_its_thought(message: Message) -> bool:
    """Whether a message calls the tool without the thought before it."""
    is_call = message.role == "assistant" and any(part.type == "toolCallRequest" for part in message.content)
    return is_call and f"<think>{_THOUGHT}</think>" not in chat_template.message_text(message)


# The agents ---------------------------------------------------------------------------------------------------------

Ask = Callable[[str], Awaitable[str]]
"""Asks an agent; returns its answer."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What an agent gets.

    Attributes:
        ledger: Has its tool.
        settings: The settings of its model.
        stack: Closes what it opens.
        shortened: Whether the conversation is summarized, in LangChain.
        buffered: Whether the memory is a `ChatMemoryBuffer`, in LlamaIndex.
        forced: Whether it must call the tool first, whatever the model would rather do.
    """

    ledger: Ledger
    settings: dict[str, Any]
    stack: AsyncExitStack
    shortened: bool = True
    buffered: bool = False
    forced: bool = False


class _FirstCall(AgentMiddleware[Any, Any, Any]):
    """Makes a model call the tool first."""

    async def awrap_model_call(self, request: ModelRequest[Any], handler: Callable[..., Awaitable[Any]]) -> Any:
        if isinstance(request.messages[-1], HumanMessage):
            request = request.override(tool_choice="entry")
        return await handler(request)


def langchain_agent(setup: Setup) -> Ask:
    """Return an agent of LangChain, which is summarized as soon as half of the window is full."""
    model = ChatLMStudio(**setup.settings).load()
    tools = [convert_to_openai_tool(setup.ledger.entry)]
    summarization = SummarizationMiddleware(
        model,
        trigger=("fraction", 0.5),
        keep=("messages", 4),
        token_counter=partial(model.get_num_tokens_from_messages, tools=tools),
        summary_prompt=_SUMMARY_PROMPT,  # LangChain's own takes 500 tokens
        trim_tokens_to_summarize=None,
    )
    middleware: list[Any] = [*([summarization] if setup.shortened else []), *([_FirstCall()] if setup.forced else [])]
    agent: Any = create_agent(model, [setup.ledger.entry], system_prompt=_SYSTEM, middleware=middleware)
    messages: list[Any] = []

    async def ask(question: str) -> str:
        conversation = {"messages": [*messages, HumanMessage(question)]}
        state = await agent.ainvoke(conversation, {"recursion_limit": 10 * TURNS})
        messages[:] = state["messages"]
        return str(messages[-1].text)

    return ask


def llama_index_agent(setup: Setup) -> Ask:
    """Return an agent of LlamaIndex, whose memory has half of the window; the other half is for one run."""
    llm = LMStudio(**setup.settings).load()
    limit, tokenizer = llm.metadata.context_window // 2, LMStudioTokenizer(llm)
    memory: BaseMemory
    if setup.buffered:
        memory = ChatMemoryBuffer.from_defaults(token_limit=limit, tokenizer_fn=tokenizer)
    else:
        database = create_async_engine("sqlite+aiosqlite:///:memory:")
        setup.stack.push_async_callback(database.dispose)
        memory = Memory.from_defaults(
            token_limit=limit,
            tokenizer_fn=tokenizer,
            token_flush_size=limit // 8,
            chat_history_token_ratio=1.0,
            async_engine=database,
        )
    agent = FunctionAgent(
        tools=[setup.ledger.entry],
        llm=llm,
        system_prompt=_SYSTEM,
        initial_tool_choice="entry" if setup.forced else None,
        streaming=False,
    )
    most = _PER_RUN

    async def ask(question: str) -> str:
        nonlocal most
        answer = str(await agent.run(f"{question} Read at most {most}, then report.", memory=memory))
        # A memory drops its oldest messages: what the model has not noted down by then is lost.
        most = _PER_RUN if _KNOWN.search(answer) else 0
        return answer

    return ask


_AGENTS: dict[Framework, Callable[[Setup], Ask]] = {"LangChain": langchain_agent, "LlamaIndex": llama_index_agent}


# Running ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Report:
    """How it went.

    Attributes:
        right: The sum of all entries.
        answer: The sum that the agent found; `None` if it found none.
        runs: How often the agent was asked.
        calls: Calls of the tool.
        overflowed: Predictions whose prompt did not fit.
        truncated: Those of them of which a part was read, without a word, and more than a few tokens were lost.
        noticed: Warnings about those.
        thoughtless: Predictions whose prompt had a call of the running turn without the thought before it.
    """

    right: int
    answer: int | None = None
    runs: int = 0
    calls: int = 0
    overflowed: int = 0
    truncated: int = 0
    noticed: int = 0
    thoughtless: int = 0

    @property
    def is_right(self) -> bool:
        """Whether the agent found the sum, and each prompt was read as a whole and had the thoughts of its turn."""
        return self.answer == self.right and not self.overflowed and not self.noticed and not self.thoughtless


@contextmanager
def _count_truncations(report: Report) -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    report.noticed = sum(issubclass(each.category, LMStudioTruncationWarning) for each in caught)


async def run(
    framework: Framework,
    seed: int,
    *,
    turns: int = TURNS,
    shortened: bool = True,
    send_reasoning: SendReasoning = "auto",
) -> Report:
    """Let an agent add up a ledger.

    Args:
        framework: Whose agent.
        seed: Decides about the ledger, and about what goes wrong.
        turns: Entries of the ledger.
        shortened: Whether the conversation is summarized, in LangChain.
        send_reasoning: Which thoughts go back to the model.
    """
    chance = Random(seed)
    ledger, engine = Ledger(chance, turns), Accountant(chance, turns)
    report = Report(sum(ledger.amounts))
    models = [{"key": MODEL, "context_length": WINDOW}]
    async with AsyncExitStack() as stack:
        server = stack.enter_context(Emulator(models, engines={engine.name: engine}))
        stack.enter_context(_count_truncations(report))
        settings = {"model": MODEL, "host": server.address, "send_reasoning": send_reasoning}
        ask = _AGENTS[framework](Setup(ledger, settings, stack, shortened=shortened, buffered=seed % 4 > 1))
        while report.answer is None and report.runs < _MOST_RUNS:
            report.runs += 1
            try:
                match = _ANSWER.search(await ask(_GO_ON))
            except LMStudioToolCallError:  # LlamaIndex has no other way to say that a call was cut off
                continue
            except LMStudioContextOverflowError:
                break
            report.answer = int(match[1]) if match else None
    report.calls, report.overflowed, report.truncated = ledger.calls, engine.overflowed, engine.truncated
    report.thoughtless = engine.thoughtless
    return report


async def run_real(framework: Framework, *, turns: int = TURNS, window: int = WINDOW) -> Report:
    """Let a real model make calls, of which it understands nothing.

    Args:
        framework: Whose agent.
        turns: Calls of the tool.
        window: The context length.

    Raises:
        LMStudioError: If anything goes wrong.
    """
    ledger = Ledger(Random(0), TURNS)
    report = Report(sum(ledger.amounts))
    models = [{"key": REAL, "weights": REAL, "context_length": window}]
    async with AsyncExitStack() as stack:
        server = stack.enter_context(Emulator(models))
        stack.enter_context(_count_truncations(report))
        # The small model also writes calls into its texts, and they never end.
        settings = {
            "model": REAL,
            "host": server.address,
            "max_tokens": 40,
            "temperature": 0,
            "rescue_tool_calls": False,
        }
        ask = _AGENTS[framework](Setup(ledger, settings, stack, forced=True))
        while ledger.calls < turns and report.runs < _MOST_RUNS:
            report.runs += 1
            await ask(_GO_ON)
    report.calls = ledger.calls
    return report


def main() -> None:
    """Run agents of both frameworks, with many seeds or with a real model.

    Raises:
        SystemExit: If one of them is wrong.
    """
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many scripted models to run (default: 100)")
    parser.add_argument("--real", action="store_true", help="run a real model instead, which takes minutes")
    arguments = parser.parse_args()
    wrong = 0
    for seed in [None] if arguments.real else range(arguments.seeds):
        for framework in FRAMEWORKS:
            began = time.monotonic()
            report = asyncio.run(run_real(framework) if seed is None else run(framework, seed))
            wrong += bool(report.noticed) if seed is None else not report.is_right
            print(f"{framework}, seed {seed}, {time.monotonic() - began:.1f} s: {report}", flush=True)
    raise SystemExit(f"{wrong} agents were wrong" if wrong else 0)


if __name__ == "__main__":
    main()
