"""The machines of a server: devices that are linked to it, and the hardware of its own.

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


class MemoryInfo(WireModel):
    """How many bytes of memory an engine can use: of the machine, of its GPUs, and in all."""

    ram_capacity: int | float
    vram_capacity: int | float
    total_memory: int | float


class GpuInfo(WireModel):
    """A GPU. `device_id` is its number in `disabled_gpus`."""

    name: str
    device_id: int | None = None
    total_memory_capacity_bytes: int | float = 0
    dedicated_memory_capacity_bytes: int | float = 0
    integration_type: str = "unknown"
    detection_platform: str = "unknown"


class GpuSurvey(WireModel):
    """The GPUs that an engine can use."""

    gpu_info: tuple[GpuInfo, ...] = ()


class CpuInfo(WireModel):
    """The processor."""

    name: str | None = None
    architecture: str = "unknown"
    supported_instruction_set_extensions: tuple[str, ...] = ()


class CpuSurvey(WireModel):
    """The processor that an engine uses."""

    cpu_info: CpuInfo | None = None


class EngineHardware(WireModel):
    """What an engine has found of the hardware."""

    gpu_survey_result: GpuSurvey = Field(default_factory=GpuSurvey)
    cpu_survey_result: CpuSurvey = Field(default_factory=CpuSurvey)


class EngineSurvey(WireModel):
    """An engine of the server, and the hardware that it can use."""

    name: str
    version: str = ""
    supported_model_format_names: tuple[str, ...] = ()
    hardware_survey: EngineHardware = Field(default_factory=EngineHardware)
    memory_info: MemoryInfo | None = None


class HardwareSurvey(WireModel):
    """The hardware of the server's own machine, as its selected engines see it.

    `status` is `ok` or `noCompatibleBackends`.
    """

    status: str
    engines: tuple[EngineSurvey, ...] = ()

    @property
    def memory_bytes(self) -> int | None:
        """The memory for models, in bytes: the most that an engine can use; `None` if no engine says it."""
        totals = [engine.memory_info.total_memory for engine in self.engines if engine.memory_info]
        return max((int(total) for total in totals if 0 < total < math.inf), default=None)

    @property
    def gpus(self) -> list[GpuInfo]:
        """The GPUs that any engine can use, each once."""
        found = {
            (gpu.name, gpu.device_id): gpu
            for engine in self.engines
            for gpu in engine.hardware_survey.gpu_survey_result.gpu_info
        }
        return list(found.values())
