"""Cassettes: what a program and LM Studio said to each other, recorded once and replayed without LM Studio.

`recording.py` writes down what passes through the sessions of this process's clients, and `replay.py` is an emulator
that responds with it; `matching.py` finds the recorded request that a new one equals. `cassette.py` has the format of
the file, and `redaction.py` hides the secrets. `modes.py` records where there is a server, and else replays.

Nothing imports this but the fixture of `pytest_plugin.py` and `lmsi serve --replay`, on use.
"""

from lmstudio_integrations.cassettes.modes import use_cassette
from lmstudio_integrations.cassettes.recording import Recording
from lmstudio_integrations.cassettes.replay import Replay

__all__ = ["Recording", "Replay", "use_cassette"]
