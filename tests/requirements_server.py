"""What `protocol.md` asks of a server: identifier, sentence, and the section it stands in.

Each is proved by at least one test, which names it with `proves`; `test_requirements_server.py` checks both ways.
"""

from collections.abc import Callable
from typing import Any, TypeVar

Test = TypeVar("Test", bound=Callable[..., Any])

REQUIREMENTS: dict[str, tuple[str, str]] = {
    # Transport
    "http-greeting": ('GET /lmstudio-greeting on the same port answers {"lmstudio":true} as JSON.', "§0, §1.3"),
    "http-status": ("GET /lms-status answers package and version, both strings.", "§1.3"),
    "http-unknown-path": ("An unknown path gets 404, with and without an upgrade.", "§2.5, §9.2"),
    "http-origin": ("An unwanted connection is refused with 403 before the upgrade.", "§2.5"),
    "ws-namespaces": (
        "The paths of llm, embedding, system, files, repository and diagnostics accept WebSockets.",
        "§0, §1.2",
    ),
    "ws-binary": ("Binary frames are read as UTF-8.", "§1.1"),
    "ws-large-frames": ("Frames of many megabytes are accepted, as images come in one.", "§0"),
    "ws-text-frames": ("Frames to the client are text frames.", "§0"),
    # Authentication
    "auth-first": ('The first valid credentials are answered with {"success":true}.', "§2.1, §2.2"),
    "auth-ignores-noise": ("What is no JSON or no credentials is ignored, and the client may try again.", "§2.5"),
    "auth-length": ("Credentials have at most 256 characters each.", "§2.1"),
    "auth-timeout": ("After 10 s without success the server says so and closes.", "§2.5"),
    "auth-first-come": (
        "The first socket of a client fixes its passkey; another passkey is refused in the known words.",
        "§2.2, §2.5",
    ),
    "auth-reuse": ("An identifier is free again when all its sockets are gone.", "§2.5"),
    "auth-failure-closes": ("After a refusal the server closes the socket.", "§2.2"),
    "auth-token": ("With tokens, only their halves are accepted as credentials.", "§2.3"),
    # Framing
    "frames-two-tables": ("Calls and channels have tables of their own: equal ids do not collide.", "§0, §3.3"),
    "frames-void": ("A void result has no result key.", "§0, §3.4, §3.8"),
    "frames-not-found": ("A result that is not found has no result key.", "§0, §4.2"),
    "frames-keep-alive": ("keepAlive is answered with keepAliveAck, and only then is one sent.", "§0, §3.6"),
    "frames-close": ("A channel ends with its terminal packet and channelClose, or with channelError.", "§0, §3.5"),
    "frames-order": ("Frames of one handler keep their order.", "§9.1"),
    "frames-concurrent": ("Requests run at the same time: a slow prediction does not delay a listing.", "§3.4, §9.1"),
    "frames-gone-channel": ("A packet for a channel that has ended gets the warning channelUnknown.", "§3.5"),
    "frames-ack": ("An ackId is accepted and not needed.", "§3.5"),
    # Bad input
    "bad-not-json": (
        "A frame that is no JSON, has an unknown type or lacks its id is dropped without a word.",
        "§3.2, §9.1",
    ),
    "bad-endpoint": ("An unknown endpoint gets one warning that names it, and no answer.", "§9.1"),
    "bad-parameter": ("An invalid parameter gets a warning with its kind, and no answer.", "§9.1"),
    "bad-null-void": ("null is no void parameter.", "§0, §3.8"),
    "bad-duplicate": ("A channel id that is in use gets the warning channelAlreadyOpen.", "§9.1"),
    "bad-packet": ("An invalid packet gets the warning channelMessageTypeError, and the channel stays open.", "§9.1"),
    "bad-five": ("There are at most five warnings per connection.", "§3.6, §9.1"),
    "bad-layer": ("A layer name outside the list makes the request invalid.", "§5.3"),
    "bad-unknown-fields": ("Unknown fields and config keys are accepted and ignored.", "§0, §5.3"),
    "bad-plain-content": ("A plain string as the content of a message is invalid.", "§4.3"),
    # Errors
    "error-title": ("Errors have a title and the same rootTitle.", "§3.7"),
    "error-codes": ("A displayData has every member of its code.", "§3.7"),
    "error-wrong-kind": ("A model of the other kind is refused with generic.domainMismatch.", "§3.7"),
    "error-unknown-model": ("An unknown model is refused with generic.pathNotFound.", "§4.2"),
    "error-unknown-loaded": ("A query that nothing loaded fits is refused with generic.noModelMatchingQuery.", "§4.2"),
    "error-stale-reference": (
        "The reference of an unloaded instance is refused with generic.specificModelUnloaded.",
        "§9.2",
    ),
    "error-preset": ("An unknown preset is refused with generic.presetNotFound.", "§4.3"),
    # Loading
    "load-sequence": ("loadModel sends resolved, progress, success and closes.", "§4.2"),
    "load-ambiguous": ("ambiguous is there only if several models matched; the first is used.", "§4.2"),
    "load-suffix": ("A default identifier that is taken gets :N appended.", "§4.2"),
    "load-duplicate": ("A duplicate identifier is refused with a title that says it already exists.", "§4.2, §9.2"),
    "load-no-ttl": ("loadModel without ttlMs has no TTL.", "§4.2, §9.3"),
    "load-cancel": ("A load can be cancelled, and ends its channel.", "§4.2, §9.2"),
    "load-config": ("The effective load configuration has full keys, with the context length among them.", "§4.2"),
    "get-already": (
        "getOrLoad of something loaded sends alreadyLoaded and closes; TTL and config are untouched.",
        "§4.2",
    ),
    "get-sequence": ("getOrLoad of something else sends startLoading, loadProgress, loadSuccess and closes.", "§4.2"),
    "get-evict": ("A just-in-time load unloads earlier ones, of any kind, and says so.", "§4.2, §9.3"),
    "get-evict-explicit": ("Models that were loaded explicitly are not evicted.", "§9.3"),
    "get-ttl": ("Without a TTL, getOrLoad gives 60 minutes.", "§5.2"),
    "match-order": (
        "A name means an identifier, then a key, an alias, or the beginning of a path in either case.",
        "§5.1",
    ),
    "match-query": ("All members of a query must match; an empty one means any loaded model.", "§5.1"),
    "match-loaded-only": ("Requests match loaded models only, and never load one.", "§5.1"),
    "reference-unique": ("An instanceReference is unique per load.", "§5.1"),
    "namespace-domain": ("A namespace lists the instances of its own kind only.", "§4.1"),
    "ttl-idle": ("The TTL runs while the model idles, starts again with every use, and unloads it.", "§9.2, §9.3"),
    "ttl-working": ("A model that works is not idle.", "§9.3"),
    "unload-void": ("unloadModel answers void.", "§4.2"),
    "unload-predicting": ("Unloading ends a running prediction with modelUnloaded.", "§9.2"),
    "state": (
        "getInstanceProcessingState tells what the instance does, and counts waiting and running requests.",
        "§4.2",
    ),
    "slots": ("No more predictions run at once than numParallelSessions; the others wait.", "§9.3"),
    "info-fields": ("Infos have every field that the newest schema requires, null only where it may be.", "§0, §6.6"),
    "info-ints": ("Integer fields are JSON integers.", "§0"),
    # Predictions
    "predict-progress": ("Prompt progress is sent for at least 0 and 1, with all details, which add up.", "§0, §4.3"),
    "predict-fragment": ("Fragments have all fields, isStructural among them.", "§6.4"),
    "predict-success": ("success has stats, modelInfo, loadModelConfig and predictionConfig.", "§4.3"),
    "predict-stats": (
        "The total count is the sum of prompt and predicted; the end of sequence counts as predicted.",
        "§6.5",
    ),
    "predict-cancel": ("After cancel comes success with userStopped, then channelClose.", "§4.3, §7.5"),
    "predict-cancel-queued": ("A prediction can be cancelled before its first token.", "§9.2"),
    "predict-disconnect": ("The work of a socket stops when the socket goes.", "§9.1"),
    "predict-image-blind": ("An image for a model that sees none is refused.", "§4.3"),
    "predict-preset-order": ("A preset ranks below the request's own settings.", "§4.3, §5.3"),
    "predict-later-layer": ("A later layer overrides an earlier one, key by key.", "§5.3"),
    "predict-false-is-off": ("A checkbox whose value is false is off.", "§5.4"),
    "complete-raw": ("completeRawText continues a text without a template.", "§4.3"),
    "complete-legacy": ("The layer completeModeFormatting asks for the same by predict.", "§5.6"),
    "predict-tools": ("A tool call is Start, maybe name and arguments, and exactly one End.", "§4.3"),
    # Texts
    "text-tokens": ("countTokens of an LLM is the length of tokenize.", "§4.3"),
    "text-marks": ("tokenize of an embedding model has two more tokens than countTokens.", "§4.4"),
    "text-template": ("applyPromptTemplate takes files that were never uploaded and a second system message.", "§9.2"),
    "text-embed": ("embedString returns one vector for one string.", "§4.4"),
    # Files
    "files-identifiers": ("The same content uploaded twice gets two identifiers.", "§4.6"),
    "files-types": ("A file's type is told by content for images, else by extension, else it is unknown.", "§4.6"),
    "files-other-socket": ("A file is usable on every socket of its client, and on no other client's.", "§2.3"),
    "files-lifetime": ("A file is gone when its client's last socket is.", "§2.3, §4.6"),
    "files-parse": ("parseDocument sends parserLoaded, progress, result and closes.", "§4.6"),
    "files-retrieve": ("retrieve tells of each file and each step, and returns entries with score and source.", "§4.6"),
    # System, repository, diagnostics
    "system-downloaded": ("listDownloadedModels lists both kinds, told apart by type.", "§4.5"),
    "system-version": ("version returns a version and a build.", "§4.5"),
    "system-alive": ("alive stays open without a packet until the socket goes.", "§4.5"),
    "repository-search": ("searchModels returns names and identifiers, no more than the limit.", "§4.7"),
    "repository-options": ("getModelDownloadOptions returns size, fit and a download identifier.", "§4.7"),
    "repository-download": (
        "downloadModel sends progress, startFinalizing, success, and the model can then be loaded.",
        "§4.7",
    ),
    "diagnostics-logs": ("streamLogs sends input and output of predictions until it is stopped.", "§4.8"),
}


def proves(*requirements: str) -> Callable[[Test], Test]:
    """Mark a test as the proof of requirements."""
    for requirement in requirements:
        assert requirement in REQUIREMENTS, f"there is no requirement {requirement!r}"

    def keep(test: Test) -> Test:
        return test

    return keep
