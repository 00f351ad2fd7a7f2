"""What moves bytes and wakes callers: the I/O thread, sockets, addresses, and how a caller waits for a result."""
