"""The prediction settings that have one name in the native client and in the adapters of the frameworks.

Each is the type of a field: bounds, description, wire key and encoding. `LlmPredictionConfig` and the adapters'
`GenerationSettings` have a field of each. An unset setting is left to the preset, else to the server's default for the
model.
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
        description="Randomness of the sampling; 0 always picks the most likely token. LM Studio's default is 0.8.",
    ),
    WireKey("llm.prediction.temperature"),
]
MaxTokens = Annotated[
    OrOff[Count] | None,
    Field(
        description="The most tokens of a response. `False`: no limit, not even a preset's. LM Studio sets none by "
        "default."
    ),
    WireKey("llm.prediction.maxPredictedTokens", checkbox=True, off=1),
]
ToolCallStopStrings = Annotated[
    list[NonEmpty] | None,
    Field(description="Strings that end a response which contains a tool call. LM Studio has none by default."),
    WireKey("llm.prediction.toolCallStopStrings"),
]
ToolNaming = Annotated[
    Literal["passThrough", "removeSpecial", "snakeCase", "camelCase"] | None,
    Field(
        description="How the server spells the names of tools for the model. LM Studio's default is `removeSpecial`."
    ),
    WireKey("llm.prediction.toolNaming"),
]
RepeatPenalty = Annotated[
    OrOff[Annotated[Float, Field(ge=-1)]] | None,
    Field(
        description="Above 1, tokens that occurred before become less likely. `False`: off. LM Studio's default is 1.1."
    ),
    WireKey("llm.prediction.repeatPenalty", checkbox=True, off=1.1),
]
PresencePenalty = Annotated[
    OrOff[Float] | None,
    Field(
        description="Above 0, tokens that occurred before become less likely, however often. `False` (LM Studio's "
        "default): off."
    ),
    WireKey("llm.prediction.llama.presencePenalty", checkbox=True, off=0),
]
FrequencyPenalty = Annotated[
    OrOff[Float] | None,
    Field(
        description="Above 0, tokens become less likely with each time that they occurred. `False` (LM Studio's "
        "default): off."
    ),
    WireKey("llm.prediction.llama.frequencyPenalty", checkbox=True, off=0),
]
XtcProbability = Annotated[
    OrOff[Fraction] | None,
    Field(
        description="Probability, 0 to 1, that a step drops the most likely tokens (XTC). `False` (LM Studio's "
        "default): off."
    ),
    WireKey("llm.prediction.llama.xtcProbability", checkbox=True, off=0),
]
XtcThreshold = Annotated[
    OrOff[Fraction] | None,
    Field(
        description="XTC drops tokens that are at least this probable, 0 to 1, except the least likely of them. "
        "`False` (LM Studio's default): off."
    ),
    WireKey("llm.prediction.llama.xtcThreshold", checkbox=True, off=0),
]
LogitBias = Annotated[
    _logit_bias.LogitBias | None,
    Field(
        description="What is added to the logits of tokens, by token: its id, or a text that is one token of the "
        "model, often a word with the space before it. `float('-inf')` forbids the token. A text costs a request "
        "to the model's tokenizer with each call. LM Studio's default is none."
    ),
    WireKey("llm.prediction.llama.logitBias", wire_form=_logit_bias.to_pairs),
]
Seed = Annotated[
    OrOff[_numbers.Seed] | None,
    Field(
        description="Seed of the sampling, for repeatable responses. `False`: none, not even a preset's. LM "
        "Studio sets none by default."
    ),
    WireKey("llm.prediction.seed", checkbox=True, off=0),
]
ReasoningParsing = Annotated[
    WireDict | None,
    Field(
        description="How reasoning is separated from the response: `enabled`, `start_string`, `end_string`. "
        "LM Studio's default is `<think>` to `</think>`."
    ),
    WireKey("llm.prediction.reasoning.parsing"),
]
EnableThinking = Annotated[
    bool | None,
    Field(description="Whether a reasoning model reasons before it responds. LM Studio's default is true."),
    WireKey("llm.prediction.reasoning.enableThinking"),
]
ReasoningBudget = Annotated[
    OrOff[Natural] | None,
    Field(
        description="The most tokens of reasoning; 0 allows none. `False`: no limit, not even a preset's. LM "
        "Studio sets none by default."
    ),
    WireKey("llm.prediction.reasoning.budgetTokens", checkbox=True, off=1024),
]
MaxImageDimensionPixels = Annotated[
    OrOff[Count] | None,
    Field(
        description="Larger images are scaled down to this many pixels in width and height. `False`: no limit. "
        "LM Studio's default is 1,024."
    ),
    WireKey("llm.prediction.vision.userMaxImageDimensionPixels", checkbox=True, off=1024),
]
IgnoreModelImageDimension = Annotated[
    bool | None,
    Field(description="Whether the model's own limit of image sizes is ignored. LM Studio's default is false."),
    WireKey("llm.prediction.vision.ignoreModelPreferredMaxImageDimension"),
]
DraftModel = Annotated[
    str | None,
    Field(description="Key of a smaller model for speculative decoding. LM Studio's default is none."),
    WireKey("llm.prediction.speculativeDecoding.draftModel"),
]
MinDraftLengthToConsider = Annotated[
    Natural | None,
    Field(description="Proposals of the draft model with fewer tokens are dropped. LM Studio's default is 0."),
    WireKey("llm.prediction.speculativeDecoding.minDraftLengthToConsider"),
]
MinContinueDraftingProbability = Annotated[
    Fraction | None,
    Field(description="A proposal ends before a token that is less probable, 0 to 1. LM Studio's default is 0.75."),
    WireKey("llm.prediction.speculativeDecoding.minContinueDraftingProbability"),
]
NumDraftTokensExact = Annotated[
    Count | None,
    Field(description="How many tokens the draft model proposes at a time. LM Studio's default is 2."),
    WireKey("llm.prediction.speculativeDecoding.numDraftTokensExact"),
]
CpuThreads = Annotated[
    Count | None,
    Field(description="How many CPU threads compute the prediction. LM Studio's default is 4."),
    WireKey("llm.prediction.llama.cpuThreads"),
]
