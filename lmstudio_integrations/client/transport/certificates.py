"""TLS contexts from files of trusted certificates. Called by the adapters, whose fields hold paths only."""

import ssl
from functools import lru_cache
from pathlib import Path

from lmstudio_integrations.errors import LMStudioValueError


def context_trusting(ca_file: str) -> ssl.SSLContext:
    """Return a context that trusts the certificates of a file, and no others.

    The same file gives the same context, because connections are shared by clients that have the same one.

    Raises:
        LMStudioValueError: If the file cannot be read, or holds no certificate in PEM form.
    """
    try:
        stat = Path(ca_file).stat()
        return _load(ca_file, stat.st_mtime_ns, stat.st_size)
    except ssl.SSLError as error:
        raise LMStudioValueError(
            f"ca_file {ca_file!r} holds no certificate in PEM form: {error.reason or error}"
        ) from error
    except (OSError, ValueError) as error:  # a path with a null character is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise LMStudioValueError(f"ca_file {ca_file!r} cannot be read: {reason}") from error


@lru_cache(maxsize=16)
def _load(ca_file: str, _modified_at: int, _size: int) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file)
