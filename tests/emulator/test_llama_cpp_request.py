"""Settings to llama.cpp's requests, and what is refused. All ours, without an engine."""

from typing import Any

import pytest

from lmstudio_integrations.emulator.engines.errors import EngineError
from lmstudio_integrations.emulator.engines.llama_cpp import constraints, request_body
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.tools import Tool


def from_fields(**fields: Any) -> LlmPredictionConfig:
    return LlmPredictionConfig.from_fields({f"llm.prediction.{key}": value for key, value in fields.items()})


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def test_each_setting_gets_llama_cpps_name() -> None:
    config = LlmPredictionConfig(
        temperature=0.3,
        top_k_sampling=5,
        top_p_sampling=0.9,
        min_p_sampling=0.1,
        repeat_penalty=1.2,
        presence_penalty=0.4,
        frequency_penalty=0.6,
        xtc_probability=0.2,
        xtc_threshold=0.3,
        seed=9,
        reasoning_budget=64,
    )
    assert request_body.sampling(config) == {
        "temperature": 0.3,
        "top_k": 5,
        "top_p": 0.9,
        "min_p": 0.1,
        "repeat_penalty": 1.2,
        "presence_penalty": 0.4,
        "frequency_penalty": 0.6,
        "xtc_probability": 0.2,
        "xtc_threshold": 0.3,
        "seed": 9,
        "thinking_budget_tokens": 64,
    }


OFF: dict[str, Any] = {
    "top_p": 1.0,
    "min_p": 0.0,
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "xtc_probability": 0.0,
    "xtc_threshold": 0.1,
}
"""What llama.cpp is told where nothing is switched on."""


def test_what_is_switched_off_gets_a_neutral_value() -> None:
    names = ("topPSampling", "minPSampling", "repeatPenalty", "seed", "llama.presencePenalty", "reasoning.budgetTokens")
    config = from_fields(**{name: {"checked": False, "value": 0.5} for name in names})
    assert request_body.sampling(config) == OFF
    config = LlmPredictionConfig(top_p_sampling=False, min_p_sampling=False, seed=False)
    assert request_body.sampling(config) == OFF


def test_what_is_zero_is_not_switched_off() -> None:
    body = request_body.sampling(LlmPredictionConfig(temperature=0, top_p_sampling=0, seed=0))
    assert (body["temperature"], body["top_p"], body["seed"]) == (0, 0, 0)


def test_settings_without_a_field_of_their_own_count_too() -> None:
    config = LlmPredictionConfig(
        raw={
            "llm.prediction.llama.mirostatSampling": {"version": 2, "learningRate": 0.2, "targetEntropy": 4},
            "llm.prediction.llama.logitBias": [[1, 2.5], [3, "-inf"]],
            "llm.prediction.llama.locallyTypicalSampling": {"checked": True, "value": 0.7},
            "llm.prediction.unheardOf": 1,
        }
    )
    assert request_body.sampling(config) == OFF | {
        "mirostat": 2,
        "mirostat_eta": 0.2,
        "mirostat_tau": 4,
        "logit_bias": [[1, 2.5], [3, False]],
        "typical_p": 0.7,
    }
    off = {
        "llm.prediction.llama.mirostatSampling": {"version": 0},
        "llm.prediction.llama.locallyTypicalSampling": {"checked": False, "value": 0.7},
    }
    assert request_body.sampling(LlmPredictionConfig(raw=off)) == OFF


@pytest.mark.parametrize("bias", [[[1]], [1], [[1, 2, 3]]])
def test_a_bias_that_is_none_is_refused(bias: Any) -> None:
    with pytest.raises(EngineError, match="Invalid logit bias"):
        request_body.sampling(LlmPredictionConfig(raw={"llm.prediction.llama.logitBias": bias}))


def test_the_defaults_of_lm_studio_become_a_request() -> None:
    config = from_fields(
        temperature=0.8,
        topKSampling=40,
        repeatPenalty={"checked": True, "value": 1.1},
        logProbs={"checked": False, "value": 0},
        seed={"checked": False, "value": -1},
    )
    assert request_body.sampling(config) == OFF | {"temperature": 0.8, "top_k": 40, "repeat_penalty": 1.1}
    assert request_body.candidate_count(config) is None
    assert constraints.structured_output(config) == {}
    assert request_body.manual_template(config) is None
    assert request_body.stop_strings(config) == []


def test_all_stop_strings_count() -> None:
    config = LlmPredictionConfig(
        stop_strings=["a"], tool_call_stop_strings=["b"], prompt_template={"type": "manual", "stopStrings": ["c"]}
    )
    assert request_body.stop_strings(config) == ["a", "b", "c"]


