"""Questions of the probe about the machine, files, identities, plugins and invalid requests."""

import base64
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

from lmstudio_integrations.client.transport.connect.addresses import Credentials
from tools.probe.context import ProbeContext
from tools.probe.question import Question, register
from tools.probe.wire import REPLY_TIMEOUT

QUESTIONS: list[Question] = []
question = partial(register, QUESTIONS)

_IMAGES: Mapping[str, bytes] = {
    "dot.png": base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    ),
    "dot.jpg": base64.b64decode(
        "/9j/4AAQSkZJRgABAQEASABIAAD/2wBDAP//////////////////////////////////////////////////////////////////////////"
        "////////////wgALCAABAAEBAREA/8QAFBABAAAAAAAAAAAAAAAAAAAAAP/aAAgBAQABPxA="
    ),
    "dot.webp": base64.b64decode("UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA=="),
    "dot.gif": base64.b64decode("R0lGODlhAQABAIAAAAAAAP///ywAAAAAAQABAAACAUwAOw=="),
}
"""One pixel in each format."""

_FILES: Mapping[str, bytes] = {
    "note.txt": b"The ferry leaves at noon.",
    "note.md": b"# Ferry\n\nIt leaves at noon.",
    "table.csv": b"pier,time\n7,12:00\n",
    "data.json": b'{"pier": 7}',
    "page.pdf": b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n",
    "letter.docx": b"PK\x05\x06" + bytes(18),
    "image.txt": _IMAGES["dot.png"],
    "bytes": bytes(range(256)),
}
"""Small files of several types; a name that contradicts the content, and none that says anything."""


@question("hardware-survey", "survey-hardware", "How much memory may engines use, and which if a survey names none?")
def survey_hardware(context: ProbeContext) -> None:
    with context.wire("runtime") as wire:
        wire.call("surveyHardware")
        wire.call("surveyHardware", {"type": "selected"})


@question("link-status", "link-devices", "Which devices are linked, and what does the server call itself?")
def read_link_status(context: ProbeContext) -> None:
    context.call("lmLinkStatus", namespace="repository")


@question("image-types", "upload-file", "Which types do a PNG, a JPEG, a WebP and a GIF file get?", files=_IMAGES)
@question("file-types", "upload-file", "Which types do other files get, by name and by content?", files=_FILES)
def upload(context: ProbeContext, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        context.client.files.prepare_file(content, name)


@question("file-lifetime", "upload-file", "Is a file still there when its client disconnects and comes back?")
def look_for_file_after_reconnect(context: ProbeContext) -> None:
    credentials = Credentials.new_guest()
    with context.wire("files", credentials) as wire:
        uploaded = wire.call("uploadFileBase64", {"name": "note.txt", "contentBase64": "VGhlIGZlcnJ5Lg=="})
        if uploaded is None:
            return
        wire.call("getLocalFileAbsolutePath", {"fileName": uploaded["identifier"]})
    context.call("getLocalFileAbsolutePath", {"fileName": uploaded["identifier"]}, "files", credentials)


@question("identity-after-release", "authentication-rules", "May a client come back with the same identity?")
def reuse_identity(context: ProbeContext) -> None:
    credentials = Credentials.new_guest()
    context.call("version", namespace="system", credentials=credentials)
    context.call("listLoaded", credentials=credentials)


@question("identity-with-another-passkey", "authentication-rules", "Is an identity with another passkey rejected?")
def change_passkey(context: ProbeContext) -> None:
    credentials = Credentials.new_guest()
    with context.wire("system", credentials) as wire:
        wire.call("version")
        context.call("listLoaded", credentials=Credentials(credentials.identifier, Credentials.new_guest().passkey))


@question("tool-session", "tool-sessions", "May this client start a session with the tools of a plugin?")
def list_tools(context: ProbeContext) -> None:
    with context.client.plugins.tools(context.plugin) as session:
        session.tools  # noqa: B018 - they have been listed now


@question("unknown-endpoint", "invalid-input", "Is an unknown endpoint answered by a warning only?", is_invalid=True)
def call_unknown_endpoints(context: ProbeContext) -> None:
    with context.wire() as wire:
        with suppress(TimeoutError):
            wire.call("lmsiProbe")
        wire.stream("lmsiProbeChannel", {}, REPLY_TIMEOUT)


@question("invalid-parameter", "invalid-input", "Is an invalid parameter answered by a warning only?", is_invalid=True)
def send_invalid_parameter(context: ProbeContext) -> None:
    context.call("tokenize", {"specifier": context.reference})
