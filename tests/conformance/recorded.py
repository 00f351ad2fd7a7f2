"""A plugin of pytest with which all clients of an emulator connect to a recording proxy in front of it.

`tests/conformance/run` runs the tests of the older SDKs in this way, unchanged.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lmstudio_integrations.cassettes import Recording
from lmstudio_integrations.cassettes.cassette import read
from lmstudio_integrations.emulator import Emulator


@pytest.fixture(autouse=True)
def _recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    recordings: dict[Emulator, Recording] = {}
    server_address = vars(Emulator)["address"]
    with ExitStack() as stack:

        def address(emulator: Emulator) -> str:
            if emulator not in recordings:
                cassette = tmp_path / f"{len(recordings)}.cassette"
                recordings[emulator] = stack.enter_context(Recording(cassette, server_address.__get__(emulator)))
            return recordings[emulator].address

        monkeypatch.setattr(Emulator, "address", property(address))
        yield
    for recording in recordings.values():
        assert len(read(recording.path)) == recording.requests
