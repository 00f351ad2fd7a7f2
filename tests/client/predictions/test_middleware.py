"""What every middleware can rely on: what passes it and when, on each way to read a prediction."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.predictions import prediction
from lmstudio_integrations.client.predictions.middleware import Ask, Events, Middleware
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.support.gate import AT_THE_GATE, Gate

RULES: list[dict[str, Any]] = [
    {"when": {"last": "^second$"}, "then": [{"text": "Two"}]},
    {"when": {"last": "^third$"}, "then": [{"text": "Three"}]},
    {"when": {"last": "^break$"}, "then": [{"text": "So "}, {"error": "the engine gave up"}]},
    {"when": {"last": "^wait$"}, "then": [{"text": "So "}, AT_THE_GATE]},
    {"then": [{"text": "One"}]},
]


@pytest.fixture
def server(gate: Gate) -> Iterator[Emulator]:
    with Emulator([ModelEntry(key="chatty", rules=tuple(RULES))], engines=gate.engines()) as running:
        yield running


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give each prediction these middlewares, outermost first."""

    def use_these(*made: Callable[[Any], Middleware]) -> None:
        monkeypatch.setattr(prediction, "middlewares_of", lambda plan: [each(plan) for each in made])

    return use_these


async def responded(model: Any, **callbacks: Any) -> Any:
    return await model.respond("first", **callbacks)


async def streamed(model: Any, **callbacks: Any) -> Any:
    stream = model.respond_stream("first", **callbacks)
    text = "".join([each.content async for each in stream if each.reasoning_type == "none"])
    result = stream.result()
    assert result.content == text
    return result


async def started(model: Any, **callbacks: Any) -> Any:
    stream = model.respond_stream("first", **callbacks)
    await stream.start()
    return await stream.wait_for_result()


every_way = pytest.mark.parametrize("way", [responded, streamed, started])


@dataclass(eq=False)
class Louder(Middleware):
    """Changes the text of the caller's ask."""

    def events(self, batch: Events, ask: Ask) -> Events:
        return [
            replace(each, content=each.content.upper()) if type(each) is lms.LlmPredictionFragment else each
            for each in batch
        ]

    def finish(self, batch: Events, end: lms.PredictionEnd, ask: Ask) -> Any:
        yield from ()
        return [*self.events(batch, ask), lms.LlmPredictionFragment("!")], replace(
            end, stats={**end.stats, "loud": True}
        )


@every_way
async def test_the_result_is_what_was_delivered(client: Any, use: Callable[..., None], way: Any) -> None:
    use(Louder)
    shown: list[str] = []
    result = await way(
        await client.llm.model("chatty"),
        on_prediction_fragment=lambda fragment: shown.append(fragment.content),
        on_message=lambda message: shown.append(message.content[0].text),
    )
    assert (result.content, shown) == ("ONE!", ["ONE", "!", "ONE!"])
    assert result.end.stats["loud"]


@dataclass(eq=False)
class Again(Middleware):
    """Asks once more with another prompt, after the caller's ask or another one; keeps the first text if told so."""

    prompt: str
    log: list[str]
    fallback: bool = False
    _ends: list[lms.PredictionEnd] = field(default_factory=list[lms.PredictionEnd])

    def parameter(self, wire: Any, ask: Ask) -> Any:
        yield from ()
        self.log.append(f"{self.prompt} sends")
        if ask.asked_by is not self:
            return wire
        message = {"role": "user", "content": [{"type": "text", "text": self.prompt}]}
        return {**wire, "history": {"messages": [message]}}

    def finish(self, batch: Events, end: lms.PredictionEnd, ask: Ask) -> Any:
        yield from ()
        self.log.append(f"{self.prompt} finishes")
        if self._ends or ask.asked_by is self:
            return batch, end
        self._ends.append(end)
        return batch, None

    def recover(self, error: lms.LMStudioError, ask: Ask) -> tuple[Events, lms.PredictionEnd] | None:
        self.log.append(f"{self.prompt} failed")
        return ([], self._ends[0]) if self.fallback and self._ends else None

    def reset(self, ask: Ask) -> None:
        self.log.append(f"{self.prompt} is reset")


@every_way
async def test_each_asks_once_and_an_inner_one_first(
    client: Any, server: Emulator, use: Callable[..., None], way: Any
) -> None:
    log: list[str] = []
    use(lambda plan: Again(plan, "third", log), lambda plan: Again(plan, "second", log))
    result = await way(await client.llm.model("chatty"))
    assert result.content == "OneTwoThree"
    assert log == [
        *("third sends", "second sends", "second finishes"),
        *("third sends", "second sends", "second finishes", "third finishes"),
        *("third sends", "second sends", "second finishes", "third finishes"),
    ]
    assert result.stats.predictions_count == len(server.predictions) == 3
    for name in ("promptTokensCount", "predictedTokensCount", "totalTokensCount"):
        assert result.end.stats[name] == sum(each.stats[name] for each in server.predictions)


