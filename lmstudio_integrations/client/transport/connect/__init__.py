"""Finds and opens a server: addresses, discovery, the WebSocket, and suggestions when that fails."""
