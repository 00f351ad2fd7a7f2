"""Plugins of the server: MCP servers, Python functions, and scripted generators."""
