"""`ps`: the loaded models."""

import time
from typing import TYPE_CHECKING

from lmstudio_integrations.cli._common import AsJson, Host, Token, note, print_json, results
from lmstudio_integrations.errors import LMStudioError

if TYPE_CHECKING:
    from lmstudio_integrations.client.api.sync import LLM, EmbeddingModel


def ps(*, as_json: AsJson = False, host: Host = None, token: Token = None) -> None:
    """List the loaded models."""
    from lmstudio_integrations.cli._devices import device_names  # noqa: PLC0415 - slow
    from lmstudio_integrations.cli._loaded_models import info_of, loaded_models  # noqa: PLC0415
    from lmstudio_integrations.cli._tables import loaded_lines  # noqa: PLC0415
    from lmstudio_integrations.client.api.sync import Client  # noqa: PLC0415

    with Client(host, token) as client:
        if as_json:
            print_json([info.to_dict() for info in loaded_models(client)])
            return
        handles = client.list_loaded_models()
        loaded = [(info, status_of(handle)) for handle in handles if (info := info_of(handle))]
        devices = device_names(client, (info for info, _ in loaded))
    if not loaded:
        note("No model is loaded; `lmsi load MODEL` loads one.")
        return
    console = results()
    for line in loaded_lines(loaded, devices, time.time(), console.width):
        console.write_line(line)


def status_of(handle: "LLM | EmbeddingModel") -> str:
    """Return what a model does; a question mark if the server does not know, or it was unloaded since."""
    try:
        state = handle.get_processing_state()
    except LMStudioError:
        return "?"
    return f"{state.status} ({state.queued})" if state.queued > 1 else state.status
