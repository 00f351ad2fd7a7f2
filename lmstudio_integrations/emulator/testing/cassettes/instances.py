"""The instances of models in a recording, whatever was asked there.

Clients differ in what they ask about a model: one lists what is loaded, another looks up a single instance, and a third
takes the info that came with the load. Such requests get what the recording tells; what it does not tell stays unknown.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.emulator.testing.cassettes.cassette import ABSENT, Event, Interaction, Request
from lmstudio_integrations.emulator.testing.cassettes.redaction import hash_of
from lmstudio_integrations.emulator.testing.proxy.wire_items import LOADS

Info = dict[str, Any]
"""An instance in wire form (docs/protocol.md#model-info)."""


class RecordedInstances:
    """The instances of a recording, each with its newest info."""

    def __init__(self, interactions: Iterable[Interaction]) -> None:
        self.references: dict[str, str] = {}
        """The identifiers of instances, by their references, which are new with each load; and the hashes of uploaded
        files, by their identifiers, which are new with each upload."""
        self._infos: dict[tuple[str, str], Info] = {}
        self._load_configs: dict[str, Any] = {}
        self._loaded: set[tuple[str, str]] = set()
        for interaction in interactions:
            self.references |= _hash_of_upload(interaction)
            for info in _infos(interaction):
                self.references[info["instanceReference"]] = info["identifier"]
                self._infos[info["type"], info["identifier"]] = info
            for packet in interaction.packets():
                if "loadModelConfig" in packet and is_object(packet.get("modelInfo")):
                    self._load_configs[str(packet["modelInfo"].get("instanceReference"))] = packet["loadModelConfig"]
            if interaction.endpoint == "getOrLoad":
                self._loaded.add((interaction.namespace, _identifier(interaction.parameter)))

    def response(self, request: Request) -> Interaction | None:
        """Return the response to a request that only asks what is there; `None` to any other, or if it is unknown."""
        namespace, endpoint, parameter = request
        members = parameter if is_object(parameter) else {}
        if endpoint == "getOrLoad":
            packets = [Event("received", 0, packet) for packet in self._already_loaded(namespace, members)]
            events = [*packets, Event("closed", 0)] if packets else []
            return Interaction(0, 0, "channel", namespace, endpoint, parameter, events) if events else None
        events = [Event("result", 0, result) for result in self._results(namespace, endpoint, members)]
        return Interaction(0, 0, "call", namespace, endpoint, parameter, events) if events else None

    def _already_loaded(self, namespace: str, parameter: Info) -> list[Info]:
        """Return the packet for a model that the recording uses without loading it, so in whatever way it is loaded."""
        name = _identifier(parameter)
        if (namespace, name) in self._loaded:
            return []
        return [{"type": "alreadyLoaded", "info": info} for info in self._find_by_name(namespace, name)]

    def _results(self, namespace: str, endpoint: str, parameter: Info) -> list[Any]:
        """Return the result of a call, as a list that is empty if it is unknown."""
        match endpoint:
            case "listLoaded":
                infos = self._of(namespace)
                return [infos] if infos else []
            case "getModelInfo":
                return self._find_by_specifier(namespace, parameter)
            case "getLoadConfig":
                references = [info["instanceReference"] for info in self._find_by_specifier(namespace, parameter)]
                return [self._load_configs[each] for each in references if each in self._load_configs]
            case "unloadModel":
                return [ABSENT for _ in self._find_by_name(namespace, _identifier(parameter))]
            case _:
                return []

    def _of(self, namespace: str) -> list[Info]:
        return [info for (kind, _), info in self._infos.items() if kind == namespace]

    def _find_by_name(self, namespace: str, name: str) -> list[Info]:
        """Return the instance with this identifier, else the first one of this model; none if there is neither."""
        infos = self._of(namespace)
        return [info for key in ("identifier", "modelKey") for info in infos if info.get(key) == name][:1]

    def _find_by_specifier(self, namespace: str, parameter: Info) -> list[Info]:
        """Return the instance that a request names, as a list that is empty if it is unknown."""
        specifier = parameter.get("specifier")
        if not is_object(specifier):
            return []
        if "instanceReference" in specifier:
            return self._find_by_name(namespace, self.references.get(str(specifier["instanceReference"]), ""))
        query = specifier.get("query")
        if not is_object(query):
            return []
        if query.keys() == {"identifier"}:
            return self._find_by_name(namespace, query["identifier"])
        return [info for info in self._of(namespace) if query.items() <= info.items()][:1]


def loaded_by(interaction: Interaction) -> str | None:
    """Return the identifier of the instance that a request loaded, or found loaded; `None` for any other request."""
    infos = _infos(interaction) if interaction.endpoint in LOADS else iter(())
    return next((info["identifier"] for info in infos), None)


def _infos(interaction: Interaction) -> Iterator[Info]:
    """Return the instances that a response describes, in order."""
    result = interaction.result
    infos = [packet.get(name) for packet in interaction.packets() for name in ("info", "modelInfo")]
    for info in [*infos, *(result if is_list(result) else [result])]:
        if is_object(info) and all(isinstance(info.get(name), str) for name in ("instanceReference", "type")):
            yield {**info, "identifier": str(info.get("identifier"))}


def _hash_of_upload(interaction: Interaction) -> dict[str, str]:
    """Return the identifier of a file that was uploaded, and the hash of its content."""
    upload, result = interaction.parameter, interaction.result
    if interaction.endpoint != "uploadFileBase64" or not (is_object(upload) and is_object(result)):
        return {}
    content, identifier = upload.get("contentBase64"), result.get("identifier")
    if not (isinstance(content, str) and isinstance(identifier, str)):
        return {}
    return {identifier: hash_of(content)}


def _identifier(parameter: Any) -> str:
    return str(parameter.get("identifier", "")) if is_object(parameter) else ""
