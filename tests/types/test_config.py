"""Settings: every name with its key, both ways; off, wrong, mistyped and unknown values."""

import json
import math
import re
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.types import config_dicts as generated_dicts
from lmstudio_integrations.types._config_base import Settings, wire_keys
from lmstudio_integrations.types._wire_model import WireModel
from tests.support.strict.shapes import ADD_SCHEMA, NEWER_SETTINGS, SETTINGS, wrong_with
from tools import ROOT, config_dicts

SPLIT = "load.gpuSplitConfig"
TEMPLATE = {"type": "jinja", "stopStrings": [], "jinjaPromptTemplate": {"template": "t"}}
MLX = {"enabled": True, "bits": 8, "groupSize": 64, "quantizedStart": 5000}
ARGUMENTS = {
    "enabled": True,
    "disabledParameters": ["--mlock"],
    "overrideParameters": [{"key": "--threads", "value": "4"}],
    "excludeAllConfig": False,
}


def checked(value: Any) -> dict[str, Any]:
    """Return the wire form of a setting that is on."""
    return {"checked": True, "value": value}


Table = dict[str, tuple[Any, str, Any]]
"""By option: a value, its key, and its wire form."""

LLM_LOAD_SETTINGS: Table = {
    "contextLength": (8192, "llm.load.contextLength", 8192),
    "seed": (7, "llm.load.seed", checked(7)),
    "numExperts": (2, "llm.load.numExperts", 2),
    "offloadKVCacheToGpu": (False, "llm.load.offloadKVCacheToGpu", False),
    "maxParallelPredictions": (8, "llm.load.numParallelSessions", 8),
    "useUnifiedKvCache": (True, "llm.load.useUnifiedKvCache", True),
    "promptTemplate": (
        {"type": "jinja", "jinjaPromptTemplate": {"template": "t"}},
        "llm.load.promptTemplate",
        {"type": "jinja", "jinjaPromptTemplate": {"template": "t"}},
    ),
    "autoFit": (False, "llm.load.llama.autoFit", False),
    "autoFitMinContextLength": (8192, "llm.load.autoFitMinContextLength", 8192),
    "cpuThreadPoolSize": (6, "llm.load.llama.cpuThreadPoolSize", 6),
    "evalBatchSize": (512, "llm.load.llama.evalBatchSize", 512),
    "physicalBatchSize": (256, "llm.load.llama.physicalBatchSize", 256),
    "flashAttention": (True, "llm.load.llama.flashAttention", True),
    "contextCheckpoints": (16, "llm.load.llama.contextCheckpoints", 16),
    "reasoningBudgetMessage": ("enough", "llm.load.llama.reasoningBudgetMessage", "enough"),
    "ropeFrequencyBase": (10000.0, "llm.load.llama.ropeFrequencyBase", checked(10000.0)),
    "ropeFrequencyScale": (0.5, "llm.load.llama.ropeFrequencyScale", checked(0.5)),
    "keepModelInMemory": (False, "llm.load.llama.keepModelInMemory", False),
    "useFp16ForKVCache": (False, "llm.load.llama.useFp16ForKVCache", False),
    "tryMmap": (False, "llm.load.llama.tryMmap", False),
    "tryDirectIO": (True, "llm.load.llama.tryDirectIO", True),
    "llamaCppArgumentsOverride": (ARGUMENTS, "llm.load.llama.argumentsOverride", ARGUMENTS),
    "llamaKCacheQuantizationType": ("q8_0", "llm.load.llama.kCacheQuantizationType", checked("q8_0")),
    "llamaVCacheQuantizationType": ("q4_0", "llm.load.llama.vCacheQuantizationType", checked("q4_0")),
    "speculativeDraftMtp": (True, "llm.load.llama.speculativeDecoding.draftMtp", True),
    "speculativeDraftSimple": (True, "llm.load.llama.speculativeDecoding.draftSimple", True),
    "speculativeDraftMtpSidecar": (True, "llm.load.llama.speculativeDecoding.draftMtpSidecar", True),
    "speculativeDraftDflashSidecar": (True, "llm.load.llama.speculativeDecoding.draftDflashSidecar", True),
    "speculativeDraftDsparkSidecar": (True, "llm.load.llama.speculativeDecoding.draftDsparkSidecar", True),
    "speculativeDraftModel": ("small", "llm.load.llama.speculativeDecoding.draftModel", "small"),
    "speculativeDraftMaxTokens": (3, "llm.load.llama.speculativeDecoding.draftMaxTokens", 3),
    "speculativeDraftMinTokens": (0, "llm.load.llama.speculativeDecoding.draftMinTokens", 0),
    "speculativeDraftMinContinueProbability": (
        0.5,
        "llm.load.llama.speculativeDecoding.draftMinContinueProbability",
        0.5,
    ),
    "mlxDiskCache": (True, "llm.load.mlx.diskCache", True),
    "mlxKvCacheQuantization": (MLX, "llm.load.mlx.kvCacheQuantization", MLX),
    "engineConfigFileContents": ("max-model-len: auto\n", "llm.load.engineConfigFileContents", "max-model-len: auto\n"),
    "engineCwd": ("/models", "llm.load.engineCwd", "/models"),
    "gpuStrictVramCap": (True, "load.gpuStrictVramCap", True),
}

