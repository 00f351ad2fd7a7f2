"""Imports on first use: the public names of an adapter, and the modules that only its calls need."""

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

from lmstudio_integrations._support.uninterrupted import uninterrupted


def public_name(
    package: str, modules: Mapping[str, str], name: str, *, framework: str, distribution: str, extra: str
) -> Any:
    """Return a public name of a package.

    Args:
        package: The package.
        modules: The module of each of its public names.
        name: The requested name.
        framework: The top-level package of the framework.
        distribution: The distribution that provides it.
        extra: Our extra that installs it.

    Raises:
        AttributeError: If the package has no such name.
        ModuleNotFoundError: If the framework is not installed; the message names the command.
    """
    module = modules.get(name)
    if module is None:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{package}.{module}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != framework:
            raise
        from lmstudio_integrations._support.installation import install_command  # noqa: PLC0415 - slow

        raise ModuleNotFoundError(
            f"{name} needs {distribution}; run: {install_command(extra)}", name=error.name
        ) from error


class LazyModule(ModuleType):
    """Stands for a module that is imported when one of its names is first used.

    The adapters refer so to what only their calls need: it takes half the time of importing them. Type checkers see
    a plain import instead. Constants and functions are cached here, so use it only for names that are never rebound.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # pydantic looks for hooks in the values of a class
            raise AttributeError(name)
        cached = vars(self)
        if "_module" not in cached:
            cached["_module"] = uninterrupted(partial(import_module, self.__name__))
        value = cached[name] = getattr(cached["_module"], name)  # found without this method from now on
        return value
