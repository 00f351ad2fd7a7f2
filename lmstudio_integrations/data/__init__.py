"""What tools of LangChain read from the package of a provider, by its path. Nothing here imports it."""
