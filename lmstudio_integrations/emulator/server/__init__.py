"""The server: sockets, clients and what they may do, and a handler for each endpoint.

`server.py` listens; `connection_handler.py` serves one socket and keeps requests apart; `handlers/` do what is asked,
with what `context.py` has of the server. `clients.py` admits clients, and has what they upload.
"""
