"""The models that LM Studio has, for the list of models in Deep Agents Code (`dcode`).

If its `config.toml` names a class of this package as a provider, it executes this file, which it finds by its path, and
reads `_PROFILES`. Other providers have a table of their models in such a file. What LM Studio has depends on the user,
so the server is asked, but not before somebody reads the name: other programs import all modules of a package.
"""

import logging
from collections.abc import Mapping
from typing import Any

from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.errors import LMStudioError
from lmstudio_integrations.langchain._settings import ABILITIES, reported_profile

logger = logging.getLogger(__name__)

_SECONDS = 2.0
"""How long the list may take: its reader draws nothing meanwhile, and keeps what it gets."""


def __getattr__(name: str) -> Mapping[str, Mapping[str, Any]]:
    if name == "_PROFILES":
        return _profiles()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _profiles() -> dict[str, dict[str, Any]]:
    """Return the profile of each language model on the server's disk, by its key; none if there is no server."""
    try:
        with Client(connect_timeout=_SECONDS, total_timeout=_SECONDS) as client:
            models = client.llm.list_downloaded()
    except LMStudioError as error:
        logger.info("LM Studio's models are not listed: %s", error)
        return {}
    return {model.model_key: {**ABILITIES, **reported_profile(model.info.to_dict())} for model in models}