def test_thinking_is_the_templates_business() -> None:
    assert request_body.template_arguments(LlmPredictionConfig()) == {}
    assert request_body.template_arguments(LlmPredictionConfig(enable_thinking=False)) == {
        "chat_template_kwargs": {"enable_thinking": False}
    }


@pytest.mark.parametrize("schema", [False, True, None, "object", []])
def test_a_schema_that_would_be_ignored_is_refused(schema: Any) -> None:
    with pytest.raises(EngineError, match="must be an object"):
        constraints.structured_output(LlmPredictionConfig(structured={"type": "json", "jsonSchema": schema}))


def test_a_schema_that_is_too_deep_is_refused() -> None:
    assert constraints.checked_schema(nested(59))
    with pytest.raises(EngineError, match="levels deep"):
        constraints.checked_schema(nested(200))
    with pytest.raises(EngineError, match="levels deep"):
        constraints.checked_schema(nested(5000))


@pytest.mark.parametrize(
    ("schema", "bound"),
    [
        ({"$defs": {str(at): {} for at in range(4000)}}, "more than 4000 objects"),
        ({"enum": list(range(1001))}, "more than 1000 alternatives"),
        ({"anyOf": [{"oneOf": [{}] * 50}] * 21}, "more than 1000 alternatives"),
        ({"properties": {str(at): {} for at in range(1001)}}, "more than 1000 alternatives"),
        ({"type": "string", "pattern": f"^{'a' * 1000}$"}, "pattern of more than 1000 characters"),
    ],
)
def test_a_schema_that_the_engine_would_work_on_for_minutes_is_refused(schema: dict[str, Any], bound: str) -> None:
    with pytest.raises(EngineError, match=bound) as caught:
        constraints.checked_schema(schema)
    assert caught.value.display_data is not None
    assert caught.value.display_data["code"] == "generic.engineDoesNotSupportFeature"


def test_large_but_reasonable_schemas_are_followed() -> None:
    names = [str(at) for at in range(1500)]
    assert constraints.checked_schema({"properties": {name: {} for name in names}, "required": names})
    assert constraints.checked_schema({"enum": list(range(1000))})


def test_the_schemas_of_all_tools_count_together() -> None:
    constraints.check_tools([])
    constraints.check_tools([tool(f"f{at}") for at in range(1000)])
    with pytest.raises(EngineError, match="more than 1000 alternatives"):
        constraints.check_tools([tool(f"f{at}") for at in range(1001)])
    with pytest.raises(EngineError, match="levels deep"):
        constraints.check_tools([tool("f", nested(200))])
    with pytest.raises(EngineError, match="longer than 16777216 characters"):
        constraints.check_tools([tool("f", {"description": "d" * 17_000_000})])


def test_a_grammar_that_would_end_the_engines_stack_is_refused() -> None:
    grammar = f'root ::= {"(" * 200}"((" [(\\]] {")" * 200} # ((('
    assert constraints.checked_grammar(grammar) == grammar
    for bad in (f'root ::= {"(" * 201}"a"{")" * 201}', "a" * 100_001):
        with pytest.raises(EngineError, match="100000 characters or 200 nested parentheses"):
            constraints.checked_grammar(bad)


def test_a_grammar_with_open_ends_is_looked_through_once() -> None:
    for sign in ('"', "[", '"[', "\\"):
        assert constraints.checked_grammar("r" + sign * 40_000)


def test_an_object_behind_a_reference_is_a_schema() -> None:
    schema = {"$ref": "#/$defs/P", "$defs": {"P": {"type": "object"}}}
    assert constraints.checked_schema(schema) == schema


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({"minimum": 2, "maximum": 1}, "minimum 2 is more than maximum 1"),
        ({"minLength": 2, "maxLength": 1}, "minLength"),
        ({"minItems": 2, "maxItems": 1}, "minItems"),
    ],
)
def test_bounds_that_nothing_fits_are_refused(bounds: dict[str, int], words: str) -> None:
    with pytest.raises(EngineError, match=words):
        constraints.checked_schema({"properties": {"a": bounds}})


