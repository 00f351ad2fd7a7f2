"""The addresses of the repository and of its site: each file has those of the project, and one command sets them."""

import shutil
from pathlib import Path

import pytest
import yaml

from tests.docs.snippets import read
from tools import ROOT
from tools.address import FILES, PLACEHOLDER, problems_of_addresses, set_addresses, urls
from tools.release import tracked_files

URLS = urls()
SOURCE, SITE = URLS["Source"], URLS["Documentation"]


def test_every_file_has_the_addresses_of_the_project() -> None:
    site = {key: value for key, _, value in (line.partition(": ") for line in read("mkdocs.yml").splitlines())}
    assert (site["repo_url"], site["site_url"]) == (SOURCE, SITE)
    assert f"\ngit clone {SOURCE} && " in read("README.md")
    links = yaml.safe_load(read(".github/ISSUE_TEMPLATE/config.yml"))["contact_links"]
    assert all(link["url"].startswith((SOURCE, SITE)) for link in links)
    assert all(url.startswith((SOURCE, SITE)) for url in URLS.values())


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a checkout")
def test_no_other_file_has_the_placeholder() -> None:
    having = {name for name in tracked_files() if PLACEHOLDER.encode() in (ROOT / name).read_bytes()}
    assert having <= {*FILES, "tools/address.py"}


def test_one_command_sets_the_addresses_and_sets_them_again(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for owner in ("acme", "ajax"):
        set_addresses(f"https://github.com/{owner}/them/", f"https://{owner}.github.io/them", root=tmp_path)
        texts = {name: (tmp_path / name).read_text(encoding="utf-8") for name in FILES}
        assert urls(tmp_path)["Changelog"] == f"https://{owner}.github.io/them/internals/changelog/"
        assert f"git clone https://github.com/{owner}/them && " in texts["README.md"]
        assert [name for name, text in texts.items() if SOURCE in text or SITE in text or owner not in text] == []


def test_a_placeholder_is_a_problem_of_a_release() -> None:
    real = {"Source": "https://github.com/acme/them", "Documentation": "https://acme.github.io/them/"}
    assert not list(problems_of_addresses(real))
    assert list(problems_of_addresses({**real, "Documentation": f"https://{PLACEHOLDER}/site/"})) == [
        "the address of the repository is a placeholder; set it with `python -m tools.address SOURCE SITE`"
    ]