EMBEDDING_LOAD_SETTINGS: Table = {
    "contextLength": (2048, "embedding.load.contextLength", 2048),
    "seed": (7, "embedding.load.seed", checked(7)),
    "evalBatchSize": (512, "embedding.load.llama.evalBatchSize", 512),
    "ropeFrequencyBase": (10000.0, "embedding.load.llama.ropeFrequencyBase", checked(10000.0)),
    "ropeFrequencyScale": (0.5, "embedding.load.llama.ropeFrequencyScale", checked(0.5)),
    "keepModelInMemory": (False, "embedding.load.llama.keepModelInMemory", False),
    "tryMmap": (False, "embedding.load.llama.tryMmap", False),
}

PREDICTION_SETTINGS: Table = {
    name: (value, f"llm.prediction.{key}", wire)
    for name, (value, key, wire) in {
        "temperature": (0.7, "temperature", 0.7),
        "maxTokens": (50, "maxPredictedTokens", checked(50)),
        "contextOverflowPolicy": ("rollingWindow", "contextOverflowPolicy", "rollingWindow"),
        "stopStrings": (["END"], "stopStrings", ["END"]),
        "toolCallStopStrings": (["END"], "toolCallStopStrings", ["END"]),
        "structured": (
            {"type": "gbnf", "gbnfGrammar": "g"},
            "structured",
            {"type": "gbnf", "gbnfGrammar": "g"},
        ),
        "rawTools": ({"type": "none"}, "tools", {"type": "none"}),
        "toolChoice": (
            {"type": "generic", "mode": "required"},
            "toolChoice",
            {"type": "generic", "mode": "required"},
        ),
        "toolNaming": ("snakeCase", "toolNaming", "snakeCase"),
        "topKSampling": (40, "topKSampling", 40),
        "topPSampling": (0.9, "topPSampling", checked(0.9)),
        "minPSampling": (0.1, "minPSampling", checked(0.1)),
        "repeatPenalty": (1.2, "repeatPenalty", checked(1.2)),
        "presencePenalty": (0.5, "llama.presencePenalty", checked(0.5)),
        "frequencyPenalty": (0.5, "llama.frequencyPenalty", checked(0.5)),
        "xtcProbability": (0.5, "llama.xtcProbability", checked(0.5)),
        "xtcThreshold": (0.2, "llama.xtcThreshold", checked(0.2)),
        "logitBias": ([[7, "-inf"], [5, -2.5]], "llama.logitBias", [[7, "-inf"], [5, -2.5]]),
        "logProbs": (3, "logProbs", checked(3)),
        "seed": (7, "seed", checked(7)),
        "promptTemplate": (TEMPLATE, "promptTemplate", TEMPLATE),
        "reasoningParsing": (
            {"enabled": True, "startString": "<a>", "endString": "</a>"},
            "reasoning.parsing",
            {"enabled": True, "startString": "<a>", "endString": "</a>"},
        ),
        "enableThinking": (False, "reasoning.enableThinking", False),
        "reasoningBudget": (100, "reasoning.budgetTokens", checked(100)),
        "userMaxImageDimensionPixels": (512, "vision.userMaxImageDimensionPixels", checked(512)),
        "ignoreModelPreferredMaxImageDimension": (True, "vision.ignoreModelPreferredMaxImageDimension", True),
        "draftModel": ("small", "speculativeDecoding.draftModel", "small"),
        "speculativeDecodingMinDraftLengthToConsider": (2, "speculativeDecoding.minDraftLengthToConsider", 2),
        "speculativeDecodingMinContinueDraftingProbability": (
            0.75,
            "speculativeDecoding.minContinueDraftingProbability",
            0.75,
        ),
        "speculativeDecodingNumDraftTokensExact": (2, "speculativeDecoding.numDraftTokensExact", 2),
        "cpuThreads": (4, "llama.cpuThreads", 4),
    }.items()
}


TABLES: dict[type[Settings], Table] = {
    lms.LlmLoadModelConfig: LLM_LOAD_SETTINGS,
    lms.EmbeddingLoadModelConfig: EMBEDDING_LOAD_SETTINGS,
    lms.LlmPredictionConfig: PREDICTION_SETTINGS,
}
every_kind = pytest.mark.parametrize("kind", TABLES)

