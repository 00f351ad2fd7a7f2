"""Where the emulator's models come from: flags, files, folders."""

import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations import Client
from lmstudio_integrations.emulator import Catalog, Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.base import ModelMetadata
from lmstudio_integrations.emulator.engines.scripted.rules import (
    Answers,
    Error,
    InjectFault,
    Probabilities,
    Reasoning,
    Relevance,
    Text,
    ToolCall,
    Wait,
    When,
)
from lmstudio_integrations.emulator.models.catalog import BUNDLED, check_weights, describe, load, parse_model
from lmstudio_integrations.errors import LMStudioModelLoadError, LMStudioValueError
from tests.docs.snippets import blocks, read

CHAT = next(iter(BUNDLED))


def test_a_key_without_weights_is_scripted_on_request() -> None:
    found = parse_model("text-embedding-mine", scripted=True)
    assert (found.kind, found.engine, found.full_path) == ("embedding", "scripted", "scripted/text-embedding-mine")
    assert parse_model(CHAT, scripted=True).engine == "scripted"


@pytest.mark.parametrize("text", ["", "=x", "key=", "mine"])
def test_an_incomplete_model_entry_is_rejected(text: str) -> None:
    with pytest.raises(LMStudioValueError, match=r"KEY or KEY=WEIGHTS|has no weights"):
        parse_model(text)


def test_a_catalog_is_read_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text(
        """
        [[model]]
        key = "mine"
        aliases = ["my-model"]
        quantization = ["Q8_0", 8]
        tokens_per_second = 50

        [[model.rule]]
        when = { last = "^Hello" }
        then = [{ text = "Hi" }]

        [[preset]]
        identifier = "brief"
        max_tokens = 5
        temperature = 0
        """,
        encoding="utf-8",
    )
    found = load(path)
    (model,) = found.models
    assert model.engine_settings() == {
        "rules": ({"when": {"last": "^Hello"}, "then": [{"text": "Hi"}]},),
        "tokens_per_second": 50,
    }
    assert found.preset("BRIEF") is found.presets[0], "without a name, it is found by its identifier"
    assert found.preset("") is None
    assert found.presets[0].fields == {
        "llm.prediction.maxPredictedTokens": {"checked": True, "value": 5},
        "llm.prediction.temperature": 0,
    }
    assert Emulator(catalog=path).catalog == found
    assert Emulator(["more"], catalog=found).catalog.models == (model, ModelEntry(key="more"))


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


WRITER: dict[str, Any] = {"identifier": "a/b", "generator": True}
SUMS: dict[str, Any] = {"identifier": "a/b", "functions": [add]}
UNIMPLEMENTED: dict[str, Any] = {"name": "f", "description": "F", "parameters": {}, "implementation": None}


def assert_names_what_is_wrong(tables: dict[str, Any], message: str) -> None:
    """Check the error of a catalog."""
    with pytest.raises(LMStudioValueError, match=message) as caught:
        Emulator(catalog=tables)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"modle": []}, "modle: unknown field; did you mean 'model'"),
        ({"model": [{"key": "a", "kidn": "llm"}]}, "model 'a': kidn"),
        ({"model": [{"key": "a", "ruls": []}]}, "model 'a': ruls: unknown field; did you mean 'rules'"),
        ({"model": [{"key": "a"}, {"key": "a"}]}, "'a' twice"),
        ({"model": [5]}, r"model 5: it must be a table \(got 5\)"),
        ({"model": ["a", {}]}, "model number 2: key: Field required"),
        ({"preset": [{"identifier": "a", "temprature": 0}]}, "preset 'a': .*did you mean 'temperature'"),
        ({"model": [{"key": "a", "rule": [{"whn": {}}]}]}, "model 'a': rule: .*rule 1.*did you mean 'when'"),
        ({"model": [{"key": "a", "kind": "embedding", "rule": [{"then": [{"text": "x"}]}]}]}, "an embedding model can"),
        (
            {"model": [{"key": "a", "weights": "/no/such.gguf"}]},
            "model 'a': there is no file .*such.gguf'; bundled are",
        ),
        ({"memory_gib": 0}, r"memory_gib: .*greater than 0 \(got 0\)"),
    ],
)
def test_what_is_wrong_in_a_catalog_is_named(tables: dict[str, Any], message: str) -> None:
    assert_names_what_is_wrong(tables, message)


