"""TLS contexts from files of trusted certificates. The adapters call it, because their fields contain only paths."""

import ssl
from functools import lru_cache
from pathlib import Path

from lmstudio_integrations.errors import LMStudioValueError


def context_trusting(ca_file: str) -> ssl.SSLContext:
    """Return a context that trusts only the certificates of a file.

    The same file gives the same context, because clients with equal contexts share connections.

    Raises:
        LMStudioValueError: If the file cannot be read, or contains no certificate in PEM form.
    """
    try:
        stat = Path(ca_file).stat()
        return _load(ca_file, stat.st_mtime_ns, stat.st_size)
    except ssl.SSLError as error:
        raise LMStudioValueError(
            f"ca_file {ca_file!r} contains no certificate in PEM form: {error.reason or error}"
        ) from error
    except (OSError, ValueError) as error:  # a path with a null character is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise LMStudioValueError(f"ca_file {ca_file!r} cannot be read: {reason}") from error


@lru_cache(maxsize=16)
def _load(ca_file: str, _modified_at: int, _size: int) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file)
