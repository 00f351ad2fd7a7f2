"""The machines of a server: devices that are linked to it. See `docs/protocol.md#repository-endpoints`."""

from typing import Final

from lmstudio_integrations.errors import LMStudioModelNotFoundError
from lmstudio_integrations.types._wire_model import WireModel

LOCAL: Final = "local"
"""Names the server's own machine, where a device is chosen."""


class LinkedDevice(WireModel):
    """Another machine of LM Link. `status` is `connected` or `disconnected`."""

    device_identifier: str
    device_name: str
    status: str

    @property
    def is_connected(self) -> bool:
        """Whether its models can be used now."""
        return self.status == "connected"


class LinkStatus(WireModel):
    """What a server knows of LM Link.

    `status` is `offline`, `starting`, `online` or `stopping`, `issues` say why it is offline. `device_identifier` and
    `device_name` are those of the server's own machine. `preferred_device_identifier` is the machine that the server
    chooses where a request names none.
    """

    status: str
    issues: tuple[str, ...] = ()
    peers: tuple[LinkedDevice, ...] = ()
    device_identifier: str | None = None
    device_name: str = ""
    preferred_device_identifier: str | None = None

    def identifier_of(self, device: str) -> str | None:
        """Return the identifier of a connected device; `None` is the server's own machine.

        Args:
            device: Its identifier or its name; an identifier comes first. `local` is the server's own machine.

        Raises:
            LMStudioModelNotFoundError: If there is none, or several have the name.
        """
        if device in {LOCAL, self.device_identifier} or (self.peers and device == self.device_name):
            return None
        named = [peer for peer in self.peers if device == peer.device_identifier] or [
            peer for peer in self.peers if device == peer.device_name
        ]
        connected = [peer.device_identifier for peer in named if peer.is_connected]
        if len(connected) == 1:
            return connected[0]
        if connected:
            listed = ", ".join(map(repr, connected))
            raise LMStudioModelNotFoundError(f"several devices are named {device!r}; name an identifier: {listed}")
        others = ", ".join(map(repr, [LOCAL, *(peer.device_name for peer in self.peers if peer.is_connected)]))
        problem = "is not connected" if named else "is not linked to this server"
        raise LMStudioModelNotFoundError(f"the device {device!r} {problem}; connected: {others}")

    def name_of(self, identifier: str) -> str:
        """Return the name of a device; its identifier if it is not linked.

        Args:
            identifier: Its identifier.
        """
        names = (peer.device_name for peer in self.peers if peer.device_identifier == identifier)
        return next(names, identifier)