@pytest.mark.leaf("devices")
@pytest.mark.parametrize(
    ("devices", "message"),
    [
        (["laptop"], r"device 'laptop': it must be a table \(got 'laptop'\)"),
        ([{"name": "a", "speeed": 2}], "device 'a': speeed: unknown field; did you mean 'speed'"),
        ([{"name": "a"}, {"name": "b", "speed": 0}], "device 'b': speed: .*greater than 0"),
        ([{"name": "local"}], "device 'local': name: 'local' stands for this machine"),
        ([{"name": "a", "identifier": "emulator"}], "identifier: 'emulator' stands for this machine"),
        ([{"name": "a"}, {"name": "a", "identifier": "b"}], "the device 'a' twice"),
        ([{"name": "a"}, {"name": "b", "identifier": "a"}], "the device identifier 'a' twice"),
        ([{"name": each, "preferred": True} for each in "ab"], "preferred: only one .* 'a' and 'b'"),
        ([{"name": "a", "models": ["mien"]}], "the device 'a' has the unknown model 'mien'; did you mean 'mine'"),
    ],
)
def test_what_is_wrong_in_a_device_is_named(devices: list[Any], message: str) -> None:
    assert_names_what_is_wrong({"model": ["mine"], "device": devices}, message)


@pytest.mark.leaf("plugins")
@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        ({"identifier": "mcp/My_Sums", "generator": True}, "for example 'mcp/my-sums'; got 'mcp/My_Sums'"),
        ({"identifier": "a/b"}, "plugin 'a/b': it needs either functions, or .*; it has neither"),
        (WRITER | {"functions": [add]}, "plugin 'a/b': it needs either .* has functions and generator"),
        (SUMS | {"rule": [{"then": []}]}, "plugin 'a/b': it needs either .* has functions and rules"),
        (WRITER | {"rule": [{"then": 5}]}, "plugin 'a/b': rule: rule 1: then must be a text or a list of steps"),
        ({"identifier": "a/b", "functions": ["x"]}, "plugin 'a/b': functions: a tool must be a function"),
        ({"identifier": "a/b", "functions": [UNIMPLEMENTED]}, "functions: tool 'f' has no implement"),
    ],
)
def test_what_is_wrong_in_a_plugin_is_named(plugin: dict[str, Any], message: str) -> None:
    assert_names_what_is_wrong({"plugin": [plugin]}, message)


def test_each_error_of_a_catalog_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text('[[model]]\nkidn = "llm"\n[[preset]]\nidentifier = "p"\ntemprature = 1\n', encoding="utf-8")
    with pytest.raises(LMStudioValueError) as caught:
        load(path)
    assert str(caught.value).splitlines() == [
        f"the catalog {str(path)!r}: model number 1: key: Field required",
        "  model number 1: kidn: unknown field; did you mean 'kind'?",
        "  preset 'p': unknown setting 'temprature'; did you mean 'temperature'?",
    ]


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ({"models": "my-model"}, "got 'my-model'; write ['my-model']"),
        ({"models": "m"}, "got 'm'; write ['m']"),
        ({"models": {"key": "m"}}, "got {'key': 'm'}; write [{'key': 'm'}]"),
        ({"models": {"model": ["m"]}}, "write catalog={'model': ['m']}"),
        ({"models": ModelEntry(key="m")}, "; write [ModelEntry(key='m'"),
        ({"models": "my.toml"}, "write catalog='my.toml'"),
        ({"models": Path("my.toml")}, "; write catalog="),
        ({"models": Catalog()}, "; write catalog="),
        ({"models": 5}, "models must be a list of keys or entries; got 5"),
        ({"catalog": ["m"]}, "catalog must be a table such as {'model': […]}, a Catalog or a path; got ['m']; pass"),
        ({"models": ["m"], "load": "m"}, "load must be a list of keys; got a string; write load=[…]"),
        ({"models": ["m"], "tokens": "sk-lm-x"}, "tokens must be a list of API tokens; got a string"),
    ],
)
def test_one_thing_in_place_of_a_list_is_told_what_to_write(arguments: dict[str, Any], advice: str) -> None:
    with pytest.raises(LMStudioValueError) as caught:
        Emulator(**arguments)
    assert advice in str(caught.value)


