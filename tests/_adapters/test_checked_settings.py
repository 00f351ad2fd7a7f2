"""A setting is checked and converted in one way, whether a constructor, an assignment, a copy or a call gives it."""

import asyncio
import math
import pickle
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import httpx
import pytest
from langchain_core.exceptions import ModelInvalidRequestError
from langchain_core.load import dumpd
from langchain_core.runnables import RunnableLambda

from lmstudio_integrations._adapters.settings_checks import places_of_settings
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from tests._adapters.test_numbers import assigned
from tests.support.adapters import ADAPTERS, LANGUAGE_MODELS, TOOLKITS, Adapter
from tests.support.certificates import LOCALHOST
from tests.support.leaks import error_of

NOWHERE = "127.0.0.1:9"
OWNERS = {
    **{name: (each.make, {"model": "m", "host": NOWHERE}) for name, each in ADAPTERS.items()},
    **{make.__name__: (make, {"plugin": "mcp/sums", "host": NOWHERE}) for make in TOOLKITS},
}
VALUES: list[Any] = ["no", "maybe", 3, 2.5, True, [], {"a": 5}, 10**400, float("inf"), None]
HIDDEN = {"api_token", "headers", "plugin_config"}
"""Settings whose values may be secrets."""

Way = Callable[[Any, str, Any], Any]
WAYS: dict[str, Way] = {
    "assignment": lambda model, name, value: getattr(assigned(model, {name: value}), name),
    "copy": lambda model, name, value: getattr(model.model_copy(update={name: value}), name),
}
CALLS: dict[str, Callable[[Any, Any, dict[str, Any]], Any]] = {
    "call": lambda adapter, model, given: adapter.call(model, "Hello", **given),
    "async call": lambda adapter, model, given: asyncio.run(adapter.acall(model, "Hello", **given)),
    "stream": lambda adapter, model, given: list(streams(adapter, model)(*adapter.arguments("Hello"), **given)),
}
BOUND = {"bind": lambda adapter, model, given: model.bind(**given).invoke("Hello")}


def streams(adapter: Adapter, model: Any) -> Any:
    return model.stream if adapter.framework == "LangChain" else model.stream_complete


def settings_of(make: Any) -> list[str]:
    """Return the fields of a class that are not the framework's. `model_name` is another name of `model`."""
    return [name for name in make.model_fields if name not in {*make._framework_descriptions, "model_name"}]


def constructed(name: str, setting: str, value: object) -> Any:
    """Return the value that the constructor holds; its error if it rejects the value."""
    make, others = OWNERS[name]
    try:
        return getattr(make(**{**others, setting: value}), setting)
    except LMStudioValueError as error:
        return error


def check_error(error: Exception, setting: str, value: object) -> None:
    assert isinstance(error, LMStudioValueError)
    assert setting in str(error)
    if setting not in HIDDEN and isinstance(value, str | bool):
        assert repr(value) in str(error)


shown = pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:9])


@pytest.mark.sampled(8)
@shown
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", OWNERS)
def test_a_field_that_is_changed_holds_what_the_constructor_holds(name: str, way: str, value: Any) -> None:
    make, others = OWNERS[name]
    for setting in settings_of(make):
        expected, changed = constructed(name, setting, value), partial(WAYS[way], make(**others), setting, value)
        if isinstance(expected, Exception):
            check_error(error_of(changed), setting, value)
        else:
            assert repr(changed()) == repr(expected)


@pytest.mark.sampled(8)
@shown
@pytest.mark.parametrize(
    ("name", "way"),
    [
        (name, way)
        for name, each in LANGUAGE_MODELS.items()
        for way in (CALLS | (BOUND if each.framework == "LangChain" else {})).items()
    ],
    ids=lambda each: each if isinstance(each, str) else each[0],
)
def test_a_call_rejects_what_the_constructor_rejects(name: str, way: tuple[str, Any], value: Any) -> None:
    """Nothing listens at the host, so what is not rejected at once fails with another error."""
    (make, others), (_, call) = OWNERS[name], way
    model = make(**others)
    for setting in model._call_names().keys() & settings_of(make):
        if setting not in HIDDEN and isinstance(constructed(name, setting, value), Exception):
            check_error(error_of(partial(call, LANGUAGE_MODELS[name], model, {setting: value})), setting, value)


