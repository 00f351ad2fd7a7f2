"""The handlers of all endpoints: one small function each, in a table by namespace and name.

The handler of a call returns its result, `None` for a void one. The handler of a channel sends packets and returns at
the end. Both raise `WireError` on failure. The table has every endpoint of the official interfaces. A call of any other
one gets a warning and no response (docs/protocol.md#rule-unanswered-calls).
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from lmstudio_integrations._support.leaves import MissingLeafError, door
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.emulator.server.context import Handler
from lmstudio_integrations.emulator.server.handlers import files, models, prediction, system
from lmstudio_integrations.protocol.endpoints import ENDPOINTS, NAMED_ENDPOINTS, Endpoint, Namespace


def _leaf(module: str, name: str) -> Handler:
    """Return the handler of a module that can be deleted; it is imported when it is first needed."""

    async def handle(*arguments: Any) -> Any:
        try:
            with door(f"{module} in the emulator"):
                handler = getattr(import_module(f"{__name__}.{module}"), name)
        except MissingLeafError as error:
            raise WireError(str(error)) from None
        return await handler(*arguments)

    return handle


_MODELS: dict[str, Handler] = {
    "loadModel": models.load_model,
    "getOrLoad": models.get_or_load,
    "unloadModel": models.unload_model,
    "listLoaded": models.list_loaded,
    "getModelInfo": models.get_model_info,
    "getLoadConfig": models.get_load_config,
    "getBasePredictionConfig": models.get_base_prediction_config,
    "getInstanceProcessingState": models.get_instance_processing_state,
    "estimateModelUsage": _leaf("devices", "estimate_model_usage"),
}
_TEXT_MODELS: dict[str, Handler] = {**_MODELS, "tokenize": models.tokenize, "countTokens": models.count_tokens}

_IMPLEMENTED: Mapping[Namespace, Mapping[str, Handler]] = {
    "llm": {
        **_TEXT_MODELS,
        "predict": prediction.predict,
        "completeRawText": prediction.complete_raw_text,
        "applyPromptTemplate": models.apply_prompt_template,
        "preloadDraftModel": models.preload_draft_model,
    },
    "embedding": {**_TEXT_MODELS, "embedString": models.embed_string},
    "decision": _MODELS,
    "system": {
        "listDownloadedModels": system.list_downloaded_models,
        "listDownloadedModelVariants": system.list_downloaded_model_variants,
        "version": system.get_version,
        "info": system.info,
        "notify": system.notify,
        "setExperimentFlag": system.set_experiment_flag,
        "getExperimentFlags": system.get_experiment_flags,
        "startHttpServer": system.always(WireError("This server has no HTTP API besides its native one")),
        "stopHttpServer": system.always(None),  # the HTTP API never runs
        "requestShutdown": system.always(WireError("Only privileged clients may shut this server down")),
        "alive": system.alive,
    },
    "files": {
        "uploadFileBase64": files.upload_file_base64,
        "getDocumentParsingLibrary": _leaf("documents", "get_document_parsing_library"),
        "parseDocument": _leaf("documents", "parse_document"),
        "retrieve": _leaf("documents", "retrieve"),
    },
    "repository": {
        "searchModels": _leaf("downloads", "search_models"),
        "getModelDownloadOptions": _leaf("downloads", "get_model_download_options"),
        "downloadModel": _leaf("downloads", "download_model"),
        "fuzzyFindStaffPicks": _leaf("downloads", "fuzzy_find_staff_picks"),
        "getModelCatalog": _leaf("downloads", "get_model_catalog"),
        "createDownloadPlan": _leaf("downloads", "create_download_plan"),
        "createArtifactDownloadPlan": _leaf("downloads", "create_artifact_download_plan"),
        "lmLinkStatus": _leaf("devices", "lm_link_status"),
    },
    "runtime": {"surveyHardware": _leaf("devices", "survey_hardware")},
    "diagnostics": {"streamLogs": system.stream_logs},
    "plugins": {
        "startToolUseSession": _leaf("plugins", "start_tool_use_session"),
        "generateWithGenerator": _leaf("plugins", "generate_with_generator"),
    },
}

SERVED: Mapping[Namespace, Mapping[str, Endpoint]] = {
    namespace: {**endpoints, **NAMED_ENDPOINTS[namespace]} for namespace, endpoints in ENDPOINTS.items()
}
"""Every endpoint that gets a response."""

HANDLERS: Mapping[Namespace, Mapping[str, Handler]] = {
    namespace: {
        **system.handlers(namespace, NAMED_ENDPOINTS[namespace]),
        **_IMPLEMENTED.get(namespace, {}),
    }
    for namespace in SERVED
}
"""The handler of each endpoint."""
