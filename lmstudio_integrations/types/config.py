"""Load and prediction settings: what each means, and where it goes on the wire (protocol §5.4 - §5.6).

A field carries its wire key and encoding in its annotation, so that a setting is described in one place;
`_settings.py` does the translation and knows no single setting.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, TypedDict

from pydantic import BeforeValidator, Field, field_validator
from pydantic.alias_generators import to_camel

from lmstudio_integrations._typeguards import is_list, is_mapping, is_object
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._numbers import Count, Float, Fraction, Int, LogProbs, Natural, OrOff
from lmstudio_integrations.types._settings import Kv, Settings, WrittenModel, check_names

ModelKind = Literal["llm", "embedding"]
"""The two kinds of model that this package handles; each has a namespace of its name."""

LoadPolicy = Literal["get_or_load", "explicit", "require_loaded", "new_instance"]
"""How a model is found or loaded.

`get_or_load` loads it just in time, so other just-in-time loads may evict it. `explicit` uses a loaded instance, or
loads one that is never evicted. `require_loaded` never loads. `new_instance` always loads.
"""

OnConfigMismatch = Literal["warn", "raise", "ignore"]
"""What to do when a model is loaded already, with other settings than were asked for."""

GPU_SPLIT = "load.gpuSplitConfig"
_GPU_RATIOS = {
    "llm.load": {
        "ratio": "llm.load.llama.acceleration.offloadRatio",
        "num_cpu_expert_layers_ratio": "llm.load.numCpuExpertLayersRatio",
    },
    "embedding.load": {"ratio": "embedding.load.llama.acceleration.offloadRatio"},
}
"""The ratios of `GpuSetting` with their wire keys, for each kind of model."""
_MLX_CACHE_OFF = {"enabled": False, "bits": 8, "groupSize": 64, "quantizedStart": 5000}
_SPECULATIVE = "llm.load.llama.speculativeDecoding"
_SIDECARS = dict.fromkeys(
    (f"{_SPECULATIVE}.{name}" for name in ("draftDflashSidecar", "draftDsparkSidecar", "draftMtpSidecar")), False
)
"""Further ways to draft, which a model's defaults may switch on; sent with any way that the user chooses."""
_STRATEGIES = {"evenly": "evenly", "priorityOrder": "favorMainGpu"}


def _camel(name: object) -> object:
    return to_camel(name) if isinstance(name, str) and "_" in name else name


def _in_camel_case(value: object) -> object:
    """Bring a dict into the spelling of the wire; below `jsonSchema`, the names are those of the user's data."""
    if not is_mapping(value):
        return value
    spelled = {_camel(name): member for name, member in value.items()}
    return {name: member if name == "jsonSchema" else _in_camel_case(member) for name, member in spelled.items()}


OffloadRatio = Fraction | Literal["max", "off"]
WireDict = Annotated[dict[str, Any], BeforeValidator(_in_camel_case)]
"""A setting that is sent as it is written, but for the spelling of its names."""
CacheQuantization = Literal["f32", "f16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"]


class GpuSetting(WrittenModel):
    """How a model is spread over graphics cards.

    `ratio`: the part of the layers on the cards, 0 to 1, `"max"` or `"off"`. `num_cpu_expert_layers_ratio`: the
    part of the expert layers kept on the CPU, for language models only. `main_gpu`: the number of the card to prefer.
    `disabled_gpus`: the numbers of cards to leave alone; an empty list enables all, whatever the server's list says.
    """

    ratio: OffloadRatio | None = None
    num_cpu_expert_layers_ratio: OffloadRatio | None = None
    main_gpu: Int | None = None
    split_strategy: Literal["evenly", "favorMainGpu"] | None = None
    disabled_gpus: list[Int] | None = None

    def to_fields(self, prefix: str) -> Iterator[tuple[str, Any]]:
        """Yield the wire fields; the split is only sent when something of it was set, be it an empty list."""
        for name, key in _GPU_RATIOS[prefix].items():
            if (ratio := getattr(self, name)) is not None:
                yield key, ratio
        if any(part is not None for part in (self.main_gpu, self.split_strategy, self.disabled_gpus)):
            yield (
                GPU_SPLIT,
                {
                    "strategy": "priorityOrder" if self.split_strategy == "favorMainGpu" else "evenly",
                    "disabledGpus": self.disabled_gpus or [],
                    "priority": [] if self.main_gpu is None else [self.main_gpu],
                    "customRatio": [],
                },
            )

    @classmethod
    def take_from(cls, fields: dict[str, Any], prefix: str) -> "GpuSetting | None":
        """Take the setting out of wire fields; a custom split cannot be expressed and stays there."""
        gpu: dict[str, Any] = {}
        for name, key in _GPU_RATIOS[prefix].items():
            if key in fields:
                gpu[name] = fields.pop(key)
        split = fields.get(GPU_SPLIT)
        strategy = _STRATEGIES.get(str(split.get("strategy"))) if is_object(split) else None
        if is_object(split) and strategy is not None:
            del fields[GPU_SPLIT]
            priority = split.get("priority")
            gpu["split_strategy"] = strategy
            gpu["disabled_gpus"] = split.get("disabledGpus") or []
            if is_list(priority) and priority:
                gpu["main_gpu"] = priority[0]
        try:
            return cls(**gpu) if gpu else None
        except LMStudioValueError:
            return None


