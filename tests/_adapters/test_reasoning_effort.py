"""`reasoning_effort` in LangChain and LlamaIndex: what goes on the wire for each kind of model, and the warnings."""

import copy
import json
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.tracers.context import collect_runs

from lmstudio_integrations import LMStudioConfigWarning, LMStudioValueError
from lmstudio_integrations._adapters.request_effort import reasoning_profile
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio
from tests._adapters.ways import METHODS, messages_of
from tests.support.adapters import ADAPTERS, covering
from tests.support.requested import chosen

GPT_OSS, QWEN_38, QWEN_35 = "openai/gpt-oss-20b", "qwen/qwen3.8-27b", "qwen/qwen3.5-9b"
NEMOTRON, UNKNOWN, PLAIN = "nvidia/nemotron-3-nano-omni", "acme/deep-thought-2.5-42b", "qwen3-4b"
MODELS = (GPT_OSS, QWEN_38, QWEN_35, NEMOTRON, UNKNOWN, PLAIN)

SOME = ("invoke", "astream", "chat", "astream_chat")
on_some_ways = pytest.mark.parametrize("name", ["astream", "chat"])


def ask(name: str, llm: Any, **given: Any) -> None:
    make, method = METHODS[name]
    method(llm, messages_of(make, [("user", "Hello")]), **given)


def custom(field: str, value: object) -> dict[str, Any]:
    """Return the record of a custom field."""
    return {"raw": {f"ext.virtualModel.customField.{field}": value}}


def switched(field: str, *, on: bool) -> dict[str, Any]:
    """Return the record of both switches of reasoning."""
    return {"enableThinking": on, **custom(f"{field}.enableThinking", on)}


SENT: list[tuple[str, str, dict[str, Any]]] = [
    *[(GPT_OSS, effort, custom("openai.gptOss20b.reasoningEffort", effort)) for effort in ("low", "high")],
    (GPT_OSS, "minimal", custom("openai.gptOss20b.reasoningEffort", "low")),
    (GPT_OSS, "xhigh", custom("openai.gptOss20b.reasoningEffort", "high")),
    (QWEN_38, "minimal", custom("qwen.qwen3.827b.reasoningEffort", "low")),
    (QWEN_38, "high", custom("qwen.qwen3.827b.reasoningEffort", "xhigh")),
    (QWEN_38, "none", switched("qwen.qwen3.827b", on=False)),
    (QWEN_35, "low", switched("qwen.qwen3.59b", on=True)),
    (QWEN_35, "none", switched("qwen.qwen3.59b", on=False)),
    (NEMOTRON, "none", switched("nvidia.nemotron3NanoOmni", on=False)),
    (UNKNOWN, "minimal", custom("acme.deepThought2.542b.reasoningEffort", "minimal")),
    (UNKNOWN, "none", switched("acme.deepThought2.542b", on=False)),
    (PLAIN, "none", {"enableThinking": False}),
]
ALWAYS_REASONS = "'openai/gpt-oss-20b' always reasons; write reasoning_effort='low', which is sent in place of 'none'"
WITHOUT_LEVELS = (
    "reasoning_effort='low' has no effect on 'qwen3-4b': only models of LM Studio's catalog have levels of reasoning, "
    "by keys such as 'openai/gpt-oss-20b'; name one as model, or set reasoning_budget"
)
SKIPPED: list[tuple[str, str, dict[str, Any], str]] = [
    (GPT_OSS, "none", custom("openai.gptOss20b.reasoningEffort", "low"), ALWAYS_REASONS),
    (PLAIN, "low", {}, WITHOUT_LEVELS),
]
"""Efforts that a model cannot be told: what is sent, and the warning."""


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    rule = {"then": [{"reasoning": "Let me see."}, {"text": "Done."}]}
    with Emulator([ModelEntry(key=key, rules=(rule,)) for key in MODELS], auto_evict=False) as running:
        yield running


