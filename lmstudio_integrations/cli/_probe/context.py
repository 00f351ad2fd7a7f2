"""What a question of the probe may use: clients behind the recording proxy, and instances of the probe's own.

The instances are unloaded past the proxy, so a recording holds only what its questions are about.
"""

from contextlib import AbstractContextManager, suppress

from lmstudio_integrations.cli._probe.payloads import JsonDict, by_reference
from lmstudio_integrations.cli._probe.wire import Wire, open_wire
from lmstudio_integrations.client.api.sync import LLM, Client
from lmstudio_integrations.client.transport.connect.addresses import Credentials
from lmstudio_integrations.errors import LMStudioModelNotFoundError
from lmstudio_integrations.types.config_dicts import LlmLoadModelConfigDict

PREFIX = "lmsi-probe-"
"""What the identifiers of the probe's own instances begin with."""

TTL = 600.0
"""Seconds. An instance that the probe cannot unload, because the connection is lost, disappears by itself."""

Config = LlmLoadModelConfigDict

MAIN: Config = {"context_length": 2048, "max_parallel_predictions": 2}
SMALL: Config = {"context_length": 256, "max_parallel_predictions": 1}
"""Load settings: what most questions use, and what a response fills soon."""


class ProbeContext:
    """The clients and instances of one probe.

    Args:
        direct: A client of the server itself, which is not recorded.
        recorded: The address of the recording proxy.
        model_key: The only model that is loaded.
        plugin: The plugin whose tools are listed.
        token: The API token of the server; `None` is a guest.
    """

    def __init__(self, direct: Client, recorded: str, model_key: str, plugin: str, token: str | None = None) -> None:
        self.model_key = model_key
        self.plugin = plugin
        self.address = recorded
        self.client = Client(recorded, token)
        self._direct = direct
        self._credentials = Credentials.new_guest() if token is None else Credentials.from_token(token)
        self._last_number = 0
        self._others = {handle.identifier for handle in direct.llm.list_loaded()}
        self._own: set[str] = set()
        self._special: tuple[Config, LLM] | None = None
        self._main: LLM | None = None
        self._reference: str | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether the main instance could be loaded, without which there is nothing to ask."""
        return self._main is not None

    @property
    def main(self) -> LLM:
        """The instance that most questions use."""
        if self._main is None:
            self._main = self.load(MAIN)
        return self._main

    @property
    def reference(self) -> JsonDict:
        """The specifier of the main instance."""
        if self._reference is None:
            self._reference = self.main.get_info().instance_reference
        return by_reference(self._reference)

    def special(self, config: Config) -> LLM:
        """Return an instance with these load settings; at most one such instance stays between two questions."""
        if self._special is not None and self._special[0] != config:
            self.unload(self._special[1].identifier)
            self._special = None
        if self._special is None:
            self._special = config, self.load(config)
        return self._special[1]

    def load(self, config: Config) -> LLM:
        """Load an instance: explicitly, so that it evicts no other."""
        identifier = self.new_identifier()
        return self.client.llm.load_new_instance(
            self.model_key, identifier, config=config, ttl=TTL, on_config_mismatch="ignore", show_progress=False
        )

    def new_identifier(self) -> str:
        """Return an identifier for an instance, which the end of the probe unloads if it is loaded then."""
        self._last_number += 1
        return self.own(f"{PREFIX}{self._last_number}")

    def own(self, identifier: str) -> str:
        """Count an instance as one of the probe's own, and return its identifier."""
        if identifier not in self._others:  # whatever a server replies, what was loaded before is not touched
            self._own.add(identifier)
        return identifier

    def wire(self, namespace: str = "llm", credentials: Credentials | None = None) -> AbstractContextManager[Wire]:
        """Connect for requests that the client does not make."""
        return open_wire(self.address, namespace, credentials or self._credentials)

    def unload(self, identifier: str) -> None:
        """Unload an instance of the probe's own, if it is loaded."""
        assert identifier in self._own, "the probe unloads only what it has loaded"
        with suppress(LMStudioModelNotFoundError):
            self._direct.llm.unload(identifier)

    def unload_all_but(self, *in_use: LLM) -> None:
        """Unload the probe's own instances that are loaded, except for some."""
        loaded = {handle.identifier for handle in self._direct.llm.list_loaded()}
        for identifier in sorted(loaded & self._own - {handle.identifier for handle in in_use}):
            self.unload(identifier)

    def end_question(self) -> None:
        """Unload what only the question used that has ended."""
        in_use = [self._main] if self._main is not None else []
        self.unload_all_but(*in_use, *([self._special[1]] if self._special is not None else []))

    def close(self) -> None:
        """Unload all of the probe's own instances, and close its connections."""
        try:
            self.unload_all_but()
        finally:
            self.client.close()
