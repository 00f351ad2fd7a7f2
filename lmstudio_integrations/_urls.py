"""URLs as messages and logs show them. Pure."""

from urllib.parse import urlsplit

_LONGEST = 120


def redacted_url(url: str) -> str:
    """Return a URL without what may be a secret: user name, password, query and fragment.

    One that cannot be parsed is reduced to its scheme, because nothing tells where its parts begin and end.
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
