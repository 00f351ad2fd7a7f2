"""The packets of a load: they become growing progress, and in the end an instance."""

import logging
from collections.abc import Iterable
from typing import Any

from lmstudio_integrations.client.models.state import ModelState, WireInfo, identifier_of
from lmstudio_integrations.client.support.progress_bars import ProgressBar
from lmstudio_integrations.protocol.prediction import model_info

logger: logging.Logger = logging.getLogger(__name__)


class LoadPackets:
    """Reads the packets of a load; reports strictly growing progress that ends with 1.0.

    A batch is read to its end before its progress is reported, and 1.0 is reported only after the success: otherwise a
    callback that raises would hide an instance that the server has loaded.
    """

    def __init__(self, state: ModelState) -> None:
        self._key = state.key
        self._on_progress = state.on_load_progress
        self._unreported: list[float] = []
        self._last = -1.0
        self.bar: ProgressBar = ProgressBar(
            f"Loading {state.name}", shown=state.show_progress, is_reported=state.on_load_progress is not None
        )
        self.info: WireInfo | None = None
        """The instance, once it is loaded."""
        self.already_loaded: bool = False
        """Whether the model was already loaded."""
        self.evicted: list[WireInfo] = []
        """The instances that the load evicted."""

    def read(self, batch: Iterable[dict[str, Any]]) -> None:
        """Read packets up to the success."""
        for packet in batch:
            match packet["type"]:
                case "startLoading":
                    self._unreported.append(0.0)
                case "loadProgress" | "progress":
                    self._unreported.append(float(packet["progress"]))
                case "unloadingOtherJITModel":
                    logger.info("loading %r unloads %r", self._key, packet["info"]["modelKey"])
                    self.evicted.append(model_info(packet["info"]))
                case "alreadyLoaded" | "loadSuccess" | "success" as kind:
                    info = model_info(packet["info"])
                    identifier_of(info)
                    self.already_loaded = kind == "alreadyLoaded"
                    self._unreported.append(1.0)
                    self.info = info
                    return
                case other:
                    logger.debug("skipped a packet of unknown type %r while loading", other)

    def report(self) -> None:
        """Draw each value by which the progress has grown, and call the callback with it."""
        values, self._unreported = self._unreported, []
        for progress in values:
            if progress > self._last and (progress < 1.0 or self.info is not None):
                self._last = progress
                self._report(progress)

    def _report(self, progress: float) -> None:
        if not self.already_loaded:
            self.bar.update(progress)
        if self._on_progress is not None:
            with self.bar.closed_on_failure():
                self._on_progress(progress)
