"""Cassettes: recordings of what programs and a server said to each other, which the emulator replays.

`cassette.py` is the format, and `recorder.py` writes what passes through the proxy. `redaction.py` hides what
`_support/secrets.py` takes for a secret from texts and values, and `interaction_redaction.py` from whole responses.
`normalize.py` brings requests into one form, so that they can be compared; `instances.py` has what a recording tells
of models. `matching.py` finds a recorded request, and `diff.py` tells why one is not found. `server/replay.py`
responds with what was recorded.
"""
