"""The server: sockets, clients and what they may do, and a handler for each endpoint.

`server.py` listens; `connection_handler.py` serves one socket, a `sockets.Socket`, and keeps requests apart;
`handlers/` do what is asked, with what `context.py` has of the server and of the client. `authentication.py` admits
clients. `replay.py` takes the place of the handlers where a cassette is replayed.
"""
