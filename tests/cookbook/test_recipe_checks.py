"""If no model fits, a recipe ends with one sentence and without a traceback.

These tests run only the lines with which a recipe checks the server; `test_recipes.py` runs whole recipes.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from textwrap import dedent

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations._support.environment import HOST_VARIABLE
from lmstudio_integrations.client.api.official import reset_default_client
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.cookbook.recipes import RECIPES, Recipe
from tests.cookbook.test_recipe_pages import ROW
from tests.docs.snippets import read

CHECK = re.compile(r"^( *)try:\n[^\n]*lms\..*?(?=\n\n|\n\1asyncio\.)", re.MULTILINE | re.DOTALL)
"""From the first call of the server to an empty line, or to what runs the program."""

EMBEDDING = ModelEntry(key="acme/vectors", kind="embedding")
PLAIN = ModelEntry(key="acme/plain", vision=False, tools=False)
TOOLS = ModelEntry(key="acme/tools", vision=False, tools=True)
IMAGES = ModelEntry(key="acme/images", vision=True, tools=False)
BOTH = ModelEntry(key="acme/tools-and-images", vision=True, tools=True)

ABLE = {
    "tool use": ("it", (TOOLS, BOTH)),
    "vision": ("it", (IMAGES, BOTH)),
    "tool use and vision": ("both", (BOTH,)),
}
"""What a recipe needs, and which models have it."""

NEEDS = {name: needs.removeprefix("a model with ") for _, name, needs, _ in ROW.findall(read("docs/recipes.md"))}


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sets the server of the recipe."""
    reset_default_client()
    yield lambda address: monkeypatch.setenv(HOST_VARIABLE, address)
    reset_default_client()


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, str]]:
    """The addresses of servers on which no recipe can run, by what is wrong."""
    models = (PLAIN, TOOLS, IMAGES, BOTH, EMBEDDING)
    with ExitStack() as stack:
        running = {
            "nothing is loaded": stack.enter_context(Emulator(models)),
            "the token is missing": stack.enter_context(
                Emulator(models, tokens=["sk-lm-abcdefgh:0123456789abcdefghij"])
            ),
            "others have the ability": stack.enter_context(Emulator(models, load=[PLAIN.key])),
            "none has the ability": stack.enter_context(Emulator([PLAIN], load=[PLAIN.key])),
        }
        yield {"it is off": "localhost:9", **{wrong: server.address for wrong, server in running.items()}}


def sentence_of(recipe: Recipe) -> str:
    """Run the lines with which a recipe checks the server; return how it ends."""
    check = CHECK.search(recipe.path.read_text(encoding="utf-8"))
    assert check, "the recipe does not check the server, see CONTRIBUTING.md"
    with pytest.raises(SystemExit) as ended:
        exec(dedent(check[0]), {"lms": lms})
    sentence = str(ended.value.code)
    assert len(sentence.splitlines()) <= 2
    return sentence


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("it is off", "LM Studio is not reachable"),
        ("nothing is loaded", "No models loaded"),
        ("the token is missing", "token"),
    ],
)
def test_a_recipe_that_finds_no_model_says_why(
    wrong: str, said: str, servers: dict[str, str], use: Callable[[str], None]
) -> None:
    use(servers[wrong])
    assert {recipe.name: sentence for recipe in RECIPES if said not in (sentence := sentence_of(recipe))} == {}


def test_a_recipe_without_its_embedding_model_says_so(servers: dict[str, str], use: Callable[[str], None]) -> None:
    use(servers["others have the ability"])
    embedding = [recipe for recipe in RECIPES if "an embedding model" in NEEDS[recipe.name]]
    assert embedding
    assert all("No models loaded" in sentence_of(recipe) for recipe in embedding)


@pytest.mark.parametrize(
    "recipe", [each for each in RECIPES if NEEDS[each.name] in ABLE], ids=lambda recipe: recipe.name
)
def test_a_recipe_whose_model_lacks_an_ability_names_those_of_the_server_that_have_it(
    recipe: Recipe, servers: dict[str, str], use: Callable[[str], None]
) -> None:
    need = NEEDS[recipe.name]
    pronoun, able = ABLE[need]
    for wrong, names in (
        ("others have the ability", ", ".join(model.key for model in able)),
        ("none has the ability", "none"),
    ):
        reset_default_client()
        use(servers[wrong])
        assert sentence_of(recipe) == f"This recipe needs {need}; your models with {pronoun}: {names}."
