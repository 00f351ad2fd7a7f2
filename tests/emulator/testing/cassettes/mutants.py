"""Cassettes that other people might have made: mutated ones, of which only typed errors may come.

`python -m tests.emulator.testing.cassettes.mutants NUMBER` reads so many.
"""

import contextlib
import gzip
import json
import logging
import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import lmstudio_integrations as lms
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.emulator import Emulator, Recording
from lmstudio_integrations.emulator.testing.cassettes.cassette import Interaction, read
from lmstudio_integrations.emulator.testing.cassettes.instances import RecordedInstances
from lmstudio_integrations.emulator.testing.cassettes.matching import Matcher
from lmstudio_integrations.emulator.testing.cassettes.redaction import Redaction
from lmstudio_integrations.emulator.testing.cassettes.response import compare, describe
from lmstudio_integrations.errors import LMStudioValueError
from tests.fuzz.mutations import mutated
from tests.support.web import PIXEL


def record(path: Path) -> None:
    """Record a session that has events of many kinds."""
    models: list[Any] = ["chat", {"key": "eyes", "vision": True}, {"key": "vectors", "kind": "embedding"}]
    with (
        Emulator(models, auto_evict=False) as server,
        Recording(path, server.address) as recording,
        lms.Client(recording.address) as client,
    ):
        chat = lms.Chat()
        chat.add_user_message("What is it?", images=[client.files.prepare_image(PIXEL, "pixel.png")])
        model = client.llm.model("eyes")
        model.respond(chat, config={"temperature": 0.5})
        model.get_info()
        model.get_load_config()
        for fragment in model.respond_stream("Tell me a story"):
            assert fragment.content
        client.llm.model("chat").tokenize("Hello")
        client.embedding.model("vectors").embed("Hello")
        client.list_loaded_models()
        with contextlib.suppress(lms.LMStudioServerError):
            client.llm.unload("nothing")
        client.llm.unload("chat")


def mutant(data: bytes, random: Random) -> bytes:
    """Return a cassette that is damaged, or has other content."""
    lines = data.splitlines(keepends=True)
    for _ in range(random.randint(1, 2)):
        index = random.randrange(len(lines))
        match random.randrange(20):
            case 0:
                lines[index] = b""
            case 1:
                lines.insert(index, random.choice(lines))
            case 2:
                random.shuffle(lines)
            case 3 if lines[index]:
                at = random.randrange(len(lines[index]))
                lines[index] = lines[index][:at] + random.randbytes(random.randint(0, 3)) + lines[index][at + 1 :]
            case 4:
                del lines[index + 1 :]
                lines[index] = lines[index][: random.randrange(len(lines[index]) + 1)]
            case number:
                with contextlib.suppress(ValueError):
                    line = json.loads(lines[index])
                    bodies = line.keys() & {"parameter", "packet", "result", "error"}
                    if number == 5 or not bodies:
                        line = mutated(line, random)
                    else:
                        line = {name: mutated(line[name], random) if name in bodies else line[name] for name in line}
                    lines[index] = json.dumps(line).encode() + b"\n"
    return b"".join(lines)


def use(path: Path, original: list[Interaction]) -> str:
    """Read a cassette, and if it is one, ask it everything; return what came of it."""
    try:
        found = read(path)
    except LMStudioValueError as error:
        return "rejected" if str(path) in str(error) else f"the file is not named: {error}"
    matcher = Matcher(found, Redaction())
    for each in (*original, *found):
        matcher.find(each.request)
        matcher.explain(each.request._replace(parameter={"other": each.parameter if is_object(each.parameter) else 1}))
    instances = RecordedInstances(found)
    for each in found:
        assert describe(each, instances.references)
        instances.response(each.request)
    compare(original, found)
    return "read"


def use_mutants(folder: Path, seed: int, count: int) -> Counter[str]:
    """Use so many mutants, each second one compressed, of which each second one is damaged; count what came of them."""
    original = folder / "original.lms.jsonl"
    record(original)
    interactions, outcomes = read(original), Counter[str]()
    for number in range(count):
        random = Random(f"{seed} {number}")
        data = mutant(original.read_bytes(), random)
        path = folder / ("x.lms.jsonl.gz" if number % 2 else "x.lms.jsonl")
        if number % 2:
            data = gzip.compress(data, 1)
        if number % 4 == 3:
            at = random.randrange(len(data))
            data = data[:at] + random.randbytes(random.randint(0, 3)) + data[at + 1 :]
        path.write_bytes(data)
        try:
            outcomes[use(path, interactions)] += 1
        except BaseException as error:
            error.add_note(f"seed {seed}, mutant {number}")
            raise
    return outcomes


if __name__ == "__main__":
    logging.disable()
    with tempfile.TemporaryDirectory() as name:
        print(use_mutants(Path(name), 1, int(sys.argv[1])))
