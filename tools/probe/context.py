"""What a question of the probe may use: a client that is recorded, and instances of the probe's own.

The instances are unloaded between two questions, so a recording holds only what its questions are about.
"""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from itertools import count
from typing import Any

from lmstudio_integrations.cassettes import Recording
from lmstudio_integrations.client.api.sync import LLM, Client
from lmstudio_integrations.client.transport.connect.addresses import Credentials
from lmstudio_integrations.errors import LMStudioModelNotFoundError
from lmstudio_integrations.types.config_dicts import LlmLoadModelConfigDict
from tools.probe.wire import JsonDict, Wire, by_reference, open_wire

PREFIX = "lmsi-probe-"
"""What the identifiers of the probe's own instances begin with."""

TTL = 600.0
"""Seconds. An instance that the probe cannot unload, because the connection is lost, disappears by itself."""

MAIN: LlmLoadModelConfigDict = {"context_length": 2048, "max_parallel_predictions": 2}
SMALL: LlmLoadModelConfigDict = {"context_length": 256, "max_parallel_predictions": 1}
"""Load settings: what most questions use, and what a response fills soon."""


class ProbeContext:
    """The clients and instances of one probe.

    Args:
        client: A client of the server.
        recording: What records the questions.
        model_key: The only model that is loaded.
        plugin: The plugin whose tools are listed.
        token: The API token of the server; `None` is a guest.
    """

    def __init__(
        self, client: Client, recording: Recording, model_key: str, plugin: str, token: str | None = None
    ) -> None:
        self.model_key = model_key
        self.plugin = plugin
        self.client = client
        self._recording = recording
        recording.section = None
        self._credentials = Credentials.new_guest() if token is None else Credentials.from_token(token)
        self._numbers = count(1)
        self._others = self._loaded()
        self.own: set[str] = set()
        """Identifiers of instances of the probe that do not begin with the prefix."""

    @contextmanager
    def recorded(self, section: str) -> Generator[None]:
        """Record what the block asks as a section."""
        self._recording.section = section
        try:
            yield
        finally:
            self._recording.section = None

    @cached_property
    def main(self) -> LLM:
        """The instance that most questions use."""
        return self.load(MAIN)

    @cached_property
    def reference(self) -> JsonDict:
        """The specifier of the main instance."""
        return by_reference(self.main.get_info().instance_reference)

    def load(self, config: LlmLoadModelConfigDict, identifier: str | None = None, *, ttl: float = TTL) -> LLM:
        """Load an instance for one question: explicitly, so that it evicts no other."""
        return self.client.llm.load_new_instance(
            self.model_key,
            identifier or self.new_identifier(),
            config=config,
            ttl=ttl,
            on_config_mismatch="ignore",
            show_progress=False,
        )

    def new_identifier(self) -> str:
        """Return an identifier for an instance, which is unloaded after the question if it is loaded then."""
        return f"{PREFIX}{next(self._numbers)}"

    def wire(self, namespace: str = "llm", credentials: Credentials | None = None) -> AbstractContextManager[Wire]:
        """Connect for requests that the client does not make."""
        return open_wire(self._recording, namespace, credentials or self._credentials)

    def call(
        self, endpoint: str, parameter: Any = None, namespace: str = "llm", credentials: Credentials | None = None
    ) -> None:
        """Make one call on a connection of its own."""
        with self.wire(namespace, credentials) as wire:
            wire.call(endpoint, parameter)

    def end_question(self) -> None:
        """Unload what only the question used that has ended."""
        self._unload_all_but(self.main.identifier)

    def close(self) -> None:
        """Unload all of the probe's own instances."""
        self._unload_all_but()

    def _loaded(self) -> set[str]:
        return {handle.identifier for handle in self.client.llm.list_loaded()}

    def _unload_all_but(self, *kept: str) -> None:
        # Whatever a server replies, what was loaded before is not touched.
        for identifier in sorted(self._loaded() - self._others - {*kept}):
            if identifier.startswith(PREFIX) or identifier in self.own:
                with suppress(LMStudioModelNotFoundError):
                    self.client.llm.unload(identifier)
