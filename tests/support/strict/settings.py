"""The keys of settings, and the shapes of their values (docs/protocol.md#prediction-keys)."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.strict.shapes import (
    BOOLEAN,
    JSON_OBJECT,
    NUMBER,
    TEXT,
    Array,
    Either,
    Nullable,
    Number,
    Object,
    Pair,
    Shape,
    Tagged,
    Text,
    integer,
    one_of,
)

FRACTION = Number(0, 1)
COUNT = integer(1)
NATURAL = integer(0)
SEED = integer(-1)
RATIO = Either((FRACTION, one_of("max", "off")))
STRINGS = Array(Text(shortest=1))
CACHE_TYPES = one_of("f32", "f16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")


def checkbox(value: Shape) -> Object:
    """Return the shape of a setting that can be off; the value is there even then."""
    return Object({"checked": BOOLEAN, "value": value})


GPU_SPLIT = Object(
    {
        "strategy": one_of("evenly", "priorityOrder", "tensor", "custom"),
        "disabledGpus": Array(NATURAL),
        "priority": Array(NATURAL),
        "customRatio": Array(NUMBER),
    }
)
MLX_CACHE = Object(
    {
        "enabled": BOOLEAN,
        "bits": one_of(8, 6, 4, 3, 2),
        "groupSize": one_of(32, 64, 128),
        "quantizedStart": NATURAL,
    }
)
ARGUMENTS_OVERRIDE = Object(
    {
        "enabled": BOOLEAN,
        "disabledParameters": Array(TEXT),
        "overrideParameters": Array(Object({"key": TEXT, "value": TEXT})),
        "excludeAllConfig": BOOLEAN,
    }
)
TOOL_PARAMETERS = Object(
    {"type": one_of("object"), "properties": JSON_OBJECT},
    {"required": Array(TEXT), "additionalProperties": Either((BOOLEAN, JSON_OBJECT)), "$defs": JSON_OBJECT},
)
TOOL = Object(
    {
        "type": one_of("function"),
        "function": Object({"name": Text(shortest=1)}, {"description": TEXT, "parameters": TOOL_PARAMETERS}),
    }
)
TOOL_USE = Tagged("type", {"none": Object(), "toolArray": Object({}, {"tools": Array(TOOL), "force": BOOLEAN})})
TOOL_CHOICE = Object({"type": one_of("generic"), "mode": one_of("none", "auto", "required")})
STRUCTURED = Tagged(
    "type",
    {
        "none": Object(),
        "json": Object({}, {"jsonSchema": JSON_OBJECT}),
        "gbnf": Object({"gbnfGrammar": TEXT}),
    },
)
JINJA = Object(
    {"template": TEXT},
    # What the official Python SDK adds for raw completion.
    {
        "bosToken": TEXT,
        "eosToken": TEXT,
        "inputConfig": Object(
            {
                "messagesConfig": Object({"contentConfig": Object({"type": one_of("string")})}),
                "useTools": BOOLEAN,
            }
        ),
    },
)
MANUAL = Object(
    dict.fromkeys(("beforeSystem", "afterSystem", "beforeUser", "afterUser", "beforeAssistant", "afterAssistant"), TEXT)
)
PROMPT_TEMPLATE = Tagged(
    "type",
    {
        "jinja": Object({"stopStrings": STRINGS, "jinjaPromptTemplate": JINJA}, {"manualPromptTemplate": MANUAL}),
        "manual": Object({"stopStrings": STRINGS, "manualPromptTemplate": MANUAL}, {"jinjaPromptTemplate": JINJA}),
    },
)

LLM_LOAD: dict[str, Shape] = {
    "llm.load.contextLength": COUNT,
    "llm.load.seed": checkbox(SEED),
    "llm.load.numExperts": NATURAL,
    "llm.load.offloadKVCacheToGpu": BOOLEAN,
    "llm.load.numCpuExpertLayersRatio": RATIO,
    "llm.load.numParallelSessions": integer(1, 1023),
    "llm.load.useUnifiedKvCache": BOOLEAN,
    "llm.load.autoFitMinContextLength": NATURAL,
    "llm.load.promptTemplate": Tagged("type", {"jinja": Object({"jinjaPromptTemplate": Object({"template": TEXT})})}),
    "llm.load.llama.acceleration.offloadRatio": RATIO,
    "llm.load.llama.autoFit": BOOLEAN,
    "llm.load.llama.cpuThreadPoolSize": COUNT,
    "llm.load.llama.evalBatchSize": COUNT,
    "llm.load.llama.physicalBatchSize": COUNT,
    "llm.load.llama.flashAttention": BOOLEAN,
    "llm.load.llama.contextCheckpoints": NATURAL,
    "llm.load.llama.reasoningBudgetMessage": TEXT,
    "llm.load.llama.ropeFrequencyBase": checkbox(Number(0)),
    "llm.load.llama.ropeFrequencyScale": checkbox(Number(0)),
    "llm.load.llama.keepModelInMemory": BOOLEAN,
    "llm.load.llama.useFp16ForKVCache": BOOLEAN,
    "llm.load.llama.tryMmap": BOOLEAN,
    "llm.load.llama.tryDirectIO": BOOLEAN,
    "llm.load.llama.argumentsOverride": ARGUMENTS_OVERRIDE,
    "llm.load.llama.kCacheQuantizationType": checkbox(CACHE_TYPES),
    "llm.load.llama.vCacheQuantizationType": checkbox(CACHE_TYPES),
    "llm.load.llama.speculativeDecoding.draftMtp": BOOLEAN,
    "llm.load.llama.speculativeDecoding.draftSimple": BOOLEAN,
    "llm.load.llama.speculativeDecoding.draftModel": TEXT,
    "llm.load.llama.speculativeDecoding.draftMaxTokens": NATURAL,
    "llm.load.llama.speculativeDecoding.draftMinTokens": NATURAL,
    "llm.load.llama.speculativeDecoding.draftMinContinueProbability": FRACTION,
    "llm.load.llama.speculativeDecoding.draftDflashSidecar": BOOLEAN,
    "llm.load.llama.speculativeDecoding.draftDsparkSidecar": BOOLEAN,
    "llm.load.llama.speculativeDecoding.draftMtpSidecar": BOOLEAN,
    "llm.load.mlx.autoFit": BOOLEAN,
    "llm.load.mlx.diskCache": BOOLEAN,
    "llm.load.mlx.kvCacheQuantization": MLX_CACHE,
    "llm.load.yuzu.autoFit": BOOLEAN,
    "llm.load.vllm.gpuMemoryUtilization": FRACTION,
    "llm.load.vllm.reasoningParser": TEXT,
    "llm.load.vllm.toolCallParser": TEXT,
    "load.gpuSplitConfig": GPU_SPLIT,
    "load.gpuStrictVramCap": BOOLEAN,
    "envVars": Object({}, {"HSA_OVERRIDE_GFX_VERSION": TEXT}),
}

EMBEDDING_LOAD: dict[str, Shape] = {
    "embedding.load.contextLength": COUNT,
    "embedding.load.seed": checkbox(SEED),
    "embedding.load.llama.acceleration.offloadRatio": RATIO,
    "embedding.load.llama.evalBatchSize": COUNT,
    "embedding.load.llama.ropeFrequencyBase": checkbox(Number(0)),
    "embedding.load.llama.ropeFrequencyScale": checkbox(Number(0)),
    "embedding.load.llama.keepModelInMemory": BOOLEAN,
    "embedding.load.llama.tryMmap": BOOLEAN,
    "load.gpuSplitConfig": GPU_SPLIT,
    "load.gpuStrictVramCap": BOOLEAN,
    "envVars": Object({}, {"HSA_OVERRIDE_GFX_VERSION": TEXT}),
}

_PREDICTION: dict[str, Shape] = {
    "temperature": Number(0),
    "maxPredictedTokens": checkbox(COUNT),
    "contextOverflowPolicy": one_of("stopAtLimit", "truncateMiddle", "rollingWindow"),
    "stopStrings": STRINGS,
    "toolCallStopStrings": STRINGS,
    "structured": STRUCTURED,
    "tools": TOOL_USE,
    "toolChoice": TOOL_CHOICE,
    "toolNaming": one_of("passThrough", "removeSpecial", "snakeCase", "camelCase"),
    "topKSampling": integer(-1, 500),
    "topPSampling": checkbox(FRACTION),
    "minPSampling": checkbox(FRACTION),
    "repeatPenalty": checkbox(Number(-1)),
    "logProbs": checkbox(integer(0, 100)),
    "promptTemplate": PROMPT_TEMPLATE,
    "systemPrompt": TEXT,
    "seed": checkbox(SEED),
    "contextPrefill": Array(Object({"type": one_of("jsonFile", "yamlFile"), "absPath": TEXT})),
    "reasoning.parsing": Object({"enabled": BOOLEAN, "startString": TEXT, "endString": TEXT}),
    "reasoning.enableThinking": BOOLEAN,
    "reasoning.budgetTokens": checkbox(NATURAL),
    "vision.userMaxImageDimensionPixels": checkbox(COUNT),
    "vision.ignoreModelPreferredMaxImageDimension": BOOLEAN,
    "speculativeDecoding.draftModel": TEXT,
    "speculativeDecoding.minDraftLengthToConsider": NATURAL,
    "speculativeDecoding.minContinueDraftingProbability": FRACTION,
    "speculativeDecoding.numDraftTokensExact": COUNT,
    "speculativeDecoding.maxTokensToDraft": NATURAL,
    "speculativeDecoding.numReuseTokens": NATURAL,
    "llama.cpuThreads": COUNT,
    "llama.presencePenalty": checkbox(NUMBER),
    "llama.xtcProbability": checkbox(FRACTION),
    "llama.xtcThreshold": checkbox(FRACTION),
    "llama.frequencyPenalty": checkbox(NUMBER),
    "llama.tailFreeSampling": checkbox(NUMBER),
    "llama.locallyTypicalSampling": checkbox(NUMBER),
    "llama.mirostatSampling": Object({"version": one_of(0, 1, 2), "learningRate": NUMBER, "targetEntropy": NUMBER}),
    "llama.logitBias": Array(Pair(NATURAL, Either((one_of("-inf"), NUMBER)))),
}

PREDICTION = {f"llm.prediction.{name}": shape for name, shape in _PREDICTION.items()}

RETRIEVAL: dict[str, Shape] = {
    "retrieval.databaseFile": TEXT,
    "retrieval.chunkingMethod": Object(
        {"type": one_of("recursive-v1"), "chunkSize": COUNT, "chunkOverlap": NATURAL},
    ),
    "retrieval.limit": COUNT,
    "retrieval.embeddingModel": Nullable(TEXT),
}

OURS = ("llm.load.", "embedding.load.", "load.", "envVars", "llm.prediction.", "retrieval.")
"""Beginnings of keys that the description lists in full; any other key is a user's own."""