def nested() -> Any:
    value: Any = "x"
    for _ in range(100_000):
        value = [value]
    return value


DEEP: dict[str, Any] = {
    "prediction_config": {"raw": {"llm.prediction.x": nested()}},
    "load_config": {"raw": {"x": nested()}},
    "stop": nested(),
}
Given = dict[str, Any]


def called(call: Callable[[Any, Any, Given], Any], adapter: Adapter, others: Given, given: Given) -> object:
    return call(adapter, adapter.make(**others), given)


ALL_WAYS: dict[str, Callable[[Adapter, Given, Given], object]] = {
    "constructor": lambda adapter, others, given: adapter.make(**{**others, **given}),
    "assignment": lambda adapter, others, given: assigned(adapter.make(**others), given),
    "copy": lambda adapter, others, given: adapter.make(**others).model_copy(update=given),
    **{name: partial(called, call) for name, call in CALLS.items()},
}


@pytest.mark.parametrize("way", ALL_WAYS)
@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_a_value_that_is_nested_too_deeply_is_rejected_by_name(name: str, way: str) -> None:
    for setting, value in DEEP.items():
        with pytest.raises(LMStudioValueError, match=f"{setting} is nested more than 200 levels"):
            ALL_WAYS[way](LANGUAGE_MODELS[name], OWNERS[name][1], {setting: value})


SWITCHES = [("ChatLMStudio", "stream", ("call", "async call"))] + [
    (name, setting, tuple(CALLS))
    for name in ("ChatLMStudio", "LMStudio")
    for setting in ("include_confidence", "parallel_tool_calls")
]


@pytest.mark.parametrize(("name", "setting", "ways"), SWITCHES)
def test_a_switch_of_calls_alone_is_a_boolean(name: str, setting: str, ways: tuple[str, ...]) -> None:
    make, others = OWNERS[name]
    for way in ways:
        call = partial(CALLS[way], LANGUAGE_MODELS[name], make(**others), {setting: "maybe"})
        check_error(error_of(call), setting, "maybe")


@pytest.mark.parametrize("kind", ["json_object", "objekt"])
@pytest.mark.parametrize("name", ["ChatLMStudio", "LMStudio"])
def test_a_schema_of_a_type_that_does_not_exist_is_rejected_with_what_to_write(name: str, kind: str) -> None:
    """LangChain's `create_agent` sends any dict as a JSON schema."""
    make, others = OWNERS[name]
    given = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": kind}}}}
    error = error_of(partial(CALLS["call"], LANGUAGE_MODELS[name], make(**others), given))
    assert f"type '{kind}'" in str(error)
    assert "{'type': 'object'}" in str(error)


def test_other_switches_of_methods_are_booleans() -> None:
    tool: Any = {"name": "add", "parameters": {"type": "object"}}
    langchain, llama_index = ChatLMStudio(model="m"), LMStudio(model="m")
    methods: dict[str, Callable[[Any], object]] = {
        "include_raw": lambda value: langchain.with_structured_output(tool, include_raw=value),
        "keep_warm": lambda value: langchain.load(keep_warm=value),
        "tool_required": lambda value: llama_index.chat_with_tools([], tool_required=value),
        "allow_parallel_tool_calls": lambda value: llama_index.chat_with_tools(
            [], "Hi", allow_parallel_tool_calls=value
        ),
    }
    for setting, method in methods.items():
        check_error(error_of(partial(method, "no")), setting, "no")


# Timeouts, and what is written in another form ------------------------------------------------------------------------


