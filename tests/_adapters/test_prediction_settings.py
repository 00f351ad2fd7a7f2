"""Every prediction setting reaches the server by its name in LangChain and LlamaIndex, on every way to generate."""

import ast
import asyncio
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import llama_index.core
import pytest
from pydantic import BaseModel

from lmstudio_integrations.client.predictions.plan import PredictionOptions
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioServerError, LMStudioValueError
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioLLM
from lmstudio_integrations.llama_index import LMStudio
from lmstudio_integrations.types.config import LlmPredictionConfig
from tests._adapters.ways import LANGCHAIN as METHODS_OF_LANGCHAIN
from tests._adapters.ways import LLAMA_INDEX as METHODS_OF_LLAMA_INDEX
from tests._adapters.ways import STRUCTURED, Method, collected, said
from tests.support.adapters import EMBEDDING_MODELS, LANGUAGE_MODELS, covering
from tests.types.test_config import PREDICTION_SETTINGS

MODEL = "model"
OTHER_NAMES = {
    "top_k_sampling": "top_k",
    "top_p_sampling": "top_p",
    "min_p_sampling": "min_p",
    "stop_strings": "stop",
}
"""Settings that have another name in the frameworks than in the native client."""

FRAMEWORKS_OWN = {"structured", "raw_tools", "tool_choice", "log_probs", "prompt_template"}
"""Settings that the frameworks' own arguments set: response format, tools, tool choice, log-probabilities, template."""

NATIVE = {str(field.alias): name for name, field in LlmPredictionConfig.model_fields.items()}
SETTINGS = {
    OTHER_NAMES.get(NATIVE[alias], NATIVE[alias]): (alias, value)
    for alias, (value, _, _) in PREDICTION_SETTINGS.items()
    if NATIVE[alias] not in FRAMEWORKS_OWN
}
"""The settings by their names in the frameworks: the name in the record of a request, and a value."""

DEFAULTS = {"contextOverflowPolicy": "stopAtLimit"}
"""What the adapters send if nothing is set."""

Way = Callable[[Any, dict[str, Any]], Any]


def calling(method: Method, question: Any) -> Way:
    return lambda llm, given: method(llm, question, **given)


LANGCHAIN: dict[str, Way] = {
    **{name: calling(method, "Hello") for name, method in METHODS_OF_LANGCHAIN.items()},
    "bind": lambda llm, given: llm.bind(**given).invoke("Hello"),
}
LLAMA_INDEX: dict[str, Way] = {
    **{name: calling(method, said("Hello")) for name, method in METHODS_OF_LLAMA_INDEX.items()},
    "complete": lambda llm, given: llm.complete("Hello", **given),
}
WAYS_OF = {"LangChain": LANGCHAIN, "LlamaIndex": LLAMA_INDEX}
WAYS: dict[str, tuple[Any, Way]] = {
    f"{adapter_name}-{name}": (adapter.make, way)
    for adapter_name, adapter in LANGUAGE_MODELS.items()
    for name, way in WAYS_OF[adapter.framework].items()
}
SOME = ("ChatLMStudio-invoke", "LMStudioLLM-bind", "LMStudio-chat")
some_ways = pytest.mark.parametrize(("make", "way"), [WAYS[name] for name in SOME], ids=SOME)
every_way = pytest.mark.parametrize(("make", "way"), WAYS.values(), ids=WAYS)


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    draft_model, _, _ = PREDICTION_SETTINGS["draftModel"]
    with Emulator([ModelEntry(key=MODEL), ModelEntry(key=draft_model)]) as running:
        yield running


def test_the_rows_are_all_settings() -> None:
    without_row = {*NATIVE.values()} - {NATIVE[alias] for alias in PREDICTION_SETTINGS}
    assert without_row == {"raw"}, "each setting is a row of PREDICTION_SETTINGS in tests/types/test_config.py"
    assert len(SETTINGS) == len(PREDICTION_SETTINGS) - len(FRAMEWORKS_OWN)


@pytest.mark.parametrize(("surface", "setting"), covering(WAYS, SETTINGS))
def test_a_setting_reaches_the_server_as_field_and_as_argument(server: Emulator, surface: str, setting: str) -> None:
    (adapter, way), (alias, value) = WAYS[surface], SETTINGS[setting]
    given = {setting: value} if setting in adapter.model_fields else {"prediction_config": {setting: value}}
    way(adapter(model=MODEL, host=server.address, **given), {})
    way(adapter(model=MODEL, host=server.address), given)
    field, argument = (prediction.config for prediction in server.predictions[-2:])
    assert field == argument == {**DEFAULTS, alias: value}


