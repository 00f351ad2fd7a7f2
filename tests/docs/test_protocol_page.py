"""The page on the wire protocol: its sections have anchors, and whatever links to one of them finds it."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from lmstudio_integrations.protocol.endpoints import ENDPOINTS, NAMED_ENDPOINTS
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


def dead_links(text: str, anchors: set[str]) -> list[str]:
    """Return the anchors that a text links to and the page does not have."""
    return sorted(set(LINK.findall(text)) - anchors)


def scanned_files() -> Iterator[Path]:
    for name in SCANNED:
        start = ROOT / name
        found = start.rglob("*") if start.is_dir() else [start]
        yield from (path for path in found if path.suffix in {".py", ".md", ".toml"})


def test_every_link_to_the_page_names_an_anchor_of_it() -> None:
    anchors = set(ANCHOR.findall(page()))
    dead = {
        str(path.relative_to(ROOT)): missing
        for path in scanned_files()
        if (missing := dead_links(path.read_text(encoding="utf-8"), anchors))
    }
    assert not dead


def test_a_link_to_an_unknown_anchor_is_found() -> None:
    text = f"A comment, see {PAGE}#framing. Another, in {PAGE}#nowhere, and [a link](../{PAGE}#)."
    assert dead_links(text, {"framing"}) == ["", "nowhere"]
    assert dead_links(f"{PAGE}#framing", {"framing"}) == []


def test_every_heading_has_an_anchor_and_no_two_share_one() -> None:
    text = page()
    assert [heading for heading in HEADING.findall(text) if not ANCHOR.search(heading)] == []
    assert [anchor for anchor, count in Counter(ANCHOR.findall(text)).items() if count > 1] == []


def test_links_inside_of_the_page_name_its_anchors() -> None:
    text = page()
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) <= set(ANCHOR.findall(text))


def test_every_endpoint_stands_on_the_page() -> None:
    known = {name for table in (ENDPOINTS, NAMED_ENDPOINTS) for endpoints in table.values() for name in endpoints}
    text = page()
    assert {name for name in known if f"`{name}`" not in text} == set()


def keys_in(text: str, anchor: str, prefix: str = "") -> set[str]:
    """Return the keys in the tables of a section. Those beside a full one, or after `…`, are shortened."""
    section = re.split(r"^### ", text.partition(f"{{ #{anchor} }}")[2], maxsplit=1, flags=re.MULTILINE)[0]
    found = set[str]()
    for cell in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE):
        parent = prefix
        for name in re.findall(r"`([^`]+)`", cell):
            is_full = name.startswith(("llm.", "embedding.", "load."))
            key = name if is_full else parent + name.replace("…", "llm.load.llama.")
            found.add(key)
            parent = prefix or key.rpartition(".")[0] + "."
    return found


def keys_of(*configs: type[Settings]) -> set[str]:
    return {key for each in configs for row in wire_keys(each).values() for key in (row.key, *row.copies)}


def test_every_setting_stands_in_its_table() -> None:
    text = page()
    assert keys_of(LlmLoadModelConfig, EmbeddingLoadModelConfig) - keys_in(text, "load-keys") == set()
    assert keys_of(LlmPredictionConfig) - keys_in(text, "prediction-keys", "llm.prediction.") == set()
