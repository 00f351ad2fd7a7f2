"""The environment variables that the package reads, and the check of files that users name."""

import errno
from pathlib import Path

HOST_VARIABLE = "LMSTUDIO_HOST"
"""The server, if none is given."""

SERVER_FILE_VARIABLE = "LMS_API_SERVER_INFO_PATH"
"""The file that names the port of the server on this machine, in place of the one in LM Studio's folder."""

TOKEN_VARIABLES = ("LM_API_TOKEN", "LMSTUDIO_API_TOKEN")
"""The API token, if none is given; the first variable takes precedence."""

DEBUG_VARIABLE = "LMSTUDIO_DEBUG"
"""Whether tracebacks have the frames of this package and the causes of errors, for reports of bugs: any value."""


def regular(path: Path) -> Path:
    """Return the path of a file, if it is one or can become one.

    Raises:
        OSError: If it is a pipe or a device, which may never end, or cannot be looked at.
        ValueError: If no file can have that path.
    """
    try:
        path.stat()
    except FileNotFoundError:
        return path
    if not (path.is_file() or path.is_dir()):  # of a folder, the system's own error says more
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))
    return path