class LoadSettings(Settings):
    """Settings that act when a model is loaded."""

    prefix: ClassVar[str]
    gpu: GpuSetting | None = None

    def to_fields(self) -> dict[str, Any]:
        """Return the wire fields of the settings that are set."""
        return super().to_fields() | dict(self.gpu.to_fields(self.prefix) if self.gpu else ())

    @classmethod
    def _check_names(cls, fields: Mapping[str, Any]) -> None:
        super()._check_names(fields)
        gpu = fields.get("gpu")
        if is_object(gpu):
            check_names(gpu, GpuSetting)

    @classmethod
    def _take(cls, fields: dict[str, Any]) -> dict[str, Any]:
        gpu = GpuSetting.take_from(fields, cls.prefix)
        return super()._take(fields) | ({"gpu": gpu} if gpu else {})


class EmbeddingLoadModelConfig(LoadSettings):
    """How to load an embedding model. A setting only acts when the call really loads."""

    prefix: ClassVar[str] = "embedding.load"

    @field_validator("gpu")
    @classmethod
    def _has_no_experts(cls, gpu: GpuSetting | None) -> GpuSetting | None:
        if gpu is not None and gpu.num_cpu_expert_layers_ratio is not None:
            raise ValueError("num_cpu_expert_layers_ratio is a setting of language models only; leave it unset")
        return gpu

    context_length: Annotated[Count | None, Kv("embedding.load.contextLength")] = None
    rope_frequency_base: Annotated[
        OrOff[Float] | None, Kv("embedding.load.llama.ropeFrequencyBase", checkbox=True, off=0)
    ] = None
    rope_frequency_scale: Annotated[
        OrOff[Float] | None, Kv("embedding.load.llama.ropeFrequencyScale", checkbox=True, off=0)
    ] = None
    keep_model_in_memory: Annotated[bool | None, Kv("embedding.load.llama.keepModelInMemory")] = None
    try_mmap: Annotated[bool | None, Kv("embedding.load.llama.tryMmap")] = None


