"""Finds and opens a server: addresses, discovery, the WebSocket, and advice when that fails."""
