"""The environment variables that the package reads."""

HOST_VARIABLE = "LMSTUDIO_HOST"
"""The server, if none is given."""

SERVER_FILE_VARIABLE = "LMS_API_SERVER_INFO_PATH"
"""The file that names the port of the server on this machine, in place of the one in LM Studio's folder."""

TOKEN_VARIABLES = ("LM_API_TOKEN", "LMSTUDIO_API_TOKEN")
"""The API token, if none is given; the first variable takes precedence."""

DEBUG_VARIABLE = "LMSTUDIO_DEBUG"
"""Whether tracebacks have the frames of this package and the causes of errors, for reports of bugs: any value."""
