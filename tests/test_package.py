"""The shape of the package: what is public, and what an import drags in.

Contracts in `pyproject.toml` say which part may import which.
"""

import importlib
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import lmstudio_integrations
from lmstudio_integrations import errors, pytest_plugin
from lmstudio_integrations._support.installation import install_command
from tools.stub import PACKAGES, path_of, stub

PACKAGE = Path(lmstudio_integrations.__file__).parent
NAME = PACKAGE.name

LAZY_MODULES = {"langchain_core", "llama_index", "xllamacpp", "httpx", "numpy", "typer", "rich", "websockets", "pytest"}
LAZY_MODULES |= {"aiohttp", "pyarrow", "ray"}

PUBLIC = {
    NAME: " ".join(re.findall(r" as (\w+)", path_of(NAME).read_text(encoding="utf-8"))),
    f"{NAME}.langchain": """
        ChatLMStudio LMStudioClassifier LMStudioEmbeddings LMStudioLLM LMStudioReranker LMStudioToolkit register
    """,
    f"{NAME}.langchain.middleware": "InvalidToolCallMiddleware RepeatedToolCallMiddleware ToolSearchMiddleware",
    f"{NAME}.llama_index": """
        LMStudio LMStudioEmbedding LMStudioEvaluator LMStudioReranker LMStudioSelector LMStudioTokenizer
        LMStudioToolSpec LlamaIndexToolCallError register
    """,
    f"{NAME}.ray": "Embedder Generator Reranker",
    f"{NAME}.emulator": """
        Catalog Clock ConnectionRecord DecisionRecord DeviceEntry EmbeddingRecord Emulator Limits LoadRecord
        ManualClock ModelEntry PluginCallRecord PluginEntry PredictionRecord Preset SystemClock
    """,
    f"{NAME}.cassettes": "Recording Replay use_cassette",
}
"""The public names; those of the root are in its stub. Removing one breaks programs of users."""

NATIVE = {
    "Client": """
        api_host close decision default_timeouts embedding files find_default_local_api_host hardware
        is_valid_api_host link_status list_downloaded_models list_loaded_models llm plan plugins prepare_image
        repository system with_timeouts
    """,
    **dict.fromkeys(
        ("client.llm", "client.embedding", "client.decision"),
        "estimate_usage get_model_info lazy_model list_downloaded list_loaded load_new_instance model unload",
    ),
    "client.files": "parse_document prepare_file prepare_image retrieve",
    "client.repository": "search_models",
    "client.system": "get_version list_downloaded_models",
    "client.plugins": "tools",
    "LLM": """
        act apply_prompt_template complete complete_stream count_tokens decide get_base_config
        get_chat_template_info get_context_length get_context_use get_info get_load_config get_processing_state
        get_reasoning_replay identifier loaded_explicitly prepare_images rerank respond respond_stream tokenize
        unload unload_if_loaded_here warm with_retries with_timeouts
    """,
    "EmbeddingModel": """
        count_tokens embed get_context_length get_info get_load_config get_processing_state identifier
        loaded_explicitly tokenize unload unload_if_loaded_here with_retries with_timeouts
    """,
    "DecisionModel": """
        decide get_context_length get_info get_load_config get_processing_state identifier loaded_explicitly unload
        unload_if_loaded_here with_retries with_timeouts
    """,
    "PredictionStream": """
        batches cancel close events load_config model_info prediction_config result start stats wait_for_result
    """,
    "DownloadedLlm": """
        architecture display_name info load_new_instance model model_key path size_bytes trained_for_tool_use type
        vision
    """,
    "ToolUseSession": "close start tools",
    "PluginTool": "call check from_callable is_async parse raised_errors repeatable to_tool",
}
"""The methods and attributes of native objects, sync and async; of `close` and `aclose`, each has one."""

FIXTURES = {
    "lmstudio_before_record",
    "lmstudio_cassette",
    "lmstudio_emulator",
    "lmstudio_host",
    "lmstudio_models",
    "lmstudio_session_emulator",
    "lmstudio_session_host",
}
COMMANDS = {
    "demo",
    "doctor",
    "ls",
    "plan",
    "serve",
}


def loaded_after(statement: str) -> set[str]:
    """Return the names of all modules that a fresh interpreter holds after a statement."""
    script = f"import json, sys; {statement}; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=600)
    return set(json.loads(run.stdout))


@pytest.mark.parametrize("module", PUBLIC)
def test_the_public_names_are_pinned_and_there(module: str) -> None:
    imported = importlib.import_module(module)
    expected = set(PUBLIC[module].split())
    assert module != NAME or expected >= {name for name in vars(errors) if name.startswith("LMStudio")}
    assert set(imported.__all__) == expected
    assert all(getattr(imported, name) is not None for name in expected)
    assert expected <= set(dir(imported))


@pytest.mark.parametrize("module", PUBLIC)
def test_an_unknown_name_is_no_attribute_and_cannot_be_imported(module: str) -> None:
    """Python itself suggests the nearest name, of which it looks at all in `dir`."""
    imported = importlib.import_module(module)
    assert not hasattr(imported, "Xyzzy")
    with pytest.raises(AttributeError, match=f"module '{module}' has no attribute 'Xyzzy'"):
        _ = imported.Xyzzy
    with pytest.raises(ImportError, match=f"cannot import name 'Xyzzy' from '{module}'"):
        exec(f"from {module} import Xyzzy")


