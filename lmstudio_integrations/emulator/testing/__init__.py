"""What tests use with any server: records of requests, a proxy with faults, and cassettes.

- `request_log.py` has the records; `tcp.py` is what any server and proxy needs of sockets.
- `wire_items.py` cuts what passes through a proxy into heads and frames, and names the points of the conversation.
  `proxy.py` forwards them, decides when something else happens, and breaks its connections; `actions.py` has what
  then happens. `faults.py` is the list of all faults, reads which of them users mean, and runs one for a test. The
  proxy works in front of the emulator and of LM Studio alike. A scripted model does the same without a proxy:
  `engines/scripted/playback.py` decides when, and `server/connection_handler.py` does it, with the same actions.
- `recorder.py` records what passes through a proxy as a cassette. `cassette.py` has the format, hides what
  `_support/secrets.py` takes for a secret, and finds the recorded request that a new one equals. `server/replay.py`
  responds with what was recorded.

Nothing here knows the emulator, which uses it.
"""
