"""The machines of a server: devices that are linked to it, and its own hardware.

See `docs/protocol.md#repository-endpoints` and `docs/protocol.md#runtime-endpoints`.
"""

import math
from typing import Final

from pydantic import Field

from lmstudio_integrations.errors import LMStudioModelNotFoundError
from lmstudio_integrations.types._wire_model import WireModel

LOCAL: Final = "local"
"""Names the server's own machine, where a device is chosen."""


class LinkedDevice(WireModel):
    """Another machine of LM Link. `status` is `connected` or `disconnected`."""

    device_identifier: str
    device_name: str
    status: str

    @property
    def is_connected(self) -> bool:
        """Whether its models can be used now."""
        return self.status == "connected"


class LinkStatus(WireModel):
    """What a server knows of LM Link.

    `status` is `offline`, `starting`, `online` or `stopping`, `issues` say why it is offline. `device_identifier` and
    `device_name` are those of the server's own machine. `preferred_device_identifier` is the machine that the server
    chooses where a request names none.
    """

    status: str
    issues: tuple[str, ...] = ()
    peers: tuple[LinkedDevice, ...] = ()
    device_identifier: str | None = None
    device_name: str = ""
    preferred_device_identifier: str | None = None

    def identifier_of(self, device: str) -> str | None:
        """Return the identifier of a connected device; `None` is the server's own machine.

        Args:
            device: Its identifier or its name; an identifier comes first. `local` is the server's own machine.

        Raises:
            LMStudioModelNotFoundError: If there is none, or several have the name.
        """
        if device in {LOCAL, self.device_identifier} or (self.peers and device == self.device_name):
            return None
        named = [peer for peer in self.peers if device == peer.device_identifier] or [
            peer for peer in self.peers if device == peer.device_name
        ]
        connected = [peer.device_identifier for peer in named if peer.is_connected]
        if len(connected) == 1:
            return connected[0]
        if connected:
            listed = ", ".join(map(repr, connected))
            raise LMStudioModelNotFoundError(f"several devices are named {device!r}; name an identifier: {listed}")
        others = ", ".join(map(repr, [LOCAL, *(peer.device_name for peer in self.peers if peer.is_connected)]))
        problem = "is not connected" if named else "is not linked to this server"
        raise LMStudioModelNotFoundError(f"the device {device!r} {problem}; connected: {others}")

    def name_of(self, identifier: str) -> str:
        """Return the name of a device; its identifier if it is not linked.

        Args:
            identifier: Its identifier.
        """
        names = (peer.device_name for peer in self.peers if peer.device_identifier == identifier)
        return next(names, identifier)


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
