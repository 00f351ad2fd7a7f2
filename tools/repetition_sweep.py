"""Measures the limits of `stop_on_repetition`: `python -m tools.repetition_sweep FOLDER [--all]`.

Texts of packages are each sent as one response in fragments of four characters, and none may be stopped; with `--all`
all texts, instead of 2,000 that are drawn. Then each loop of `tests/client/predictions/loops.json` must be stopped in
time. FOLDER gets the packages, once.
"""

import argparse
import base64
import gzip
import json
import lzma
import random
import re
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lmstudio_integrations.client.predictions.entries.stop_on_repetition import StopOnRepetition
from lmstudio_integrations.client.predictions.middleware import Ask
from lmstudio_integrations.client.predictions.plan import Plan
from lmstudio_integrations.client.predictions.repetition import Repetition
from lmstudio_integrations.protocol.kv_config import stack_of
from lmstudio_integrations.types.chat import WireHistory
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PredictionEvent,
    ToolCallArguments,
    ToolCallStart,
)
from tools import ROOT

LOOPS = ROOT / "tests/client/predictions/loops.json"

PACKAGES = {
    "pip download --no-deps --only-binary=:all:": (
        "django faker scikit-learn statsmodels sphinx cowsay pyfiglet bokeh-sampledata"
    ),
    "pip download --no-deps --no-binary=:all:": "pygments",
    "npm pack": "vega-datasets figlet moment bootstrap lodash d3 typescript prettier eslint caniuse-lite",
    "apt-get download": (
        "bible-kjv-text fortunes fortunes-min miscfiles debian-policy gdb openjdk-17-jre-headless postgresql-15"
    ),
}
"""How packages are downloaded, and which."""

KINDS: Mapping[str, tuple[str, ...]] = {
    "Python": (".py", ".pyi"),
    "JavaScript, CSS": (".js", ".ts", ".css", ".scss"),
    "C": (".c", ".h", ".cpp", ".hpp"),
    "JSON": (".json", ".geojson", ".ipynb", ".gltf"),
    "CSV": (".csv", ".tsv"),
    "Markdown": (".md", ".rst"),
    "HTML, XML, SVG": (".html", ".xml", ".svg"),
    "SQL": (".sql",),
    "locale": (".po",),
    "log": (".log",),
    "ASCII art": (".flf", ".cow", ".tlf"),
    "licence": ("license", "copying", "copyright", "notice"),
    "changelog": ("changelog", "news", "history", "changes", "releasenotes"),
    "poem": ("songs-poems", "bible", "literature", "wisdom", "love", "men-women", "people", "definitions", "riddles"),
    "base64": (".png", ".gif", ".ico", ".mo", ".woff2", ".ttf", ".pdf", ".gz"),
}
"""Texts by the end of the name of a file, or by its beginning. What is no text becomes one as base64."""

_RARE = {"poem", "log", "SQL"}
"""Kinds of which every part of a file is a text."""

_DRAWN = 2_000
_LONGEST = 30_000
"""Characters of one response, about 7,500 tokens. What is left of a file is the next one."""
_SHORTEST = 1_500
_MOST_OF_ONE_FILE = 4
_FRAGMENT = 4


class Text(NamedTuple):
    """One response."""

    kind: str
    name: str
    content: str


class Stop(NamedTuple):
    """How a response was stopped: what was found, and how many characters had arrived by then."""

    repetition: Repetition
    at: int


class _Cancelled:
    def cancel(self) -> None:
        """Do nothing: what is sent afterwards is known."""


