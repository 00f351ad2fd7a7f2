"""Files in the emulator: what they are, and who sees them."""

import base64
from typing import Any

from lmstudio_integrations.emulator import Emulator
from tests.emulator.bare_client import TIMEOUT, Wire, prediction_request, wire
from tests.emulator.server.handlers.uploading import encoded, upload

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n and more").decode()


def test_the_type_of_a_file_is_guessed_by_content_then_by_name(files: Wire) -> None:
    for name, data, file_type in (
        ("a.txt", b"\x89PNG\r\n\x1a\n", "image"),
        ("cat.jpeg", b"?", "image"),
        ("a.MD", b"x", "text/plain"),
        ("a.pdf", b"x", "application/pdf"),
        ("a.csv", b"x", "text/other"),
        ("a.bin", b"x", "unknown"),
        ("a", b"", "unknown"),
    ):
        found = upload(files, name, encoded(data))
        assert (found["fileType"], found["sizeBytes"]) == (file_type, len(data))


def test_invalid_base64_is_rejected(files: Wire) -> None:
    for content in ("!", "é"):
        error = files.rpc_error("uploadFileBase64", {"name": "a", "contentBase64": content})
        assert "base64" in error["title"]


def image_request(model: str, identifier: str, file_type: str = "image") -> dict[str, Any]:
    requested = prediction_request(model, "What is this?")
    part = {"type": "file", "name": "a.png", "identifier": identifier, "sizeBytes": 1, "fileType": file_type}
    requested["history"]["messages"][0]["content"].append(part)
    return requested


def test_a_file_is_seen_on_all_sockets_of_its_client_and_no_others(server: Emulator, me: Wire, files: Wire) -> None:
    identifier, other_identifier = (upload(files, "a.png", PNG)["identifier"] for _ in range(2))
    assert identifier != other_identifier
    assert identifier.startswith("local:")
    for name in (identifier, identifier.removeprefix("local:"), f"base64:{PNG}"):
        assert me.stream("predict", image_request("chat", name))[-1]["type"] == "success"
    with wire(server, client="guest:other") as other:
        error = other.stream("predict", image_request("chat", identifier))[-1]["error"]
        assert "Cannot find an uploaded file" in error["title"]
    error = me.stream("predict", image_request("blind", identifier))[-1]["error"]
    assert "does not support images" in error["title"]


def test_an_upload_is_dropped_with_the_last_socket_of_its_client(server: Emulator) -> None:
    with wire(server, "files", client="guest:short") as files:
        identifier = upload(files, "a.png", PNG)["identifier"]
    server.wait_for(lambda: not server.connections, TIMEOUT)
    with wire(server, client="guest:short") as me:
        assert me.stream("predict", image_request("chat", identifier))[-1]["type"] == "error"


def test_a_file_that_is_not_an_image_is_rejected(me: Wire) -> None:
    for identifier, file_type in (("local:nowhere", "image"), ("base64:é", "image"), ("local:x", "text/plain")):
        last = me.stream("predict", image_request("chat", identifier, file_type))[-1]
        assert "Internal" not in last["error"]["title"]
