"""`register`: lets LangChain make models of LM Studio from strings such as `lmstudio:qwen3-4b`.

LangChain has no hook for other providers: its functions look a provider up in a table, one of chat models and one of
embeddings. `register` enters our classes there, by name, so that they are imported when the first model is made.
deepagents calls `register_or_log` by the entry points in `pyproject.toml` before it makes its first model.
"""

import logging
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import Any, cast

from lmstudio_integrations._support.installation import package_command
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.errors import LMStudioRuntimeError

logger = logging.getLogger(__name__)

_PROVIDER = "lmstudio"

_TABLE = "_BUILTIN_PROVIDERS"

_CLASSES = {"langchain.chat_models.base": "ChatLMStudio", "langchain.embeddings.base": "LMStudioEmbeddings"}
"""The modules of LangChain that have a table, and the class that each gets."""

_DESCRIPTIONS = {
    "ls": "List the files of a folder.",
    "read_file": "Read `limit` lines of a text file from line `offset`. The header `@@ … @@` is not part of the file.",
    "write_file": "Write a whole text file, and replace it if it exists.",
    "edit_file": "Replace a text in a file that you have read.",
    "execute": "Run a shell command and return its output.",
    "task": "Give a task to a subagent, which sees only your description and reports. Subagents:\n{available_agents}",
}
"""What the tools of deepagents say in a small context window."""

_EXCLUDED = frozenset({"delete", "glob", "grep"})
"""The tools of deepagents that an agent with a small context window does without."""

_MIDDLEWARE = f"{__name__.rpartition('.')[0]}.middleware"
_MIDDLEWARES = ("RepeatedToolCallMiddleware", "InvalidToolCallMiddleware")


def register(*, small_window: bool = False) -> None:
    """Let LangChain make models of LM Studio from strings, in this process.

    Afterwards `init_chat_model("lmstudio:qwen3-4b")`, `create_agent("lmstudio:qwen3-4b")` and whatever else in
    LangChain takes such a string make a `ChatLMStudio`, and `init_embeddings("lmstudio:…")` makes
    `LMStudioEmbeddings`. Their other arguments, such as `temperature` or `host`, are those of the class. deepagents
    calls this by itself. It may be called again, from any thread.

    Args:
        small_window: Whether deep agents on models of LM Studio fit context windows of 4,096 to 16,384 tokens. Their
            tools have short descriptions. `delete`, `glob` and `grep` are hidden, also tools of your own with these
            names, and there is no subagent for general tasks. `RepeatedToolCallMiddleware` and
            `InvalidToolCallMiddleware` end loops of the same call, and ask again for invalid calls. The default,
            `False`, changes no agent.

    Raises:
        ModuleNotFoundError: If `langchain`, or for `small_window` `deepagents`, is not installed.
        LMStudioRuntimeError: If the installed version of LangChain has its providers elsewhere.
    """
    tables = {class_name: _table(module) for module, class_name in _CLASSES.items()}
    for class_name, table in tables.items():
        table[_PROVIDER] = (__name__.rpartition(".")[0], class_name, _construct)
    if small_window:
        _register_small_window()


def register_or_log() -> None:
    """Call `register`, and log a warning if it fails: an entry point must not break what calls it."""
    try:
        register()
    except Exception:
        logger.warning("LangChain will not know models such as `lmstudio:qwen3-4b`", exc_info=True)


def _construct(cls: Any, **settings: Any) -> Any:
    """Make a model; LangChain passes the class by this name."""
    return cls(**settings)


def _table(module: str) -> dict[str, tuple[str, str, Any]]:
    table: object = getattr(_import("langchain", module), _TABLE, None)
    if is_object(table) and all(isinstance(entry, tuple) and len(cast("Any", entry)) == 3 for entry in table.values()):
        return table
    raise LMStudioRuntimeError(
        f"langchain {version('langchain')} has no table {module}.{_TABLE} as langchain 1.4.4 has it; install a version "
        f'that has it, or make the model without a string: {_CLASSES[module]}(model="KEY")'
    )


def _import(package: str, module: str) -> ModuleType | None:
    """Import a module of another package; return `None` if the package does not have it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name == package:
            command = package_command(package)
            raise ModuleNotFoundError(f"register needs {package}; run: {command}", name=package) from error
        if error.name and f"{module}.".startswith(f"{error.name}."):
            return None
        raise


def _middlewares() -> Iterator[Any]:
    """Yield the middlewares of the harness, as far as this copy of the package has them."""
    for name in _MIDDLEWARES:
        with suppress(ImportError):
            yield getattr(import_module(_MIDDLEWARE), name)()


@cache
def _register_small_window() -> None:
    """Register the harness of a small context window for all models of LM Studio; again changes nothing."""
    deepagents: Any = _import("deepagents", "deepagents")
    profile = deepagents.HarnessProfile(
        excluded_tools=_EXCLUDED,
        tool_description_overrides=_DESCRIPTIONS,
        extra_middleware=tuple(_middlewares()),
        general_purpose_subagent=deepagents.GeneralPurposeSubagentProfile(enabled=False),
    )
    deepagents.register_harness_profile(_PROVIDER, profile)
