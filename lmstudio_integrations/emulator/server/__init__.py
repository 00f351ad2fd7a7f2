"""The server: sockets, clients and what they may do, and a handler for each endpoint."""
