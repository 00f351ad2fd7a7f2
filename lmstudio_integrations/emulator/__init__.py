"""A headless server that speaks LM Studio's native protocol, for tests and for machines without the app.

`emulator.py` is what programs start. `server/` talks to clients, `models/` decides what is loaded and records what was
asked, and `engines/` run models. `errors.py` has the texts of the errors that clients get.
"""

from typing import TYPE_CHECKING, Any

from lmstudio_integrations.emulator.emulator import ConnectionRecord, Emulator
from lmstudio_integrations.emulator.models.catalog import Catalog, ModelEntry, Preset, leaf_of_catalog
from lmstudio_integrations.emulator.models.clock import Clock, ManualClock, SystemClock
from lmstudio_integrations.emulator.models.request_log import (
    DecisionRecord,
    EmbeddingRecord,
    LoadRecord,
    PluginCallRecord,
    PredictionRecord,
)
from lmstudio_integrations.emulator.server.context import Limits

if TYPE_CHECKING:
    from lmstudio_integrations.emulator.models.devices import DeviceEntry
    from lmstudio_integrations.emulator.models.plugins import PluginEntry

__all__ = [
    "Catalog",
    "Clock",
    "ConnectionRecord",
    "DecisionRecord",
    "DeviceEntry",
    "EmbeddingRecord",
    "Emulator",
    "Limits",
    "LoadRecord",
    "ManualClock",
    "ModelEntry",
    "PluginCallRecord",
    "PluginEntry",
    "PredictionRecord",
    "Preset",
    "SystemClock",
]


def __getattr__(name: str) -> Any:
    if name == "DeviceEntry":
        return leaf_of_catalog("devices").DeviceEntry
    if name == "PluginEntry":
        return leaf_of_catalog("plugins").PluginEntry
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
