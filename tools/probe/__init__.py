"""The probe: asks a real LM Studio what docs/protocol.md lists as unknown, and records the responses.

`loading.py`, `predicting.py`, `reasoning.py` and `connecting.py` have the questions, each a function that `question.py`
registers and that makes the calls. It may use the clients and instances of `context.py`, and for requests that the
client does not make, the connection of `wire.py`. `run.py` asks the user, and makes the recording.
"""
