"""Public names of an adapter, imported when they are first asked for; imports nothing itself."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any


def public_name(
    package: str, modules: Mapping[str, str], name: str, *, framework: str, distribution: str, extra: str
) -> Any:
    """Return a public name of a package.

    Args:
        package: The package.
        modules: The module of each of its public names.
        name: The name that was asked for.
        framework: The top-level package of the framework.
        distribution: What has to be installed for it.
        extra: Our extra that does.

    Raises:
        AttributeError: If the package has no such name.
        ModuleNotFoundError: If the framework is not installed; the text says what to run.
    """
    module = modules.get(name)
    if module is None:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{package}.{module}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != framework:
            raise
        raise ModuleNotFoundError(
            f'{name} needs {distribution}; run: pip install "lmstudio-integrations[{extra}]"', name=error.name
        ) from error
