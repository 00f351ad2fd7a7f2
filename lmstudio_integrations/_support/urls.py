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
        host, port, path = parts.hostname, parts.port, parts.path
    except ValueError:
        host, port, path = None, None, ""
    if not host:
        return f"{scheme}:…" if scheme.isalnum() and len(scheme) < len(url) else "…"
    netloc = f"[{host}]" if ":" in host else host
    shown = f"{scheme}://{netloc}{'' if port is None else f':{port}'}{path}"
    printable = "".join(character if character.isprintable() else "�" for character in shown)
    return printable if len(printable) <= _LONGEST else f"{printable[:_LONGEST]}…"
