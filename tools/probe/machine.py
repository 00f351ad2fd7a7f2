"""What runs on the machine of a server: its application, what the applications keep there, and their public ports."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from websockets.exceptions import WebSocketException

from lmstudio_integrations.client.concurrency.flows import run
from lmstudio_integrations.client.concurrency.mailboxes import ThreadMailbox
from lmstudio_integrations.client.transport.connect import records
from lmstudio_integrations.client.transport.connect.addresses import Address, Credentials, public_candidates
from lmstudio_integrations.client.transport.connect.discovery import Attempt, examine
from lmstudio_integrations.errors import LMStudioAuthenticationError, LMStudioOSError
from lmstudio_integrations.protocol.endpoints import Namespace
from tools.probe.wire import open_socket

_FOLDERS = ("apps", ".internal", "apps/bionic", "apps/bionic/.internal")
"""Below LM Studio's home. Nothing in them is opened, and what is in their folders is not listed."""


def describe_machine(server: str, token: str | None = None) -> dict[str, Any]:
    """Return which application a server is, and what an application may have on this machine.

    Args:
        server: `host:port`.
        token: Its API token, which no other server gets.
    """
    address = Address.parse(server)
    machine: dict[str, Any] = {"server": _status(run(examine(address, "probe", ThreadMailbox)))}
    if address.is_loopback:
        machine["folders"] = dict(_names())
        machine["public ports"] = {
            str(each.port): _port(each, token if each == address else None) for each in public_candidates()
        }
    return machine


def write_machine(machine: dict[str, Any], cassette: Path) -> Path:
    """Write it beside a cassette, and return where."""
    path = cassette.with_suffix(".machine.json")
    path.write_text(json.dumps(machine, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _status(attempt: Attempt) -> dict[str, Any]:
    status = None if attempt.status is None else attempt.status._asdict()
    return {"problem": attempt.problem} if attempt.problem else {"status": status}


def _names() -> Iterator[tuple[str, list[str]]]:
    try:
        home = records.home()
    except LMStudioOSError:
        return
    for folder in _FOLDERS:
        if (home / folder).is_dir():
            yield folder, sorted(each.name for each in (home / folder).iterdir())


def _port(address: Address, token: str | None) -> dict[str, Any]:
    """Return what answers on a port, and which namespaces it opens for a client like ours."""
    attempt = run(examine(address, "public port", ThreadMailbox))
    if attempt.problem:
        return _status(attempt)
    credentials = Credentials.new_guest() if token is None else Credentials.from_token(token)
    namespaces = {each: _open(address.netloc, each, credentials) for each in get_args(Namespace)}
    return {**_status(attempt), "namespaces": namespaces}


def _open(address: str, namespace: str, credentials: Credentials) -> str:
    try:
        with open_socket(address, namespace, credentials):
            return "open"
    except LMStudioAuthenticationError:
        return "rejects the credentials"
    except (OSError, WebSocketException) as error:
        return type(error).__name__