@every_way
def test_a_value_that_the_engine_rejects_is_an_error_with_the_range_that_the_server_names(make: Any, way: Way) -> None:
    reason = "Invalid value for llm.prediction.topKSampling: 40 is not between 1 and 32"
    splash = ModelEntry(key=MODEL, format="yuzu", rules=({"then": [{"error": reason}]},))
    with Emulator([splash]) as running, make(model=MODEL, host=running.address, top_k=40) as llm:
        with pytest.raises(LMStudioServerError, match="40 is not between 1 and 32"):
            way(llm, {})
        assert running.predictions[-1].config["topKSampling"] == 40
        assert running.loaded()[0].format == "yuzu"


@pytest.mark.parametrize("adapter", [adapter.make for adapter in EMBEDDING_MODELS.values()])
def test_an_embedding_model_says_whose_setting_it_is(adapter: Any) -> None:
    for setting in [*SETTINGS, "check_context"]:
        with pytest.raises(ValueError, match=f"'{setting}'; remove it: it is a setting of language models"):
            adapter(model=MODEL, **{setting: None})


@some_ways
def test_raw_settings_reach_the_server_by_wire_key(server: Emulator, make: Any, way: Way) -> None:
    raw = {"llm.prediction.llama.tailFreeSampling": {"checked": True, "value": 0.5}}
    way(make(model=MODEL, host=server.address), {"prediction_config": {"raw": raw}})
    assert server.predictions[-1].config == {**DEFAULTS, "raw": raw}


@every_way
def test_a_call_ranks_above_the_fields_and_none_unsets_one(
    server: Emulator, make: Callable[..., Any], way: Way
) -> None:
    config = {"cpu_threads": 2, "raw": {"a.b": 1, "llm.prediction.topKSampling": 5}}
    llm = make(model=MODEL, host=server.address, temperature=0.1, stop=["A"], seed=3, prediction_config=config)
    changed = {"raw": {"llm.prediction.topKSampling": 3}}
    given = {"temperature": 0.9, "stop": ["B"], "seed": None, "prediction_config": changed}
    way(llm, given)
    assert server.predictions[-1].config == {
        **DEFAULTS, "temperature": 0.9, "stopStrings": ["B"], "cpuThreads": 2, "topKSampling": 3, "raw": {"a.b": 1},
    }  # fmt: skip


WITHOUT_EFFECT = {
    "extra_headers": {"anthropic-beta": "prompt-caching"},
    "user": "somebody",
    "n": 1,
    "best_of": 1,
    "extra_body": {},
    "extra_query": None,
    "stream": False,
    "image_documents": [],
}
"""Arguments that LlamaIndex's contextual retrieval, ragas and programs for OpenAI pass to calls of any model."""


@some_ways
def test_arguments_that_change_no_response_are_ignored(server: Emulator, make: Any, way: Way) -> None:
    llm = make(model=MODEL, host=server.address)
    way(llm, WITHOUT_EFFECT | ({"callbacks": None, "metadata": {"a": "b"}} if way in LLAMA_INDEX.values() else {}))
    assert server.predictions[-1].config == DEFAULTS
    for given, remedy in {
        "n": (2, "remove it: a call has one response"),
        "extra_body": ({"x": 1}, "write its entries as settings"),
        "image_documents": (["a"], "help"),
        "extra_headers": ({"Authorization": "Bearer sk-1"}, "did you mean 'headers'"),
    }.items():
        with pytest.raises(LMStudioValueError, match=rf"unknown setting '{given}'.*{remedy[1]}"):
            way(llm, {given: remedy[0]})


OF_TOMORROW = {"defer_loading": None, "cache_control": None, "profile": None}
"""What a newer version of a framework may pass to every model: names that no call of this package has."""


@every_way
def test_an_unknown_argument_that_is_none_requests_nothing(
    server: Emulator, make: Callable[..., Any], way: Way
) -> None:
    way(make(model=MODEL, host=server.address), OF_TOMORROW | {"max_tokens": 9})
    assert server.predictions[-1].config == DEFAULTS | {"maxTokens": 9}


def lookup(name: str) -> str:
    """Look a name up."""
    return name


class Answer(BaseModel):
    text: str


