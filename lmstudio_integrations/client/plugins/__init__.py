"""LM Studio's plugins, MCP servers among them: their tools."""