class LlmLoadModelConfig(LoadSettings):
    """How to load a language model. A setting only acts when the call really loads.

    `context_length` is in tokens. `max_parallel_predictions` is the number of predictions that run at once;
    further ones queue on the server.
    """

    prefix: ClassVar[str] = "llm.load"

    gpu_strict_vram_cap: Annotated[bool | None, Kv("load.gpuStrictVramCap")] = None
    context_length: Annotated[Count | None, Kv("llm.load.contextLength")] = None
    seed: Annotated[OrOff[Int] | None, Kv("llm.load.seed", checkbox=True, off=0)] = None
    num_experts: Annotated[Int | None, Kv("llm.load.numExperts")] = None
    offload_kv_cache_to_gpu: Annotated[
        bool | None, Field(alias="offloadKVCacheToGpu"), Kv("llm.load.offloadKVCacheToGpu")
    ] = None
    max_parallel_predictions: Annotated[Int | None, Field(ge=1, le=1023), Kv("llm.load.numParallelSessions")] = None
    use_unified_kv_cache: Annotated[bool | None, Kv("llm.load.useUnifiedKvCache")] = None
    prompt_template: Annotated[WireDict | None, Kv("llm.load.promptTemplate")] = None
    auto_fit: Annotated[bool | None, Kv("llm.load.llama.autoFit")] = None
    eval_batch_size: Annotated[Count | None, Kv("llm.load.llama.evalBatchSize")] = None
    physical_batch_size: Annotated[Count | None, Kv("llm.load.llama.physicalBatchSize")] = None
    flash_attention: Annotated[bool | None, Kv("llm.load.llama.flashAttention")] = None
    context_checkpoints: Annotated[Int | None, Kv("llm.load.llama.contextCheckpoints")] = None
    reasoning_budget_message: Annotated[str | None, Kv("llm.load.llama.reasoningBudgetMessage")] = None
    rope_frequency_base: Annotated[
        OrOff[Float] | None, Kv("llm.load.llama.ropeFrequencyBase", checkbox=True, off=0)
    ] = None
    rope_frequency_scale: Annotated[
        OrOff[Float] | None, Kv("llm.load.llama.ropeFrequencyScale", checkbox=True, off=0)
    ] = None
    keep_model_in_memory: Annotated[bool | None, Kv("llm.load.llama.keepModelInMemory")] = None
    use_fp16_for_kv_cache: Annotated[
        bool | None, Field(alias="useFp16ForKVCache"), Kv("llm.load.llama.useFp16ForKVCache")
    ] = None
    try_mmap: Annotated[bool | None, Kv("llm.load.llama.tryMmap")] = None
    try_direct_io: Annotated[bool | None, Field(alias="tryDirectIO"), Kv("llm.load.llama.tryDirectIO")] = None
    llama_k_cache_quantization_type: Annotated[
        OrOff[CacheQuantization] | None,
        Field(alias="llamaKCacheQuantizationType"),
        Kv("llm.load.llama.kCacheQuantizationType", checkbox=True, off="f16"),
    ] = None
    llama_v_cache_quantization_type: Annotated[
        OrOff[CacheQuantization] | None,
        Field(alias="llamaVCacheQuantizationType"),
        Kv("llm.load.llama.vCacheQuantizationType", checkbox=True, off="f16"),
    ] = None
    speculative_draft_mtp: Annotated[bool | None, Kv("llm.load.llama.speculativeDecoding.draftMtp")] = None
    speculative_draft_simple: Annotated[bool | None, Kv("llm.load.llama.speculativeDecoding.draftSimple")] = None
    speculative_draft_model: Annotated[str | None, Kv("llm.load.llama.speculativeDecoding.draftModel")] = None
    speculative_draft_max_tokens: Annotated[
        Int | None, Field(ge=0), Kv("llm.load.llama.speculativeDecoding.draftMaxTokens")
    ] = None
    speculative_draft_min_tokens: Annotated[
        Int | None, Field(ge=0), Kv("llm.load.llama.speculativeDecoding.draftMinTokens")
    ] = None
    speculative_draft_min_continue_probability: Annotated[
        Fraction | None, Kv("llm.load.llama.speculativeDecoding.draftMinContinueProbability")
    ] = None
    mlx_disk_cache: Annotated[bool | None, Kv("llm.load.mlx.diskCache")] = None
    mlx_kv_cache_quantization: Annotated[
        OrOff[WireDict] | None, Kv("llm.load.mlx.kvCacheQuantization", off=_MLX_CACHE_OFF)
    ] = None

    def to_fields(self) -> dict[str, Any]:
        """Return the wire fields of the settings that are set. A way to draft switches the model's own ways off."""
        ways = (self.speculative_draft_mtp, self.speculative_draft_simple, self.speculative_draft_model)
        implied = {} if ways == (None, None, None) else _SIDECARS
        return implied | super().to_fields()

    def check_together(self) -> None:
        """Refuse draft settings that exclude each other, or lack one another."""
        least, most = self.speculative_draft_min_tokens, self.speculative_draft_max_tokens
        if self.speculative_draft_mtp and self.speculative_draft_simple:
            raise LMStudioValueError("speculative_draft_mtp and speculative_draft_simple exclude each other")
        if bool(self.speculative_draft_simple) != bool(self.speculative_draft_model):
            raise LMStudioValueError("speculative_draft_simple and speculative_draft_model need each other")
        if least is not None and most is not None and least > most:
            raise LMStudioValueError(
                f"speculative_draft_min_tokens={least} is more than speculative_draft_max_tokens={most}"
            )