SPECULATIVE = {"speculativeDraftMtp", "speculativeDraftSimple", "speculativeDraftModel"}
SIDECARS = {
    "llm.load.llama.speculativeDecoding.draftDflashSidecar": False,
    "llm.load.llama.speculativeDecoding.draftDsparkSidecar": False,
    "llm.load.llama.speculativeDecoding.draftMtpSidecar": False,
}
AUTO_FIT = {f"llm.load.{engine}.autoFit": False for engine in ("llama", "mlx", "yuzu", "vllm")}
IMPLIED = {
    **dict.fromkeys(("llm.load.contextLength", "load.gpuStrictVramCap", "llm.load.llama.autoFit"), AUTO_FIT),
    **dict.fromkeys((key for name, (_, key, _) in LLM_LOAD_SETTINGS.items() if name in SPECULATIVE), SIDECARS),
}
"""What a setting sends besides its own key."""


@every_kind
def test_every_setting_has_its_key_and_comes_back_from_it(kind: type[Settings]) -> None:
    names = {str(info.alias): name for name, info in kind.model_fields.items()}
    assert names.keys() - {"raw", "gpu"} == TABLES[kind].keys(), "each setting is a row in a table of this file"
    assert {key for _, key, _ in TABLES[kind].values()} - SETTINGS.keys() == set(), ADD_SCHEMA
    for alias, (value, key, wire) in TABLES[kind].items():
        assert not list(wrong_with(wire, SETTINGS[key], key))
        for name in (alias, names[alias]):
            settings = kind.model_validate({name: value})
            assert settings.to_fields() == {key: wire, **IMPLIED.get(key, {})}
            assert settings.to_dict() == {alias: value}
        assert kind.from_fields({key: wire}) == kind.model_validate({alias: value})


@every_kind
def test_false_switches_a_setting_off_and_both_forms_of_off_are_read(kind: type[Settings]) -> None:
    for name, wire_key in wire_keys(kind).items():
        if wire_key.checkbox:
            fields = kind.parse({name: False}).to_fields()
            assert fields == {wire_key.key: {"checked": False, "value": wire_key.off}}
            assert not list(wrong_with(fields[wire_key.key], SETTINGS[wire_key.key], name))
            for off in (fields[wire_key.key], {"checked": True, "value": False}):
                assert getattr(kind.from_fields({wire_key.key: off}), name) is None


def test_off_carries_the_values_of_the_typescript_client_and_nought_is_not_off() -> None:
    off = {"maxTokens": 1, "repeatPenalty": 1.1, "topPSampling": 0.95, "minPSampling": 0.05}
    for alias, value in off.items():
        assert [*lms.LlmPredictionConfig.parse({alias: False}).to_fields().values()] == [
            {"checked": False, "value": value}
        ]
    for alias in ("presencePenalty", "seed"):
        assert [*lms.LlmPredictionConfig.parse({alias: 0}).to_fields().values()] == [checked(0)]


def test_a_logit_bias_comes_back_from_json_and_from_the_wire_as_it_was() -> None:
    settings = lms.LlmPredictionConfig(logit_bias={7: float("-inf"), "7": 1.5, " yes": -2})
    again = lms.LlmPredictionConfig.from_dict(json.loads(settings.to_json()))
    assert again.logit_bias == settings.logit_bias == {7: -math.inf, "7": 1.5, " yes": -2}
    assert again == lms.LlmPredictionConfig.from_fields(settings.to_fields()) == settings


def made(kind: type[Settings]) -> list[Callable[[dict[str, Any]], Settings]]:
    """Return the ways in which people make settings."""
    return [kind.parse, kind.from_dict, lambda settings: kind(**settings)]