LAYERS = one_of("apiOverride", "completeModeFormatting")
"""The layers that a client may send (docs/protocol.md#config-stacks)."""


@dataclass(frozen=True)
class Config:
    """A list of settings from one of the tables above, without duplicate keys."""

    keys: dict[str, Shape]

    def check(self, value: object, path: str) -> Iterator[str]:
        if not isinstance(value, dict) or set(value) != {"fields"} or not isinstance(value["fields"], list):
            yield f"{path} must be an object with nothing but a list of fields, is {value!r}"
            return
        seen: set[str] = set()
        for index, item in enumerate(value["fields"]):
            where = f"{path}.fields[{index}]"
            if not isinstance(item, dict) or set(item) != {"key", "value"} or not isinstance(item["key"], str):
                yield f"{where} must be an object with key and value, is {item!r}"
                continue
            key = item["key"]
            if key in seen:
                yield f"{where} sets {key} again"
            seen.add(key)
            yield from self._check_value(key, item["value"], where)

    def _check_value(self, key: str, value: object, where: str) -> Iterator[str]:
        if key in self.keys:
            yield from self.keys[key].check(value, f"{where}({key})")
        elif key.startswith(OURS):
            yield f"{where} has the key {key}, which has no place here"


def stack(keys: dict[str, Shape], *, shortest: int = 1) -> Shape:
    """Return the shape of layered settings."""
    layer = Object({"layerName": LAYERS, "config": Config(keys)})
    return Object({"layers": Array(layer, shortest)})