class LlmPredictionConfig(Settings):
    """How to generate. What is not set is left to the preset, else to the server's defaults for the model.

    `False` switches a limit or a penalty off. `max_tokens` bounds the answer, in tokens. `draft_model` is the key of
    a smaller model for speculative decoding. `context_overflow_policy` says what happens when the window is full.
    """

    temperature: Annotated[Float | None, Field(ge=0), Kv("llm.prediction.temperature")] = None
    max_tokens: Annotated[OrOff[Count] | None, Kv("llm.prediction.maxPredictedTokens", checkbox=True, off=1)] = None
    context_overflow_policy: Annotated[
        Literal["stopAtLimit", "truncateMiddle", "rollingWindow"] | None,
        Kv("llm.prediction.contextOverflowPolicy"),
    ] = None
    stop_strings: Annotated[list[Annotated[str, Field(min_length=1)]] | None, Kv("llm.prediction.stopStrings")] = None
    tool_call_stop_strings: Annotated[
        list[Annotated[str, Field(min_length=1)]] | None, Kv("llm.prediction.toolCallStopStrings")
    ] = None
    structured: Annotated[WireDict | None, Kv("llm.prediction.structured")] = None
    raw_tools: Annotated[dict[str, Any] | None, Kv("llm.prediction.tools")] = None
    tool_choice: Annotated[WireDict | None, Kv("llm.prediction.toolChoice")] = None
    tool_naming: Annotated[
        Literal["passThrough", "removeSpecial", "snakeCase", "camelCase"] | None,
        Kv("llm.prediction.toolNaming"),
    ] = None
    top_k_sampling: Annotated[Int | None, Field(ge=-1, le=500), Kv("llm.prediction.topKSampling")] = None
    top_p_sampling: Annotated[OrOff[Fraction] | None, Kv("llm.prediction.topPSampling", checkbox=True, off=0.95)] = None
    min_p_sampling: Annotated[OrOff[Fraction] | None, Kv("llm.prediction.minPSampling", checkbox=True, off=0.05)] = None
    repeat_penalty: Annotated[OrOff[Float] | None, Kv("llm.prediction.repeatPenalty", checkbox=True, off=1.1)] = None
    presence_penalty: Annotated[
        OrOff[Float] | None, Kv("llm.prediction.llama.presencePenalty", checkbox=True, off=0)
    ] = None
    frequency_penalty: Annotated[
        OrOff[Float] | None, Kv("llm.prediction.llama.frequencyPenalty", checkbox=True, off=0)
    ] = None
    xtc_probability: Annotated[
        OrOff[Fraction] | None, Kv("llm.prediction.llama.xtcProbability", checkbox=True, off=0.5)
    ] = None
    xtc_threshold: Annotated[
        OrOff[Fraction] | None, Kv("llm.prediction.llama.xtcThreshold", checkbox=True, off=0.1)
    ] = None
    log_probs: Annotated[OrOff[LogProbs] | None, Kv("llm.prediction.logProbs", checkbox=True, off=0)] = None
    seed: Annotated[OrOff[Int] | None, Kv("llm.prediction.seed", checkbox=True, off=0)] = None
    prompt_template: Annotated[WireDict | None, Kv("llm.prediction.promptTemplate")] = None
    reasoning_parsing: Annotated[WireDict | None, Kv("llm.prediction.reasoning.parsing")] = None
    enable_thinking: Annotated[bool | None, Kv("llm.prediction.reasoning.enableThinking")] = None
    reasoning_budget: Annotated[
        OrOff[Natural] | None,
        Kv("llm.prediction.reasoning.budgetTokens", checkbox=True, off=1024),
    ] = None
    user_max_image_dimension_pixels: Annotated[
        OrOff[Count] | None, Kv("llm.prediction.vision.userMaxImageDimensionPixels", checkbox=True, off=1024)
    ] = None
    ignore_model_preferred_max_image_dimension: Annotated[
        bool | None, Kv("llm.prediction.vision.ignoreModelPreferredMaxImageDimension")
    ] = None
    draft_model: Annotated[str | None, Kv("llm.prediction.speculativeDecoding.draftModel")] = None
    speculative_decoding_min_draft_length_to_consider: Annotated[
        Int | None, Kv("llm.prediction.speculativeDecoding.minDraftLengthToConsider")
    ] = None
    speculative_decoding_min_continue_drafting_probability: Annotated[
        Fraction | None, Kv("llm.prediction.speculativeDecoding.minContinueDraftingProbability")
    ] = None
    speculative_decoding_num_draft_tokens_exact: Annotated[
        Int | None, Kv("llm.prediction.speculativeDecoding.numDraftTokensExact")
    ] = None
    cpu_threads: Annotated[Count | None, Kv("llm.prediction.llama.cpuThreads")] = None


