"""Explain why no LM Studio responds at an address that the user gave, on the I/O thread; probes with `probe.py`.

Called by `opening.py`, when a handshake failed, and by `find.py`.
"""

import contextlib
import ssl
from dataclasses import replace

from lmstudio_integrations.client.transport.connect.addresses import Address
from lmstudio_integrations.client.transport.connect.discovery import discover
from lmstudio_integrations.client.transport.connect.probe import probe, speaks_http, without_blocked
from lmstudio_integrations.errors import LMStudioRuntimeError


async def diagnose(address: Address, context: ssl.SSLContext | None = None) -> str | None:
    """Request the greeting; if that fails, check whether the scheme is wrong, with TLS or without.

    For an address that the user gave, because this may open a second connection.

    Args:
        address: The address.
        context: Checks the certificate; `None` uses the system's certificates.

    Returns:
        `None` if an LM Studio responded, else what happened instead, as a clause.

    Raises:
        LMStudioRuntimeError: If tests block the address.
    """
    without_blocked([address])
    finding = await probe(address, context)
    if finding is None:
        return None
    if finding.wrong_scheme and await speaks_http(replace(address, tls=not address.tls)):
        if address.tls:
            return "TLS failed: the server speaks plain http; use ws:// in place of wss://, or http:// in place of https://"
        return "the server speaks TLS; use wss:// in place of ws://, or https:// in place of http://"
    if not finding.remedy:
        return finding.reason
    return f"{finding.reason}; {await _other_address(address, context) or finding.remedy}"


async def _other_address(address: Address, context: ssl.SSLContext | None) -> str | None:
    """Return which address to use instead: the same without a path, or the one of an LM Studio on this machine."""
    root = replace(address, prefix="")
    if address.prefix and await probe(root, context) is None:
        return f"LM Studio is at {root}, without {address.prefix!r}: set host to that"
    if address.is_loopback:
        with contextlib.suppress(LMStudioRuntimeError):  # tests block the others
            other, _ = await discover()
            return (
                None
                if other is None
                else f"an LM Studio listens at {other.netloc}: set host to that, or leave it unset"
            )
    return None