def test_an_unreadable_catalog_is_an_error(tmp_path: Path) -> None:
    latin = tmp_path / "latin.toml"
    latin.write_bytes('[[model]]\nkey = "é"'.encode("latin-1"))
    for path in (latin, tmp_path / "missing.toml"):
        with pytest.raises(LMStudioValueError, match="cannot read the catalog"):
            load(path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
def test_a_folder_that_may_not_be_entered_is_an_error_of_the_file_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_arguments: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "locked" / "model.gguf"
    monkeypatch.setattr(os, "stat", denied)
    monkeypatch.setattr(Path, "stat", denied)
    with pytest.raises(LMStudioValueError, match=r"cannot read the catalog '.*': Permission denied"):
        load(path)
    with pytest.raises(LMStudioValueError, match="there is no file with the weights"):
        check_weights(Catalog(models=(ModelEntry(key="m", weights=str(path)),)))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[model]]\nkey = a", r"Invalid value \(at line 2, column 7\)"),
        (
            '[[model]]\nkey = "a"\n\n[[model]]\nkey = "b"\ncontxt_length = 5',
            "model 'b': contxt_length: unknown field; did you mean 'context_length'",
        ),
        (
            '[[model]]\nkey = "a"\n[[model.rule]]\nthen = []\n[[model.rule]]\nwhen = {lst = "x"}\nthen = []',
            "model 'a': rule: rule 2: when: unknown key 'lst'",
        ),
        ('[model]\nkey = "a"', "model: must be a list of tables, each headed .*model"),
        *(
            (f'[[preset]]\nidentifier = "p"\nstructured = {"[" * depth}{"]" * depth}', "(nested too deeply|be a valid)")
            for depth in (450, 5000)
        ),
    ],
)
def test_a_mistake_in_a_file_is_named_with_its_table(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "models.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LMStudioValueError, match=rf"models\.toml'.*{complaint}"):
        load(path)


@pytest.mark.leaf("plugins")
def test_plugins_are_tables_or_lists_of_functions() -> None:
    plugins: dict[str, Any] = {"mcp/sums": [add], "me/writer": {"generator": True, "rule": [{"then": []}]}}
    first, second = Emulator([], plugins=plugins).catalog.plugins
    assert (first.identifier, first.functions, first.kind) == ("mcp/sums", (add,), "functions")
    assert (second.identifier, second.rules, second.kind) == ("me/writer", ({"then": []},), "generator")
    both = Emulator([], catalog={"plugin": [WRITER]}, plugins=plugins).catalog
    assert [plugin.identifier for plugin in both.plugins] == ["a/b", "mcp/sums", "me/writer"]
    with pytest.raises(LMStudioValueError, match="plugin 'mcp/none': functions: tool use needs at least one tool"):
        Emulator([], plugins={"mcp/sums": [add], "mcp/none": []})


def test_entries_are_tables_keys_or_entries_and_weights_are_never_played_by_a_script() -> None:
    same: list[Any] = [{"key": "a"}, "a", ModelEntry(key="a")]
    assert [Emulator([each]).catalog.models for each in same] == [(ModelEntry(key="a"),)] * 3
    read = ModelEntry.model_validate
    assert read({"key": "a", "weights": CHAT}).engine == "llama_cpp"
    assert read({"key": "a", "weights": CHAT, "engine": "scripted"}).engine == "scripted"
    assert ModelEntry(key="a").engine == "scripted"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"models": [f"a={CHAT}"]},
        {"models": [{"key": "a", "weights": CHAT}]},
        {"models": [{"key": "a", "weights": "/no/such.gguf", "downloaded": False}]},
        {"catalog": Path(__file__).parent},
    ],
    ids=["no models", "a text", "a table", "a model to download", "a folder"],
)
def test_weights_whose_engine_was_deleted_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, "lmstudio_integrations.emulator.engines.llama_cpp", None)
    with pytest.raises(ImportError, match=r"without the engine 'llama_cpp'.*no module .*\.engines\.llama_cpp\.$"):
        Emulator(**settings)
    with Emulator(["scripted"]) as server:
        assert server.load("scripted").identifier == "scripted"


