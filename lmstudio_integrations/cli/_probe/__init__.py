"""The probe: asks a real LM Studio what docs/protocol.md lists as unknown, and records the responses.

`questions.py` is the table of questions; `loading.py`, `predicting.py`, `reasoning.py` and `connecting.py` make their
calls, with what is in `payloads.py`. `context.py` has the clients and instances that they may use, and `wire.py` a
connection for requests that the client does not make. `run.py` asks the user, and makes the recording.
"""
