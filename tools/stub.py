"""Writes `lmstudio_integrations/__init__.pyi`, by which type checkers see the names that are imported lazily.

`python -m tools.stub` writes it from the table of `__init__.py`; a test notices when they differ.
"""

import lmstudio_integrations
from tools import ROOT

STUB = ROOT / "lmstudio_integrations/__init__.pyi"


def stub() -> str:
    """Return what type checkers read in place of `__init__.py`."""
    lines = ["# Written by `python -m tools.stub` from the table in __init__.py.", ""]
    for module, names in vars(lmstudio_integrations)["_EXPORTS"].items():
        imports = ", ".join(f"{name} as {name}" for name in names.split())
        lines.append(f"from lmstudio_integrations{module} import {imports}")
    return "\n".join([*lines, "", "__version__: str", ""])


if __name__ == "__main__":
    STUB.write_text(stub(), encoding="utf-8")
