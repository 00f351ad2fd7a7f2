"""A prediction of a scripted model: which rule applies, and the events that its steps become.

Plain generators without a clock. Waits are yielded like events; `engine` does the waiting. `writer` turns text
and tool calls into tokens. A prompt that begins like an earlier one is said to be partly in the cache.
"""

import json
import re
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import get_args

from lmstudio_integrations.emulator.engines.base import (
    EngineError,
    EngineEvent,
    Fault,
    Finished,
    GenerateRequest,
    engine_exited,
    engine_exited_while_loading,
    insufficient_resources,
    model_crashed,
    template_failed,
)
from lmstudio_integrations.emulator.engines.generation import progress_details
from lmstudio_integrations.emulator.engines.scripted import words
from lmstudio_integrations.emulator.engines.scripted.error_codes import display_data, unsupported
from lmstudio_integrations.emulator.engines.scripted.rules import (
    ANY_TOOL,
    Answers,
    AppliedRules,
    Error,
    InjectFault,
    Probabilities,
    PromptFault,
    Reasoning,
    Relevance,
    Rule,
    Situation,
    Step,
    Text,
    ToolCall,
    Wait,
    first_match,
    offered,
)
from lmstudio_integrations.emulator.engines.scripted.schema import instance_of
from lmstudio_integrations.emulator.engines.scripted.writer import Writer
from lmstudio_integrations.protocol.prompt_fingerprint import PromptFingerprint, fingerprint_of
from lmstudio_integrations.types.results import PromptProgress

_PROMPTS = 64
"""The prompts that one model has in its cache."""


class PromptCache:
    """The last prompts of one model, whole messages of which count as cached. Raw prompts are never in it."""

    def __init__(self) -> None:
        self._fingerprints: deque[PromptFingerprint] = deque(maxlen=_PROMPTS)

    def add(self, request: GenerateRequest) -> int:
        """Add the prompt of a prediction; return how many of its tokens were in the cache before."""
        if request.history is None:
            return 0
        messages, tools = request.history.messages, offered(request)
        fingerprint = fingerprint_of(request.history.to_dict()["messages"], [tool.to_dict() for tool in tools])
        # A copy, because long prompts are read in other threads.
        common = max((fingerprint.common_with(each) for each in self._fingerprints.copy()), default=0)
        self._fingerprints.append(fingerprint)
        ends = accumulate(len(message.content) for message in messages)
        whole = [message for message, end in zip(messages, ends, strict=True) if end < common]  # the tools are a part
        if not common:
            return 0
        template = request.config.prompt_template
        before_answer = words.count(words.render([], [], template))
        return words.count(words.render(whole, tools, template)) - before_answer


_ANY_OBJECT = {"type": "object"}

_NAME = re.compile(r"(?<=\s)[A-Z][\w-]+")
"""A capitalized word within a sentence."""

_LONGEST_ARGUMENT = 200
"""The most characters of a message that are an argument."""

_REJECTED = "System message must be at the beginning."
"""What the template of a popular model raises."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Nothing happens from here on, until the prediction or load is cancelled."""


Playback = Iterator[EngineEvent | Wait | Stall]


_EXIT = InjectFault(fault="engine_exit")


def play(
    rules: Sequence[Rule],
    request: GenerateRequest,
    cache: PromptCache,
    applied: AppliedRules,
) -> Playback:
    """Return what a model with these rules does for a prediction.

    The slow part is done: a rule is chosen, and the prompt is read.

    Args:
        rules: The rules.
        request: The prediction.
        cache: The prompts that the model has read before.
        applied: How often each rule has applied.

    Raises:
        EngineError: If its first step is an error, or it needs a rule and has none. Later errors are raised while the
            playback is read.
    """
    situation = Situation.of(request)
    rule = first_match(rules, situation, applied)
    steps = rule.steps(situation.last) if rule else _default_steps(rules, request, situation)
    if steps and isinstance(steps[0], Error):
        raise _error(steps[0])
    if steps and steps[0] == _EXIT:
        raise engine_exited(generating=False)
    beginning = situation.last[:_LONGEST_ARGUMENT]
    name = [beginning, *_NAME.findall(beginning)][-1]  # the last capitalized word within the message, or else that
    steps = [
        _any_call(request, situation.called, name) if isinstance(step, ToolCall) and step.tool == ANY_TOOL else step
        for step in steps
    ]
    of_prompt, steps = _separate_prompt_faults(steps)
    if "template" in of_prompt:
        raise template_failed(_REJECTED)
    if of_prompt and _tokens(request) >= request.context_length:
        if "empty" in of_prompt:
            return iter([Finished(of_prompt["empty"].stop_reason, _tokens(request), 0)])
        tokens, remaining = request.context_length - 1, None
    else:
        tokens, remaining = _read(request)
    cached = min(cache.add(request), tokens - 1)
    events = _perform(request, steps, progress_details(tokens, tokens, cached), remaining)
    faults = [step for step in steps if isinstance(step, InjectFault) and step.packet is not None]
    return _inject_faults(events, faults) if faults else events


def check_template(rules: Sequence[Rule], request: GenerateRequest) -> None:
    """Apply the rules to a conversation that is only rendered.

    Raises:
        EngineError: If the template rejects it.
    """
    rule = first_match(rules, Situation.of(request))
    if rule is not None and "template" in _separate_prompt_faults(rule.then)[0]:
        raise template_failed(_REJECTED)


def _separate_prompt_faults(steps: Sequence[Step]) -> tuple[dict[str, InjectFault], list[Step]]:
    """Return the faults that happen when the prompt is read, by their names, and the other steps."""
    of_prompt: dict[str, InjectFault] = {
        step.fault: step for step in steps if isinstance(step, InjectFault) and step.fault in get_args(PromptFault)
    }
    return of_prompt, [step for step in steps if step not in of_prompt.values()]


