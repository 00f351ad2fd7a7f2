"""The emulator with a recording engine, for the integrations that speak LM Studio's native protocol."""

from lmstudio_integrations.emulator import Emulator
from tests.contract.engine import RecordingEngine
from tests.contract.models import MODELS


class EmulatorServer(Emulator):
    """An emulator that runs the scripted models.

    Attributes:
        engine: The engine, which records the requests.
    """

    def __init__(self) -> None:
        self.engine = RecordingEngine()
        super().__init__(MODELS, engines={"scripted": self.engine}, auto_evict=False)