@pytest.mark.parametrize(("name", "case"), covering(SOME, SENT))
def test_an_effort_is_sent_as_what_the_model_has(
    server: Emulator, name: str, case: tuple[str, str, dict[str, Any]]
) -> None:
    (make, _), (model, effort, sent) = METHODS[name], case
    with warnings.catch_warnings():
        warnings.simplefilter("error", LMStudioConfigWarning)
        ask(name, make(model=model, host=server.address, reasoning_effort=effort))
        ask(name, make(model=model, host=server.address), reasoning_effort=effort)
    assert [chosen(record) for record in server.predictions[-2:]] == [sent, sent]


@pytest.mark.leaf
@on_some_ways
@pytest.mark.parametrize(("model", "effort", "sent", "warning"), SKIPPED)
def test_an_effort_without_effect_is_one_warning_for_each_object_and_model(
    server: Emulator, name: str, model: str, effort: str, sent: dict[str, Any], warning: str
) -> None:
    make, _ = METHODS[name]
    for fields, given in (({"reasoning_effort": effort}, {}), ({}, {"reasoning_effort": effort})):
        llm = make(model=model, host=server.address, **fields)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ask(name, llm, **given)
            ask(name, llm, **given)
        assert [str(each.message) for each in caught] == [warning]
        assert [chosen(record) for record in server.predictions[-2:]] == [sent, sent]
    with pytest.warns(LMStudioConfigWarning):
        ask(name, copy.copy(llm), reasoning_effort=effort)


@pytest.mark.leaf
def test_an_effort_without_effect_is_one_warning_whatever_the_server_calls_the_model() -> None:
    with Emulator([ModelEntry(key=PLAIN)]) as server, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        server.load(PLAIN)
        llm = ChatLMStudio(host=server.address)
        for effort in ("low", "low", "high"):
            llm.invoke("Hello", reasoning_effort=effort)
    assert len([each for each in caught if issubclass(each.category, LMStudioConfigWarning)]) == 1


@pytest.mark.leaf
@on_some_ways
def test_the_key_that_the_server_reports_counts_where_the_model_is_named_otherwise(name: str) -> None:
    make, _ = METHODS[name]
    with Emulator([ModelEntry(key=GPT_OSS)]) as server:
        llm = make(host=server.address, reasoning_effort="high")
        server.load(GPT_OSS)
        with pytest.warns(LMStudioConfigWarning, match="has no effect on the model: only models of LM Studio's"):
            ask(name, llm)
        ask(name, llm)
        loaded = make(host=server.address, reasoning_effort="high").load()
        ask(name, loaded)  # knows it before the first call
        high = custom("openai.gptOss20b.reasoningEffort", "high")
        assert [chosen(record) for record in server.predictions] == [{}, high, high]


@pytest.mark.parametrize("named", [f"{GPT_OSS}:2", f"{GPT_OSS}@q4_k_m"])
def test_the_number_of_an_instance_and_the_variant_are_no_part_of_the_key(named: str) -> None:
    with Emulator([ModelEntry(key=named)]) as server:
        ChatLMStudio(model=named, host=server.address, reasoning_effort="minimal").invoke("Hello")
        assert chosen(server.predictions[-1]) == custom("openai.gptOss20b.reasoningEffort", "low")


@on_some_ways
def test_none_unsets_the_field_and_an_argument_ranks_above_it(server: Emulator, name: str) -> None:
    llm = METHODS[name][0](model=GPT_OSS, host=server.address, reasoning_effort="high")
    for given in ({"reasoning_effort": None}, {"reasoning_effort": "low"}, {}):
        ask(name, llm, **given)
    low, high = (custom("openai.gptOss20b.reasoningEffort", effort) for effort in ("low", "high"))
    assert [chosen(record) for record in server.predictions[-3:]] == [{}, low, high]


