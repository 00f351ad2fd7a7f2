"""The frames of downloads by a plan, for servers that play a transcript."""

from typing import Any

from tests.protocol.transcripts import AUTHENTICATION, Line, lines_of

NAME = "maker/talker"
FORMS: list[dict[str, Any]] = [
    {"displayName": "Talker", "sizeBytes": size, "compatibilityType": "gguf", "quantName": quantization}
    for quantization, size in (("Q4_K_M", 1000), ("Q8_0", 2000))
]
ARTIFACT = {"type": "artifact", "owner": "maker", "name": "talker", "state": "completed", "dependencyNodes": [1, 2]}
NEWER = {"type": "sculpture", "material": ["clay"]}


def planned(
    *,
    selected: int | None = 0,
    owned: int | None = None,
    version: int = 0,
    action: str = "startNewDownload",
    **more: Any,
) -> dict[str, Any]:
    """Return a plan for an artifact with a model in two forms, and with a part that this client does not know."""
    model: dict[str, Any] = {
        "type": "model",
        "state": "completed",
        "dependencyLabel": "maker/talker-gguf",
        "downloadOptions": [{**form, "fitEstimation": "fullGPUOffload", "availability": "x"} for form in FORMS],
        "selectedDownloadOptionIndex": selected,
        "recommendedDownloadOptionIndex": None,
    }
    if selected is not None:
        model["selected"] = {**FORMS[selected], "modelKey": f"talker@{FORMS[selected]['quantName']}"}
    if owned is not None:
        model["alreadyOwned"] = {**FORMS[owned], "modelKey": "talker"}
    size = 0 if selected is None else FORMS[selected]["sizeBytes"]
    plan = {"nodes": [ARTIFACT, model, NEWER], "downloadSizeBytes": size, "downloadAction": action, "version": version}
    return plan | more


NOTHING = planned(selected=None, owned=0, action="none")


def sent(**packet: Any) -> Line:
    return Line("client", {"type": "channelSend", "channelId": 1, "message": packet})


def received(kind: str, **packet: Any) -> Line:
    return Line("server", {"type": "channelSend", "channelId": 1, "message": {"type": kind, **packet}})


def chosen(option: int | None, version: int = 1) -> Line:
    selection = {"nodeIndex": 1, "selectedDownloadOptionIndex": option, "requestedPlanVersion": version}
    return sent(type="setSelectedDownloadOptionIndex", **selection)


def opened(**opts: Any) -> list[Line]:
    """Return the begin of a conversation, with the options that the client sends."""
    target = {"type": "artifact", "owner": "maker", "name": "talker"}
    create = {"type": "channelCreate", "endpoint": "createDownloadPlan", "channelId": 1}
    return [
        *lines_of(AUTHENTICATION),
        Line("client", {**create, "creationParameter": {"target": target, "opts": opts}}),
    ]


def ready(**plan: Any) -> Line:
    return received("planReady", plan=planned(**plan))


def updated(**plan: Any) -> Line:
    return received("planUpdated", plan=planned(**plan))


UPDATE = {"downloadedBytes": 500, "totalBytes": 1000, "speedBytesPerSecond": 1.5}
COMMIT, CANCEL_PLAN, CANCEL_DOWNLOAD = (sent(type=kind) for kind in ("commit", "cancelPlan", "cancelDownload"))
SUCCESS = [received("success"), Line("server", {"type": "channelClose", "channelId": 1})]
PROGRESS = received("downloadProgress", update=UPDATE)
DOWNLOAD = [COMMIT, PROGRESS, received("startFinalizing"), *SUCCESS]
