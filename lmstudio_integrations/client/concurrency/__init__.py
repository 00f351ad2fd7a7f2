"""What waits and wakes: the one thread with an event loop, how callers wait for it, and flows, which need not wait.

An operation is a flow (`flows.py`). It yields what it waits for. Whoever drives it waits on a mailbox (`mailboxes.py`),
in a thread or in an event loop, until the I/O thread (`io_thread.py`) delivers to it. `cancel_scope.py` ends together
what was called together, and `concurrent_flows.py` runs several flows as one.

Nothing here knows LM Studio: `transport/` says what runs on the thread.
"""