@pytest.mark.parametrize(
    ("schema", "lost"),
    [
        ({"type": "string", "pattern": "[0-9]"}, "the pattern '[0-9]'"),
        ({"type": "string", "pattern": "^(?=a)b$"}, "the pattern '^(?=a)b$'"),
        ({"type": "string", "pattern": "^a$", "maxLength": 3}, "maxLength"),
        ({"type": ["number", "null"], "minimum": 1, "exclusiveMaximum": 2}, "exclusiveMaximum, minimum"),
        ({"type": "integer", "multipleOf": 5, "minimum": 1}, "multipleOf"),
        ({"not": {"type": "null"}, "if": {}, "then": {}}, "if, not"),
        (
            {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "contains": {}},
            "contains, uniqueItems",
        ),
    ],
)
def test_what_is_ignored_in_a_schema_is_spoken_of_once(
    caplog: pytest.LogCaptureFixture, schema: dict[str, Any], lost: str
) -> None:
    constraints.checked_schema({"properties": {"a": schema}})
    (record,) = caplog.records
    assert (record.levelname, lost in record.message) == ("WARNING", True)


def test_what_is_followed_is_not_spoken_of(caplog: pytest.LogCaptureFixture) -> None:
    properties = {
        "pattern": {"type": "string", "pattern": "^x$"},
        "not": {"type": "integer", "minimum": 1},
        "a": {"const": {"pattern": "x"}, "uniqueItems": False},
    }
    schema = {"type": "object", "properties": properties}
    assert constraints.checked_schema(schema) == schema
    assert caplog.text == ""


def test_a_text_whose_pattern_is_ignored_ends_all_the_same() -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "string", "pattern": "x"}}}
    found = constraints.call_schema([tool("f", parameters)])["$defs"]["tool0"]["properties"]["a"]
    assert found == {"type": "string", "maxLength": constraints.MAX_TEXT_LENGTH}


@pytest.mark.parametrize("grammar", [None, "", "  ", 3])
def test_a_grammar_of_nothing_is_refused(grammar: Any) -> None:
    with pytest.raises(EngineError, match="gbnfGrammar"):
        constraints.structured_output(LlmPredictionConfig(structured={"type": "gbnf", "gbnfGrammar": grammar}))


def tool(name: str, parameters: dict[str, Any] | None = None) -> Tool:
    return Tool.from_dict({"function": {"name": name, "parameters": parameters}})


def test_a_call_to_one_tool_needs_no_choice() -> None:
    schema = constraints.call_schema([tool("now")])
    assert "anyOf" not in schema
    assert schema["properties"]["name"] == {"const": "now"}
    assert schema["$defs"]["tool0"] == {"type": "object", "properties": {}, "additionalProperties": False}


def test_each_tool_keeps_its_own_definitions() -> None:
    parameters = {
        "type": "object",
        "properties": {"p": {"$ref": "#/$defs/P"}, "self": {"$ref": "#"}},
        "$defs": {"P": {"type": "string"}},
    }
    schema = constraints.call_schema([tool("a", parameters), tool("b", parameters)])
    assert [choice["properties"]["name"]["const"] for choice in schema["anyOf"]] == ["a", "b"]
    for number, definition in enumerate(schema["$defs"].values()):
        properties = definition["properties"]
        assert properties["p"]["$ref"] == f"#/$defs/tool{number}/$defs/P"
        assert properties["self"]["$ref"] == f"#/$defs/tool{number}"


def test_arguments_without_bounds_get_some() -> None:
    schema = constraints.bounded(
        {
            "type": "object",
            "properties": {
                "free": {"type": "string"},
                "own": {"type": "string", "maxLength": 5},
                "one_of": {"type": "string", "enum": ["a"]},
                "list": {"type": "array", "items": {"type": "string"}},
                "type": {"type": "integer", "default": {"type": "string"}},
                "title": {"type": "string"},
            },
            "additionalProperties": {"type": "string"},
        },
        "#",
    )
    properties = schema["properties"]
    assert properties["free"]["maxLength"] == constraints.MAX_TEXT_LENGTH
    assert properties["own"]["maxLength"] == 5
    assert "maxLength" not in properties["one_of"]
    assert properties["list"]["maxItems"] == constraints.MAX_ITEMS
    assert properties["list"]["items"]["maxLength"] == constraints.MAX_TEXT_LENGTH
    assert properties["title"]["maxLength"] == constraints.MAX_TEXT_LENGTH
    assert properties["type"] == {"type": "integer", "default": {"type": "string"}}
    assert schema["additionalProperties"] == {"type": "string", "maxLength": constraints.MAX_TEXT_LENGTH}


def test_a_forced_call_is_not_punished_for_repeating_the_question() -> None:
    forced = constraints.forced_call([tool("now")])
    assert (forced["repeat_penalty"], forced["presence_penalty"], forced["frequency_penalty"]) == (1.0, 0.0, 0.0)