def find_stop(
    fragments: Iterable[str],
    channel: str = "text",
    *,
    prompt: str = "",
    limit: bool | int = True,
    settings: LlmPredictionConfig | None = None,
) -> Stop | None:
    """Return how a response is stopped; `None` if it is not.

    Args:
        fragments: What the server sends.
        channel: What they are: `text`, `reasoning` or `arguments`.
        prompt: What was asked.
        limit: The argument `stop_on_repetition`.
        settings: The settings of the prediction.
    """
    settings = settings or LlmPredictionConfig()
    middleware = StopOnRepetition(Plan([], "Sweep", settings, {"stop_on_repetition": limit}))
    history = WireHistory.of_prompt(prompt).to_dict()
    call: Any = _Cancelled()
    ask = Ask(call=call)
    ask.parameter = {"history": history, "predictionConfigStack": stack_of(settings)}
    arrived = 0
    if channel == "arguments":
        ask.raw.add_all([ToolCallStart("1")])
    for fragment in fragments:
        event: PredictionEvent = ToolCallArguments(fragment)
        if channel != "arguments":
            event = LlmPredictionFragment(fragment, reasoning_type="none" if channel == "text" else "reasoning")
        ask.raw.add_all([event])
        middleware.events([event], ask)
        arrived += len(fragment)
        if middleware.repetition is not None:
            return Stop(middleware.repetition[1], arrived)
    return None


def in_fragments(text: str) -> Iterator[str]:
    """Yield a text in fragments of the length of a token."""
    for start in range(0, len(text), _FRAGMENT):
        yield text[start : start + _FRAGMENT]


# Texts ----------------------------------------------------------------------------------------------------------------


def download(folder: Path) -> None:
    """Download and unpack the packages, unless the folder has them."""
    archives, files = folder / "archives", folder / "files"
    if files.exists():
        return
    archives.mkdir(parents=True)
    for command, names in PACKAGES.items():
        for name in names.split():
            subprocess.run([*command.split(), name], cwd=archives, check=False, capture_output=True)
    for archive in sorted(archives.iterdir()):
        target = files / archive.name
        target.mkdir(parents=True)
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(target)
        elif archive.suffix == ".deb":
            subprocess.run(["dpkg", "-x", archive, target], check=True)
        else:
            with tarfile.open(archive) as tar:
                tar.extractall(target, filter="data")


def texts_in(folder: Path) -> Iterator[Text]:
    """Yield the texts of the packages, of those that are installed, and of the logs of this machine."""
    folders = [folder / "files", Path(json.__file__).parents[1], Path("/usr/share/doc"), Path("/var/log")]
    folders += [Path("/usr/share/common-licenses"), *map(Path, {path for path in sys.path if "site-packages" in path})]
    hashes: set[int] = set()
    for path in sorted({path for each in folders for path in each.rglob("*")}):
        kind = _kind_of(path)
        if kind is None or path.is_symlink() or not path.is_file():
            continue
        for number, content in enumerate(_contents(path, kind)):
            if hash(content) not in hashes:
                hashes.add(hash(content))
                yield Text(kind, f"{path.name} {number}", content)


def _kind_of(path: Path) -> str | None:
    name = path.name.lower().removesuffix(".gz").removesuffix(".xz")
    suffix = Path(name).suffix
    for kind, names in KINDS.items():
        if suffix in names or (suffix not in {".py", ".pyi", ".dat"} and name.startswith(names)):
            return kind
    return None


def _contents(path: Path, kind: str) -> list[str]:
    data = path.read_bytes()[: 10 * _LONGEST]
    if kind == "base64":
        text = base64.b64encode(data).decode()
    else:
        try:
            unpack = {".gz": gzip.decompress, ".xz": lzma.decompress}.get(path.suffix, bytes)
            text = unpack(path.read_bytes()).decode()
        except (UnicodeDecodeError, EOFError, OSError, lzma.LZMAError):
            return []
    parts = [text[start : start + _LONGEST] for start in range(0, len(text), _LONGEST)]
    parts = parts if kind in _RARE else parts[:_MOST_OF_ONE_FILE]
    return [part for part in parts if len(part) >= _SHORTEST and "\0" not in part]


