"""The prediction settings that have one name in the native client and in the adapters of the frameworks.

Each is the type of a field: bounds, description, wire key and encoding. `LlmPredictionConfig` and the adapters'
`GenerationSettings` have a field of each. If a setting is unset, the preset's applies, else the server's default for
the model.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.alias_generators import to_camel

from lmstudio_integrations._support.typeguards import is_mapping
from lmstudio_integrations.types import _logit_bias, _numbers
from lmstudio_integrations.types._config_base import WireKey
from lmstudio_integrations.types._numbers import Count, Float, Fraction, Natural, OrOff


def _in_camel_case(value: object) -> object:
    """Return a dict with its keys in camelCase, except below `jsonSchema`: the names there are the user's data."""
    if not is_mapping(value):
        return value
    spelled = {
        to_camel(name) if isinstance(name, str) and "_" in name else name: member for name, member in value.items()
    }
    return {name: member if name == "jsonSchema" else _in_camel_case(member) for name, member in spelled.items()}


WireDict = Annotated[dict[str, Any], BeforeValidator(_in_camel_case)]
"""A wire object that people may write in snake_case."""
NonEmpty = Annotated[str, Field(min_length=1)]

Temperature = Annotated[
    Float | None,
    Field(
        ge=0,
        description="How random the responses are. 0 always picks the most likely token. LM Studio's default is 0.8.",
    ),
    WireKey("llm.prediction.temperature"),
]
MaxTokens = Annotated[
    OrOff[Count] | None,
    Field(
        description="The maximum number of tokens in a response. No limit by default; `False` also lifts a preset's "
        "limit."
    ),
    WireKey("llm.prediction.maxPredictedTokens", checkbox=True, off=1),
]
ToolCallStopStrings = Annotated[
    list[NonEmpty] | None,
    Field(
        description="Strings that end the response, with the stop reason `toolCalls`, when the model writes one. "
        "None by default."
    ),
    WireKey("llm.prediction.toolCallStopStrings"),
]
ToolNaming = Annotated[
    Literal["passThrough", "removeSpecial", "snakeCase", "camelCase"] | None,
    Field(description="How the server rewrites tool names for the model. LM Studio's default is `removeSpecial`."),
    WireKey("llm.prediction.toolNaming"),
]
RepeatPenalty = Annotated[
    OrOff[Annotated[Float, Field(ge=-1)]] | None,
    Field(
        description="Values above 1 make the model repeat itself less. LM Studio's default is 1.1; `False` turns it "
        "off."
    ),
    WireKey("llm.prediction.repeatPenalty", checkbox=True, off=1.1),
]
PresencePenalty = Annotated[
    OrOff[Float] | None,
    Field(description="Values above 0 make tokens less likely once they have occurred. Off by default (`False`)."),
    WireKey("llm.prediction.llama.presencePenalty", checkbox=True, off=0),
]
FrequencyPenalty = Annotated[
    OrOff[Float] | None,
    Field(description="Values above 0 make tokens less likely each time they occur. Off by default (`False`)."),
    WireKey("llm.prediction.llama.frequencyPenalty", checkbox=True, off=0),
]
XtcProbability = Annotated[
    OrOff[Fraction] | None,
    Field(
        description="The chance, from 0 to 1, that a step skips the most likely tokens (XTC). Off by default (`False`)."
    ),
    WireKey("llm.prediction.llama.xtcProbability", checkbox=True, off=0),
]
XtcThreshold = Annotated[
    OrOff[Fraction] | None,
    Field(
        description="XTC skips tokens that are at least this probable, from 0 to 1, except the least likely of them. "
        "Off by default (`False`)."
    ),
    WireKey("llm.prediction.llama.xtcThreshold", checkbox=True, off=0),
]
LogitBias = Annotated[
    _logit_bias.LogitBias | None,
    Field(
        description="Makes tokens more or less likely, by numbers added to their logits. Name a token by its id, or "
        "by a text that is exactly one token, often a word with the space before it. `float('-inf')` forbids a token. "
        "Texts cost one extra request per call. None by default."
    ),
    WireKey("llm.prediction.llama.logitBias", wire_form=_logit_bias.to_pairs),
]
Seed = Annotated[
    OrOff[_numbers.Seed] | None,
    Field(
        description="Seed for sampling, to make responses repeatable. None by default; `False` also removes a preset's."
    ),
    WireKey("llm.prediction.seed", checkbox=True, off=0),
]
ReasoningParsing = Annotated[
    WireDict | None,
    Field(
        description="How the server finds the reasoning: a dict with `enabled`, `start_string` and `end_string`. LM "
        "Studio's default is `<think>` to `</think>`."
    ),
    WireKey("llm.prediction.reasoning.parsing"),
]
EnableThinking = Annotated[
    bool | None,
    Field(description="Whether a reasoning model reasons before it responds. LM Studio's default is `True`."),
    WireKey("llm.prediction.reasoning.enableThinking"),
]
ReasoningBudget = Annotated[
    OrOff[Natural] | None,
    Field(
        description="The maximum number of reasoning tokens. No limit by default; `False` also lifts a preset's limit."
    ),
    WireKey("llm.prediction.reasoning.budgetTokens", checkbox=True, off=1024),
]
MaxImageDimensionPixels = Annotated[
    OrOff[Count] | None,
    Field(
        description="The maximum width and height of images, in pixels; larger ones are scaled down. LM Studio's "
        "default is 1,024; `False` lifts the limit."
    ),
    WireKey("llm.prediction.vision.userMaxImageDimensionPixels", checkbox=True, off=1024),
]
IgnoreModelImageDimension = Annotated[
    bool | None,
    Field(description="Whether to ignore the model's own limit on image size. LM Studio's default is `False`."),
    WireKey("llm.prediction.vision.ignoreModelPreferredMaxImageDimension"),
]
DraftModel = Annotated[
    str | None,
    Field(
        description="Key of a smaller model that drafts tokens, for faster generation (speculative decoding). None "
        "by default."
    ),
    WireKey("llm.prediction.speculativeDecoding.draftModel"),
]
MinDraftLengthToConsider = Annotated[
    Natural | None,
    Field(description="Drafts with fewer tokens than this are discarded. LM Studio's default is 0."),
    WireKey("llm.prediction.speculativeDecoding.minDraftLengthToConsider"),
]
MinContinueDraftingProbability = Annotated[
    Fraction | None,
    Field(
        description="Drafting stops at a token that is less probable than this, from 0 to 1. LM Studio's default is "
        "0.75."
    ),
    WireKey("llm.prediction.speculativeDecoding.minContinueDraftingProbability"),
]
NumDraftTokensExact = Annotated[
    Count | None,
    Field(description="How many tokens the draft model proposes at a time. LM Studio's default is 2."),
    WireKey("llm.prediction.speculativeDecoding.numDraftTokensExact"),
]
CpuThreads = Annotated[
    Count | None,
    Field(description="How many CPU threads the prediction may use. LM Studio's default is 4."),
    WireKey("llm.prediction.llama.cpuThreads"),
]
