"""The page of the evidence is up to date, and each rule that recovers something is on it."""

from pathlib import Path

import pytest

from lmstudio_integrations.client.predictions.entries import ENTRIES
from lmstudio_integrations.types.timeouts import ModelTimeouts
from tests.docs.snippets import read as read_page
from tests.real.players import PLAYERS
from tools import ROOT
from tools.evidence.causes import count_causes
from tools.evidence.defaults import DEFAULTS, RECOVERS_NOTHING
from tools.evidence.page import PAGE, numbers_of, render_page, sentence, version_of
from tools.evidence.rows import OBSERVATIONS, Row, read

ROWS = {row.id: row for row in read(OBSERVATIONS)}
NAMED = {default.name for default in DEFAULTS}


@pytest.mark.slow
@pytest.mark.leaf("calls_in_text")
def test_the_page_is_generated_from_the_observations() -> None:
    assert PAGE.read_text(encoding="utf-8") == render_page(), "run python -m tools.evidence"


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/guides/comparison.md"])
def test_a_page_for_users_says_how_much_was_observed(page: str) -> None:
    assert sentence() in " ".join(read_page(page).split())


@pytest.mark.leaf("calls_in_text")
def test_the_readme_says_which_versions_were_observed_and_how_many_outputs() -> None:
    from tools.evidence.outputs import all_outputs

    found = {version for row in ROWS.values() if (version := version_of(row)) and not version.startswith("Bionic")}
    first, *_, last = sorted(found, key=lambda version: [int(part) for part in version.split(".")])
    text = " ".join(read_page("README.md").split())
    assert f"LM Studio {first} to {last} and Bionic, and {len(all_outputs())} outputs of models" in text


def test_each_default_names_observations_that_exist() -> None:
    assert {each for default in DEFAULTS for each in default.seen} <= ROWS.keys()
    assert len(NAMED) == len(DEFAULTS)


def test_each_default_is_in_the_package() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "lmstudio_integrations").rglob("*.py"))
    assert {name for name in NAMED if name not in source} == set()


def test_each_step_of_a_prediction_and_each_timeout_is_among_the_defaults() -> None:
    steps = {place.rpartition(".")[2] for place, _ in ENTRIES}
    assert steps >= RECOVERS_NOTHING
    assert steps - RECOVERS_NOTHING <= NAMED
    assert ModelTimeouts.model_fields.keys() - {"total_timeout"} <= NAMED  # that one is off, unless it is set


@pytest.mark.leaf("calls_in_text")
def test_without_its_row_a_family_is_not_read() -> None:
    """And afterwards it is again."""
    from tools.evidence.outputs import all_outputs, read_output
    from tools.evidence.rules import FAMILIES, all_rules

    rule = next(rule for rule in all_rules() if (rule.part, rule.name) == (FAMILIES, "LFM"))
    row = next(row for row in all_outputs() if row.id == "tool-text-01")
    assert row.id in rule.asked_for_by()
    assert read_output(row, repairs=False) == ([("list_directory", {"path": "desktop"})], "")


@pytest.mark.leaf("calls_in_text")
def test_every_rule_has_a_name_of_its_own_and_clues_that_some_text_can_have() -> None:
    from tools.evidence.rules import all_rules

    rules = [(rule.part, rule.name) for rule in all_rules()]
    assert len(rules) == len(set(rules))
    assert all(all(rule.clues) or rule.clues == ("",) for rule in all_rules())


def test_an_error_counts_for_the_first_cause_that_its_words_have() -> None:
    causes, unknown = count_causes([ROWS["error-predict-01"], ROWS["error-embed-102"], ROWS["error-rpc-03"]])
    assert [ids for _, ids in causes if ids] == [["error-predict-01"]]
    assert unknown == ["error-embed-102"]  # a code decides about the third


@pytest.mark.parametrize(
    ("version", "exact"),
    [
        ("0.4.21+2, macOS", "0.4.21"),
        ("0.3.15 (11)", "0.3.15"),
        ("Bionic 1.1.4 (3), Windows", "Bionic 1.1.4"),
        ("0.4.2x, Linux", None),
        ("0.3.10x", None),
        ("0.3.5+, gemma-2-2b-it", None),
        ("0.4.x", None),
        ("Bionic 1.1x", None),
        ("gemma 4", None),
    ],
)
def test_only_versions_that_are_known_exactly_are_counted(version: str, exact: str | None) -> None:
    row = Row(id="fact-1", source="page", date="2026", kind="fact", payload="words", version=version)
    assert version_of(row) == exact
    assert numbers_of([row]).versions == (exact is not None)


def test_each_kind_of_observation_is_described() -> None:
    text = Path(OBSERVATIONS.with_name("README.md")).read_text(encoding="utf-8")
    assert {kind for kind in PLAYERS if f"`{kind}`" not in text} == set()
