"""The outputs on the pages are those of their examples, and the command that writes them does so."""

from pathlib import Path

import pytest

from lmstudio_integrations.emulator.models.catalog import BUNDLED
from tests.docs.snippets import ROOT
from tools.outputs import CATALOG, is_current, normalize, pages_with_outputs, run, with_outputs

KEPT = pages_with_outputs()

PAGE = """# A page

```python
name = "world"
```

```python
print("hello", name)
```

```text
something else
```

```sh
ls
```

```text
not an output
```
"""


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.name)
def test_the_outputs_on_a_page_are_those_of_its_examples(path: Path) -> None:
    assert is_current(path.read_text(encoding="utf-8")), f"run: python -m tools.outputs {path.relative_to(ROOT)}"


def test_an_output_is_written_below_its_example_and_replaces_the_one_before() -> None:
    page = with_outputs(PAGE, ["", "hello world\n"])
    assert 'print("hello", name)\n```\n\n```text\nhello world\n```\n\n```sh' in page
    assert 'name = "world"\n```\n\n```python' in page
    assert "something else" not in page
    assert "not an output" in page
    assert page.count("<!-- outputs:") == page.count("`lmsi serve --load smollm2-135m-instruct`") == 1
    assert page.startswith("# A page\n\n*[The programs here]"), "who reads it knows first what it needs"
    assert with_outputs(page, ["", "hello world\n"]) == page


def test_a_page_with_a_model_of_the_recipes_names_their_catalog() -> None:
    page = with_outputs(PAGE.replace("hello", "qwen/qwen3-4b"), ["", "hello world\n"], "the-emulator.md")
    assert "(the-emulator.md) run with `lmsi serve --catalog cookbook/catalog.toml --load" in page
    assert "cookbook" not in with_outputs(PAGE.replace("# A page", "# About qwen/qwen3-4b"), ["", "hello world\n"])


@pytest.mark.leaf("serve")
def test_the_catalog_of_the_recipes_has_the_models_of_plain_serve() -> None:
    from lmstudio_integrations.cli._serve import build_catalog

    catalogs = build_catalog(path=CATALOG), build_catalog(scripted=True)
    of_recipes, of_serve = ({model.key: model for model in catalog.models} for catalog in catalogs)
    assert of_serve.keys() < of_recipes.keys()
    assert all(of_recipes[key] == of_serve[key] for key in of_serve.keys() - BUNDLED.keys())


def test_a_changed_example_and_a_changed_output_are_noticed() -> None:
    page = with_outputs(PAGE, ["", "hello world\n"])
    assert is_current(page)
    assert not is_current(PAGE)
    assert not is_current(page.replace('"world"', '"moon"'))
    assert not is_current(page.replace("hello world", "hello moon"))
    assert is_current(page.replace("# A page", "# Another title"))


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        ("\n  ai: \n\n", "  ai:\n"),
        ("run 01a1fd91-8e3e-7412-92d1-b0b07a95340c-0", "run …-0\n"),
        ("{'name': 'pier', 'id': '720149020'}", "{'name': 'pier', 'id': '…'}\n"),
        ("'tokens_per_second': 47.86, 'total_time_sec': 7.5e-05}", "'tokens_per_second': …, 'total_time_sec': …}\n"),
        ("'total_time_ms': 75}", "'total_time_ms': …}\n"),
        ("'timeToFirstTokenSec': 0.1,\nelapsed_seconds=3", "'timeToFirstTokenSec': …,\nelapsed_seconds=…\n"),
        ("ws://127.0.0.1:41343/llm", "ws://127.0.0.1:…/llm\n"),
        ("input_tokens: 37, seconds", "input_tokens: 37, seconds\n"),
        ("", ""),
    ],
)
def test_what_differs_from_run_to_run_is_not_shown(output: str, shown: str) -> None:
    assert normalize(output) == shown


@pytest.mark.slow
def test_examples_run_in_order_on_the_server_with_the_images_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LM_API_TOKEN", "a-token")
    cells = [
        "import os\nfrom pathlib import Path",
        "print(os.environ['LMSTUDIO_HOST'], os.environ.get('LM_API_TOKEN'))",
        "print(Path('square.png').exists(), __name__)",
    ]
    assert run(cells, "localhost:1") == ["", "localhost:1 None\n", "True __main__\n"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "cell", ["raise RuntimeError('a failure')", "import warnings; warnings.warn('a failure', stacklevel=1)"]
)
def test_an_example_that_fails_or_warns_stops_the_command(cell: str) -> None:
    with pytest.raises(SystemExit, match="a failure"):
        run([cell], "localhost:1")