class GpuSettingDict(TypedDict, total=False):
    """`GpuSetting` as a dict."""

    ratio: float | Literal["max", "off"]
    numCpuExpertLayersRatio: float | Literal["max", "off"]
    mainGpu: int
    splitStrategy: Literal["evenly", "favorMainGpu"]
    disabledGpus: list[int]


class EmbeddingLoadModelConfigDict(TypedDict, total=False):
    """`EmbeddingLoadModelConfig` as a dict."""

    raw: dict[str, Any]
    gpu: GpuSettingDict
    contextLength: int
    ropeFrequencyBase: float | Literal[False]
    ropeFrequencyScale: float | Literal[False]
    keepModelInMemory: bool
    tryMmap: bool


class LlmLoadModelConfigDict(TypedDict, total=False):
    """`LlmLoadModelConfig` as a dict."""

    raw: dict[str, Any]
    gpu: GpuSettingDict
    gpuStrictVramCap: bool
    contextLength: int
    seed: int | Literal[False]
    numExperts: int
    offloadKVCacheToGpu: bool
    maxParallelPredictions: int
    useUnifiedKvCache: bool
    promptTemplate: dict[str, Any]
    autoFit: bool
    evalBatchSize: int
    physicalBatchSize: int
    flashAttention: bool
    contextCheckpoints: int
    reasoningBudgetMessage: str
    ropeFrequencyBase: float | Literal[False]
    ropeFrequencyScale: float | Literal[False]
    keepModelInMemory: bool
    useFp16ForKVCache: bool
    tryMmap: bool
    tryDirectIO: bool
    llamaKCacheQuantizationType: CacheQuantization | Literal[False]
    llamaVCacheQuantizationType: CacheQuantization | Literal[False]
    speculativeDraftMtp: bool
    speculativeDraftSimple: bool
    speculativeDraftModel: str
    speculativeDraftMaxTokens: int
    speculativeDraftMinTokens: int
    speculativeDraftMinContinueProbability: float
    mlxDiskCache: bool
    mlxKvCacheQuantization: dict[str, Any] | Literal[False]


class LlmPredictionConfigDict(TypedDict, total=False):
    """`LlmPredictionConfig` as a dict."""

    raw: dict[str, Any]
    temperature: float
    maxTokens: int | Literal[False]
    contextOverflowPolicy: Literal["stopAtLimit", "truncateMiddle", "rollingWindow"]
    stopStrings: list[str]
    toolCallStopStrings: list[str]
    structured: dict[str, Any]
    rawTools: dict[str, Any]
    toolChoice: dict[str, Any]
    toolNaming: Literal["passThrough", "removeSpecial", "snakeCase", "camelCase"]
    topKSampling: int
    topPSampling: float | Literal[False]
    minPSampling: float | Literal[False]
    repeatPenalty: float | Literal[False]
    presencePenalty: float | Literal[False]
    frequencyPenalty: float | Literal[False]
    xtcProbability: float | Literal[False]
    xtcThreshold: float | Literal[False]
    logProbs: int | Literal[False]
    seed: int | Literal[False]
    promptTemplate: dict[str, Any]
    reasoningParsing: dict[str, Any]
    enableThinking: bool
    reasoningBudget: int | Literal[False]
    userMaxImageDimensionPixels: int | Literal[False]
    ignoreModelPreferredMaxImageDimension: bool
    draftModel: str
    speculativeDecodingMinDraftLengthToConsider: int
    speculativeDecodingMinContinueDraftingProbability: float
    speculativeDecodingNumDraftTokensExact: int
    cpuThreads: int
