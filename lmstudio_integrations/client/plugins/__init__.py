"""LM Studio's plugins, MCP servers among them: their tools, and the text that they generate."""
