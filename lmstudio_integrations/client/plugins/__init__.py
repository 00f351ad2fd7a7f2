"""Plugins and MCP servers: sessions with their tools, which `act` accepts.

sessions.py        opens sessions, lists and calls their tools
base.py            what both clients share of tools and sessions
asynchronous.py    for coroutines; `sync.py`, for threads, is written from it

`client.plugins` imports it on first use; nothing else of the client knows it.
"""