def draw(texts: Iterable[Text]) -> list[Text]:
    """Draw texts, of each kind as many as of others, as far as there are so many."""
    by_kind: dict[str, list[Text]] = {}
    for text in texts:
        by_kind.setdefault(text.kind, []).append(text)
    selection: list[Text] = []
    for number, (_, texts_of_kind) in enumerate(sorted(by_kind.items(), key=lambda each: len(each[1]))):
        random.Random(number).shuffle(texts_of_kind)
        selection += texts_of_kind[: (_DRAWN - len(selection)) // (len(by_kind) - number)]
    return selection


# Loops ----------------------------------------------------------------------------------------------------------------


class Loop(NamedTuple):
    """A generation that repeats itself, with more copies than any limit."""

    source: str
    channel: str
    prompt: str
    before: str
    copies: list[str]

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "Loop":
        """Write the copies of a loop of the file: all alike, with a number that rises, or at random."""
        block, number = entry["block"], 20_000 // len(entry["block"]) + 8
        copies = [block] * number
        if entry["variation"] == "counter":
            copies = [entry["template"].replace("{n}", str(entry["start"] + step)) for step in range(number)]
        elif entry["variation"] == "words":
            copies = random.Random(number).choices(entry["variants"], k=number)
        return cls(entry["source"], entry["channel"], entry["prompt"], entry["before"], copies)

    @property
    def period(self) -> int:
        """The length of a copy."""
        return max(map(len, self.copies))

    @property
    def has_words(self) -> bool:
        """Whether it is found sooner: all copies are alike, and have 20 characters and words."""
        words = {word for word in re.findall(r"[^\W\d_]+", self.copies[0]) if len(word) >= _WORD}
        are_alike = self.copies[0] == self.copies[1]
        return are_alike and len(self.copies[0]) >= _SHORTEST_BLOCK and bool(words)

    @property
    def limit(self) -> int:
        """The number of characters after which it must be stopped."""
        return max(_SOON, 3 * self.period) if self.has_words else _LATE

    def find_stop(self) -> Stop | None:
        """Return how it is stopped."""
        settings = LlmPredictionConfig(structured={"type": "json"}) if self.channel == "json" else None
        channel = "text" if self.channel == "json" else self.channel
        return find_stop(
            in_fragments(self.before + "".join(self.copies)), channel, prompt=self.prompt, settings=settings
        )


_SOON, _LATE = 400 * _FRAGMENT, 2_000 * _FRAGMENT
_SHORTEST_BLOCK, _WORD = 20, 3


def loops() -> list[Loop]:
    """Return the loops of the file."""
    return [Loop.of(entry) for entry in json.loads(LOOPS.read_text(encoding="utf-8"))]


def main(folder: Path, *, is_all: bool) -> None:
    """Print what is stopped of the texts, and of the loops."""
    download(folder)
    texts = list(texts_in(folder))
    texts = texts if is_all else draw(texts)
    stops = [(text, stop) for text in texts if (stop := find_stop(in_fragments(text.content))) is not None]
    numbers, false_ones = Counter(text.kind for text in texts), Counter(text.kind for text, _ in stops)
    print("| texts | number | million characters | stopped |\n| --- | ---: | ---: | ---: |")
    for kind, number in numbers.most_common():
        length = sum(len(text.content) for text in texts if text.kind == kind)
        print(f"| {kind} | {number} | {length / 1e6:.1f} | {false_ones[kind]} |")
    print(f"| all | {len(texts)} | {sum(len(text.content) for text in texts) / 1e6:.1f} | {len(stops)} |\n")
    for text, (repetition, at) in stops:
        print(f"{text.kind}, {text.name}: {at - repetition.start} characters of {repetition.block[:100]!r}")
    print("| loop | where | characters of a copy | stopped after | at most |\n| --- | --- | ---: | ---: | ---: |")
    for loop in loops():
        stop = loop.find_stop()
        after = "never" if stop is None else stop.at - len(loop.before)
        print(f"| {loop.source} | {loop.channel} | {loop.period} | {after} | {loop.limit} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--all", action="store_true")
    given = parser.parse_args()
    main(given.folder, is_all=given.all)
