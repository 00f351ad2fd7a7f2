"""Redact URLs for messages and logs."""

from urllib.parse import urlsplit

_LONGEST = 120


def redacted_url(url: str) -> str:
    """Return a URL without its possible secrets: user name, password, query and fragment.

    A URL that cannot be parsed is reduced to its scheme.
    """
    scheme = url.partition(":")[0].lower()
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
        parts = None
    if parts is None or not host:
        return f"{scheme}:…" if scheme.isalnum() and len(scheme) < len(url) else "…"
    netloc = f"[{host}]" if ":" in host else host
    shown = f"{scheme}://{netloc}{'' if port is None else f':{port}'}{parts.path}"
    printable = "".join(character if character.isprintable() else "�" for character in shown)
    return printable if len(printable) <= _LONGEST else f"{printable[:_LONGEST]}…"
