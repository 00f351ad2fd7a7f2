"""Mends tool calls that do not fit the offered tools, whether the server parsed them or left them in the text.

Where exactly one reading fits, that is done at once. Otherwise the model is asked once more, by grammar, after the
conversation, so that the server has that in its prompt cache. Calls are held back until they are checked, text is not.
"""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from lmstudio_integrations._support.text import counted
from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.models.chat_templates import render
from lmstudio_integrations.client.predictions.calls_in_text.call_arguments import mend
from lmstudio_integrations.client.predictions.calls_in_text.call_parser import ParsedCall
from lmstudio_integrations.client.predictions.calls_in_text.call_repair import (
    UNREADABLE,
    LostCall,
    MeantTools,
    WrongCall,
    calls_in,
    name_in,
    named_in,
    response_schema,
    sentence,
    split_calls,
    written_in,
)
from lmstudio_integrations.client.predictions.calls_in_text.formats import MARKERS, OfferedTool
from lmstudio_integrations.client.predictions.calls_in_text.lenient_json import NoCallError, json_of, number_of, plain
from lmstudio_integrations.client.predictions.calls_in_text.parser import is_nameless
from lmstudio_integrations.client.predictions.middleware import (
    REJECTIONS,
    Ask,
    Events,
    Middleware,
    call_events,
    failed_call_events,
    is_last,
    only_json,
    with_instruction,
    with_response,
)
from lmstudio_integrations.client.predictions.plan import chat_request_of_text, tools_in
from lmstudio_integrations.errors import LMStudioCancelledError, LMStudioError
from lmstudio_integrations.protocol.kv_config import with_changes
from lmstudio_integrations.protocol.requests import TemplateParameters
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PredictionEnd,
    PredictionEvent,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallFailed,
    ToolCallName,
    ToolCallStart,
)

logger: logging.Logger = logging.getLogger(__name__)


_CUT_OFF = ("maxPredictedTokensReached", "stopStringFound")
"""The stop reasons after which a request can follow, but a call that cannot be read may lack arguments."""

_OF_FIRST = ("stopReason", "rescuedToolCalls", "reasoningReplay")
"""The statistics that describe the first response."""


@dataclass
class _PendingCall:
    """The events of a call.

    Attributes:
        sent: As they were received, with the fragments of the text that it was read in.
        is_marked: Whether a marker says that it is a call. Without one, it is only text unless it is mended.
        mended: What replaces them.
        wrong: What the model is asked to mend.
    """

    sent: Events
    is_marked: bool = True
    mended: Events | None = None
    wrong: WrongCall | LostCall | None = None

    @property
    def text(self) -> str:
        """The call as the model wrote it, as far as it was received."""
        last = self.sent[-1]
        if type(last) is ToolCallEnd:
            return json_of({"name": last.name, "arguments": self.arguments})
        raw = last.raw_content if type(last) is ToolCallFailed else None
        return raw or self._fragments

    @property
    def problem(self) -> str:
        """What the server says of a call that failed."""
        last = self.sent[-1]
        return str(last.error.get("title") if type(last) is ToolCallFailed else "") or UNREADABLE

    @property
    def _fragments(self) -> str:
        return "".join(event.content for event in self.sent if type(event) is ToolCallArguments)

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """The arguments, with numbers as the model wrote them, if the server has sent their text."""
        last = self.sent[-1]
        parsed: dict[str, Any] = (type(last) is ToolCallEnd and last.arguments) or {}
        with suppress(ValueError, RecursionError):
            written = json.loads(self._fragments, parse_float=number_of, parse_int=number_of)
            parsed = written if written == parsed else parsed
        return parsed

    @property
    def events(self) -> Events:
        """What replaces them, or what they are if nothing does."""
        text: Events = [event for event in self.sent if type(event) is LlmPredictionFragment]
        return self.mended or (self.sent if self.is_marked else text)


