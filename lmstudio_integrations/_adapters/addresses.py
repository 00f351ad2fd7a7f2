"""Which server an adapter's `host` means, for what is kept per server. Opens no connection."""

import os
from functools import lru_cache

from lmstudio_integrations._environment import HOST_VARIABLE


def host_of(host: str | None) -> str | None:
    """Return the host that was given, else that of the environment, which may change between two calls."""
    return host or os.environ.get(HOST_VARIABLE) or None


def resolved_host(host: str | None) -> str | None:
    """Return the address of a server; all spellings of one address are alike.

    Args:
        host: The host that was given; see `host_of`.

    Returns:
        The address; `None` if the server is the LM Studio that is found on this machine.

    Raises:
        LMStudioValueError: If the host is no address.
    """
    host = host_of(host)
    return None if host is None else _normal(host)


@lru_cache(maxsize=64)
def _normal(host: str) -> str:
    from lmstudio_integrations.client.transport.addresses import Address  # noqa: PLC0415 - with the first call

    return str(Address.parse(host))
