"""Cassettes: recordings of what programs and a server said to each other, and servers that replay them.

`cassette.py` is the format, and `recorder.py` writes what passes through the proxy. `redaction.py` removes secrets from
texts and values, and `interaction_redaction.py` from whole responses.
`normalize.py` brings requests into one form, so that they can be compared; `instances.py` has what a recording tells of
models, and `diff.py` tells why a request is not found. `replay.py` responds with what was recorded, and `forwarder.py`
asks a real server for what was not.
"""
