"""A headless server that speaks LM Studio's native protocol, for tests and for machines without the app."""

from lmstudio_integrations.emulator.cassette_modes import use_cassette
from lmstudio_integrations.emulator.cassettes.recorder import Recording
from lmstudio_integrations.emulator.catalog import Catalog, ModelEntry, PluginEntry, Preset
from lmstudio_integrations.emulator.clock import Clock, ManualClock, SystemClock
from lmstudio_integrations.emulator.emulator import ConnectionRecord, Emulator
from lmstudio_integrations.emulator.limits import Limits
from lmstudio_integrations.emulator.proxy.fault_proxy import FaultProxy
from lmstudio_integrations.emulator.proxy.fault_table import FAULTS
from lmstudio_integrations.emulator.proxy.faults import Fault
from lmstudio_integrations.emulator.request_log import EmbeddingRecord, LoadRecord, PluginCallRecord, PredictionRecord

__all__ = [
    "FAULTS",
    "Catalog",
    "Clock",
    "ConnectionRecord",
    "EmbeddingRecord",
    "Emulator",
    "Fault",
    "FaultProxy",
    "Limits",
    "LoadRecord",
    "ManualClock",
    "ModelEntry",
    "PluginCallRecord",
    "PluginEntry",
    "PredictionRecord",
    "Preset",
    "Recording",
    "SystemClock",
    "use_cassette",
]
