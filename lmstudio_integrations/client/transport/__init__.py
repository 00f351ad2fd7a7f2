"""What connects: servers, sockets, and the calls on them.

Outward, a flow starts calls with an `Operation` (`operation.py`) in a client's `ClientContext` (`client_context.py`),
which submits them to the I/O thread. There a `Connection` (`connections.py`) sends them on its socket
(`socket_session.py`), which `connect/` has found and opened. Inward, the session of the protocol delivers to the
mailbox of the call, which wakes the caller. `listener.py` says what is reported on the way.

How callers wait is in `concurrency/`. The other subpackages of the client use this one; it imports none of them.
"""