def test_a_name_is_a_key_before_it_is_an_alias_or_a_path() -> None:
    one = ModelEntry(key="one", path="Me/One-GGUF/one.gguf", aliases=("two",))
    two = ModelEntry(key="two", path="me/two/two.gguf")
    catalog = Catalog(models=(one, two))
    assert catalog.find("two") == [two]
    assert catalog.find("me/one") == [one]
    assert catalog.find("me/") == [one, two]
    assert catalog.find("m") == []
    assert Catalog(models=(one,)).find("two") == [one]


def test_fields_of_an_entry_override_the_metadata_of_its_weights() -> None:
    metadata = ModelMetadata(architecture="llama", params="1B", size_bytes=7, quantization=("Q4_1", 4), vision=True)
    info = describe(ModelEntry(key="a", params="2B", size_bytes=9, vision=False), metadata)
    assert (info["paramsString"], info["sizeBytes"], info["architecture"]) == ("2B", 9, "llama")
    assert info["path"] == "scripted/a"
    assert (info["vision"], info["trainedForToolUse"]) == (False, False)
    assert info["quantization"] == {"name": "Q4_1", "bits": 4}
    assert "paramsString" not in describe(ModelEntry(key="a"), ModelMetadata())


# The page of the documentation

PAGE = read("docs/tools/catalog.md")


@pytest.mark.leaf("devices", "plugins")
def test_the_catalog_of_the_documentation_works() -> None:
    example, application, devices, plugins, reranker = blocks("docs/tools/catalog.md", "toml")
    catalog = Catalog.parse(tomllib.loads(example))
    scripted = tuple(each for each in catalog.models if each.engine == "scripted")
    with Emulator(scripted) as server:
        assert [server.load(each.key).identifier for each in scripted] == [each.key for each in scripted]
        assert len(scripted) == 2
    assert Catalog.parse(tomllib.loads(application)).application == "bionic"
    linked = Catalog.parse(tomllib.loads(devices))
    with Emulator(catalog=linked) as server:
        assert [server.load(model.key).device_identifier for model in linked.models] == [None, "studio"]
        with pytest.raises(LMStudioModelLoadError, match="insufficient system resources"):
            server.load(linked.models[0].key)
    assert [plugin.kind for plugin in Catalog.parse(tomllib.loads(plugins)).plugins] == ["generator"]
    (model,) = Catalog.parse(tomllib.loads(reranker)).models
    with Emulator([model]) as server, Client(server.address) as client:
        results = client.llm.model(model.key).rerank("When does it leave?", ["It rains", "The ferries leave at nine"])
        assert [each.index for each in results] == [1, 0]
        assert [each.score for each in results] == pytest.approx([0.9, 0.01])


def test_the_program_of_the_documentation_works() -> None:
    (example,) = blocks("docs/tools/catalog.md")
    exec(compile(example, "docs/tools/catalog.md", "exec"), {})


def test_the_documentation_names_every_condition_and_step() -> None:
    conditions, steps = (
        set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| ([^|]*) \|", table, re.MULTILINE))))
        for table in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE)
    )
    assert conditions == set(When.model_fields)
    assert steps == {
        name
        for step in (Text, Reasoning, ToolCall, Relevance, Probabilities, Answers, Error, InjectFault, Wait)
        for name in step.model_fields
    }
