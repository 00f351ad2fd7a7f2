"""A plugin that writes messages in place of a model, by the rules of scripted models. `registry.py` has it."""

from collections.abc import Sequence
from typing import Any

from lmstudio_integrations.emulator.engines.base import LoadRequest
from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine, ScriptedModel


class GeneratorPlugin:
    """A plugin that writes messages.

    Args:
        identifier: Its identifier, `owner/name`.
        rules: Its rules, in the form of the catalog.
    """

    def __init__(self, identifier: str, rules: Sequence[Any]) -> None:
        self.identifier = identifier
        self._engine = ScriptedEngine()
        self._request = LoadRequest(key=identifier, kind="llm", engine_settings={"rules": rules})

    async def start(self) -> ScriptedModel:
        """Return what writes one message. A rule for loads applies to it.

        Raises:
            WireError: If a rule says so.
        """
        return await self._engine.load(self._request, lambda _progress: None)
