"""The counts of statements."""

from pathlib import Path

import pytest

from tests.structure.statements import count, count_docstrings, main, sum_folders

SOURCE = '''
"""A module."""
LIMIT = 1
"""An attribute."""

def call() -> None:
    """Call."""
    if LIMIT:
        print("no docstring")
'''


def test_statements_are_counted_without_docstrings() -> None:
    assert count(SOURCE) == 4
    assert count_docstrings(SOURCE) == 3


def test_folders_are_counted_with_their_subfolders() -> None:
    assert sum_folders({"p/a.py": 1, "p/q/b.py": 2, "p/q/c.py": 4}) == {"p": 7, "p/q": 6}


def test_the_command_prints_a_table_of_any_checkout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "lmstudio_integrations" / "client"
    folder.mkdir(parents=True)
    (folder / "a.py").write_text(SOURCE)
    (folder / "b.py").write_text("x = 1")
    main([str(tmp_path)])
    assert capsys.readouterr().out.splitlines() == [
        "      5  lmstudio_integrations/",
        "      5  lmstudio_integrations/client/",
        "the largest of 2 files:",
        "      4  lmstudio_integrations/client/a.py",
        "      1  lmstudio_integrations/client/b.py",
        "with 3 docstrings: 8",
    ]
