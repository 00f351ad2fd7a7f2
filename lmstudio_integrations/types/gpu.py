"""How a model is spread across GPUs: one of the load settings in `config.py`, and its wire keys."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._config_base import StrictInput
from lmstudio_integrations.types._numbers import Fraction, Int

GPU_SPLIT = "load.gpuSplitConfig"
_GPU_RATIOS = {
    "llm.load": {
        "ratio": "llm.load.llama.acceleration.offloadRatio",
        "num_cpu_expert_layers_ratio": "llm.load.numCpuExpertLayersRatio",
    },
    "embedding.load": {"ratio": "embedding.load.llama.acceleration.offloadRatio"},
    "decision.load": {
        "ratio": "decision.load.llama.acceleration.offloadRatio",
        "num_cpu_expert_layers_ratio": "decision.load.numCpuExpertLayersRatio",
    },
}
"""The ratios of `GpuSetting` with their wire keys, for each kind of model."""
_STRATEGIES = {"evenly": "evenly", "priorityOrder": "favorMainGpu"}

OffloadRatio = Fraction | Literal["max", "off"]


class GpuSetting(StrictInput):
    """How a model is spread across GPUs. If a setting is unset, the server decides."""

    ratio: Annotated[
        OffloadRatio | None,
        Field(description='Share of the layers on the GPUs, from 0 to 1, or `"max"` or `"off"`.'),
    ] = None
    num_cpu_expert_layers_ratio: Annotated[
        OffloadRatio | None,
        Field(
            description='Share of the expert layers that stay on the CPU, from 0 to 1, or `"max"` or `"off"`. For '
            "language models only."
        ),
    ] = None
    main_gpu: Annotated[Int | None, Field(description="Index of the preferred GPU.")] = None
    split_strategy: Annotated[
        Literal["evenly", "favorMainGpu"] | None,
        Field(
            description="How to split the layers across the GPUs. If unset, they are split evenly when `main_gpu` or "
            "`disabled_gpus` is set."
        ),
    ] = None
    disabled_gpus: Annotated[
        list[Int] | None,
        Field(
            description="Indexes of GPUs not to use. An empty list enables all, including those that the server has "
            "disabled."
        ),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _check_is_dict(cls, value: object) -> object:
        if isinstance(value, str | int | float):  # elsewhere, a number is that of layers
            is_ratio = value in {"max", "off"} or (isinstance(value, int | float) and 0 <= value <= 1)
            raise LMStudioValueError(f"must be a dict; write {{'ratio': {(value if is_ratio else 0.5)!r}}}")
        return value

    def to_fields(self, prefix: str) -> Iterator[tuple[str, Any]]:
        """Yield the wire fields. The split is sent only if part of it is set; an empty list counts."""
        for name, key in _GPU_RATIOS[prefix].items():
            if (ratio := getattr(self, name)) is not None:
                yield key, ratio
        if any(value is not None for value in (self.main_gpu, self.split_strategy, self.disabled_gpus)):
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
    def pop_from(cls, fields: dict[str, Any], prefix: str) -> "GpuSetting | None":
        """Pop the setting from wire fields. A custom split has no counterpart here and stays in them."""
        gpu: dict[str, Any] = {}
        for name, key in _GPU_RATIOS[prefix].items():
            if key in fields:
                gpu[name] = fields.pop(key)
        split = fields.get(GPU_SPLIT)
        strategy = _STRATEGIES.get(str(split.get("strategy"))) if is_object(split) else None
        if is_object(split) and strategy is not None:
            del fields[GPU_SPLIT]
            priority, disabled = split.get("priority"), split.get("disabledGpus")
            gpu["disabled_gpus"] = disabled or []
            # With disabled GPUs, "evenly" may also be what an unset strategy sent.
            if strategy == "favorMainGpu" or not disabled:
                gpu["split_strategy"] = strategy
            unused = disabled if is_list(disabled) else []
            if is_list(priority) and (used := [card for card in priority if card not in unused]):
                gpu["main_gpu"] = used[0]
        try:
            return cls(**gpu) if gpu else None
        except LMStudioValueError:
            return None
