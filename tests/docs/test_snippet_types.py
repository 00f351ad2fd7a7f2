"""What the documentation shows passes `mypy --strict`, with and without pydantic's plugin, and pyright."""

import re
from collections.abc import Callable

import pytest

from tests.cookbook.recipes import RECIPES
from tests.docs.snippets import PACKAGE, PAGES, ROOT, Snippet, docstrings, in_docstrings, in_text, on_page, read
from tests.docs.type_checks import Checks, Finding, module_of

pytest.importorskip("mypy", reason="the group lint is not installed")
pytest.importorskip("pyright", reason="the group lint is not installed")

PEERS = re.compile(
    r"^ *(?:from|import) (?:langchain_(?:ollama|openai)|llama_index\.(?:embeddings|llms)|lmstudio|ollama|openai|ray)\b",
    re.MULTILINE,
)
"""Marks the snippets that are not checked: they import packages that are not installed where the checks run."""

LEVEL = {
    "typeCheckingMode": "strict",
    "pythonVersion": "3.11",
    "reportUnnecessaryTypeIgnoreComment": True,
    "reportMissingTypeStubs": False,  # of packages that have no types
    "reportDeprecated": False,  # LlamaIndex marks `agent.run(user_msg=…)`, too, which it recommends
    # Unknown types are the frameworks': ours are complete, which `pyright --verifytypes` checks.
    "reportUnknownArgumentType": False,
    "reportUnknownLambdaType": False,
    "reportUnknownMemberType": False,
    "reportUnknownParameterType": False,
    "reportUnknownVariableType": False,
    # A reader goes on with what a snippet defines.
    "reportUnusedClass": False,
    "reportUnusedFunction": False,
    "reportUnusedVariable": False,
}

CHECKERS: dict[str, Callable[[Checks], list[Finding]]] = {
    "mypy": lambda checks: checks.mypy(plugin=False),
    "mypy with pydantic's plugin": lambda checks: checks.mypy(plugin=True),
    "pyright": lambda checks: checks.pyright(LEVEL),
}

WRONG = "wrong.md"
WRONG_PAGE = """\
# Wrong on purpose

```python
from lmstudio_integrations.langchain import ChatLMStudio

model = ChatLMStudio(model="m")
```

- Indented, and with another type:

    ```python
    model = "m"
    ```

```python
from langchain_openai import NotChecked
```

```python
ChatLMStudio(model=model)
model.invoke("Hello!")
```
"""
WRONG_LINE = 21


def documented() -> dict[str, list[Snippet]]:
    """Return what is shown to readers, by file or by docstring."""
    shown = {page: on_page(page) for page in PAGES}
    for recipe in RECIPES:
        if recipe.packages:  # large packages; mypy and pyright check these recipes with the rest of the repository
            continue
        name = recipe.path.relative_to(ROOT).as_posix()
        shown[name] = [Snippet(name, 1, "python", read(name))]
    for path in sorted(PACKAGE.rglob("*.py")):
        shown |= {f"{each[0].source}_{each[0].line}": each for each in in_docstrings(path)}
    return shown


@pytest.fixture(scope="module")
def checks(tmp_path_factory: pytest.TempPathFactory) -> Checks:
    everything = {**documented(), WRONG: [*in_text(WRONG_PAGE, WRONG)]}
    checked = {name: [each for each in found if not PEERS.search(each.code)] for name, found in everything.items()}
    modules = {re.sub(r"\W", "_", name): module_of(found) for name, found in checked.items() if found}
    return Checks(tmp_path_factory.mktemp("documented"), modules)


@pytest.fixture(scope="module", params=CHECKERS)
def findings(request: pytest.FixtureRequest, checks: Checks) -> list[Finding]:
    return CHECKERS[request.param](checks)


@pytest.mark.exhaustive
@pytest.mark.timeout(180)  # a checker takes 10 to 20 seconds without its cache
def test_everything_that_is_documented_passes(findings: list[Finding]) -> None:
    first = {each.place: str(each) for each in reversed(findings) if each.place.source != WRONG}  # one for each line
    errors = [first[place] for place in sorted(first)]
    assert not errors, "\n".join(["documented, and rejected by type checkers:", *errors])


@pytest.mark.exhaustive
@pytest.mark.timeout(180)
def test_a_wrong_snippet_is_noticed_at_its_line(findings: list[Finding]) -> None:
    (wrong,) = [each for each in findings if each.place.source == WRONG]
    assert wrong.place.line == WRONG_LINE
    assert "invoke" in wrong.text


@pytest.mark.exhaustive
@pytest.mark.slow
def test_every_example_is_fenced() -> None:
    prompt = re.compile(r"^ *>>> ", re.MULTILINE)
    texts = [(page, read(page)) for page in PAGES]
    texts += [(path.name, text) for path in PACKAGE.rglob("*.py") for text, _ in docstrings(path)]
    assert [name for name, text in texts if prompt.search(text)] == [], "not checked: write it as ```python"


def test_a_snippet_sees_the_ones_before_and_may_bind_their_names_anew() -> None:
    first, second, third = (
        Snippet("page.md", line, "python", code)
        for line, code in [(3, "x = 1\nprint(x)"), (9, "x = 'a'"), (20, "x = x + 'b'")]
    )
    module = module_of([first, second, third])
    assert module.text == "x = 1\nprint(x)\nasync def then() -> None:\n x = 'a'\n x = x + 'b'\n"
    assert [place.line for place in module.places] == [3, 4, 9, 9, 20]
