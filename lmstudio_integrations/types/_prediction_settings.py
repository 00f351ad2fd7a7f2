"""The prediction settings that the native client and the adapters of the frameworks share.

One row for each: its name, bounds, description, wire key and encoding, and what else follows from it. The native
client's `LlmPredictionConfig` has all of them. Those that people set most are fields of the adapters as well; where the
frameworks have another name, the row is a type. If a setting is unset, the preset's applies, else the server's default
for the model.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from lmstudio_integrations._support.typeguards import is_iterable
from lmstudio_integrations.types import _numbers
from lmstudio_integrations.types._config_base import NonEmpty, WireDict, WireKey, checked, unchecked
from lmstudio_integrations.types._numbers import Count, Float, Fraction, Natural, OrOff

TopK = Annotated[
    _numbers.TopK | None,
    Field(description="Sample from this many of the most likely tokens, from -1 to 500. LM Studio's default is 40."),
    WireKey("llm.prediction.topKSampling", default=40, attribute=("gen_ai.request.top_k", float)),
]
TopP = Annotated[
    OrOff[Fraction] | None,
    Field(
        description="Sample from the most likely tokens that together have this probability, from 0 to 1. LM Studio's "
        "default is 0.95; `False` turns it off."
    ),
    WireKey(
        "llm.prediction.topPSampling",
        checkbox=True,
        off=0.95,
        default=checked(0.95),
        attribute=("gen_ai.request.top_p", float),
        changes="filter",
    ),
]
MinP = Annotated[
    OrOff[Fraction] | None,
    Field(
        description="Drop tokens that are less probable than this share of the most likely one, from 0 to 1. LM "
        "Studio's default is 0.05; `False` turns it off."
    ),
    WireKey("llm.prediction.minPSampling", checkbox=True, off=0.05, default=checked(0.05), changes="filter"),
]


def _strings(value: object) -> object:
    if value is None or (is_iterable(value) and not isinstance(value, str | bytes | dict)):
        return value
    raise PydanticCustomError("strings", 'must be a list of strings: write ["…"]')


_Strings = Annotated[list[NonEmpty] | None, BeforeValidator(_strings)]
Stop = Annotated[
    _Strings,
    Field(description="Strings that end the response. None by default."),
    WireKey("llm.prediction.stopStrings", default=[], attribute=("gen_ai.request.stop_sequences", list)),
]


class SharedPredictionSettings(BaseModel):
    """The settings that have one name in the native client and in the frameworks."""

    model_config: ClassVar[ConfigDict] = ConfigDict(defer_build=True)

    temperature: Annotated[
        Float | None,
        Field(
            ge=0,
            description="How random the responses are. 0 always picks the most likely token. LM Studio's default is "
            "0.8.",
        ),
        WireKey("llm.prediction.temperature", default=0.8, attribute=("gen_ai.request.temperature", float)),
    ] = None
    max_tokens: Annotated[
        OrOff[Count] | None,
        BeforeValidator(lambda value: False if type(value) is int and value == -1 else value),
        Field(
            description="The maximum number of tokens in a response. No limit by default; `False`, or -1 as in LM "
            "Studio's HTTP API, also lifts a preset's limit."
        ),
        WireKey(
            "llm.prediction.maxPredictedTokens",
            checkbox=True,
            off=1,
            default=unchecked(1000),
            attribute=("gen_ai.request.max_tokens", int),
        ),
    ] = None
    seed: Annotated[
        OrOff[_numbers.Seed] | None,
        Field(
            description="Seed for sampling, to make responses repeatable. None by default; `False` also removes a "
            "preset's."
        ),
        WireKey(
            "llm.prediction.seed", checkbox=True, off=0, default=unchecked(-1), attribute=("gen_ai.request.seed", int)
        ),
    ] = None
    repeat_penalty: Annotated[
        OrOff[Annotated[Float, Field(ge=-1)]] | None,
        Field(
            description="Values above 1 make the model repeat itself less. LM Studio's default is 1.1; `False` turns "
            "it off."
        ),
        WireKey("llm.prediction.repeatPenalty", checkbox=True, off=1.1, default=checked(1.1), changes="penalty"),
    ] = None
    presence_penalty: Annotated[
        OrOff[Float] | None,
        Field(description="Values above 0 make tokens less likely once they have occurred. Off by default (`False`)."),
        WireKey(
            "llm.prediction.llama.presencePenalty",
            checkbox=True,
            off=0,
            attribute=("gen_ai.request.presence_penalty", float),
            changes="penalty",
        ),
    ] = None
    frequency_penalty: Annotated[
        OrOff[Float] | None,
        Field(description="Values above 0 make tokens less likely each time they occur. Off by default (`False`)."),
        WireKey(
            "llm.prediction.llama.frequencyPenalty",
            checkbox=True,
            off=0,
            attribute=("gen_ai.request.frequency_penalty", float),
            changes="penalty",
        ),
    ] = None
    enable_thinking: Annotated[
        bool | None,
        Field(description="Whether a reasoning model reasons before it responds. LM Studio's default is `True`."),
        WireKey("llm.prediction.reasoning.enableThinking"),
    ] = None
    reasoning_budget: Annotated[
        OrOff[Natural] | None,
        Field(
            description="The maximum number of reasoning tokens. No limit by default; `False` also lifts a preset's "
            "limit."
        ),
        WireKey("llm.prediction.reasoning.budgetTokens", checkbox=True, off=1024),
    ] = None


class AdapterPredictionSettings(SharedPredictionSettings):
    """The settings that are fields of the adapters: the shared ones, and those that frameworks know by another name."""

    top_k: TopK = None
    top_p: TopP = None
    min_p: MinP = None


class NativePredictionSettings(SharedPredictionSettings):
    """The settings that the adapters take by the names of the native client, in `config`."""

    tool_call_stop_strings: Annotated[
        _Strings,
        Field(
            description="Strings that end the response, with the stop reason `toolCalls`, when the model writes one. "
            "None by default."
        ),
        WireKey("llm.prediction.toolCallStopStrings", default=[]),
    ] = None
    tool_naming: Annotated[
        Literal["passThrough", "removeSpecial", "snakeCase", "camelCase"] | None,
        Field(description="How the server rewrites tool names for the model. LM Studio's default is `removeSpecial`."),
        WireKey("llm.prediction.toolNaming", default="removeSpecial"),
    ] = None
    xtc_probability: Annotated[
        OrOff[Fraction] | None,
        Field(
            description="The chance, from 0 to 1, that a step skips the most likely tokens (XTC). Off by default "
            "(`False`)."
        ),
        WireKey("llm.prediction.llama.xtcProbability", checkbox=True, off=0, changes="filter"),
    ] = None
    xtc_threshold: Annotated[
        OrOff[Fraction] | None,
        Field(
            description="XTC skips tokens that are at least this probable, from 0 to 1, except the least likely of "
            "them. Off by default (`False`)."
        ),
        WireKey("llm.prediction.llama.xtcThreshold", checkbox=True, off=0),
    ] = None
    logit_bias: Annotated[
        _numbers.LogitBias | None,
        Field(
            description="Makes tokens more or less likely, by numbers added to their logits. Name a token by its id, "
            "or by a text that is exactly one token, often a word with the space before it. `float('-inf')` forbids a "
            "token. Texts cost one extra request per call. None by default."
        ),
        WireKey("llm.prediction.llama.logitBias", wire_form=_numbers.to_pairs),
    ] = None
    reasoning_parsing: Annotated[
        WireDict | None,
        Field(
            description="How the server finds the reasoning: a dict with `enabled`, `start_string` and `end_string`. "
            "LM Studio's default is `<think>` to `</think>`."
        ),
        WireKey(
            "llm.prediction.reasoning.parsing",
            default={"enabled": True, "startString": "<think>", "endString": "</think>"},
        ),
    ] = None
    user_max_image_dimension_pixels: Annotated[
        OrOff[Count] | None,
        Field(
            description="The maximum width and height of images, in pixels; larger ones are scaled down. LM Studio's "
            "default is 1,024; `False` lifts the limit."
        ),
        WireKey("llm.prediction.vision.userMaxImageDimensionPixels", checkbox=True, off=1024),
    ] = None
    ignore_model_preferred_max_image_dimension: Annotated[
        bool | None,
        Field(description="Whether to ignore the model's own limit on image size. LM Studio's default is `False`."),
        WireKey("llm.prediction.vision.ignoreModelPreferredMaxImageDimension"),
    ] = None
    draft_model: Annotated[
        str | None,
        Field(
            description="Key of a smaller model that drafts tokens, for faster generation (speculative decoding). None "
            "by default."
        ),
        WireKey("llm.prediction.speculativeDecoding.draftModel", default=""),
    ] = None
    speculative_decoding_min_draft_length_to_consider: Annotated[
        Natural | None,
        Field(description="Drafts with fewer tokens than this are discarded. LM Studio's default is 0."),
        WireKey("llm.prediction.speculativeDecoding.minDraftLengthToConsider"),
    ] = None
    speculative_decoding_min_continue_drafting_probability: Annotated[
        Fraction | None,
        Field(
            description="Drafting stops at a token that is less probable than this, from 0 to 1. LM Studio's default "
            "is 0.75."
        ),
        WireKey("llm.prediction.speculativeDecoding.minContinueDraftingProbability"),
    ] = None
    speculative_decoding_num_draft_tokens_exact: Annotated[
        Count | None,
        Field(description="How many tokens the draft model proposes at a time. LM Studio's default is 2."),
        WireKey("llm.prediction.speculativeDecoding.numDraftTokensExact"),
    ] = None
    cpu_threads: Annotated[
        Count | None,
        Field(description="How many CPU threads the prediction may use. LM Studio's default is 4."),
        WireKey("llm.prediction.llama.cpuThreads", default=4),
    ] = None