WRITTEN: dict[str, Any] = {
    "ttl": math.inf,
    "timeout": math.inf,
    "timeouts": {"idle_timeout": math.inf, "connect_timeout": None},
    "ca_file": LOCALHOST,
    "max_retries": 2,
    "preset": "p",
    "max_tokens": False,
    "repeat_penalty": False,
    "temperature": 0,
    "top_p": 0,
    "seed": 0,
    "stop": ["x"],
    "prediction_config": {"raw": {"a.b": 1}},
    "load_config": {"context_length": 300, "gpu": {"ratio": 0.5}, "raw": {"k": None}},
    "logprobs": False,
    "context_window": 512,
    "pydantic_program_mode": "llm",
    "is_function_calling_model": False,
    "embed_batch_size": 7,
    "num_workers": 2,
    "length_policy": "truncate",
}
"""Settings of one adapter or another, in which what is off, unset, infinite or zero could become something else."""

DUMPS: dict[str, Callable[[Any], Any]] = {
    "constructor": lambda made: type(made)(**made.model_dump()),
    "model_validate": lambda made: type(made).model_validate(made.model_dump(mode="json")),
    "model_validate_json": lambda made: type(made).model_validate_json(made.model_dump_json()),
    "pickle": lambda made: pickle.loads(pickle.dumps(made)),
}


@pytest.mark.parametrize("again", DUMPS.values(), ids=DUMPS)
@pytest.mark.parametrize("name", OWNERS)
def test_an_equal_object_is_made_of_a_dump(name: str, again: Callable[[Any], Any]) -> None:
    make, others = OWNERS[name]
    settings = {setting: value for setting, value in WRITTEN.items() if setting in make.model_fields}
    made = make(**others, **settings)
    remade = again(made)
    for setting in settings:
        assert repr(getattr(remade, setting)) == repr(getattr(made, setting)), "0 is no `False`"
    assert repr(remade.model_dump()) == repr(made.model_dump())
    assert remade == made or "callback_manager" in make.model_fields, "each object gets another one by default"


