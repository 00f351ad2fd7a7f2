"""Rows of the probe about files, identities, plugins and invalid requests."""

from collections.abc import Mapping
from contextlib import suppress

from lmstudio_integrations.cli._probe.bench import Bench
from lmstudio_integrations.cli._probe.wire import REPLY_TIMEOUT
from lmstudio_integrations.client.transport.connect.addresses import Credentials


def upload(bench: Bench, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        bench.client.files.prepare_file(content, name)


def look_for_file_after_reconnect(bench: Bench) -> None:
    credentials = Credentials.new_guest()
    parameter = {"name": "note.txt", "contentBase64": "VGhlIGZlcnJ5Lg=="}
    with bench.wire("files", credentials) as wire:
        identifier = wire.result("uploadFileBase64", parameter)["identifier"]
        wire.call("getLocalFileAbsolutePath", {"fileName": identifier})
    with bench.wire("files", credentials) as wire:
        wire.call("getLocalFileAbsolutePath", {"fileName": identifier})


def reuse_identity(bench: Bench) -> None:
    credentials = Credentials.new_guest()
    with bench.wire("system", credentials) as wire:
        wire.call("version")
    with bench.wire("llm", credentials) as wire:
        wire.call("listLoaded")


def change_passkey(bench: Bench) -> None:
    credentials = Credentials.new_guest()
    with bench.wire("system", credentials) as wire:
        wire.call("version")
        with bench.wire("llm", Credentials(credentials.identifier, Credentials.new_guest().passkey)) as other:
            other.call("listLoaded")


def list_tools(bench: Bench) -> None:
    with bench.client.plugins.tools(bench.plugin) as session:
        session.tools  # noqa: B018 - they have been listed now


def call_unknown_endpoints(bench: Bench) -> None:
    with bench.wire() as wire:
        with suppress(TimeoutError):
            wire.call("lmsiProbe")
        wire.stream("lmsiProbeChannel", {}, REPLY_TIMEOUT)


def send_invalid_parameter(bench: Bench) -> None:
    with bench.wire() as wire:
        wire.call("tokenize", {"specifier": bench.reference})
