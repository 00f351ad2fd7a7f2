"""Names this package, and the commands that install what it needs.

The adapters, the emulator and the command line show a command when a package is missing. The adapters import their
public names on first use, with `public_name`.
"""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from lmstudio_integrations._support.leaves import door

NAME = "lmstudio-integrations"


def install_command(extra: str) -> str:
    """Return a command that installs an extra; what is installed stays as it is."""
    return package_command(f'"{NAME}[{extra}]"')


def package_command(packages: str) -> str:
    """Return a command that installs other packages."""
    return f"{'pip' if find_spec('pip') else 'uv pip'} install {packages}"


def public_name(
    package: str,
    modules: Mapping[str, str],
    name: str,
    *,
    framework: str,
    distribution: str,
    extra: str | None = None,
    versions: Mapping[str, str] | None = None,
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

    Raises:
        AttributeError: If the package has no such name.
        ImportError: If the module of the name was deleted.
        ModuleNotFoundError: If the framework is not installed, or too old; the message names the command.
    """
    module = modules.get(name)
    if module is None:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    try:
        with door(name):
            return getattr(import_module(f"{package}.{module}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != framework:
            raise
        version = (versions or {}).get(name) if find_spec(framework) else None
        if version:
            needed, command = f"{distribution} {version} or newer", package_command(f"'{distribution}>={version}'")
        else:
            needed, command = distribution, install_command(extra) if extra else package_command(distribution)
        raise ModuleNotFoundError(f"{name} needs {needed}; run: {command}", name=error.name) from error