@pytest.mark.parametrize(
    ("kind", "settings", "text"),
    [
        (lms.LlmPredictionConfig, {"max_tokens": -2}, "max_tokens=-2"),
        (lms.LlmPredictionConfig, {"maxTokens": True}, "must be a number"),
        (lms.LlmPredictionConfig, {"temperature": True}, "temperature=True: must be a number, not a boolean"),
        (lms.LlmPredictionConfig, {"temperature": float("inf")}, "finite"),
        (lms.LlmPredictionConfig, {"topKSampling": 1.5}, "integer"),
        (lms.LlmPredictionConfig, {"stopStrings": "END"}, "stopStrings='END'"),
        (lms.LlmPredictionConfig, {"stopStrings": ["a", ""]}, "stopStrings.1=''"),
        (lms.LlmPredictionConfig, {"contextOverflowPolicy": "cut"}, "'stopAtLimit'"),
        (lms.LlmPredictionConfig, {"structured": "json"}, "structured='json'"),
        (lms.LlmPredictionConfig, {"structured": {1: "a"}}, "structured"),
        (lms.LlmPredictionConfig, {"logitBias": {-1: 1.0}}, "-1 is no token"),
        (lms.LlmPredictionConfig, {"logitBias": {True: 1.0}}, "True is no token"),
        (lms.LlmPredictionConfig, {"logitBias": {5: True}}, "the bias of 5 must be a number, or float('-inf')"),
        (lms.LlmPredictionConfig, {"logitBias": {5: float("inf")}}, "the bias of 5 must be"),
        (lms.LlmPredictionConfig, {"logitBias": {" yes": float("nan")}}, "the bias of ' yes' must be"),
        (lms.LlmPredictionConfig, {"logitBias": [[5]]}, "must be a dict of biases by token"),
        (lms.LlmPredictionConfig, {"logitBias": 5}, "valid dictionary"),
        (lms.LlmLoadModelConfig, {"gpu": {"ratio": 2}}, "gpu.ratio=2"),
        (lms.LlmLoadModelConfig, {"gpu": 1}, "gpu=1"),
        (lms.LlmLoadModelConfig, {"gpu": {"ratio": "half"}}, "'max' or 'off'"),
        (lms.LlmLoadModelConfig, {"gpu": {"mainGpu": True}}, "must be a number"),
        (lms.LlmLoadModelConfig, {"llamaKCacheQuantizationType": "q9"}, "q9"),
        (lms.EmbeddingLoadModelConfig, {"ropeFrequencyBase": "many"}, "many"),
    ],
)
def test_a_value_that_cannot_be_is_rejected_with_its_name(
    kind: type[Settings], settings: dict[str, Any], text: str
) -> None:
    for make in made(kind):
        with pytest.raises(lms.LMStudioValueError) as caught:
            make(settings)
        assert text in str(caught.value)
        assert "[" not in str(caught.value).partition("=")[0], "the name of the setting, not of a validator"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"speculativeDraftMtp": True, "speculativeDraftSimple": True, "speculativeDraftModel": "small"},
            "speculative_draft_mtp and speculative_draft_simple exclude each other",
        ),
        ({"speculativeDraftSimple": True}, "need each other"),
        ({"speculativeDraftSimple": True, "speculativeDraftModel": ""}, "need each other"),
        ({"speculativeDraftModel": "small"}, "need each other"),
        (
            {"speculativeDraftMinTokens": 4, "speculativeDraftMaxTokens": 3},
            "speculative_draft_min_tokens=4 is more than speculative_draft_max_tokens=3",
        ),
        ({"autoFit": True, "contextLength": 4096}, "auto_fit=True excludes context_length=4096"),
        ({"autoFit": True, "gpuStrictVramCap": False}, "auto_fit=True excludes gpu_strict_vram_cap=False"),
        ({"autoFit": True, "gpu": {"ratio": "off"}}, "auto_fit=True excludes gpu.ratio='off'"),
        (
            {"autoFit": True, "gpu": {"numCpuExpertLayersRatio": 0.5}},
            "auto_fit=True excludes gpu.num_cpu_expert_layers_ratio=0.5",
        ),
        (
            {"autoFit": True, "gpu": {"mainGpu": 0, "splitStrategy": "evenly"}},
            "auto_fit=True excludes gpu.main_gpu=0, gpu.split_strategy='evenly'",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_rejected(settings: dict[str, Any], text: str) -> None:
    for given in (settings, lms.LlmLoadModelConfig.model_validate(settings)):
        with pytest.raises(lms.LMStudioValueError) as caught:
            lms.LlmLoadModelConfig.parse(given)
        assert text in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"speculativeDraftMtp": True, "speculativeDraftSimple": False},
        {"speculativeDraftSimple": True, "speculativeDraftModel": "small"},
        {"speculativeDraftMinTokens": 3, "speculativeDraftMaxTokens": 3},
        {"speculativeDraftMinTokens": 3},
        {"autoFit": True, "gpu": {"disabledGpus": [1]}},
        {"autoFit": False, "contextLength": 4096},
    ],
)
def test_settings_that_go_together_pass(settings: dict[str, Any]) -> None:
    assert lms.LlmLoadModelConfig.parse(settings).to_dict() == settings


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        (lms.LlmPredictionConfig, "temprature", "did you mean 'temperature'?"),
        (lms.LlmPredictionConfig, "maxToken", "did you mean 'max_tokens'?"),
        (lms.LlmLoadModelConfig, "context_len", "did you mean 'context_length'?"),
        (lms.EmbeddingLoadModelConfig, "xyz", "known are context_length"),
        (lms.LlmPredictionConfig, "xyz", "help(LlmPredictionConfig) lists the known ones"),
        (lms.LlmPredictionConfig, "prefix", "unknown setting 'prefix'"),
    ],
)
def test_an_unknown_name_is_rejected_with_the_nearest_one(kind: type[Settings], name: str, text: str) -> None:
    for make in made(kind):
        with pytest.raises(lms.LMStudioValueError) as caught:
            make({name: 1})
        assert text in str(caught.value)
        assert repr(name) in str(caught.value)


def test_a_mistyped_name_is_found_inside_the_settings_of_the_graphics_cards_too() -> None:
    for make in made(lms.LlmLoadModelConfig):
        with pytest.raises(lms.LMStudioValueError, match="did you mean 'ratio'"):
            make({"gpu": {"rato": 1}})
    with pytest.raises(lms.LMStudioValueError, match="did you mean 'ratio'"):
        lms.GpuSetting(rato=1)  # type: ignore[call-arg]  # the fault is the point


