"""The transport: what moves bytes and wakes callers.

Outward, a flow (`flows.py`) starts calls with an `Operation` (`operation.py`) in a client's `ClientContext`
(`client_context.py`), which submits them to the I/O thread (`io_thread.py`). There a `Connection` (`connections.py`)
sends them on its socket (`socket_session.py`, `connect/`). Inward, the session of the protocol delivers to the
`Mailbox` of the call (`mailboxes.py`), which wakes the caller. `listener.py` says what is reported on the way.

Used by the other subpackages of the client; it imports none of them but `support/`. Built on `protocol/` and `types/`.
"""
