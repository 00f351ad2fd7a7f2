"""Load and prediction settings: names, bounds, meaning and wire keys.

Each setting is one field. Its annotation holds the wire key and the encoding, which `_config_base.py` applies without
knowing a single setting. The client and the emulator read and write these configs; the adapters of the frameworks share
those of `_prediction_settings.py`. `config_dicts.py` is generated from the fields.

The keys are listed in `docs/protocol.md#load-keys` and `docs/protocol.md#prediction-keys`.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from lmstudio_integrations._support.typeguards import is_count, is_object
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._config_base import (
    Settings,
    WireDict,
    WireKey,
    reject_unknown_names,
    unchecked,
    wire_keys,
)
from lmstudio_integrations.types._numbers import Count, Float, Fraction, LogProbs, Natural, OrOff, Seed
from lmstudio_integrations.types._prediction_settings import MinP, NativePredictionSettings, Stop, TopK, TopP
from lmstudio_integrations.types.gpu import GPU_SPLIT, GpuSetting

ModelKind = Literal["llm", "embedding", "decision"]
"""The kinds of model that this package handles; each has a namespace of its name."""

LoadPolicy = Literal["get_or_load", "explicit", "fit", "fit_any", "require_loaded", "new_instance"]
"""How a model is found or loaded.

`get_or_load` uses a loaded instance, else loads one just in time, which other just-in-time loads may evict. `explicit`
uses a loaded instance, else loads one that no just-in-time load evicts. `fit` does the same, after it has evicted what
must go for it, of what is idle and has a TTL; `fit_any` evicts what has none as well. `require_loaded` never loads.
`new_instance` always loads.
"""

Evict = Literal["own", "any"]
"""What a plan may evict, if it is idle: what has a TTL (`own`), or anything."""

OnConfigMismatch = Literal["warn", "raise", "ignore"]
"""What to do when the loaded model has other load settings than requested."""

CUSTOM_FIELDS = "ext.virtualModel.customField"
"""How the keys of the custom fields of models begin; the owner, the model and the field follow."""

_MLX_CACHE_OFF = {"enabled": False, "bits": 8, "groupSize": 64, "quantizedStart": 5000}
_SPECULATIVE = "llm.load.llama.speculativeDecoding"
_SIDECARS_OFF = dict.fromkeys(
    (f"{_SPECULATIVE}.{name}" for name in ("draftDflashSidecar", "draftDsparkSidecar", "draftMtpSidecar")), False
)
"""Drafting that a model's defaults may switch on. LM Studio's clients send these with any draft setting."""
_AUTO_FIT = tuple(f"llm.load.{engine}.autoFit" for engine in ("llama", "mlx", "yuzu", "vllm"))
_MANUAL = ("context_length", "gpu_strict_vram_cap")
_MANUAL_GPU = ("ratio", "num_cpu_expert_layers_ratio", "main_gpu", "split_strategy")
"""What `auto_fit` chooses. LM Studio's clients switch it off with any of these."""
CONFIG_FILE, CONFIG_FOLDER = "llm.load.engineConfigFileContents", "llm.load.engineCwd"
"""A configuration file of the vLLM engine, and the folder of what it names. They belong to one machine."""
_IGNORED_WITH_FILE = ("auto_fit", "max_parallel_predictions")
"""What LM Studio's clients do not report of an engine that has a configuration file."""


CacheQuantization = Literal["f32", "f16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"]