WRITTEN: dict[str, tuple[Any, Callable[[Any, dict[str, Any]], Any]]] = {
    "bind": (ChatLMStudio, lambda llm, given: llm.bind(**given)),
    "bind again": (ChatLMStudio, lambda llm, given: llm.bind_tools([lookup]).bind(**given)),
    "bind after a config": (ChatLMStudio, lambda llm, given: llm.with_config().bind(**given)),
    "bind after a retry": (ChatLMStudio, lambda llm, given: llm.bind(seed=1).with_retry().bind(**given)),
    "bind_tools": (ChatLMStudio, lambda llm, given: llm.bind_tools([lookup], **given)),
    "with_structured_output": (ChatLMStudio, lambda llm, given: llm.with_structured_output(Answer, **given)),
    "bind of a completion": (LMStudioLLM, lambda llm, given: llm.bind(**given)),
    "bind again, of a completion": (LMStudioLLM, lambda llm, given: llm.bind(seed=1).bind(**given)),
    "additional_kwargs": (LMStudio, lambda llm, given: type(llm)(host=llm.host, additional_kwargs=given)),
}
"""The ways to write settings before the call that has them."""


@pytest.mark.parametrize("written", WRITTEN)
def test_a_setting_is_checked_where_it_is_written(written: str) -> None:
    make, write = WRITTEN[written]
    llm = make(model=MODEL, host="127.0.0.1:9")
    assert write(llm, {"defer_loading": None, "temperature": None})
    with pytest.raises(LMStudioValueError, match="unknown setting 'defer_loading'"):
        write(llm, {"defer_loading": True})
    with pytest.raises(LMStudioValueError, match="temperature='hot'"):
        write(llm, {"temperature": "hot"})


TOOL_WAYS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "chat_with_tools": lambda llm, given: llm.chat_with_tools([], "Hello", **given),
    "astream_chat_with_tools": lambda llm, given: asyncio.run(
        collected(llm.astream_chat_with_tools([], "Hello", **given))
    ),
    **{
        name: lambda llm, given, method=STRUCTURED[name]: method(llm, Answer, "Hello", **given)  # type: ignore[misc]  # bound now
        for name in ("structured_predict", "astructured_predict")
    },
}


@pytest.mark.parametrize("way", TOOL_WAYS)
def test_tools_and_programs_of_llama_index_take_an_unknown_none(server: Emulator, way: str) -> None:
    llm = LMStudio(model=MODEL, host=server.address)
    assert TOOL_WAYS[way](llm, dict(OF_TOMORROW))
    with pytest.raises(LMStudioValueError, match="unknown setting 'defer_loading'"):
        TOOL_WAYS[way](llm, {"defer_loading": True})


def test_every_argument_that_llama_index_passes_to_a_model_is_accepted(server: Emulator) -> None:
    passed = set[str]()
    for path in Path(str(llama_index.core.__file__)).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(call, ast.Call) and re.search(r"(llm|model)\.\w*(chat|complete)$", ast.unparse(call.func)):
                passed |= {keyword.arg for keyword in call.keywords if keyword.arg}
    assert passed >= {"messages", "max_tokens", "extra_headers"}
    llm = LMStudio(model=MODEL, host=server.address)
    given: dict[str, Any] = dict.fromkeys(passed - {"messages", "prompt", "formatted"})
    assert llm.complete("Hello", **given).text


CHANGES: dict[str, tuple[Callable[[Any], None], str, Any]] = {
    "assigned": (lambda llm: setattr(llm, "temperature", 0.5), "temperature", 0.5),
    "unset": (lambda llm: setattr(llm, "max_tokens", None), "maxTokens", None),
    "a list, in place": (lambda llm: llm.stop.append("END"), "stopStrings", ["STOP", "END"]),
    "a dict, in place": (
        lambda llm: llm.prediction_config.raw.update({"llm.prediction.topKSampling": 7}),
        "topKSampling",
        7,
    ),
}


@pytest.mark.parametrize(("surface", "what"), covering(WAYS, CHANGES))
def test_a_change_takes_effect_with_the_next_call(server: Emulator, surface: str, what: str) -> None:
    (make, way), (change, name, value) = WAYS[surface], CHANGES[what]
    config = {"raw": {"llm.prediction.topKSampling": 40}}
    llm = make(model=MODEL, host=server.address, max_tokens=9, stop=["STOP"], prediction_config=config)
    for _ in range(2):
        way(llm, {})
    change(llm)
    before = dict(server.predictions[-1].config)
    way(llm, {})
    assert server.predictions[-1].config == {
        key: each for key, each in {**before, name: value}.items() if each is not None
    }


