"""Other LlamaIndex integrations, on a server that speaks their protocols and plays the same scripted models."""
