"""Other LlamaIndex integrations, on a server that speaks their protocols and runs the same scripted models."""