EQUAL: dict[str, tuple[Any, Any]] = {
    "min_p": (0.0, False),
    "top_k": (1, 1.0),
    "stop_on_repetition": (True, 1),
    "prediction_config": ({"raw": {"x.y": 0}}, {"raw": {"x.y": False}}),
    "load_config": ({"raw": {"x.y": [1]}}, {"raw": {"x.y": [True]}}),
}
"""Values of a setting that Python takes to be equal, though they request different things."""


@pytest.mark.parametrize("setting", EQUAL)
@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_an_equal_value_of_another_type_takes_effect_with_the_next_call(name: str, setting: str) -> None:
    before, after = EQUAL[setting]
    make = LANGUAGE_MODELS[name].make
    llm, fresh = make(model=MODEL, **{setting: before}), make(model=MODEL, **{setting: after})
    llm._resolve_call({})
    setattr(llm, setting, after)
    changed, expected = (each._resolve_call({}) for each in (llm, fresh))
    assert repr((changed.settings, changed.options)) == repr((expected.settings, expected.options))
    assert changed.used.spec == expected.used.spec
    assert repr(llm) == repr(fresh)


TOOL: dict[str, Any] = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
OTHER_TOOL: dict[str, Any] = {"type": "function", "function": {"name": "other", "parameters": {"type": "object"}}}
REQUESTS: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any], Any], None]]] = {
    "a tool": ({"tools": [TOOL]}, lambda given, _: given["tools"][0]["function"].update(name="find")),
    "another tool": ({"tools": [TOOL]}, lambda given, _: given["tools"].append(deepcopy(OTHER_TOOL))),
    "a choice": ({"tools": [TOOL], "tool_choice": "auto"}, lambda given, _: given.update(tool_choice="required")),
    "fewer arguments": ({"tools": [TOOL], "tool_choice": "required"}, lambda given, _: given.pop("tool_choice")),
    "a format": (
        {"response_format": {"type": "json_schema", "schema": {"type": "object"}}},
        lambda given, _: given["response_format"]["schema"].update(type="array"),
    ),
    "a field": ({"tools": [TOOL]}, lambda _, llm: setattr(llm, "seed", 5)),
}
"""What a call requests besides settings, and a change before the next one."""


@pytest.mark.parametrize("what", REQUESTS)
@pytest.mark.parametrize("make", [ChatLMStudio, LMStudio])
def test_a_changed_request_takes_effect_with_the_next_call(make: Any, what: str) -> None:
    given, change = deepcopy(REQUESTS[what][0]), REQUESTS[what][1]
    llm = make(model=MODEL)
    first, again = llm._resolve_call(given), llm._resolve_call({**given})
    assert again is first, "an agent's tools are resolved once"
    before = repr(first.settings)
    change(given, llm)
    fresh = make(model=MODEL, seed=llm.seed)
    changed, expected = llm._resolve_call(given), fresh._resolve_call(given)
    assert repr(changed.settings) == repr(expected.settings) != before
    assert changed.tool_use == expected.tool_use


def test_an_alternative_less_is_no_log_probability_at_all(server: Emulator) -> None:
    llm = ChatLMStudio(model=MODEL, host=server.address, top_logprobs=0)
    llm.invoke("Hello")
    llm.top_logprobs = False
    llm.invoke("Hello")
    assert [each.config.get("logProbs") for each in server.predictions[-2:]] == [1, None]


@pytest.mark.parametrize("make", [each.make for each in LANGUAGE_MODELS.values()])
def test_another_host_in_the_environment_takes_effect_with_the_next_call(
    server: Emulator, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = make(model=MODEL)
    with Emulator([ModelEntry(key=MODEL)]) as other:
        for each in (server, other, server):
            monkeypatch.setenv("LMSTUDIO_HOST", each.address)
            count = len(each.predictions)
            (llm.invoke if hasattr(llm, "invoke") else llm.complete)("Hello")
            assert len(each.predictions) == count + 1


# What a call passes to the client


@pytest.mark.parametrize("make", [each.make for each in LANGUAGE_MODELS.values()], ids=LANGUAGE_MODELS)
def test_options_about_tools_belong_to_calls_that_offer_some(make: Callable[..., Any]) -> None:
    options = make(model=MODEL)._resolve_call({}).options
    assert options == PredictionOptions(check_context=True, stop_on_repetition=True)