def test_a_setting_is_given_in_one_spelling() -> None:
    for make in made(lms.LlmPredictionConfig):
        with pytest.raises(lms.LMStudioValueError, match="max_tokens=2: given in both spellings"):
            make({"maxTokens": 1, "max_tokens": 2})


@pytest.mark.parametrize("make", [lms.LlmPredictionConfig.parse, lms.LlmPredictionConfig.from_dict])
def test_settings_of_another_form_are_rejected(make: Callable[[Any], Settings]) -> None:
    for value in (5, "temperature", ["temperature"], lms.LlmLoadModelConfig()):
        with pytest.raises(lms.LMStudioValueError, match="a LlmPredictionConfig or a dict"):
            make(value)
    with pytest.raises(lms.LMStudioValueError, match="unknown setting 5"):
        make({5: 1})


def test_nothing_and_settings_themselves_are_settings() -> None:
    settings = lms.LlmPredictionConfig(temperature=0.5)
    assert lms.LlmPredictionConfig.parse(settings) is settings
    assert lms.LlmPredictionConfig.parse(None).to_fields() == {}


# The configs as dicts


def test_the_dicts_are_those_that_their_generator_writes() -> None:
    assert config_dicts.PATH.read_text(encoding="utf-8") == config_dicts.generated()


@pytest.mark.parametrize("config", config_dicts.CONFIGS)
def test_a_dict_has_both_spellings_of_every_setting(config: type[WireModel]) -> None:
    hints = get_type_hints(getattr(generated_dicts, f"{config.__name__}Dict"))
    assert set(hints) == {each for name, field in config.model_fields.items() for each in (name, str(field.alias))}
    assert all(hints[name] == hints[str(field.alias)] for name, field in config.model_fields.items())


@pytest.mark.parametrize("config", config_dicts.CONFIGS)
def test_every_setting_has_a_description(config: type[WireModel]) -> None:
    assert [name for name, field in config.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    "kind", [lms.LlmLoadModelConfig, lms.EmbeddingLoadModelConfig, lms.LlmPredictionConfig, lms.GpuSetting]
)
def test_the_names_in_python_are_those_of_the_wire_in_snake_case(kind: type[WireModel]) -> None:
    for name, field in kind.model_fields.items():
        assert str(field.alias).lower() == name.replace("_", "")


# Further settings


def test_raw_settings_pass_as_they_are_and_rank_below_the_named_ones() -> None:
    raw = {"llm.prediction.temperature": 0.1, "llm.prediction.fromTheFuture": {"a": None}}
    settings = lms.LlmPredictionConfig.parse({"raw": raw, "temperature": 0.9})
    assert settings.to_fields() == {"llm.prediction.temperature": 0.9, "llm.prediction.fromTheFuture": {"a": None}}


def test_keys_that_have_no_name_here_are_kept() -> None:
    fields = {"llm.load.seed": checked(7), "llm.load.fromTheFuture": [1]}
    settings = lms.LlmLoadModelConfig.from_fields(fields)
    assert settings.raw == {"llm.load.fromTheFuture": [1]}
    assert settings.to_fields() == fields


@pytest.mark.parametrize(
    ("value", "read"),
    [(None, None), ("many", None), ({"checked": True}, None), ({"checked": False, "value": 5}, None), (5, 5), (4.0, 4)],
)
def test_a_value_of_the_server_that_does_not_fit_counts_as_not_set(value: Any, read: int | None) -> None:
    settings = lms.LlmPredictionConfig.from_fields({"llm.prediction.maxPredictedTokens": value})
    assert settings.max_tokens == read
    assert settings.raw is None


# Laying settings over others


def test_settings_laid_over_others_win_and_an_explicit_none_unsets() -> None:
    base = lms.LlmPredictionConfig(temperature=0.1, max_tokens=5, raw={"a": 1, "b": 1})
    over = lms.LlmPredictionConfig(temperature=0.9, max_tokens=None, raw={"b": 2})
    merged = base.merged(over)
    assert merged.to_fields() == {"a": 1, "b": 2, "llm.prediction.temperature": 0.9}
    assert base.merged(lms.LlmPredictionConfig()) == base
    assert lms.LlmPredictionConfig().merged(base) == base


@pytest.mark.parametrize("chosen", [{"speculativeDraftMtp": False}, {"speculative_draft_model": ""}])
def test_a_speculative_setting_clears_the_sidecars_whatever_its_value(chosen: dict[str, Any]) -> None:
    assert SIDECARS.items() <= lms.LlmLoadModelConfig.parse(chosen).to_fields().items()
    assert lms.LlmLoadModelConfig.parse({"speculativeDraftMaxTokens": 3}).to_fields().keys().isdisjoint(SIDECARS)


def test_a_sidecar_that_the_user_names_is_kept() -> None:
    raw = {"llm.load.llama.speculativeDecoding.draftMtpSidecar": True}
    for named in ({"raw": raw}, {"speculative_draft_mtp_sidecar": True}):
        fields = lms.LlmLoadModelConfig.parse({"speculativeDraftMtp": True, **named}).to_fields()
        assert fields == {**SIDECARS, **raw, "llm.load.llama.speculativeDecoding.draftMtp": True}