def play_silently(rule: Rule | None, situation: Situation) -> Iterator[Wait | Stall]:
    """Return what a model does where it writes nothing: on a load, or for an embedding.

    Raises:
        EngineError: While it is read, if the rule says so.
    """
    for step in rule.steps(situation.last) if rule else ():
        if isinstance(step, Wait):
            yield step
        elif isinstance(step, Error):
            raise _error(step)
        elif not isinstance(step, Answers):
            assert isinstance(step, InjectFault), "no other step is silent"
            if step == _EXIT:
                raise engine_exited_while_loading() if situation.load else engine_exited(generating=False)
            fault = _fault(step)
            assert isinstance(fault, Stall), "there is no connection to break"
            yield fault


def _perform(
    request: GenerateRequest, steps: Sequence[Step], prompt: dict[str, int], remaining: int | None
) -> Playback:
    """Perform the steps until something ends the response."""
    tokens = prompt["totalPromptTokenCount"]
    yield PromptProgress(0.0, progress_details(tokens, 0))
    yield PromptProgress(1.0, prompt)
    writer = Writer(request.config, tokens, remaining)
    for step in steps:
        yield from _perform_step(step, writer)
        if writer.stop_reason is not None:
            break
    yield writer.finish()


def _perform_step(step: Step, writer: Writer) -> Playback:
    match step:
        case Text():
            yield from writer.write(step.text)
        case Reasoning():
            yield from writer.write_reasoning(step.reasoning)
        case ToolCall():
            yield from writer.write_call(step)
        case Relevance() | Probabilities():
            listed = dict(sorted(step.probabilities.items(), key=lambda each: -each[1]))
            yield from writer.write(next(iter(listed)), listed)
        case Error():
            raise _error(step)
        case Wait():
            yield step
        case InjectFault(packet=None):
            yield _fault(step)
        case InjectFault():
            pass  # `_inject_faults` injects it after a number of packets
        case Answers():
            raise AssertionError("only decision models have answers")


def _inject_faults(events: Playback, faults: Sequence[InjectFault]) -> Playback:
    """Inject each fault after the number of packets that it names, at the latest before the success packet."""
    waiting = sorted(faults, key=lambda step: step.packet or 0)
    packets = 0
    for event in events:
        is_packet = not isinstance(event, Wait | Stall | Fault)
        while waiting and is_packet and (packets >= (waiting[0].packet or 0) or isinstance(event, Finished)):
            yield _fault(waiting.pop(0))
        packets += is_packet
        yield event


def _fault(step: InjectFault) -> Fault | Stall:
    """Return the order to the server, or the stall; raise a fault of the model."""
    match step.fault:
        case "crash":
            raise model_crashed(step.exit_code)
        case "engine_exit":
            raise engine_exited(generating=True)
        case "out_of_memory":
            raise insufficient_resources(48)  # more than any machine has
        case "stall":
            return Stall()
        case "truncate" | "empty" | "template":
            raise AssertionError("happens when the prompt is read")
        case kind:
            return Fault(kind)


def _error(step: Error) -> EngineError:
    return EngineError(
        step.error,
        cause=step.cause,
        suggestion=step.suggestion,
        display_data=None if step.code is None else display_data(step.code, step.data),
        status=step.status,
    )


def _tokens(request: GenerateRequest) -> int:
    """Return the tokens of the whole prompt."""
    if request.history is None:
        return words.count(request.prompt or "")
    return words.count(words.render(request.history.messages, offered(request), request.config.prompt_template))


def _read(request: GenerateRequest) -> tuple[int, int | None]:
    """Return the tokens of the prompt, and how many more fit into the context window (`None`: old ones are dropped)."""
    limit, policy = request.context_length, request.config.context_overflow_policy or "truncateMiddle"
    if request.history is None:
        tokens = words.fit_text(request.prompt or "", limit=limit, policy=policy)
    else:
        tokens = words.fit_history(
            request.history,
            offered(request),
            limit=limit,
            policy=policy,
            prompt_template=request.config.prompt_template,
        )
    return tokens, limit - tokens if policy == "stopAtLimit" else None


def _default_steps(rules: Sequence[Rule], request: GenerateRequest, situation: Situation) -> Sequence[Step]:
    """Return what the model does when no rule applies."""
    structured = request.config.structured or {}
    if structured.get("type") == "gbnf":
        raise unsupported("GBNF grammars")
    if structured.get("type") == "json":
        instance = instance_of(structured.get("jsonSchema", _ANY_OBJECT))
        return [Text(text=json.dumps(instance, ensure_ascii=False))]
    if request.tool_choice == "required":
        return [_any_call(request, situation.called)]
    if situation.word is not None:
        return [Probabilities(probabilities=situation.word(rules))]
    return [Text(text=f'You said "{situation.last}". What shall we talk about next?')]


def _any_call(request: GenerateRequest, called: Collection[str], text: str = "") -> ToolCall:
    """Return a call with the smallest valid arguments; texts are `text` where that is valid.

    That is of the first tool which was not called since the user's message, so that an agent comes to its end: a schema
    that is offered as a tool stands behind the other tools.
    """
    if not request.tools:
        raise EngineError("A tool call is required, but no tools are given", suggestion="Offer at least one tool.")
    functions = [tool.function for tool in request.tools]
    tool = next((function for function in functions if function.name not in called), functions[-1])
    return ToolCall(tool=tool.name, arguments=instance_of({**(tool.parameters or {}), **_ANY_OBJECT}, text))
