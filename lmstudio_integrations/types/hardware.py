"""The hardware of a server's own machine, as its engines see it. See `docs/protocol.md#runtime-endpoints`."""

import math

from pydantic import Field

from lmstudio_integrations.types._wire_model import WireModel


class MemoryInfo(WireModel):
    """How many bytes of memory an engine can use: of the machine, of its GPUs, and the sum of both.

    The memory of an integrated GPU is a part of that of the machine, and yet counts twice in the sum.
    """

    ram_capacity: int | float = 0
    vram_capacity: int | float = 0
    total_memory: int | float


class SurveyResult(WireModel):
    """Whether a survey succeeded. `code` is `success`, `error`, `noDevicesFound`, `invalidDevice` or `unset`."""

    code: str
    message: str = ""

    @property
    def is_failure(self) -> bool:
        """Whether something could not be queried; a machine without a GPU is no failure."""
        return self.code.lower() in {"error", "invaliddevice"}


class GpuInfo(WireModel):
    """A GPU. `device_id` is its number in `disabled_gpus`. What the server cannot find out is 0 or `unknown`."""

    name: str = "unknown"
    device_id: int | None = None
    total_memory_capacity_bytes: int | float = 0
    dedicated_memory_capacity_bytes: int | float = 0
    integration_type: str = "unknown"
    detection_platform: str = "unknown"

    @property
    def is_integrated(self) -> bool:
        """Whether its memory is a part of the machine's."""
        return self.integration_type.lower() == "integrated"


class GpuSurvey(WireModel):
    """The GPUs that an engine can use."""

    result: SurveyResult | None = None
    gpu_info: tuple[GpuInfo, ...] = ()


class CpuInfo(WireModel):
    """The processor."""

    name: str | None = None
    architecture: str = "unknown"
    supported_instruction_set_extensions: tuple[str, ...] = ()


class CpuSurvey(WireModel):
    """The processor that an engine uses."""

    result: SurveyResult | None = None
    cpu_info: CpuInfo | None = None


class EngineHardware(WireModel):
    """What an engine has found of the hardware."""

    gpu_survey_result: GpuSurvey = Field(default_factory=GpuSurvey)
    cpu_survey_result: CpuSurvey = Field(default_factory=CpuSurvey)


class EngineCompatibility(WireModel):
    """Whether an engine can run on the machine: `status` is `compatible`, or says why not."""

    status: str
    message: str = ""


class EngineSurvey(WireModel):
    """An engine of the server, and the hardware that it can use."""

    name: str
    version: str = ""
    supported_model_format_names: tuple[str, ...] = ()
    compatibility: EngineCompatibility | None = None
    hardware_survey: EngineHardware = Field(default_factory=EngineHardware)
    memory_info: MemoryInfo | None = None

    @property
    def memory_bytes(self) -> int | None:
        """The memory for models, in bytes, with that of an integrated GPU counted once; `None` if it is not known."""
        memory = self.memory_info
        if memory is None or not 0 < memory.total_memory < math.inf:
            return None
        is_sum = memory.total_memory >= memory.ram_capacity + memory.vram_capacity
        return int(memory.total_memory - (self._shared_bytes(memory.vram_capacity) if is_sum else 0))

    def _shared_bytes(self, vram: float) -> int | float:
        """Return how much of the memory of the GPUs is a part of that of the machine."""
        gpus = self.hardware_survey.gpu_survey_result.gpu_info
        own = [
            gpu.dedicated_memory_capacity_bytes or gpu.total_memory_capacity_bytes
            for gpu in gpus
            if not gpu.is_integrated
        ]
        return max(0, vram - sum(own)) if len(own) < len(gpus) else 0

    @property
    def problems(self) -> list[str]:
        """What the engine could not find out, or why it cannot run, in the server's words."""
        surveyed = self.hardware_survey
        results = {"GPUs": surveyed.gpu_survey_result.result, "CPU": surveyed.cpu_survey_result.result}
        found = [f"{what}: {each.message or each.code}" for what, each in results.items() if each and each.is_failure]
        fit = self.compatibility
        return found if fit is None or fit.status.lower() == "compatible" else [fit.message or fit.status, *found]


class HardwareSurvey(WireModel):
    """The hardware of the server's own machine, as its selected engines see it.

    `status` is `ok` or `noCompatibleBackends`.
    """

    status: str
    engines: tuple[EngineSurvey, ...] = ()

    @property
    def memory_bytes(self) -> int | None:
        """The memory for models, in bytes: the most that an engine can use; `None` if no engine says it."""
        return max(filter(None, (engine.memory_bytes for engine in self.engines)), default=None)

    @property
    def gpus(self) -> list[GpuInfo]:
        """The GPUs that any engine can use, each once."""
        found = {
            (gpu.name, gpu.device_id): gpu
            for engine in self.engines
            for gpu in engine.hardware_survey.gpu_survey_result.gpu_info
        }
        return list(found.values())

    @property
    def problems(self) -> list[str]:
        """What the engines could not find out, each with the engine's name and the reason, in the server's words."""
        found = [f"{engine.name}: {problem}" for engine in self.engines for problem in engine.problems]
        return list(dict.fromkeys(found))
