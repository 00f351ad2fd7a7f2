"""Writes the tables of fields into `docs/tools/catalog.md`: `python -m tools.catalog_page`."""

import re

from pydantic import BaseModel

from lmstudio_integrations.emulator import DeviceEntry, ModelEntry, PluginEntry
from tools import ROOT

PAGE = ROOT / "docs/tools/catalog.md"

TABLES: dict[str, type[BaseModel]] = {"model": ModelEntry, "device": DeviceEntry, "plugin": PluginEntry}

_TABLE = re.compile(r"(<!-- fields of a (\w+) -->\n\n)(?:\|.*\n)*")


def render_page(old: str) -> str:
    """Return the page with the fields of today."""
    return _TABLE.sub(lambda match: f"{match[1]}{_table(TABLES[match[2]])}", old)


def _table(model: type[BaseModel]) -> str:
    rows = [f"| `{field.alias or name}` | {field.description} |\n" for name, field in model.model_fields.items()]
    return "".join(["| field | meaning |\n", "|---|---|\n", *rows])


if __name__ == "__main__":
    PAGE.write_text(render_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
