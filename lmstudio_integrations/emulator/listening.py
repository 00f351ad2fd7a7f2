"""Addresses to listen on, as the server and the proxy name them."""

import errno
from collections.abc import Sequence

from lmstudio_integrations.errors import LMStudioOSError


def netloc(host: str, port: int) -> str:
    """Return host and port as in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def port_error(host: str, ports: Sequence[int], error: OSError) -> LMStudioOSError:
    """Return the error for ports of which none is free."""
    reason = "already in use" if error.errno == errno.EADDRINUSE else error
    listed = ", ".join(map(str, ports))
    return LMStudioOSError(
        f"cannot listen on {host}, port {listed}: {reason}; choose another port, or 0 for any free one"
    )
