"""Handles to one model on several hosts, made of handles to the model on each host. The adapters use them."""

from collections.abc import Sequence
from typing import TypeVar

from lmstudio_integrations.client.api.base import BaseHandle
from lmstudio_integrations.client.hosts.host import Host
from lmstudio_integrations.client.hosts.pool import HostPool

HandleT = TypeVar("HandleT", bound=BaseHandle)


def on_hosts(handles: Sequence[HandleT], max_retries: int) -> HandleT:
    """Return a handle to one model on several hosts, each of which has a handle to it."""
    first = handles[0]
    return type(first)(first.dispatcher, first.binding, HostPool([_host(handle) for handle in handles], max_retries))


def pool_of(handle: BaseHandle) -> HostPool:
    """Return the hosts of a handle, also if it is only one."""
    return handle.hosts or HostPool([_host(handle)])


def _host(handle: BaseHandle) -> Host:
    return Host(str(handle.dispatcher.target), handle.dispatcher, handle.binding)