# Settings with a key for each engine


@pytest.mark.parametrize("key", AUTO_FIT)
def test_the_key_of_one_engine_is_enough(key: str) -> None:
    assert lms.LlmLoadModelConfig.from_fields({key: True}) == lms.LlmLoadModelConfig(auto_fit=True)
    assert lms.LlmLoadModelConfig.describe({key: "perhaps"}) == {"raw": {key: "perhaps"}}


def test_engines_that_differ_are_described_without_loss() -> None:
    fields = {**AUTO_FIT, "llm.load.mlx.autoFit": True}
    assert lms.LlmLoadModelConfig.describe(fields) == {"autoFit": False, "raw": {"llm.load.mlx.autoFit": True}}


def test_automatic_fitting_that_is_set_by_hand_is_kept() -> None:
    raw = {"llm.load.llama.autoFit": True}
    assert lms.LlmLoadModelConfig.parse({"contextLength": 4096, "raw": raw}).to_fields() == {
        **AUTO_FIT,
        **raw,
        "llm.load.contextLength": 4096,
    }
    assert lms.LlmLoadModelConfig.parse({"autoFit": True}).to_fields() == dict.fromkeys(AUTO_FIT, True)


SPLITS: dict[str, dict[str, Any]] = {
    "evenly": {"strategy": "evenly", "priority": [], "disabledGpus": [2], "customRatio": []},
    "nothing disabled": {"strategy": "evenly", "priority": [], "disabledGpus": [], "customRatio": []},
    "main": {"strategy": "priorityOrder", "priority": [2, 1], "disabledGpus": [2], "customRatio": []},
    "tensor": {"strategy": "tensor", "priority": [], "disabledGpus": [2], "customRatio": []},
    "custom": {"strategy": "custom", "priority": [0], "disabledGpus": [1], "customRatio": [1, 0, 1]},
}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("key", [*AUTO_FIT, "decision.load.llama.autoFit"])
def test_what_automatic_fitting_has_chosen_is_not_read_back_and_the_settings_load_again(key: str, split: str) -> None:
    kind = lms.DecisionLoadModelConfig if key.startswith("decision") else lms.LlmLoadModelConfig
    chosen = {
        f"{kind.prefix}.contextLength": 8192,
        f"{kind.prefix}.llama.acceleration.offloadRatio": 0.5,
        f"{kind.prefix}.numCpuExpertLayersRatio": "off",
        "load.gpuStrictVramCap": False,
        SPLIT: SPLITS[split],
    }
    own = {f"{kind.prefix}.numParallelSessions": 256, "a.b": 1}
    settings = kind.from_fields({key: True, **chosen, **own})
    disabled = SPLITS[split]["disabledGpus"]
    assert settings.to_dict() == {
        "autoFit": True,
        "gpu": {"disabledGpus": disabled},
        "maxParallelPredictions": 256,
        "raw": {"a.b": 1},
    }
    again = kind.parse(settings.to_dict()).to_fields()
    assert again.keys() & chosen.keys() == {SPLIT}
    assert again[SPLIT] == {"strategy": "evenly", "priority": [], "disabledGpus": disabled, "customRatio": []}
    for fields in ({key: False, **chosen}, chosen):
        assert kind.from_fields(fields).context_length == 8192


@pytest.mark.parametrize("fit", [{}, *({key: value} for key in AUTO_FIT for value in (True, False))])
def test_an_engine_with_a_file_of_its_own_ignores_fitting_and_parallelism(fit: dict[str, Any]) -> None:
    text = "# as it is\r\nmax-model-len: auto\r\n"
    fields = {"llm.load.engineConfigFileContents": text, "llm.load.engineCwd": "", "llm.load.contextLength": 32768}
    settings = lms.LlmLoadModelConfig.from_fields({**fields, **fit, "llm.load.numParallelSessions": 4})
    assert settings.to_dict() == {"engineConfigFileContents": text, "engineCwd": "", "contextLength": 32768}
    empty = {
        "llm.load.engineConfigFileContents": "",
        "llm.load.engineCwd": "/models",
        "llm.load.numParallelSessions": 4,
    }
    assert lms.LlmLoadModelConfig.from_fields(empty).to_fields() == empty


def test_a_decision_model_has_no_empty_context() -> None:
    with pytest.raises(lms.LMStudioValueError, match="context_length=0"):
        lms.DecisionLoadModelConfig(context_length=0)
    assert lms.DecisionLoadModelConfig.from_fields({"decision.load.contextLength": 0}).to_fields() == {}


def test_a_value_that_cannot_be_sent_is_an_error_of_the_settings() -> None:
    settings = lms.LlmLoadModelConfig.parse({"raw": {"llm.load.fromTheFuture": object()}})
    for write in (settings.to_dict, settings.to_json):
        with pytest.raises(lms.LMStudioValueError, match="LlmLoadModelConfig cannot be written as JSON"):
            write()


