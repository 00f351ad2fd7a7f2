"""The doors of the adapters: their public names are imported on first use, and say what to install."""

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from lmstudio_integrations._support.installation import install_command, package_command


def public_name(
    package: str, modules: Mapping[str, str], name: str, *, framework: str, distribution: str, extra: str | None = None
) -> Any:
    """Return a public name of a package.

    Args:
        package: The package.
        modules: The module of each of its public names.
        name: The requested name.
        framework: The top-level package of the framework.
        distribution: The distribution that provides it.
        extra: Our extra that installs it; `None` if there is none.

    Raises:
        AttributeError: If the package has no such name.
        ModuleNotFoundError: If the framework is not installed; the message names the command.
    """
    module = modules.get(name)
    if module is None:
        raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package])
    try:
        return getattr(import_module(f"{package}.{module}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != framework:
            raise
        command = install_command(extra) if extra else package_command(distribution)
        raise ModuleNotFoundError(f"{name} needs {distribution}; run: {command}", name=error.name) from error
