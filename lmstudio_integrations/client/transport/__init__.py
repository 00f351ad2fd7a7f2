"""The transport: what moves bytes and wakes callers.

Outward, a flow (`flows.py`) starts calls with a `Dispatcher` (`dispatcher.py`), which submits them to the I/O thread
(`io_thread.py`). There a `Connection` (`connections.py`) sends them on its socket (`socket_session.py`, `opening.py`,
`websocket.py`). Inward, the session of the protocol delivers to the `Waiter` of the call (`waiters.py`), which wakes
the caller. `addresses.py`, `certificates.py`, `greeting.py` and `discovery.py` know servers and how to find them.

Used by `client/`, which this folder never imports. Built on `protocol/` and `types/`.
"""
