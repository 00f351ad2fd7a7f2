"""Cassettes: recordings of what programs and a server said to each other, and servers that replay them.

`cassette.py` is the format, and `recorder.py` writes what passes through the proxy. `redaction.py` removes secrets from
texts and values, and `redacted.py` from whole responses.
`meaning.py` decides which recorded request a new one equals, `known.py` has what a recording tells of models, and
`difference.py` tells why a request is not found. `player.py` responds with what was recorded, and `forwarder.py` asks a
real server for what was not.
"""