class LoadSettings(Settings):
    """Settings that take effect when a model is loaded, those that every kind of model has."""

    gpu: Annotated[GpuSetting | None, Field(description="How the model is spread across the GPUs.")] = None
    context_length: Annotated[
        Count | None,
        Field(description="Context length in tokens. If unset, the server's default for the model applies."),
        WireKey(".contextLength"),
    ] = None
    seed: Annotated[
        OrOff[Seed] | None,
        Field(description="Seed for random numbers, such as those of sampling. `False` picks a random seed."),
        WireKey(".seed", checkbox=True, off=0, default=unchecked(-1)),
    ] = None
    eval_batch_size: Annotated[
        Count | None,
        Field(description="How many prompt tokens are processed in one step. LM Studio's default is 2,048."),
        WireKey(".llama.evalBatchSize", default=2048),
    ] = None
    rope_frequency_base: Annotated[
        OrOff[Annotated[Float, Field(ge=0)]] | None,
        Field(description="Base frequency of the rotary position embeddings (RoPE). `False` uses the model's own."),
        WireKey(".llama.ropeFrequencyBase", checkbox=True, off=0, default=unchecked(0)),
    ] = None
    rope_frequency_scale: Annotated[
        OrOff[Annotated[Float, Field(ge=0)]] | None,
        Field(
            description="Scaling factor for the RoPE frequencies, which allows longer contexts. `False` uses the "
            "model's own."
        ),
        WireKey(".llama.ropeFrequencyScale", checkbox=True, off=0, default=unchecked(0)),
    ] = None
    keep_model_in_memory: Annotated[
        bool | None,
        Field(description="Whether to keep the system from swapping the model to disk. LM Studio's default is `True`."),
        WireKey(".llama.keepModelInMemory", default=True),
    ] = None
    try_mmap: Annotated[
        bool | None,
        Field(description="Whether to map the model's file into memory, if possible. LM Studio's default is `True`."),
        WireKey(".llama.tryMmap", default=True),
    ] = None

    def to_fields(self) -> dict[str, Any]:
        """Return the wire fields to send: those of the settings that are set, and those that they imply."""
        return self.implied_fields() | self.set_fields()

    def set_fields(self) -> dict[str, Any]:
        """Return the wire fields of the settings that are set."""
        return super().to_fields() | dict(self.gpu.to_fields(self.prefix) if self.gpu else ())

    def implied_fields(self) -> dict[str, Any]:
        """Return the wire fields that accompany the settings that are set, unless these or `raw` contain them."""
        return {}

    @classmethod
    def _reject_unknown_names(cls, fields: Mapping[str, Any]) -> None:
        super()._reject_unknown_names(fields)
        gpu = fields.get("gpu")
        if is_object(gpu):
            reject_unknown_names(gpu, GpuSetting)

    @classmethod
    def _pop_values(cls, fields: dict[str, Any]) -> dict[str, Any]:
        gpu = GpuSetting.pop_from(fields, cls.prefix)
        return super()._pop_values(fields) | ({"gpu": gpu} if gpu else {})


class EmbeddingLoadModelConfig(LoadSettings):
    """How to load an embedding model. Takes effect only if the call loads the model.

    If a setting is unset, the server's default for the model applies.
    """

    prefix: ClassVar[str] = "embedding.load"

    @field_validator("gpu")
    @classmethod
    def _has_no_experts(cls, gpu: GpuSetting | None) -> GpuSetting | None:
        if gpu is not None and gpu.num_cpu_expert_layers_ratio is not None:
            raise ValueError("num_cpu_expert_layers_ratio is a setting of language models only; leave it unset")
        return gpu