def test_the_quantization_of_the_mlx_cache_may_be_switched_off() -> None:
    key = "llm.load.mlx.kvCacheQuantization"
    off = {"enabled": False, "bits": 8, "groupSize": 64, "quantizedStart": 5000}
    fields = lms.LlmLoadModelConfig.parse({"mlxKvCacheQuantization": False}).to_fields()
    assert fields == {key: off}
    assert not list(wrong_with(fields[key], SETTINGS[key], key))
    with pytest.raises(lms.LMStudioValueError, match="False to switch it off"):
        lms.LlmLoadModelConfig.parse({"mlxKvCacheQuantization": True})


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        ({"structured": {"type": "gbnf", "gbnf_grammar": "root"}}, {"type": "gbnf", "gbnfGrammar": "root"}),
        (
            {"structured": {"type": "json", "json_schema": {"properties": {"a_b": {"min_length": 1}}}}},
            {"type": "json", "jsonSchema": {"properties": {"a_b": {"min_length": 1}}}},
        ),
        (
            {"reasoning_parsing": {"enabled": True, "start_string": "<a>", "end_string": "</a>"}},
            {"enabled": True, "startString": "<a>", "endString": "</a>"},
        ),
        (
            {"prompt_template": {"type": "jinja", "jinja_prompt_template": {"template": "a_b"}, "stop_strings": []}},
            {"type": "jinja", "jinjaPromptTemplate": {"template": "a_b"}, "stopStrings": []},
        ),
    ],
)
def test_dicts_within_settings_may_be_in_snake_case_too(settings: dict[str, Any], value: dict[str, Any]) -> None:
    assert list(lms.LlmPredictionConfig.parse(settings).to_fields().values()) == [value]


# Graphics cards


@pytest.mark.parametrize(
    ("gpu", "fields"),
    [
        ({"ratio": 0.5}, {"llm.load.llama.acceleration.offloadRatio": 0.5}),
        ({"numCpuExpertLayersRatio": "off"}, {"llm.load.numCpuExpertLayersRatio": "off"}),
        (
            {"mainGpu": 1, "splitStrategy": "favorMainGpu"},
            {SPLIT: {"strategy": "priorityOrder", "disabledGpus": [], "priority": [1], "customRatio": []}},
        ),
        (
            {"disabledGpus": [2]},
            {SPLIT: {"strategy": "evenly", "disabledGpus": [2], "priority": [], "customRatio": []}},
        ),
        (
            {"splitStrategy": "evenly", "disabledGpus": []},
            {SPLIT: {"strategy": "evenly", "disabledGpus": [], "priority": [], "customRatio": []}},
        ),
    ],
)
def test_the_split_over_graphics_cards_is_sent_when_something_of_it_is_set(
    gpu: dict[str, Any], fields: dict[str, Any]
) -> None:
    settings = lms.LlmLoadModelConfig.parse({"gpu": gpu})
    assert settings.to_fields() == fields | (AUTO_FIT if gpu.keys() != {"disabledGpus"} else {})
    read = lms.LlmLoadModelConfig.from_fields(fields)
    assert read.raw is None
    assert read.gpu is not None
    assert read.gpu.to_dict() == ({"disabledGpus": [], **gpu} if SPLIT in fields else gpu)
    assert read.to_fields() == settings.to_fields()
    assert lms.LlmLoadModelConfig.parse({"gpu": {}}).to_fields() == {}
    assert lms.LlmLoadModelConfig.parse({"gpu": {"disabledGpus": []}}).to_fields()[SPLIT]["disabledGpus"] == []
    assert lms.LlmLoadModelConfig.parse({"gpu": {"mainGpu": 1}}).to_fields()[SPLIT]["priority"] == [1]


def test_embedding_models_have_their_own_key_for_the_ratio() -> None:
    settings = lms.EmbeddingLoadModelConfig.parse({"gpu": {"ratio": "off"}})
    assert settings.to_fields() == {"embedding.load.llama.acceleration.offloadRatio": "off"}
    assert lms.EmbeddingLoadModelConfig.from_fields(settings.to_fields()) == settings


def test_embedding_models_have_no_experts() -> None:
    message = "num_cpu_expert_layers_ratio is a setting of language models"
    with pytest.raises(lms.LMStudioValueError, match=message):
        lms.EmbeddingLoadModelConfig.parse({"gpu": {"numCpuExpertLayersRatio": 0.5}})
    with pytest.raises(lms.LMStudioValueError, match=message):
        lms.EmbeddingLoadModelConfig(gpu=lms.GpuSetting(num_cpu_expert_layers_ratio="off"))
    fields = {"llm.load.numCpuExpertLayersRatio": 0.5, "embedding.load.numCpuExpertLayersRatio": 0.5}
    assert lms.EmbeddingLoadModelConfig.from_fields(fields).raw == fields