@every_way
@pytest.mark.parametrize("fallback", [True, False])
async def test_its_own_ask_may_fail(client: Any, use: Callable[..., None], way: Any, fallback: bool) -> None:
    log: list[str] = []
    use(lambda plan: Again(plan, "third", log), lambda plan: Again(plan, "break", log, fallback=fallback))
    model = await client.llm.model("chatty")
    if fallback:
        result = await way(model)
        assert (result.content.replace("So ", ""), result.stats.predictions_count) == ("OneThree", 2)
        assert log[3:8] == ["third sends", "break sends", "break failed", "third finishes", "third sends"]
    else:
        with pytest.raises(lms.LMStudioServerError, match="the engine gave up"):
            await way(model)


async def test_what_has_arrived_stays_if_its_own_ask_is_cancelled(
    client: Any, use: Callable[..., None], gate: Gate
) -> None:
    log: list[str] = []
    use(lambda plan: Again(plan, "wait", log, fallback=True))
    stream = (await client.llm.model("chatty")).respond_stream("first")
    fragments = aiter(stream)
    assert (await anext(fragments)).content == "One"
    stream.cancel()
    assert [each.content async for each in fragments] == []
    result = stream.result()
    assert (result.content, result.stats.stop_reason, log[-1]) == ("One", "userStopped", "wait failed")
    assert "1 fragment, cancelled" in repr(stream)


@pytest.mark.parametrize("closes", [True, False])
async def test_what_has_arrived_stays_if_its_own_ask_is_never_sent(
    client: Any, server: Emulator, use: Callable[..., None], closes: bool
) -> None:
    @dataclass(eq=False)
    class AtTheEnd(Again):
        """Delivers the first response when that has ended, so that nobody reads between the two asks."""

        def events(self, batch: Events, ask: Ask) -> Events:
            return []

        def finish(self, batch: Events, end: lms.PredictionEnd, ask: Ask) -> Any:
            batch, found = yield from super().finish(batch, end, ask)
            return [*ask.raw.fragments], found

    use(lambda plan: AtTheEnd(plan, "second", [], fallback=True))
    stream = (await client.llm.model("chatty")).respond_stream("first")
    fragments = aiter(stream)
    assert (await anext(fragments)).content == "One"
    stream.cancel()
    if closes:
        await stream.aclose()
    assert stream.result().content == "One"
    assert stream.result().stats.stop_reason == "userStopped"
    assert [each.content async for each in fragments] == []
    assert len(server.predictions) == 1


@pytest.mark.parametrize("moment", ["before it waits", "while it waits"])
async def test_a_cancel_ends_what_one_waits_for_after_the_response(
    client: Any, use: Callable[..., None], moment: str
) -> None:
    @dataclass(eq=False)
    class Waits(Middleware):
        def finish(self, batch: Events, end: lms.PredictionEnd, ask: Ask) -> Any:
            if moment == "before it waits":
                stream.cancel()
            else:
                asyncio.get_running_loop().call_soon(stream.cancel)
            with pytest.raises(lms.LMStudioCancelledError, match="cancelled after the response"):
                yield from ask.operation.pause(3_600.0)
            return batch, end

    use(Waits)
    stream = (await client.llm.model("chatty")).respond_stream("first")
    result = await asyncio.wait_for(stream.wait_for_result(), 600)
    assert (result.content, result.stats.stop_reason) == ("One", "eosFound")


async def test_a_stream_that_is_closed_elsewhere_just_before_its_result_is_made_has_one_outcome(
    client: Any, use: Callable[..., None]
) -> None:
    @dataclass(eq=False)
    class Closes(Middleware):
        def finish(self, batch: Events, end: lms.PredictionEnd, ask: Ask) -> Any:
            yield from ()
            closing = threading.Thread(target=asyncio.run, args=[stream.aclose()])
            closing.start()
            closing.join(600)
            return batch, end

    use(Closes)
    stream, kinds = (await client.llm.model("chatty")).respond_stream("first"), set[type]()

    async def read() -> None:
        async for event in stream.events():
            kinds.add(type(event))

    with pytest.raises(lms.LMStudioCancelledError):
        await read()
    with pytest.raises(lms.LMStudioCancelledError):
        stream.result()
    assert lms.PredictionEnd not in kinds


@every_way
@pytest.mark.parametrize("at", ["the first ask", "the second ask"])
async def test_an_ask_of_which_nothing_was_delivered_is_repeated_alone(
    client: Any, server: Emulator, use: Callable[..., None], way: Any, at: str
) -> None:
    log: list[str] = []
    sent: list[Ask] = []

    @dataclass(eq=False)
    class Unloads(Middleware):
        """Unloads the model once, before an ask is sent. Nothing is delivered of the first ask."""

        def parameter(self, wire: Any, ask: Ask) -> Any:
            yield from ()
            sent.append(ask)
            if len(sent) == (1 if at == "the first ask" else 2):
                server.unload("chatty")
            return wire

        def events(self, batch: Events, ask: Ask) -> Events:
            return [] if ask.asked_by is None else batch

    use(lambda plan: Again(plan, "third", log), lambda plan: Again(plan, "second", log), Unloads)
    result = await way(await client.llm.model("chatty"))
    assert (result.content, result.stats.predictions_count) == ("TwoThree", 3)
    resets = [entry for entry in log if "reset" in entry]
    assert resets == ["third is reset", "second is reset"]
    assert [getattr(each.asked_by, "prompt", None) for each in sent] == (
        [None, None, "second", "third"] if at == "the first ask" else [None, "second", "second", "third"]
    )