class GenerativeLoadSettings(LoadSettings):
    """The load settings that language models and decision models have."""

    gpu_strict_vram_cap: Annotated[
        bool | None,
        Field(description="Whether to use dedicated GPU memory only. LM Studio's default is `False`."),
        WireKey("load.gpuStrictVramCap"),
    ] = None
    num_experts: Annotated[
        Natural | None,
        Field(
            description="How many experts of a mixture-of-experts model run for each token. 0 leaves it to the model."
        ),
        WireKey(".numExperts", default=0),
    ] = None
    offload_kv_cache_to_gpu: Annotated[
        bool | None,
        Field(
            alias="offloadKVCacheToGpu",
            description="Whether to keep the key-value cache in GPU memory. LM Studio's default is `True`.",
        ),
        WireKey(".offloadKVCacheToGpu", default=True),
    ] = None
    max_parallel_predictions: Annotated[
        Count | None,
        Field(
            le=1023,
            description="How many predictions run at once, from 1 to 1,023; further ones queue. LM Studio's default "
            "is 4.",
        ),
        WireKey(".numParallelSessions"),
    ] = None
    use_unified_kv_cache: Annotated[
        bool | None,
        Field(description="Whether parallel predictions share one key-value cache. LM Studio's default is `True`."),
        WireKey(".useUnifiedKvCache", default=True),
    ] = None
    auto_fit: Annotated[
        bool | None,
        Field(
            description="Whether the server chooses the context length and the use of GPUs so that the model fits. "
            "LM Studio's default is `True`. Setting `context_length`, `gpu_strict_vram_cap` or part of `gpu` (except "
            "`disabled_gpus`) turns it off."
        ),
        WireKey(".llama.autoFit"),
    ] = None
    auto_fit_min_context_length: Annotated[
        Natural | None,
        Field(
            description="The shortest context length that `auto_fit` may choose, in tokens. LM Studio's default is "
            "0, which allows any."
        ),
        WireKey(".autoFitMinContextLength", default=0),
    ] = None
    physical_batch_size: Annotated[
        Count | None,
        Field(
            description="How many tokens of each step are computed at once; see `eval_batch_size`. LM Studio's "
            "default is 512."
        ),
        WireKey(".llama.physicalBatchSize"),
    ] = None
    flash_attention: Annotated[
        bool | None,
        Field(description="Whether to use flash attention, which is faster and needs less memory."),
        WireKey(".llama.flashAttention", default=True),
    ] = None
    use_fp16_for_kv_cache: Annotated[
        bool | None,
        Field(
            alias="useFp16ForKVCache",
            description="Whether to store the key-value cache as 16-bit numbers. LM Studio's default is `True`.",
        ),
        WireKey(".llama.useFp16ForKVCache", default=True),
    ] = None
    try_direct_io: Annotated[
        bool | None,
        Field(
            alias="tryDirectIO",
            description="Whether to read the model's file without the system's cache (direct I/O), if possible.",
        ),
        WireKey(".llama.tryDirectIO"),
    ] = None
    llama_cpp_arguments_override: Annotated[
        WireDict | None,
        Field(
            description="Changes the arguments of llama.cpp's server, if `enabled`. `disabled_parameters` lists "
            "those of LM Studio to omit (`exclude_all_config` omits all), and `override_parameters` lists dicts with "
            "`key` and `value` to append."
        ),
        WireKey(".llama.argumentsOverride"),
    ] = None
    llama_k_cache_quantization_type: Annotated[
        OrOff[CacheQuantization] | None,
        Field(
            alias="llamaKCacheQuantizationType",
            description="Number type of the keys in the cache. `False` leaves them unquantized.",
        ),
        WireKey(".llama.kCacheQuantizationType", checkbox=True, off="f16", default=unchecked("f16")),
    ] = None
    llama_v_cache_quantization_type: Annotated[
        OrOff[CacheQuantization] | None,
        Field(
            alias="llamaVCacheQuantizationType",
            description="Number type of the values in the cache. `False` leaves them unquantized.",
        ),
        WireKey(".llama.vCacheQuantizationType", checkbox=True, off="f16", default=unchecked("f16")),
    ] = None

    def implied_fields(self) -> dict[str, Any]:
        """Return the wire fields that accompany the settings that are set, unless these or `raw` contain them.

        Any setting that `auto_fit` would choose switches that off.
        """
        fit = wire_keys(type(self))["auto_fit"]
        return dict.fromkeys((fit.key, *fit.copies) if self._manual_settings() else (), False)

    def _manual_settings(self) -> list[str]:
        """Return what is set of that which `auto_fit` chooses."""
        settings = [(name, getattr(self, name)) for name in _MANUAL]
        settings += [(f"gpu.{name}", getattr(self.gpu, name)) for name in _MANUAL_GPU if self.gpu]
        return [f"{name}={value!r}" for name, value in settings if value is not None]

    def check_together(self) -> None:
        """Reject settings that exclude each other."""
        if self.auto_fit and (manual := self._manual_settings()):
            raise LMStudioValueError(f"auto_fit=True excludes {', '.join(manual)}; unset auto_fit, or the others")

    @classmethod
    def _in_effect(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Leave out what `auto_fit` has chosen, in place of what is in the fields; of the GPUs, it takes the disabled.

        So the settings of a loaded model can be used to load another.
        """
        if not values.get("auto_fit"):
            return values
        values = {name: value for name, value in values.items() if name not in _MANUAL}
        gpu, raw = values.pop("gpu", None), dict(values.pop("raw", {}))
        split = raw.pop(GPU_SPLIT, None)
        if is_object(split):  # in a way that has no name here, which does not matter now
            gpu = GpuSetting.pop_from({GPU_SPLIT: {**split, "strategy": "evenly"}}, cls.prefix)
        if gpu is not None and gpu.disabled_gpus is not None:
            values["gpu"] = GpuSetting(disabled_gpus=gpu.disabled_gpus)
        return {**values, "raw": raw} if raw else values


class DecisionLoadModelConfig(GenerativeLoadSettings):
    """How to load a decision model. Takes effect only if the call loads the model.

    If a setting is unset, the server's default for the model applies.
    """

    prefix: ClassVar[str] = "decision.load"


class LlmLoadModelConfig(GenerativeLoadSettings):
    """How to load a language model. Takes effect only if the call loads the model.

    If a setting is unset, the server's default for the model applies.
    """

    prefix: ClassVar[str] = "llm.load"

    auto_fit: Annotated[
        bool | None,
        Field(
            description="Whether the server chooses the context length and the use of GPUs so that the model fits. "
            "LM Studio's default is `True`. Setting `context_length`, `gpu_strict_vram_cap` or part of `gpu` (except "
            "`disabled_gpus`) turns it off."
        ),
        WireKey(_AUTO_FIT[0], copies=_AUTO_FIT[1:]),
    ] = None
    prompt_template: Annotated[
        WireDict | None,
        Field(description="Prompt template, as LM Studio's API defines it. If unset, the model's own is used."),
        WireKey("llm.load.promptTemplate"),
    ] = None
    cpu_thread_pool_size: Annotated[
        Count | None,
        Field(description="How many threads the engine computes with on the CPU. LM Studio's default is 4."),
        WireKey("llm.load.llama.cpuThreadPoolSize"),
    ] = None
    context_checkpoints: Annotated[
        Natural | None,
        Field(description="How many checkpoints of a context are kept for reuse. LM Studio's default is 32."),
        WireKey("llm.load.llama.contextCheckpoints"),
    ] = None
    reasoning_budget_message: Annotated[
        str | None,
        Field(description="Text that ends the reasoning when `reasoning_budget` is used up. None by default."),
        WireKey("llm.load.llama.reasoningBudgetMessage"),
    ] = None
    speculative_draft_mtp: Annotated[
        bool | None,
        Field(description="Whether a model that was trained for it predicts several tokens at once (MTP)."),
        WireKey("llm.load.llama.speculativeDecoding.draftMtp"),
    ] = None
    speculative_draft_simple: Annotated[
        bool | None,
        Field(description="Whether `speculative_draft_model` drafts tokens. Set both settings or neither."),
        WireKey("llm.load.llama.speculativeDecoding.draftSimple"),
    ] = None
    speculative_draft_mtp_sidecar: Annotated[
        bool | None,
        Field(
            description="Whether the part of the model that predicts several tokens (MTP), in a file of its own, "
            "drafts tokens."
        ),
        WireKey("llm.load.llama.speculativeDecoding.draftMtpSidecar"),
    ] = None
    speculative_draft_dflash_sidecar: Annotated[
        bool | None,
        Field(description="Whether the model's DFlash drafter, in a file of its own, drafts tokens."),
        WireKey("llm.load.llama.speculativeDecoding.draftDflashSidecar"),
    ] = None
    speculative_draft_dspark_sidecar: Annotated[
        bool | None,
        Field(description="Whether the model's DSpark drafter, in a file of its own, drafts tokens."),
        WireKey("llm.load.llama.speculativeDecoding.draftDsparkSidecar"),
    ] = None
    speculative_draft_model: Annotated[
        str | None,
        Field(description="Key of the smaller model that drafts tokens."),
        WireKey("llm.load.llama.speculativeDecoding.draftModel"),
    ] = None
    speculative_draft_max_tokens: Annotated[
        Natural | None,
        Field(description="The maximum length of a draft, in tokens. LM Studio's default is 3."),
        WireKey("llm.load.llama.speculativeDecoding.draftMaxTokens"),
    ] = None
    speculative_draft_min_tokens: Annotated[
        Natural | None,
        Field(description="The minimum length of a draft, in tokens. LM Studio's default is 0."),
        WireKey("llm.load.llama.speculativeDecoding.draftMinTokens"),
    ] = None
    speculative_draft_min_continue_probability: Annotated[
        Fraction | None,
        Field(
            description="Drafting stops at a token that is less probable than this, from 0 to 1. LM Studio's default "
            "is 0."
        ),
        WireKey("llm.load.llama.speculativeDecoding.draftMinContinueProbability"),
    ] = None
    mlx_disk_cache: Annotated[
        bool | None,
        Field(description="Whether the MLX engine caches prompts on disk. LM Studio's default is `True`."),
        WireKey("llm.load.mlx.diskCache"),
    ] = None
    mlx_kv_cache_quantization: Annotated[
        OrOff[WireDict] | None,
        Field(
            description="How the MLX engine quantizes its cache: a dict with `enabled`, `bits`, `group_size` and "
            "`quantized_start`. `False` turns it off."
        ),
        WireKey("llm.load.mlx.kvCacheQuantization", off=_MLX_CACHE_OFF),
    ] = None
    engine_config_file_contents: Annotated[
        str | None,
        Field(
            description="Configuration file of the vLLM engine, as YAML text. The engine is started by it, and ignores "
            "other load settings, such as `auto_fit` and `max_parallel_predictions`. An empty string turns that off."
        ),
        WireKey(CONFIG_FILE),
    ] = None
    engine_cwd: Annotated[
        str | None,
        Field(
            description="Folder on the server in which the vLLM engine looks for the files that its configuration file "
            "names. An empty string leaves it to LM Studio."
        ),
        WireKey(CONFIG_FOLDER),
    ] = None

    def implied_fields(self) -> dict[str, Any]:
        """Return the wire fields that accompany the settings that are set, unless these or `raw` contain them.

        Any setting that chooses how to draft also switches off the drafting of the model's own defaults, but for what
        is set itself.
        """
        selectors = (self.speculative_draft_mtp, self.speculative_draft_simple, self.speculative_draft_model)
        sidecars = {} if selectors == (None, None, None) else _SIDECARS_OFF
        return sidecars | super().implied_fields()

    @classmethod
    def _in_effect(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Leave out what the engine ignores as well, if it has a configuration file."""
        if values.get("engine_config_file_contents"):
            values = {name: value for name, value in values.items() if name not in _IGNORED_WITH_FILE}
        return super()._in_effect(values)

    def check_together(self) -> None:
        """Reject settings that exclude each other, or that need one another."""
        super().check_together()
        least, most = self.speculative_draft_min_tokens, self.speculative_draft_max_tokens
        if self.speculative_draft_mtp and self.speculative_draft_simple:
            raise LMStudioValueError("speculative_draft_mtp and speculative_draft_simple exclude each other")
        if bool(self.speculative_draft_simple) != bool(self.speculative_draft_model):
            raise LMStudioValueError("speculative_draft_simple and speculative_draft_model need each other")
        if least is not None and most is not None and least > most:
            raise LMStudioValueError(
                f"speculative_draft_min_tokens={least} is more than speculative_draft_max_tokens={most}"
            )


LOAD_CONFIGS: Mapping[
    ModelKind, type[LlmLoadModelConfig] | type[EmbeddingLoadModelConfig] | type[DecisionLoadModelConfig]
] = {
    "llm": LlmLoadModelConfig,
    "embedding": EmbeddingLoadModelConfig,
    "decision": DecisionLoadModelConfig,
}
"""The load settings of each kind of model."""


class LlmPredictionConfig(NativePredictionSettings, Settings):
    """How to generate. If a setting is unset, the preset's applies, else the server's default for the model.

    `False` turns a limit or a penalty off.
    """

    context_overflow_policy: Annotated[
        Literal["stopAtLimit", "truncateMiddle", "rollingWindow"] | None,
        Field(
            description="What happens when the context window is full. `stopAtLimit` ends the response, "
            "`rollingWindow` drops the beginning of the conversation, and `truncateMiddle`, LM Studio's default, "
            "drops its middle."
        ),
        WireKey("llm.prediction.contextOverflowPolicy", default="truncateMiddle"),
    ] = None
    stop_strings: Stop = None
    structured: Annotated[
        WireDict | None,
        Field(
            description="Format of the response, as LM Studio's API defines it. Prefer `response_format`, which "
            "builds it."
        ),
        WireKey("llm.prediction.structured", default={"type": "none"}),
    ] = None
    raw_tools: Annotated[
        dict[str, Any] | None,
        Field(
            description="Tools that the model may call, as LM Studio's API defines them. `act` and the adapters "
            "build them."
        ),
        WireKey("llm.prediction.tools", default={"type": "none"}),
    ] = None
    tool_choice: Annotated[
        WireDict | None,
        Field(description="Whether the model calls a tool: a dict whose `mode` is `auto`, `none` or `required`."),
        WireKey("llm.prediction.toolChoice", default={"type": "generic", "mode": "auto"}),
    ] = None
    top_k_sampling: TopK = None
    top_p_sampling: TopP = None
    min_p_sampling: MinP = None
    log_probs: Annotated[
        OrOff[LogProbs] | None,
        Field(
            description="How many alternatives to report for each token, with their log-probabilities, from 0 to 100."
        ),
        WireKey("llm.prediction.logProbs", checkbox=True, off=0, default=unchecked(0)),
    ] = None
    prompt_template: Annotated[
        WireDict | None,
        Field(description="Prompt template, as LM Studio's API defines it. If unset, the loaded model's own is used."),
        WireKey("llm.prediction.promptTemplate"),
    ] = None


def switched_off(*kinds: Literal["filter", "penalty"]) -> dict[str, Any]:
    """Return the settings that switch off what changes the probabilities of tokens, by name."""
    return {name: False for name, wire_key in wire_keys(LlmPredictionConfig).items() if wire_key.changes in kinds}


PARALLEL_KEYS: Mapping[ModelKind, str] = {
    "llm": "llm.load.numParallelSessions",
    "embedding": "",
    "decision": "decision.load.numParallelSessions",
}
"""The load setting that says how many calls an instance runs at once. Embedding models have none."""

DEFAULT_PARALLEL: Mapping[ModelKind, int] = {"llm": 4, "embedding": 2, "decision": 4}
"""How many calls a host runs at once if it does not report it: LM Studio's default for models with slots. An embedding
model gets a batch of texts with each call, and the next batch should arrive before it has finished one."""

_MAX_PARALLEL = 1023
"""The bound of `LlmLoadModelConfig.max_parallel_predictions`."""


def slots_of(kind: ModelKind, fields: Mapping[str, object]) -> int | None:
    """Return how many calls an instance runs at once, by its load settings; the default if they do not say it.

    `None` if only the engine knows it, which has a configuration file: then the server queues, and nobody else.
    """
    if fields.get(CONFIG_FILE):
        return None
    parallel = fields.get(PARALLEL_KEYS[kind])
    return parallel if is_count(parallel) and 0 < parallel <= _MAX_PARALLEL else DEFAULT_PARALLEL[kind]


def total_of(slots: Sequence[int | None]) -> int | None:
    """Return how many calls several instances run at once; `None` if that is not known of one of them."""
    known = [each for each in slots if each is not None]
    return sum(known) if len(known) == len(slots) else None