@dataclass(eq=False)
class RepairCalls(Middleware):
    """Replaces calls that do not fit with mended ones. Those that are not mended stay as they are."""

    _open: Events = field(default_factory=list[PredictionEvent], init=False)
    """The events of the call that the model is writing."""
    _pending: list[_PendingCall] = field(default_factory=list[_PendingCall], init=False)
    """The calls from the first one on that cannot be mended at once."""
    _repaired: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]], init=False)
    """What was mended, or could not be, for the metadata."""
    _first: Ask | None = field(default=None, init=False)
    _continues_prompt: bool = field(default=True, init=False)
    """Whether the second request continues the prompt of the first one as a text: no server takes tools with a grammar,
    and without them the prompt begins differently."""

    @cached_property
    def _tools(self) -> MeantTools:
        return MeantTools(self.plan.tools)

    @property
    def _wrong(self) -> list[WrongCall | LostCall]:
        return [each.wrong for each in self._pending if each.wrong is not None]

    # Reading --------------------------------------------------------------------------------------------------------

    def events(self, batch: Events, ask: Ask) -> Events:
        """Return the events without calls that are being written, or cannot be mended at once."""
        if ask.asked_by is self:
            return [event for event in batch if event.kind == "progress"]
        if not any(event.kind == "call" for event in batch):
            return batch
        released: Events = []
        for event in batch:
            if event.kind != "call":
                released.append(event)
                continue
            if type(event) is ToolCallStart:
                self._close(released)
            self._open.append(event)
            if type(event) is ToolCallEnd or type(event) is ToolCallFailed:
                self._close(released)
        return released

    def _close(self, released: Events) -> None:
        """Check a call that has ended, or was given up, and release it unless it or one before it is held."""
        if not self._open:
            return
        call, self._open = _PendingCall(self._open), []
        end = call.sent[-1]
        if type(end) is ToolCallFailed:
            text = _taken_from(released, end.raw_content or "")
            call.sent = [*text, *call.sent]
            call.is_marked = not text or MARKERS.match(call.text, 0) is not None
        if type(end) is ToolCallEnd:
            self._check(call, end)
        if self._pending or call.wrong is not None or type(end) is ToolCallFailed:
            self._pending.append(call)
        else:
            released += call.mended or call.sent

    def _check(self, call: _PendingCall, end: ToolCallEnd) -> None:
        """Record what replaces a call that does not fit, or that the model has to mend it."""
        tool = self._tools.meant(end.name)
        if tool is None:
            return
        with suppress(NoCallError, RecursionError):  # a schema that only the server can use, or values in values
            problem = tool.problem(end.arguments or {})
            if problem is None and tool.name == end.name:
                return
            arguments = call.arguments
            fitting = mend(tool, arguments)
            if fitting is None:
                call.wrong = WrongCall(call.text, problem or "it does not fit", tool, arguments)
            else:
                self._replace(call, [ParsedCall(tool, fitting)], end.raw_content or call.text)

    def _read(self, call: _PendingCall) -> list[_PendingCall]:
        """Read a call that could not be read, once it is known that it was not cut off; it may be several."""
        name = next((event.name for event in reversed(call.sent) if type(event) is ToolCallName), None)
        if not name and (not call.text or is_nameless(call.text)):
            call.wrong = LostCall(call.problem, self._tools, may_answer=not self.plan.requires_call)
            return [call]
        with suppress(NoCallError, RecursionError):
            read = calls_in(call.text, self._tools, name)
            fitting = [(tool := self._meant(each), mend(tool, each.arguments)) for each in read]
            calls = [ParsedCall(tool, arguments) for tool, arguments in fitting if arguments is not None]
            if calls and len(calls) == len(fitting):
                self._replace(call, calls, call.text)
                return [call]
            parts = read or split_calls(call.text, self._tools)
            if len(parts) > 1:
                return [each for part in parts for each in self._part(call, part)]
            named = name or name_in(call.text, self._tools)
            begun = None if named is None else self._tools.meant(named)
            if not call.is_marked or begun is None:  # the model has not begun a call of a tool that it has
                return [call]
            call.wrong, *others = self._wrong_calls(call.text, read, begun, are_apart=bool(parts))
            return [call, *map(_unreadable, others)]
        return [call]

    def _wrong_calls(
        self, text: str, read: list[ParsedCall], begun: OfferedTool, *, are_apart: bool
    ) -> list[WrongCall]:
        """Return what the model is asked for. Where several calls cannot be told apart, that is all of them."""
        if read:
            tool, arguments = self._meant(read[0]), read[0].arguments
            problem = tool.problem(arguments) if arguments else None
            return [WrongCall(text, problem or UNREADABLE, tool, arguments)]
        tools = [begun] if are_apart else named_in(text, self._tools) or [begun]
        return [WrongCall(text, UNREADABLE, self._tools.meant(tool.name) or tool, {}) for tool in tools]

    def _meant(self, call: ParsedCall) -> OfferedTool:
        return self._tools.meant(call.tool.name) or call.tool

    def _part(self, whole: _PendingCall, part: ParsedCall | str) -> list[_PendingCall]:
        """Return a call in a text of several, of which one cannot be read."""
        if not isinstance(part, str):
            call = _PendingCall(call_events(part.tool.name, json_of(part.arguments), whole.text))
            if type(end := call.sent[-1]) is ToolCallEnd:
                self._check(call, end)
            return [call]
        fragments = [event for event in whole.sent[:1] if type(event) is LlmPredictionFragment]
        text = [replace(each, content=part, tokens_count=0, tokens=None) for each in fragments]
        failed = failed_call_events(name_in(part, self._tools), UNREADABLE, part)
        return self._read(_PendingCall([*text, *failed], whole.is_marked))

    def _replace(self, call: _PendingCall, calls: list[ParsedCall], raw_content: str) -> None:
        ids = [event.id for event in call.sent if type(event) is ToolCallStart or type(event) is ToolCallEnd]
        for number, (tool, arguments) in enumerate(calls):
            call_id = ids[-1] if ids and number == 0 else None
            call.mended = [*(call.mended or ()), *call_events(tool.name, json_of(arguments), raw_content, call_id)]
            self._repaired.append(
                {"sent": call.text, "replaced_by": {"name": tool.name, "arguments": plain(arguments)}}
            )

    # Ending ---------------------------------------------------------------------------------------------------------

    def finish(self, batch: Events, end: PredictionEnd, ask: Ask) -> Flow[tuple[Events, PredictionEnd | None]]:
        """Return the calls; ask the model if it has to mend one."""
        yield from ()
        released = self.events(batch, ask)
        if ask.asked_by is self:
            return [*released, *self._replace_wrong(ask, end)], self._with_repairs(self._end_of_both(end))
        self._close(released)
        is_over = is_last(end)
        if not is_over and end.stop_reason not in _CUT_OFF:
            self._pending = [
                each
                for call in self._pending
                for each in (self._read(call) if type(call.sent[-1]) is ToolCallFailed else [call])
            ]
        if self._wrong and not (is_over or self.has_asked) and "predictionConfigStack" in ask.parameter:
            self._first = ask
            return released, None
        return [*released, *self._release_all()], self._with_repairs(end)

    def _release_all(self) -> Events:
        """Return all that is held, and record the calls that the model was asked for in vain."""
        calls, self._pending = self._pending, []
        if self._first is not None:
            unmended = [call for call in calls if call.wrong is not None and call.mended is None]
            self._repaired += [{"sent": call.text, "replaced_by": None} for call in unmended]
        return [event for call in calls for event in call.events]

    def _with_repairs(self, end: PredictionEnd) -> PredictionEnd:
        """Return the end, with what was mended in its statistics."""
        if not self._repaired:
            return end
        if calls := [each["replaced_by"] for each in self._repaired if each["replaced_by"] is not None]:
            names = ", ".join(sorted({repr(call["name"]) for call in calls}))
            number = counted(len(calls), "tool call")
            logger.warning("%r: mended %s that did not fit (%s)", end.model_info.get("modelKey"), number, names)
        return replace(end, stats={**end.stats, "repairedToolCalls": self._repaired})

    # Asking ---------------------------------------------------------------------------------------------------------

    def parameter(self, wire: Mapping[str, Any], ask: Ask) -> Flow[Mapping[str, Any]]:
        """Return the parameter of its own ask."""
        if ask.asked_by is not self or self._first is None:
            return wire
        wrong, first = self._wrong, self._first.parameter
        can_continue = self._continues_prompt and not self.plan.has_files and self.plan.options.preset is None
        written = [self._first.response().content.strip()]
        if any(isinstance(each, LostCall) for each in wrong):  # so that it does not write those before it again
            made = self._first.response().tool_call_requests
            written += [json_of({"name": call.name, "arguments": call.arguments or {}}) for call in made]
        response = "\n".join(filter(None, written)) or "\n".join(each.text for each in wrong)
        base, instruction = first if can_continue else wire, sentence(wrong, with_tools=not can_continue)
        history = {"messages": with_instruction(with_response(base["history"]["messages"], response), instruction)}
        stack = with_changes(base["predictionConfigStack"], only_json(response_schema(wrong)))
        if not can_continue:
            return {**wire, "history": history, "predictionConfigStack": stack}
        specifier = wire["modelSpecifier"]
        flags: TemplateParameters = {"toolDefinitions": tools_in(first), "omitBosToken": True}
        # The server adds the first token to a text.
        prompt = yield from render(ask.operation, specifier, history, flags, stack)
        return chat_request_of_text(specifier, prompt, stack)

    def _replace_wrong(self, ask: Ask, end: PredictionEnd) -> Events:
        """Return the calls, in which the response by grammar replaces those that it mends."""
        response = ask.response()
        text = response.content.strip() or response.reasoning_content.strip()
        wrong = [call for call in self._pending if call.wrong is not None]
        if not end.is_interrupted:
            with suppress(NoCallError, RecursionError):
                for call, written in zip(wrong, written_in(text, len(wrong)), strict=True):
                    meant = None if call.wrong is None else call.wrong.mended_by(written)
                    if isinstance(meant, str):
                        call.mended = [LlmPredictionFragment(meant)]
                    elif meant is not None:
                        self._replace(call, [meant], text)
            if unmended := sum(call.mended is None for call in wrong):
                number = counted(unmended, "tool call")
                logger.warning("%r: did not mend %s when asked for it", end.model_info.get("modelKey"), number)
        return self._release_all()

    def _end_of_both(self, end: PredictionEnd) -> PredictionEnd:
        """Return the end of the first response, with the counts of the second one: those of both are summed."""
        first = end if self._first is None else self._first.end or end
        of_first = {name: first.stats[name] for name in _OF_FIRST if name in first.stats}
        return replace(first, stats={**end.stats, **of_first})

    def repeats_after(self, error: LMStudioError, ask: Ask) -> bool:
        """Whether to ask without the prompt of the first request, because the server cannot show or continue it."""
        if ask.asked_by is not self or not self._continues_prompt or type(error) not in REJECTIONS:
            return False
        self._continues_prompt = False
        return True

    def recover(self, error: LMStudioError, ask: Ask) -> tuple[Events, PredictionEnd] | None:
        """Return the first response as it is."""
        end = None if self._first is None else self._first.end
        if end is None:
            return None
        if not isinstance(error, LMStudioCancelledError):
            logger.warning("%r: the request to mend a call failed: %s", end.model_info.get("modelKey"), error)
        return self._release_all(), self._with_repairs(end)

    def reset(self, ask: Ask) -> None:
        """Forget the calls of the response that is repeated."""
        if ask.asked_by is not self:
            self._open, self._pending, self._repaired = [], [], []


def _unreadable(wrong: WrongCall) -> _PendingCall:
    """Return a call of which the text of another one is all that is known."""
    return _PendingCall(failed_call_events(wrong.tool.name, wrong.problem, wrong.text), wrong=wrong)


def _taken_from(released: Events, markup: str) -> Events:
    """Take the fragments of a markup from the end of the events, if they are there: a mended call replaces them."""
    number = length = 0
    while number < len(released) and length < len(markup):
        event = released[-1 - number]
        if type(event) is not LlmPredictionFragment:
            break
        number, length = number + 1, length + len(event.content)
    taken = released[len(released) - number :]
    if "".join(event.content for event in taken if type(event) is LlmPredictionFragment) != markup:
        return []
    del released[len(released) - number :]
    return taken
