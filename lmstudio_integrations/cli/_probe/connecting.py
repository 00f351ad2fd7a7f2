"""Questions of the probe about the machine, files, identities, plugins and invalid requests."""

from collections.abc import Mapping
from contextlib import suppress

from lmstudio_integrations.cli._probe.context import ProbeContext
from lmstudio_integrations.cli._probe.wire import REPLY_TIMEOUT
from lmstudio_integrations.client.transport.connect.addresses import Credentials


def upload(context: ProbeContext, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        context.client.files.prepare_file(content, name)


def look_for_file_after_reconnect(context: ProbeContext) -> None:
    credentials = Credentials.new_guest()
    parameter = {"name": "note.txt", "contentBase64": "VGhlIGZlcnJ5Lg=="}
    with context.wire("files", credentials) as wire:
        identifier = wire.result("uploadFileBase64", parameter)["identifier"]
        wire.call("getLocalFileAbsolutePath", {"fileName": identifier})
    with context.wire("files", credentials) as wire:
        wire.call("getLocalFileAbsolutePath", {"fileName": identifier})


def reuse_identity(context: ProbeContext) -> None:
    credentials = Credentials.new_guest()
    with context.wire("system", credentials) as wire:
        wire.call("version")
    with context.wire("llm", credentials) as wire:
        wire.call("listLoaded")


def change_passkey(context: ProbeContext) -> None:
    credentials = Credentials.new_guest()
    with context.wire("system", credentials) as wire:
        wire.call("version")
        with context.wire("llm", Credentials(credentials.identifier, Credentials.new_guest().passkey)) as other:
            other.call("listLoaded")


def survey_hardware(context: ProbeContext) -> None:
    with context.wire("runtime") as wire:
        wire.call("surveyHardware")
        wire.call("surveyHardware", {"type": "selected"})


def read_link_status(context: ProbeContext) -> None:
    with context.wire("repository") as wire:
        wire.call("lmLinkStatus")


def list_tools(context: ProbeContext) -> None:
    with context.client.plugins.tools(context.plugin) as session:
        session.tools  # noqa: B018 - they have been listed now


def call_unknown_endpoints(context: ProbeContext) -> None:
    with context.wire() as wire:
        with suppress(TimeoutError):
            wire.call("lmsiProbe")
        wire.stream("lmsiProbeChannel", {}, REPLY_TIMEOUT)


def send_invalid_parameter(context: ProbeContext) -> None:
    with context.wire() as wire:
        wire.call("tokenize", {"specifier": context.reference})