def limits(model: Any, given: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the timeouts of a call."""
    return dict((model._resolve_call(given).calling if given else model._resolve_model(vars(model))[1])[0])


@pytest.mark.parametrize("spelling", ["timeout", "request_timeout"])
@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
def test_a_timeout_is_the_longest_silence_in_both_frameworks(adapter: Adapter, spelling: str) -> None:
    phases = ("connect_timeout", "load_timeout", "queue_timeout", "first_token_timeout", "idle_timeout")
    silence = dict.fromkeys(phases, 7.0)
    made = adapter.make(**{spelling: "7"}, timeouts={"keepalive": 5})
    assert (made.timeout, limits(made)) == (7.0, silence | {"keepalive": 5.0})
    assert limits(made.model_copy(update={spelling: 900})) == {**dict.fromkeys(silence, 900.0), "keepalive": 5.0}
    assert limits(adapter.make(**{spelling: 7}, timeouts={"idle_timeout": 1})) == silence | {"idle_timeout": 1}
    assert limits(adapter.make(**{spelling: None}, timeouts={"idle_timeout": None})) == {"idle_timeout": None}
    assert f"{spelling}='7x': must be a positive number" in str(error_of(lambda: adapter.make(**{spelling: "7x"})))
    pair = str(error_of(lambda: adapter.make(**{spelling: (3, 5)})))
    assert "write timeouts={'connect_timeout': 3, 'idle_timeout': 5}" in pair
    twice = partial(adapter.make, timeout=7, request_timeout=5)
    assert "'timeout' and 'request_timeout' are the same setting; give one of them" in str(error_of(twice))
    assert "'request_timeout' and 'timeout' are" in str(error_of(partial(adapter.make, request_timeout=5, timeout=7)))
    if adapter.takes_settings:
        assert limits(made, {spelling: 9}) == dict.fromkeys(silence, 9) | {"keepalive": 5}
        assert limits(made, {"timeouts": {"idle_timeout": 9}})["idle_timeout"] == 9, "a call overrides the object"
        own = adapter.make(timeouts={"queue_timeout": 600, "keepalive": 5})
        assert limits(own, {spelling: 9}) == dict.fromkeys(silence, 9) | {"keepalive": 5}, "in every phase"
        assert limits(own, {spelling: 9, "timeouts": {"queue_timeout": 1}})["queue_timeout"] == 1
        assert limits(made, {"timeouts": {"keepalive": None}}) == silence | {"keepalive": None}


@pytest.mark.parametrize("name", OWNERS)
def test_a_total_timeout_is_named_where_timeout_is_none(name: str) -> None:
    make, others = OWNERS[name]
    assert make(**others, timeouts={"total_timeout": "3"}).timeouts == {"total_timeout": 3.0}
    error = str(error_of(partial(make, **others, timeouts={"timeout": 3})))
    assert "write 'total_timeout' for the whole call, or 'idle_timeout' for the longest silence" in error
    if name not in ADAPTERS:
        for spelling in ("timeout", "request_timeout"):
            assert "write timeouts={'total_timeout': …}" in str(error_of(partial(make, **others, **{spelling: 3})))


@pytest.mark.parametrize("name", ["ChatLMStudio", "LMStudioLLM"])
def test_what_is_bound_later_replaces_what_was_bound_and_overrides_the_fields_key_by_key(name: str) -> None:
    make, others = OWNERS[name]
    model = make(**others, timeouts={"keepalive": 1, "idle_timeout": 1, "queue_timeout": 1})
    first = {"timeouts": {"idle_timeout": 2, "queue_timeout": 2}, "prediction_config": {"raw": {"a": 1}}, "seed": 1}
    second = {"timeouts": {"queue_timeout": 3}, "prediction_config": {"raw": {"b": 2}}, "seed": 2}
    bound = model.with_config(tags=["x"]).bind(**first).with_config(run_name="r").bind(**second)
    values = model._resolve_call(bound.kwargs).values
    assert bound.config == {"tags": ["x"], "run_name": "r"}
    assert values["timeouts"] == {"keepalive": 1, "idle_timeout": 1, "queue_timeout": 3}
    assert values["prediction_config"].raw == {"b": 2}
    assert values["seed"] == 2
    assert dumpd(model.bind(seed=1))["id"] == dumpd(RunnableLambda(str).bind(a=1))["id"]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a port": ({"host": 1234}, "write '127.0.0.1:1234'"),
    "a port in a list": ({"host": [1234, "a"]}, "write '127.0.0.1:1234'"),
    "an emulator": ({"host": Emulator([])}, "write its .address"),
    "a timedelta": ({"timeout": timedelta(minutes=1)}, "write timeout=60"),
    "a Timeout of httpx": ({"timeout": httpx.Timeout(60)}, "write timeout=60"),
    "two timeouts": ({"timeout": (3, 5)}, "write timeouts={'connect_timeout': 3, 'idle_timeout': 5}"),
    "a typo": ({"prediction_config": {"tempreature": 1}}, "did you mean 'temperature'? write temperature=…"),
    "a short typo": ({"prediction_config": {"min_ps": 1}}, "did you mean 'min_p'? write min_p=…"),
    "a typo of its own": ({"prediction_config": {"draft_modl": 1}}, "did you mean 'draft_model'?"),
    "a name elsewhere": ({"prediction_config": {"num_predict": 1}}, "did you mean 'max_tokens'? write max_tokens=…"),
    "a native name": ({"prediction_config": {"topKSampling": 1}}, "write top_k=…"),
    "an argument of calls": ({"prediction_config": {"tools": []}}, "takes no 'tools'; write tools=…"),
    "a share of the GPU": ({"load_config": {"gpu": "max"}}, "write {'ratio': 'max'}"),
    "a number for the GPU": ({"load_config": {"gpu": 0.5}}, "write {'ratio': 0.5}"),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_a_wrong_value_leads_to_what_to_write(name: str, what: str) -> None:
    given, remedy = WRONG[what]
    make, others = OWNERS[name]
    assert remedy in str(error_of(lambda: make(**{**others, **given})))
    if "host" not in given:
        assert remedy in str(error_of(lambda: make(**others)._resolve_call(given)))


UNKNOWN = {
    "temprature": "did you mean 'temperature'",
    "zzz": "unknown setting 'zzz'; help({}) lists the known ones",
}


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_an_unknown_setting_is_an_error_that_names_the_nearest(name: str) -> None:
    adapter, (make, others) = LANGUAGE_MODELS[name], OWNERS[name]
    for setting, remedy in UNKNOWN.items():
        assert remedy.format(name) in str(error_of(partial(make, **others, **{setting: 1})))
        error = error_of(partial(CALLS["call"], adapter, make(**others), {setting: 1}))
        assert remedy.format(name) in str(error)
        assert isinstance(error, ModelInvalidRequestError) == (adapter.framework == "LangChain")
    assert "'host' and 'base_url' are the same setting" in str(error_of(partial(make, **others, base_url="b")))


PASTED: dict[str, tuple[Any, str]] = {
    "num_ctx": (4096, "did you mean 'context_length'?"),
    "keep_alive": ("10m", "did you mean 'ttl'?"),
    "num_gpu": (20, "write load_config={'gpu': {'ratio': …}}, from 0 to 1"),
    "num_batch": (64, "write load_config={'eval_batch_size': …}"),
    "main_gpu": (1, "write load_config={'gpu': …}"),
    "num_thread": (4, "write prediction_config={'cpu_threads': …}"),
    "model_kwargs": ({"num_predict": 9, "seed": 3}, "write its entries as settings"),
    "mirostat": (1, "remove it"),
    "temprature": (0.5, "did you mean 'temperature'?"),
    "openai_api_base": ("http://a", "did you mean 'host'?"),
    "default_headers": ({"Authorization": "Bearer sk-secret"}, "did you mean 'headers'?"),
}


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_one_error_says_of_all_unknown_settings_what_to_write(name: str) -> None:
    adapter, (make, others) = LANGUAGE_MODELS[name], OWNERS[name]
    given = {setting: value for setting, (value, _) in PASTED.items()}
    in_call = {setting: value for setting, value in given.items() if setting != "default_headers"}
    errors = [
        str(error_of(partial(make, model="m", **given))),
        str(error_of(partial(CALLS["call"], adapter, make(**others), in_call))),
    ]
    for error, pasted in zip(errors, (given, in_call), strict=True):
        remedies = {
            name: remedy
            for line in error.splitlines()[1:]
            for names, remedy in [line.split(": ", 1)]
            for name in names.strip().split(", ")
        }
        assert remedies == {setting: PASTED[setting][1] for setting in pasted}
        assert "secret" not in error


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_what_an_error_suggests_is_accepted_there(name: str) -> None:
    make, others = OWNERS[name]
    places = places_of_settings(make.model_fields)
    for place, names in places.items():
        for each in names:
            text = str(error_of(partial(make, **others, **{place: {each: object()}})))
            assert "takes no" not in text
            assert "unknown setting" not in text


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_an_empty_name_of_a_model_leads_to_what_to_write(name: str) -> None:
    adapter = LANGUAGE_MODELS[name]
    error = error_of(lambda: adapter.call(adapter.make(model="", host=NOWHERE), "Hello"))
    assert "model is empty; leave it out for any loaded model, or name one" in str(error)


@pytest.mark.parametrize("value", [5, None, ["a"]])
def test_tokens_are_those_of_a_string(value: Any) -> None:
    langchain, llama_index = ChatLMStudio(host=NOWHERE), LMStudio(host=NOWHERE)
    counts: list[Callable[[Any], object]] = [langchain.get_num_tokens, langchain.get_token_ids, llama_index.tokenize]
    for count in [*counts, lambda text: asyncio.run(llama_index.atokenize(text))]:
        assert str(error_of(partial(count, value))) == f"the text must be a string; got {value!r}"
