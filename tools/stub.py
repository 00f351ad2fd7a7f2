"""Writes the `__init__.pyi` of each package whose names are imported lazily, so that type checkers see them.

`python -m tools.stub` writes them from the tables in `__init__.py`; a test notices when they differ.
"""

from collections import defaultdict
from importlib import import_module
from pathlib import Path

from tools import ROOT

NAME = "lmstudio_integrations"

PACKAGES = (NAME, f"{NAME}.langchain", f"{NAME}.langchain.middleware", f"{NAME}.llama_index")


def path_of(package: str) -> Path:
    """Return where the stub of a package is."""
    return ROOT / package.replace(".", "/") / "__init__.pyi"


def stub(package: str) -> str:
    """Return what type checkers read in place of the `__init__.py` of a package."""
    known = vars(import_module(package))
    modules: dict[str, list[str]] = defaultdict(list)
    for module, names in known.get("_EXPORTS", {}).items():
        modules[module] += names.split()
    for name, module in known.get("_MODULES", {}).items():
        modules[f".{module}"].append(name)
    lines = ["# Written by `python -m tools.stub` from the table in __init__.py.", ""]
    for module, names in modules.items():
        lines.append(f"from {package}{module} import {', '.join(f'{name} as {name}' for name in names)}")
    return "\n".join([*lines, *(["", "__version__: str"] if package == NAME else []), ""])


if __name__ == "__main__":
    for each in PACKAGES:
        path_of(each).write_text(stub(each), encoding="utf-8")
