"""A thought before a response in a format: what is requested, and what becomes of it."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.predictions.entries import think_first
from lmstudio_integrations.client.predictions.entries.think_first import ThinkFirst
from lmstudio_integrations.emulator import Emulator, ModelEntry, PredictionRecord
from lmstudio_integrations.emulator.server.handlers import SERVED
from tests.support import recurrent_model
from tests.support.chat_templates import TEMPLATES, grammar_of
from tests.support.gate import AT_THE_GATE, Gate

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"const": "Oslo"}},
    "required": ["city"],
    "additionalProperties": False,
}
GIVEN = '{"city": "Oslo"}'
THOUGHT = "Is it Oslo? Yes."
THINKING: dict[str, Any] = {"response_format": SCHEMA, "config": {"enable_thinking": True}}

Rules = Sequence[dict[str, Any]]

BY_GRAMMAR: dict[str, Any] = {"when": {"structured": True}, "then": [{"text": GIVEN}]}
FREE: dict[str, Any] = {"then": [{"reasoning": THOUGHT}, {"text": "I would say Oslo. "}, AT_THE_GATE]}
"""A response that only ends if it is cancelled."""
WITHOUT_THOUGHT: dict[str, Any] = {"then": [{"text": "I would say Oslo. "}, AT_THE_GATE]}


class Serving(NamedTuple):
    """A server and a model of it."""

    server: Emulator
    model: Any
    seen: list[str]

    def ask(self, prompt: Any = "Where?", *, is_stream: bool = False, **changes: Any) -> lms.PredictionResult:
        """Return a response; as a stream, it is read fragment by fragment."""
        stream = self.model.respond_stream(prompt, **{**THINKING, **changes})
        for _ in stream if is_stream else ():
            pass
        result: lms.PredictionResult = stream.result() if is_stream else stream.wait_for_result()
        return result

    def requested(self) -> str:
        """Return which requests there were since the last call of this method."""
        kinds = [kind_of(record) for record in self.server.predictions]
        news, self.seen[:] = kinds[len(self.seen) :], kinds
        return " ".join(news)


def kind_of(record: PredictionRecord) -> str:
    """Return which request it was: of the caller, free, or the continuation of a text."""
    kind = "raw" if record.raw else "caller" if "structured" in record.config else "free"
    return kind if record.error is None else f"{kind}!"


@contextmanager
def serving(*rules: dict[str, Any], gate: Gate | None = None, key: str = "m") -> Iterator[Serving]:
    engines = (gate or Gate()).engines()
    entry = ModelEntry(key=key, rules=rules)
    with Emulator([entry], engines=engines) as server, lms.Client(server.address) as client:
        yield Serving(server, client.llm.model(key), [])


def test_what_the_two_predictions_have_used_is_summed() -> None:
    with serving(BY_GRAMMAR, FREE) as served:
        served.ask()
        result = served.ask()
        assert served.requested() == "caller free raw"
        free, raw = (each.stats for each in served.server.predictions[1:])
        assert (free["stopReason"], raw["stopReason"]) == ("userStopped", "eosFound")
        assert (result.content, result.reasoning_content, result.parsed) == (GIVEN, THOUGHT, {"city": "Oslo"})
        assert (result.stats.predictions_count, result.stats.stop_reason) == (2, "eosFound")
        assert result.stats.total_tokens_count == free["totalTokensCount"] + raw["totalTokensCount"]
        assert result.stats.time_to_first_token_sec == free["timeToFirstTokenSec"]
        (thought,) = result.thoughts
        assert thought == lms.Thought(THOUGHT, "<think>", "</think>")
        assert served.server.predictions[-1].prompt == f"<|user|>\nWhere?\n<|assistant|>\n<think>{THOUGHT}</think>"


def test_white_space_between_the_thought_and_the_text_belongs_to_the_tag() -> None:
    spaced = {"then": [{"reasoning": THOUGHT}, {"text": "\n\n"}, {"text": "I would say Oslo. "}, AT_THE_GATE]}
    with serving(BY_GRAMMAR, spaced) as served:
        served.ask()
        result = served.ask()
        assert result.content == GIVEN
        assert [thought.end_tag for thought in result.thoughts] == ["</think>\n\n"]
        assert (served.server.predictions[-1].prompt or "").endswith(f"{THOUGHT}</think>\n\n")


# What shows that it must be done --------------------------------------------------------------------------------------

REJECTED = "a response format needs reasoning to be off"


def rejecting(title: str, last: str = "^Where") -> dict[str, Any]:
    return {"when": {"structured": True, "last": last}, "then": [{"error": title}]}


RESPONSES: dict[str, tuple[Rules, list[str]]] = {
    "the grammar leaves the thought": (
        [{"when": {"structured": True}, "then": [{"reasoning": THOUGHT}, {"text": GIVEN}]}, FREE],
        ["caller", "caller"],
    ),
    "the text is taken for a thought": (
        [{"when": {"structured": True, "last": "^Where"}, "then": [{"reasoning": GIVEN}]}, BY_GRAMMAR, FREE],
        ["caller", "free raw", "free raw"],
    ),
    "a response without anything": (
        [{"when": {"structured": True, "last": "^Where"}, "then": [{"text": ""}]}, FREE],
        ["caller", "caller"],
    ),
    "a model that does not think": (
        [BY_GRAMMAR, WITHOUT_THOUGHT],
        ["caller", "free caller", "free caller", "caller", "caller"],
    ),
    "a thought without an end": (
        [BY_GRAMMAR, {"then": [{"text": f"<think>{THOUGHT}"}]}],
        ["caller", "free caller", "free caller", "caller"],
    ),
    "an empty thought": (
        [BY_GRAMMAR, {"then": [{"text": "<think>\n</think>I would say Oslo."}]}],
        ["caller", "free caller", "free caller", "caller"],
    ),
    "a format that is rejected": ([rejecting(REJECTED), BY_GRAMMAR, FREE], ["caller! free raw", "free raw"]),
    "a text that is rejected": (
        [rejecting("no grammar here", "<think>"), BY_GRAMMAR, FREE],
        ["caller", "free raw! caller", "caller"],
    ),
    "a free request that is rejected": (
        [BY_GRAMMAR, {"then": [{"fault": "template"}]}],
        ["caller", "free! caller", "free! caller"],
    ),
}
"""What a model does, and the requests of each call."""


@pytest.mark.parametrize(("rules", "expected"), RESPONSES.values(), ids=RESPONSES)
def test_the_first_response_shows_whether_the_grammar_leaves_a_thought(rules: Rules, expected: list[str]) -> None:
    with serving(*rules) as served:
        for number, kinds in enumerate(expected):
            result = served.ask(is_stream=number == 1)
            assert served.requested() == kinds
            if kinds.endswith("raw"):
                assert (result.content, result.reasoning_content) == (GIVEN, THOUGHT)
            elif "free" in kinds:
                assert result.content == GIVEN


def test_one_response_without_a_thought_is_no_proof() -> None:
    easy = {"when": {"structured": False, "last": "^Easy"}, **WITHOUT_THOUGHT}
    with serving(BY_GRAMMAR, easy, FREE) as served:
        for prompt in ("Where?", *("Easy?", "Where?") * 2):
            served.ask(prompt)
        assert served.requested() == "caller" + " free caller free raw" * 2


@pytest.mark.parametrize("title", ["the engine gave up", "Reason: out of memory", "m-thinking crashed"])
def test_an_error_about_something_else_is_the_error_of_the_call(title: str) -> None:
    with serving(rejecting(title), FREE, key="m-thinking") as served:
        with pytest.raises(lms.LMStudioServerError, match=title):
            served.ask()
        assert served.requested() == "caller!"


def test_a_failure_after_a_response_without_a_thought_is_the_error_of_the_call() -> None:
    with serving(rejecting("the engine gave up", "^Bad"), BY_GRAMMAR, WITHOUT_THOUGHT) as served:
        served.ask()
        with pytest.raises(lms.LMStudioServerError, match="gave up"):
            served.ask("Bad?")
        assert served.requested() == "caller free caller!"


@pytest.mark.leaf("reasoning_replay")
def test_an_error_before_the_request_shows_nothing_of_the_grammar() -> None:
    with serving(BY_GRAMMAR, FREE) as served:
        with pytest.raises(lms.LMStudioUnsupportedError, match="keep_reasoning"):
            served.ask(keep_reasoning=True)
        assert [served.ask().content, served.requested()] == [GIVEN, "caller"]


def test_a_server_that_renders_no_prompts_gets_the_request_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    old = {name: endpoint for name, endpoint in SERVED["llm"].items() if name != "applyPromptTemplate"}
    monkeypatch.setitem(SERVED, "llm", old)
    with serving(BY_GRAMMAR, FREE) as served:
        for _ in range(3):
            assert served.ask().content == GIVEN
        assert served.requested() == "caller free caller caller"


# What is requested ----------------------------------------------------------------------------------------------------


def test_earlier_thoughts_are_in_the_text_as_they_are_sent() -> None:
    chat = lms.Chat()
    chat.append({"role": "assistant", "content": [{"type": "reasoning", "text": "Hm."}, "Well."]})
    chat.add_user_message("Where?")
    with serving(BY_GRAMMAR, FREE) as served:
        for mode, expected in ((True, "<think>Hm.</think>Well."), (False, "<|assistant|>\nWell.")):
            served.ask(chat, send_reasoning=mode)
            served.ask(chat, send_reasoning=mode)
            prompt = served.server.predictions[-1].prompt or ""
            assert expected in prompt
            assert prompt.endswith(f"<think>{THOUGHT}</think>")


def test_settings_stay_but_for_the_budget_and_the_template() -> None:
    config = {"enable_thinking": True, "temperature": 0.5, "reasoning_budget": 50}
    with serving(BY_GRAMMAR, FREE) as served:
        for _ in range(2):
            served.ask(config=config)
        caller, free, raw = (each.config for each in served.server.predictions)
        assert free == {name: value for name, value in caller.items() if name != "structured"}
        assert raw.pop("promptTemplate")
        assert raw == {name: value for name, value in caller.items() if name != "reasoningBudget"}


def test_a_thought_that_is_cut_off_is_all_there_is() -> None:
    with serving(BY_GRAMMAR, FREE) as served:
        served.ask()
        result = served.ask(config={"enable_thinking": True, "max_tokens": 3}, is_stream=True)
        assert served.requested() == "caller free"
        assert (result.content, result.reasoning_content) == ("", "Is it")
        assert result.stats.stop_reason == "maxPredictedTokensReached"


STOPPED = {"enable_thinking": True, "stop_strings": ["Yes"]}
LEAVES_THOUGHT: dict[str, Any] = {"when": {"structured": True}, "then": [{"reasoning": THOUGHT}, {"text": GIVEN}]}


@pytest.mark.parametrize(("rule", "expected"), [(BY_GRAMMAR, "free"), (LEAVES_THOUGHT, "caller")])
def test_a_thought_that_has_a_stop_string_is_all_there_is(rule: dict[str, Any], expected: str) -> None:
    with serving(rule, FREE) as served:
        if rule is BY_GRAMMAR:
            served.ask()
            served.requested()
        result = served.ask(config=STOPPED)
        assert served.requested() == expected
        assert (result.content, result.reasoning_content) == ("", "Is it Oslo? ")
        assert result.stats.stop_reason == "stopStringFound"


def test_a_stop_string_after_the_thought_does_not_end_the_response() -> None:
    with serving(BY_GRAMMAR, FREE) as served:
        served.ask()
        result = served.ask(config={"enable_thinking": True, "stop_strings": ["I would"]})
        assert (result.content, result.reasoning_content) == (GIVEN, THOUGHT)
        assert served.requested() == "caller free raw"


# Stopping -------------------------------------------------------------------------------------------------------------


def test_a_stream_that_is_cancelled_in_the_thought_keeps_what_had_arrived(gate: Gate) -> None:
    waiting = {"then": [{"text": "<think>Is it"}, AT_THE_GATE, {"text": " Oslo?</think>Yes."}]}
    with serving(BY_GRAMMAR, waiting, gate=gate) as served:
        served.ask()
        stream = served.model.respond_stream("Where?", **THINKING)
        stream.start()
        assert gate.reached.wait(600)
        stream.cancel()
        assert [fragment.content for fragment in stream] == ["<think>", "Is", " it"]
        assert stream.stats.stop_reason == "userStopped"
        assert served.requested() == "caller free"


def after_the_thought(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Let something happen between the two requests."""
    finish = ThinkFirst.finish

    def finish_and_act(step: Any, batch: Any, end: Any, ask: Any) -> Any:
        events, end = yield from finish(step, batch, end, ask)
        if end is None:
            act()
        return events, end

    monkeypatch.setattr(ThinkFirst, "finish", finish_and_act)


