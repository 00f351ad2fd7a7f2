"""The variables of the environment that are read."""

HOST_VARIABLE = "LMSTUDIO_HOST"
"""The server, where none is named."""

TOKEN_VARIABLES = ("LM_API_TOKEN", "LMSTUDIO_API_TOKEN")
"""An API token, where none is given; the first ranks above the second."""
