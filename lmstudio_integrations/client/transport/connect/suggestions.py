"""What helps when no server is reachable, or it rejects the client. Pure, but for the environment that it reads.

`opening.py`, `probe.py` and `socket_session.py` add it to their errors; `lmsi doctor` shows it.
"""

import os
import re
from pathlib import Path

from lmstudio_integrations._support.environment import HOST_VARIABLE, SERVER_FILE_VARIABLE, TOKEN_VARIABLES
from lmstudio_integrations.client.support.suggestions import SERVER_SETTINGS
from lmstudio_integrations.client.transport.connect.addresses import (
    BIONIC_PORT,
    DEFAULT_PORT,
    Address,
    Target,
    resolved_hosts,
    server_file_from_environment,
    token_source,
)
from lmstudio_integrations.errors import LMStudioValueError

_HAS_CONTAINER_FILE = any(Path(file).exists() for file in ("/.dockerenv", "/run/.containerenv"))
"""Whether there is a file that Docker and Podman put into each container. Event loops must not look for it."""

_DOCKER_HOST = "host.docker.internal"

_SWITCH_ON = (
    "switch its server on (LM Studio: Developer > Status; Bionic: Settings > Local Model API; llmster: `lms server "
    "start`)"
)

_OPEN = "open LM Studio or Bionic, start llmster, or run `lmsi serve`, which is an emulator"

UPDATE_FOR_DECISIONS = "update LM Studio to 0.4.26 or later (Bionic presumably to 1.1.7)"
"""What helps if a server does not know decision models."""

WRONG_PORT = f"set host to LM Studio's own port, by default {DEFAULT_PORT} (Bionic: {DEFAULT_PORT} or {BIONIC_PORT})"
NO_RESPONSE = "check the address, and whether a firewall blocks it"

_TOKEN_LIKE = r"LM_?(STUDIO_?)?(API_?)?(KEY|TOKEN)"  # noqa: S105 - a pattern
"""Names under which people look for the API token."""


def in_container() -> bool:
    """Whether this process runs in a container, where `localhost` is not the machine that LM Studio runs on."""
    return _HAS_CONTAINER_FILE


def no_listener(address: Address) -> str:
    """Return what helps if nothing listens at an address."""
    if not address.is_loopback:
        return f"{_SWITCH_ON} there, with 'Serve on Local Network'"
    note = f"; {_in_container(address.port)}" if in_container() else ""
    return f"{_SWITCH_ON}, or run `lmsi serve`, which is an emulator, or set host to the right port{note}"


def no_name(host: str) -> str:
    """Return what helps if a name cannot be resolved."""
    if host == _DOCKER_HOST:
        return f"start the container with --add-host={_DOCKER_HOST}:host-gateway"
    return "check its spelling, or use the IP address"


def no_server() -> str:
    """Return what helps on a machine without LM Studio; what concerns containers is on a line of its own."""
    unset = (
        f"unset {SERVER_FILE_VARIABLE}, with which nothing else is tried; or " if server_file_from_environment() else ""
    )
    elsewhere = f"if it runs on another machine or port, set {HOST_VARIABLE} or pass its address"
    note = f"\n  {_in_container(DEFAULT_PORT)}" if in_container() else ""
    return f"{unset}{_OPEN}; {elsewhere}{note}"


def source_of(address: Address) -> str:
    """Return a note for an address that comes from the environment."""
    try:
        named = resolved_hosts(None) if os.environ.get(HOST_VARIABLE) else ()
    except LMStudioValueError:
        return ""
    return f" ({HOST_VARIABLE})" if str(address) in named else ""


def unencrypted(target: Target) -> str | None:
    """Return a warning if the token of a client crosses the network in plain text."""
    address = target.address
    if not target.token or address is None or address.tls or address.is_loopback:
        return None
    return f"the API token is sent unencrypted to {address.netloc}; put a TLS proxy in front of it"


def token_suggestion(target: Target, found: Target | None = None) -> str:
    """Return what helps if a server rejects the credentials of a client. Shows no token.

    Args:
        target: What the client has.
        found: The same with what was sent, and where, if that differs.
    """
    if target.placeholder is not None:
        return (
            f"the API token {token_source(target.placeholder)} is none of LM Studio's (sk-lm-…), so it was not sent: "
            f"create one in {SERVER_SETTINGS}, or switch off 'Require Authentication' there and leave it out"
        )
    if target.token and found is not None and not found.token and found.address is not None:
        address = found.address.netloc
        return (
            f"the API token was not sent, because {address} was only found, and another user may have started that "
            f"server; if you trust it, name it: set {HOST_VARIABLE}={address} or pass its address"
        )
    if target.token is None:
        unread = sorted(name for name in os.environ if re.fullmatch(_TOKEN_LIKE, name) and name not in TOKEN_VARIABLES)
        note = f" (not read: {', '.join(unread)})" if unread else ""
        unsent = next(filter(os.environ.get, TOKEN_VARIABLES), None)
        if unsent and os.environ.get(HOST_VARIABLE):
            return (
                f"no API token was sent: that in {unsent} is for the host in {HOST_VARIABLE}, and one that was given "
                "with another host is for that host; pass api_token together with this host, or name this host in "
                f"{HOST_VARIABLE}"
            )
        return (
            f"no API token was sent: create one in {SERVER_SETTINGS}, and set {TOKEN_VARIABLES[0]} or pass "
            f"api_token={note}"
        )
    others = [name for name in TOKEN_VARIABLES if os.environ.get(name) not in {None, "", target.token}]
    note = f"; {others[0]} has another token, which was not sent" if others else ""
    return (
        f"the server does not accept the API token {token_source(target.token)}: copy it again from {SERVER_SETTINGS}, "
        f"or create another one{note}"
    )


def _in_container(port: int) -> str:
    return (
        f"this is a container: if LM Studio or Bionic runs on its host, set host to {_DOCKER_HOST}:{port}, and switch "
        f"on 'Serve on Local Network' in {SERVER_SETTINGS}"
    )
