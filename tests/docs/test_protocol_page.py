"""The page on the wire protocol: its sections have anchors, and whatever links to one of them finds it."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmstudio_integrations.protocol.endpoints import ENDPOINTS, NAMED_ENDPOINTS
from lmstudio_integrations.protocol.prediction import _READERS
from lmstudio_integrations.types._config_base import Settings, wire_keys
from lmstudio_integrations.types.config import EmbeddingLoadModelConfig, LlmLoadModelConfig, LlmPredictionConfig

ROOT = Path(__file__).parents[2]
PAGE = "docs/protocol.md"
SCANNED = ["lmstudio_integrations", "tests", "cookbook", "docs", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^##+ .*$", re.MULTILINE)
ANCHOR = re.compile(r"\{ #([\w-]+) \}$", re.MULTILINE)
LINK = re.compile(r"\bprotocol\.md#([\w-]*)")


def page() -> str:
    """Return the page without its code blocks."""
    return FENCE.sub("", (ROOT / PAGE).read_text(encoding="utf-8"))


def scanned_files() -> Iterator[Path]:
    for name in SCANNED:
        start = ROOT / name
        found = start.rglob("*") if start.is_dir() else [start]
        yield from (path for path in found if path.suffix in {".py", ".md", ".toml"})


def test_every_link_to_the_page_names_an_anchor_of_it() -> None:
    anchors = set(ANCHOR.findall(page()))
    linked = [(path, anchor) for path in scanned_files() for anchor in LINK.findall(path.read_text(encoding="utf-8"))]
    linked += [(ROOT / PAGE, anchor) for anchor in re.findall(r"\]\(#([\w-]+)\)", page())]
    assert [(path, anchor) for path, anchor in linked if anchor not in anchors] == []


def test_every_heading_has_an_anchor_and_no_two_share_one() -> None:
    text = page()
    assert [heading for heading in HEADING.findall(text) if not ANCHOR.search(heading)] == []
    assert [anchor for anchor, count in Counter(ANCHOR.findall(text)).items() if count > 1] == []


def test_every_endpoint_stands_on_the_page() -> None:
    known = {name for table in (ENDPOINTS, NAMED_ENDPOINTS) for endpoints in table.values() for name in endpoints}
    text = page()
    assert {name for name in known if f"`{name}`" not in text} == set()


def test_every_packet_of_a_prediction_stands_in_its_table() -> None:
    section = re.split(r"^#", page().partition("{ #predict-packets }")[2], maxsplit=1, flags=re.MULTILINE)[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)[1:] == [*_READERS]


def rows_in(anchor: str, prefix: str = "") -> Iterator[tuple[list[str], str]]:
    """Yield the keys and the default in each row of the tables of a section.

    Keys beside a full one, or after `…`, are shortened.
    """
    section = re.split(r"^### ", page().partition(f"{{ #{anchor} }}")[2], maxsplit=1, flags=re.MULTILINE)[0]
    for row in re.findall(r"^\| (`.*) \|$", section, re.MULTILINE):
        names, _, default, *_ = row.split(" | ")
        parent, keys = prefix, list[str]()
        for name in re.findall(r"`([^`]+)`", names):
            is_full = name.startswith(("llm.", "embedding.", "load."))
            keys.append(name if is_full else parent + name.replace("…", "llm.load.llama."))
            parent = prefix or keys[-1].rpartition(".")[0] + "."
        yield keys, default


ROWS = [*rows_in("load-keys"), *rows_in("prediction-keys", "llm.prediction.")]


def keys_of(*configs: type[Settings]) -> set[str]:
    return {key for each in configs for row in wire_keys(each).values() for key in (row.key, *row.copies)}


def test_every_setting_stands_in_its_table() -> None:
    keys = {key for keys, _ in ROWS for key in keys}
    ours = keys_of(LlmLoadModelConfig, EmbeddingLoadModelConfig, LlmPredictionConfig)
    assert ours - keys == set(), "add a row under Load keys or Prediction keys of docs/protocol.md"


def in_table(default: Any) -> str | None:
    """Return a default as the tables write it; `None` if they have it in words or in part."""
    if isinstance(default, dict):
        is_checkbox = default.keys() == {"checked", "value"}
        return f"{{{json.dumps(default['checked'])},{json.dumps(default['value'])}}}" if is_checkbox else None
    return json.dumps(default)


def test_the_tables_have_the_defaults_of_the_official_sdk() -> None:
    defaults = json.loads((ROOT / "tests/support/strict/typescript_defaults.json").read_text(encoding="utf-8"))
    stated = {keys[0]: default.strip("`") for keys, default in ROWS if len(keys) == 1 and keys[0] in defaults}
    expected = {key: text for key in stated if (text := in_table(defaults[key])) is not None}
    assert len(expected) > 50
    assert {key: stated[key] for key in expected} == expected