@on_some_ways
def test_the_named_setting_ranks_above_raw_ones_and_leaves_the_rest_of_it(server: Emulator, name: str) -> None:
    field = "ext.virtualModel.customField.openai.gptOss20b"
    raw = {f"{field}.reasoningEffort": "low", f"{field}.style": "terse"}
    ask(
        name,
        METHODS[name][0](model=GPT_OSS, host=server.address, prediction_config={"raw": raw}, reasoning_effort="high"),
    )
    assert chosen(server.predictions[-1]) == {
        "raw": {f"{field}.reasoningEffort": "high", f"{field}.style": "terse"},
    }


def test_budget_and_thinking_stay_settings_of_their_own(server: Emulator) -> None:
    settings: dict[str, Any] = {"reasoning_effort": "low", "reasoning_budget": 9, "enable_thinking": True}
    ChatLMStudio(model=UNKNOWN, host=server.address, **settings).invoke("Hello")
    level = custom("acme.deepThought2.542b.reasoningEffort", "low")
    assert chosen(server.predictions[-1]) == {"reasoningBudget": 9, "enableThinking": True, **level}


WRONG = [
    (
        {"reasoning_effort": "none", "enable_thinking": True},
        "enable_thinking=True contradicts reasoning_effort='none'; set one of them to None",
    ),
    (
        {"reasoning_effort": "low", "enable_thinking": False},
        "enable_thinking=False contradicts reasoning_effort='low'; set one of them to None",
    ),
    (
        {"reasoning_effort": "extreme"},
        "reasoning_effort='extreme': Input should be 'none', 'minimal', 'low', 'medium', 'high' or 'xhigh'",
    ),
]


@on_some_ways
@pytest.mark.parametrize(("given", "text"), WRONG)
def test_an_effort_that_cannot_be_is_rejected_before_anything_is_sent(
    server: Emulator, name: str, given: dict[str, Any], text: str
) -> None:
    before = len(server.predictions)
    with pytest.raises(LMStudioValueError) as caught:
        ask(name, METHODS[name][0](model=GPT_OSS, host=server.address), **given)
    assert text in str(caught.value)
    assert len(server.predictions) == before


@pytest.mark.parametrize("adapter", [each for each in ADAPTERS.values() if each.kind != "chat"])
def test_models_without_a_chat_template_have_no_effort(adapter: Any) -> None:
    with pytest.raises(ValueError, match=r"'reasoning_effort'(; chat models have it| is a setting of language|; help)"):
        adapter.make(reasoning_effort="low")


def test_responses_with_another_effort_are_cached_apart_and_traces_show_it(server: Emulator) -> None:
    llm = ChatLMStudio(model=GPT_OSS, host=server.address, reasoning_effort="low", cache=InMemoryCache())
    before = len(server.predictions)
    calls: list[dict[str, Any]] = [{}, {}, *[{"reasoning_effort": each} for each in ("high", "high", "low")]]
    with collect_runs() as traced:
        for given in calls:
            llm.invoke("Hello", **given)
    assert len(server.predictions) - before == 2
    shown = [(run.extra or {})["invocation_params"]["reasoning_effort"] for run in traced.traced_runs]
    assert shown == ["low", "low", "high", "high", "low"]
    assert ChatLMStudio.model_validate(json.loads(llm.model_dump_json(exclude={"cache"}))).reasoning_effort == "low"


PROFILES: list[tuple[str, dict[str, Any]]] = [
    (GPT_OSS, {"reasoning_output": True, "reasoning_effort_levels": ["low", "medium", "high"]}),
    (QWEN_38, {"reasoning_output": True, "reasoning_effort_levels": ["low", "medium", "xhigh"]}),
    (QWEN_35, {"reasoning_output": True}),
    (UNKNOWN, {}),
    (PLAIN, {}),
]


@pytest.mark.parametrize(("model", "expected"), PROFILES)
def test_the_profile_says_what_is_known_of_reasoning(server: Emulator, model: str, expected: dict[str, Any]) -> None:
    llm = ChatLMStudio(model=model, host=server.address)
    llm.invoke("Hello")
    profile = llm.profile or {}
    assert {name: value for name, value in profile.items() if name.startswith("reasoning")} == expected
    assert reasoning_profile({"modelKey": model}) == expected
    assert reasoning_profile({}) == {}