def test_a_stream_that_is_cancelled_after_the_thought_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(BY_GRAMMAR, FREE) as served:
        served.ask()
        stream = served.model.respond_stream("Where?", **THINKING)
        after_the_thought(monkeypatch, stream.cancel)
        result = stream.wait_for_result()
        assert (result.content, result.reasoning_content) == ("", THOUGHT)
        assert result.stats.stop_reason == "userStopped"
        assert served.requested() == "caller free"


def test_a_model_that_is_unloaded_after_the_thought_continues_it(monkeypatch: pytest.MonkeyPatch) -> None:
    after_the_thought(monkeypatch, lambda: served.server.unload("m"))
    with serving(BY_GRAMMAR, FREE) as served:
        served.ask()
        result = served.ask()
        assert (result.content, result.reasoning_content) == (GIVEN, THOUGHT)
        assert served.requested() == "caller free raw"
        assert served.ask().content == GIVEN  # nothing is known of the new instance
        assert served.requested() == "caller"


# A real model ---------------------------------------------------------------------------------------------------------

REAL = {name: TEMPLATES[name] for name in ("opens_reasoning", "bare_beside_calls")}
"""The thought is begun by the prompt, or between tags of the template's own."""

NOT_CHECKPOINTED = 4
"""The last tokens of a prompt: llama.cpp makes its checkpoint before them."""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Any]]:
    folder = tmp_path_factory.mktemp("weights")
    models = [
        ModelEntry(key=name, weights=str(recurrent_model.write(folder / f"{name}.gguf", template.source)), slots=1)
        for name, template in REAL.items()
    ]
    with Emulator(models, auto_evict=False) as server, lms.Client(server.address) as client:
        yield {name: Serving(server, client.llm.model(name), []) for name in REAL}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_a_real_model_continues_its_thought_by_grammar(
    real: Mapping[str, Serving], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    template, served = REAL[name], real[name]
    written = template.write("Why? " * 20, "Well, it is so.")
    # The model knows nothing, so a grammar writes its free response as well.
    monkeypatch.setattr(think_first, "_WITHOUT_FORMAT", lms.LlmPredictionConfig.from_fields(grammar_of(written)))
    config = {"enable_thinking": True, "repeat_penalty": False, "raw": template.prediction_fields}
    served.ask("Hi", response_format=grammar_of(GIVEN)["llm.prediction.structured"], config=config)
    result = served.ask("Where? " * 20, config=config)
    free, raw = served.server.predictions[-2:]
    assert json.loads(result.content) == {"city": "Oslo"}
    assert (raw.prompt or "").endswith(template.tag("Why? " * 20))
    assert (raw.prompt or "").count(template.parsing[0]) == 1
    assert result.stats.predictions_count == 2
    assert (result.cached_tokens or 0) >= free.stats["promptTokensCount"] - NOT_CHECKPOINTED