def test_a_disabled_card_is_not_the_main_card() -> None:
    split = {"strategy": "priorityOrder", "disabledGpus": [0], "priority": [0, 1], "customRatio": []}
    settings = lms.LlmLoadModelConfig.from_fields({SPLIT: split})
    assert settings.gpu is not None
    assert settings.gpu.main_gpu == 1


@pytest.mark.parametrize(
    "split",
    [
        {"strategy": "custom", "disabledGpus": [], "priority": [], "customRatio": [1, 2]},
        {"strategy": ["evenly"]},
        "evenly",
        None,
    ],
)
def test_a_split_that_has_no_name_here_is_kept_as_it_is(split: Any) -> None:
    settings = lms.LlmLoadModelConfig.from_fields({SPLIT: split})
    assert settings.gpu is None
    assert settings.raw == {SPLIT: split}


@pytest.mark.parametrize(
    "split",
    [
        {"strategy": "evenly", "disabledGpus": "none"},
        {"strategy": "priorityOrder", "priority": ["first"]},
        {"strategy": "priorityOrder", "priority": [0], "disabledGpus": 5},
    ],
)
def test_a_split_of_the_server_that_does_not_fit_counts_as_not_set(split: Any) -> None:
    assert lms.LlmLoadModelConfig.from_fields({SPLIT: split}).gpu is None


@pytest.mark.parametrize("priority", [5, {"a": 1}, [], None])
def test_a_priority_without_sense_names_no_main_card(priority: Any) -> None:
    settings = lms.LlmLoadModelConfig.from_fields({SPLIT: {"strategy": "priorityOrder", "priority": priority}})
    assert settings.gpu is not None
    assert settings.gpu.main_gpu is None


def test_wire_fields_are_described_without_loss() -> None:
    fields = {
        "llm.prediction.temperature": 0.5,
        "llm.prediction.maxPredictedTokens": {"checked": False, "value": 1},
        "llm.prediction.minPSampling": checked(False),
        "llm.prediction.repeatPenalty": checked("high"),
        "llm.prediction.topKSampling": None,
        "llm.prediction.unheardOf": 1,
    }
    assert lms.LlmPredictionConfig.describe(fields) == {
        "temperature": 0.5,
        "maxTokens": False,
        "minPSampling": False,
        "raw": {
            "llm.prediction.unheardOf": 1,
            "llm.prediction.repeatPenalty": checked("high"),
            "llm.prediction.topKSampling": None,
        },
    }
    assert lms.LlmPredictionConfig.describe({}) == {}


# The official TypeScript SDK's table of settings ----------------------------------------------------------------------

TYPESCRIPT = json.loads((ROOT / "tests/support/strict/typescript_defaults.json").read_text(encoding="utf-8"))
"""Its defaults by key; tests/conformance/official_typescript/test_keys.py compares them with the SDK."""

STATED = re.compile(r"LM Studio's default is `?([\w.,]+?)`?[;,.](?: |$)")
"""A default in a description."""

SERVERS_OWN = {"llm.load.llama.flashAttention"}
"""Keys for which servers report another default than the SDK's."""


@every_kind
def test_our_keys_and_defaults_and_bounds_are_those_of_the_sdk(kind: type[Settings]) -> None:
    assert NEWER_SETTINGS.keys().isdisjoint(TYPESCRIPT)
    assert SETTINGS.keys() == TYPESCRIPT.keys() | NEWER_SETTINGS.keys()
    rows = wire_keys(kind)
    assert {key for row in rows.values() for key in (row.key, *row.copies)} - SETTINGS.keys() == set(), ADD_SCHEMA
    defaults = {row.key: row.default for row in rows.values() if row.default is not None}
    assert {key for key, default in defaults.items() if default != TYPESCRIPT.get(key, default)} <= SERVERS_OWN
    beyond = 0
    for name, row in rows.items():
        schema = SETTINGS[row.key]["properties"]["value"] if row.checkbox else SETTINGS[row.key]
        for bound, step in (("minimum", -1), ("maximum", 1)):
            if bound in schema:
                beyond += 1
                with pytest.raises(lms.LMStudioValueError, match=name):
                    kind.from_dict({name: int(schema[bound] + step)})
    assert beyond > 3


@every_kind
def test_a_description_has_the_default_of_the_sdk(kind: type[Settings]) -> None:
    stated = set[str]()
    for name, row in wire_keys(kind).items():
        match = STATED.search(kind.model_fields[name].description or "")
        if match:
            stated.add(name)
            assert (name, match[1].replace(",", "")) == (name, str(row.decode(TYPESCRIPT[row.key])))
    assert stated


@pytest.mark.parametrize("value", [5, True, "x", b"x", {"a": 1}])
def test_stop_strings_are_a_list(value: Any) -> None:
    with pytest.raises(lms.LMStudioValueError, match=re.escape("stop_strings=") + ".*" + re.escape('write ["…"]')):
        lms.LlmPredictionConfig(stop_strings=value)
