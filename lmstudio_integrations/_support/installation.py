"""Names this package, and the command that installs an extra, which is built from how it was installed.

The adapters, the emulator and the command line show the command when a package is missing. The adapters import their
public names on first use, with `public_name`.
"""

import json
import re
import sys
from collections.abc import Collection, Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from inspect import currentframe
from opcode import opmap
from os import sep
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from lmstudio_integrations._support.leaves import door
from lmstudio_integrations._support.suggestions import explain_unknown_name

NAME = "lmstudio-integrations"

IS_PUBLISHED = False
"""Whether the package index has this package: from the first release on, see `docs/internals/releasing.md`."""

_PLACEHOLDER = f"PATH/TO/{NAME}"
"""Stands for a path that is not known, or must not be shown."""

_SAFE = rf"[\w .,+~=@():/\[\]{re.escape(sep)}-]+"
"""Text that means the same within double quotes to POSIX shells, cmd and PowerShell, and then to pip and uv."""


def install_command(extra: str, *, with_origin: bool = True) -> str:
    """Return a command that installs an extra of this package.

    The command repeats the path or the URL that this package was installed from. If that is not known, no longer
    exists, or may contain credentials, the command lists the extra's requirements.

    Args:
        extra: The name of the extra.
        with_origin: Whether the path or URL may be shown. A server passes `False`: its clients see the command.
    """
    return f"{_installer()} {_arguments(extra, with_origin=with_origin)}"


def package_command(package: str) -> str:
    """Return a command that installs another package."""
    return f"{_installer()} {package}"


def _installer() -> str:
    return f"{'pip' if find_spec('pip') else 'uv pip'} install"


def _arguments(extra: str, *, with_origin: bool) -> str:
    try:
        installed = distribution(NAME)
    except PackageNotFoundError:
        return f'"{_checkout() if with_origin else _PLACEHOLDER}[{extra}]"'
    origin: dict[str, Any] = json.loads((with_origin and installed.read_text("direct_url.json")) or "{}")
    target = _target(origin, extra)
    if target and re.fullmatch(_SAFE, target):
        return f'-e "{target}"' if origin.get("dir_info", {}).get("editable") else f'"{target}"'
    if IS_PUBLISHED:
        return f'"{NAME}[{extra}]"'
    needed = (requirement.partition("; extra == ") for requirement in installed.requires or ())
    return " ".join(f'"{requirement}"' for requirement, _, marker in needed if marker.strip("'\"") == extra)


def _checkout() -> str:
    """Return the path of a checkout that is on the path of modules without being installed."""
    root = Path(__file__).parents[2]
    is_project = (root / "pyproject.toml").exists()
    return str(root) if is_project and re.fullmatch(_SAFE, str(root)) else _PLACEHOLDER


def _target(origin: dict[str, Any], extra: str) -> str | None:
    """Return what to install again, given the contents of `direct_url.json`; `None` if that cannot be shown or used."""
    url: str = origin.get("url", "")
    parts = urlsplit(url)
    if not url or "@" in parts.netloc or parts.query or parts.fragment or "subdirectory" in origin:
        return None
    vcs = origin.get("vcs_info")
    if parts.scheme == "file" and not vcs:
        path = Path(url2pathname(parts.path))
        return f"{path}[{extra}]" if path.exists() else None
    if vcs:
        url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    return f"{NAME}[{extra}] @ {url}"


def unknown_name(
    package: str, known: Collection[str], name: str, counterparts: Mapping[str, str]
) -> AttributeError | ImportError:
    """Return the error about a name that a package does not have, for its `__getattr__`.

    `from package import name` discards an `AttributeError` with its text. So the error is an `ImportError` there, and
    only there, because `hasattr` knows no other error than the former.

    Args:
        package: The package.
        known: Its public names.
        name: The requested name.
        counterparts: The public names for names that other packages have.
    """
    frame = currentframe()
    while frame is not None and frame.f_code.co_name in {"unknown_name", "public_name", "__getattr__"}:
        frame = frame.f_back
    is_import = frame is not None and frame.f_code.co_code[frame.f_lasti] == opmap["IMPORT_FROM"]
    if not is_import or f"{package}.{name}" in sys.modules:  # a module that is being imported is no attribute yet
        return AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package])
    meant = counterparts.get(name)
    hint = f"did you mean {meant!r}?" if meant else explain_unknown_name(name, known, package)
    return ImportError(f"cannot import name {name!r} from {package!r}; {hint}", name=package)


def public_name(
    package: str,
    modules: Mapping[str, str],
    name: str,
    *,
    framework: str,
    distribution: str,
    extra: str | None = None,
    versions: Mapping[str, str] | None = None,
    counterparts: Mapping[str, str] | None = None,
) -> Any:
    """Return a public name of a package.

    Args:
        package: The package.
        modules: The module of each of its public names.
        name: The requested name.
        framework: The top-level package of the framework.
        distribution: The distribution that provides it.
        extra: Our extra that installs it; `None` if there is none.
        versions: The version from which on the framework has what a name needs, if that is newer than ours.
        counterparts: The public names for names that other packages have.

    Raises:
        AttributeError: If the package has no such name.
        ImportError: If it has no such name, and it was to be imported; or if the module of the name was deleted.
        ModuleNotFoundError: If the framework is not installed, or too old; the message names the command.
    """
    module = modules.get(name)
    if module is None:
        raise unknown_name(package, modules, name, counterparts or {})
    try:
        with door(name):
            return getattr(import_module(f"{package}.{module}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != framework:
            raise
        version = (versions or {}).get(name)
        if version and find_spec(framework):
            needed = f"{distribution}>={version}"
            text = f"{name} needs {distribution} {version} or newer; run: {package_command(repr(needed))}"
            raise ModuleNotFoundError(text, name=error.name) from error
        command = install_command(extra) if extra else package_command(distribution)
        raise ModuleNotFoundError(f"{name} needs {distribution}; run: {command}", name=error.name) from error
