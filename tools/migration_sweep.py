"""Gives our adapters each setting of the packages that people come from: `python -m tools.migration_sweep`.

Prints what each adapter accepts, which must mean the same, and what it says of the others; `NO HINT` marks errors that
do not say what helps. The packages are those in the environment of the benchmarks. If that does not exist, the command
creates it, which downloads packages.
"""

import importlib
import inspect
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from benchmarks import environment
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings, LMStudioLLM
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding

_PROMPT = {"self", "args", "kwargs", "data", "messages", "prompt", "input"}
"""Parameters that are no settings."""

_OLLAMA_OPTIONS = ("ollama.Options", "ollama.Client.chat")
_OPENAI_CHAT = "openai.resources.chat.completions.Completions.create"

_PEERS: list[tuple[type[Any], tuple[str, ...], tuple[str, ...]]] = [
    (
        ChatLMStudio,
        ("langchain_ollama.ChatOllama", "langchain_openai.ChatOpenAI"),
        (*_OLLAMA_OPTIONS, _OPENAI_CHAT, "openai.resources.responses.Responses.create"),
    ),
    (
        LMStudioLLM,
        ("langchain_ollama.OllamaLLM", "langchain_openai.OpenAI"),
        ("ollama.Options", "ollama.Client.generate", "openai.resources.completions.Completions.create"),
    ),
    (LMStudioEmbeddings, ("langchain_ollama.OllamaEmbeddings", "langchain_openai.OpenAIEmbeddings"), ()),
    (
        LMStudio,
        (
            "llama_index.llms.lmstudio.LMStudio",
            "llama_index.llms.ollama.Ollama",
            "llama_index.llms.openai.OpenAI",
            "llama_index.llms.openai_like.OpenAILike",
        ),
        (*_OLLAMA_OPTIONS, _OPENAI_CHAT),
    ),
    (
        LMStudioEmbedding,
        (
            "llama_index.embeddings.ollama.OllamaEmbedding",
            "llama_index.embeddings.openai.OpenAIEmbedding",
        ),
        (),
    ),
]
"""Our adapters, the classes that they replace, and what has the options of a call of these."""


def _find(path: str) -> Any:
    """Import what a dotted path names."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for name in parts[end:]:
            found = getattr(found, name)
        return found
    raise ModuleNotFoundError(path)


def _names(path: str) -> Iterator[str]:
    """Yield the names of the settings of a class, or of the parameters of a method."""
    found = _find(path)
    yield from inspect.signature(found).parameters
    for name, field in getattr(found, "model_fields", {}).items():
        yield from (name, field.alias or name)


def _result(adapter: type[Any], name: str, *, in_call: bool) -> str:
    """Return what becomes of a setting: `accepted`, or the error."""
    try:
        if in_call:
            adapter()._resolve_call({name: "x"})  # makes no request
        else:
            adapter(**{name: "x"})
    except (TypeError, ValueError) as error:
        text = str(error).split("Value error, ", 1)[-1].partition(" [type=")[0]
        if "is a setting of" in text:
            return text
        return text.split("; ", 1)[-1] if "unknown setting" in text else "accepted"
    return "accepted"


def main() -> None:
    """Print a table for each adapter."""
    if "--here" not in sys.argv:
        command = [str(environment.prepare()), "-m", "tools.migration_sweep", "--here"]
        subprocess.run(command, cwd=environment.ROOT, check=True)
        return
    warnings.simplefilter("ignore")
    for adapter, classes, options in _PEERS:
        # The constructors of LangChain's classes take the options of calls, too.
        names = sorted({name for path in (*classes, *options) for name in _names(path)} - _PROMPT)
        for in_call in (False, True) if options else (False,):
            sys.stdout.write(f"\n{adapter.__module__} {adapter.__name__}, {'call' if in_call else 'constructor'}\n")
            for name in names:
                result = _result(adapter, name, in_call=in_call)
                bare = "known are" in result or "lists the known ones" in result
                sys.stdout.write(f"{'NO HINT' if bare else ''}\t{name}: {result}\n")


if __name__ == "__main__":
    main()