def test_a_module_that_is_being_imported_can_be_imported_from_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, f"{NAME}.half", errors)
    found: dict[str, Any] = {}
    exec(f"from {NAME} import half", found)
    assert found["half"] is errors


@pytest.mark.leaf("command_line")
def test_the_fixtures_and_commands_are_pinned() -> None:
    from lmstudio_integrations.cli import _app

    assert {name for name in vars(pytest_plugin) if name.startswith("lmstudio_")} == FIXTURES
    assert set(_app.COMMANDS) == COMMANDS


def test_the_page_names_every_public_module() -> None:
    page = (PACKAGE.parent / "docs/internals/public.md").read_text(encoding="utf-8")
    modules = set(re.findall(rf"^\| `({NAME}[.\w]*)`", page, re.MULTILINE))
    assert modules == {*PUBLIC, f"{NAME}.errors"}


@pytest.mark.parametrize("prefix", ["", "Async"])
def test_the_methods_and_attributes_of_native_objects_are_pinned(prefix: str) -> None:
    client = getattr(lmstudio_integrations, f"{prefix}Client")()
    for name, public in NATIVE.items():
        owner = getattr(client, name.removeprefix("client.")) if "." in name else None
        kind = getattr(lmstudio_integrations, prefix + name) if owner is None else type(owner)
        shown = {attribute for attribute in dir(kind) if not attribute.startswith("_")}
        assert {"close" if each == "aclose" else each for each in shown} == {*public.split()}, name


def annotated(found: Any) -> Iterator[Any]:
    """Yield a class or function, and of a class the constructor, public methods and properties that are ours."""
    if not callable(found) or not found.__module__.startswith(NAME):
        return
    yield found
    for name in dir(found) if inspect.isclass(found) else ():
        attribute = inspect.getattr_static(found, name)
        for wrapper in ("__func__", "fget", "func"):  # of class methods, properties and cached properties
            attribute = getattr(attribute, wrapper, attribute)
        function = inspect.unwrap(attribute) if callable(attribute) else None
        is_ours = inspect.isfunction(function) and function.__module__.startswith(NAME)
        if is_ours and (name == "__init__" or not name.startswith("_")):
            yield attribute


def resolve(found: Any) -> None:
    """Resolve the annotations of a function, or of a class and those of its bases that are ours."""
    if not inspect.isclass(found):
        get_type_hints(found)
        return
    for base in found.__mro__:
        if base.__module__.startswith(NAME):
            inspect.get_annotations(base, eval_str=True)


@pytest.mark.parametrize("module", PUBLIC)
def test_the_annotations_of_everything_public_resolve_at_run_time(module: str) -> None:
    """langchain-core resolves those of a method that it passes on to a fallback."""
    imported = importlib.import_module(module)
    checked, unresolved = 0, list[str]()
    for name in PUBLIC[module].split():
        for each in annotated(getattr(imported, name)):
            checked += 1
            try:
                resolve(each)
            except NameError as error:
                unresolved.append(f"{each.__module__}.{each.__qualname__}: {error}")
    assert checked > len(PUBLIC) or module == f"{NAME}.ray"
    assert not unresolved


@pytest.mark.parametrize("package", PACKAGES)
def test_type_checkers_see_the_names_that_the_runtime_exports(package: str) -> None:
    assert path_of(package).read_text(encoding="utf-8") == stub(package), "run python -m tools.stub"


@pytest.mark.parametrize("module", [NAME, f"{NAME}.langchain", f"{NAME}.llama_index"])
def test_an_unknown_name_is_an_attribute_error(module: str) -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = importlib.import_module(module).no_such_name


@pytest.mark.slow
def test_importing_the_package_imports_no_framework_and_no_socket_library() -> None:
    inner = ("types", "protocol", "errors", "langchain", "llama_index")
    assert not loaded_after(f"import {NAME}, {', '.join(f'{NAME}.{each}' for each in inner)}") & LAZY_MODULES
    assert not loaded_after(f"from {NAME} import Client, AsyncClient") & (LAZY_MODULES - {"websockets"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "framework", "distribution"),
    [
        ("langchain.ChatLMStudio", "langchain_core", "langchain-core"),
        ("llama_index.LMStudio", "llama_index", "llama-index-core"),
    ],
)
def test_a_missing_extra_is_one_sentence_that_names_the_command(name: str, framework: str, distribution: str) -> None:
    part, _, adapter = name.partition(".")
    script = f"import sys; sys.modules[{framework!r}] = None; from {NAME}.{part} import {adapter}"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=600)
    command = install_command(part.replace("_", "-"))
    assert run.stderr.splitlines()[-1] == f"ModuleNotFoundError: {adapter} needs {distribution}; run: {command}"


def test_a_missing_part_of_a_framework_is_not_mistaken_for_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'other'", name="other")

    monkeypatch.setattr("lmstudio_integrations._support.installation.import_module", missing)
    with pytest.raises(ModuleNotFoundError, match="'other'"):
        _ = importlib.import_module(f"{NAME}.llama_index").__getattr__("LMStudio")


@pytest.mark.slow
def test_the_pytest_plugin_loads_nothing_but_pytest() -> None:
    plugin = f"{NAME}.pytest_plugin"
    script = f"import sys, pytest; before = {{*sys.modules}}; import {plugin}; print(*(sys.modules.keys() - before))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=600)
    assert set(run.stdout.split()) == {NAME, plugin}
