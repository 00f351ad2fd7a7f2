"""What all of these tests need: time."""

import pytest

from lmstudio_integrations.client.transport.connect import probe


@pytest.fixture(autouse=True)
def time_to_respond(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a busy machine enough time to respond."""
    for name in ("PROBE_TIMEOUT", "STATUS_TIMEOUT"):
        monkeypatch.setattr(probe, name, 600.0)
