"""What the protocol requires of a server: an id, the section of docs/protocol.md, one sentence.

`test_requirements_server.py` checks that a test names each of them with `proves`, and no other ids.
"""

from tests.requirements import Requirement

R = Requirement

REQUIREMENTS: dict[str, Requirement] = {
    # Transport
    "S-HTTP-GREETING": R(
        "#server-rules, #discovery", 'GET /lmstudio-greeting on the same port returns {"lmstudio":true} as JSON.'
    ),
    "S-HTTP-STATUS": R("#discovery", "GET /lms-status returns package and version, both strings."),
    "S-HTTP-UNKNOWN-PATH": R(
        "#authentication-rules, #server-checklist", "An unknown path gets 404, with and without an upgrade."
    ),
    "S-HTTP-ORIGIN": R("#authentication-rules", "An unwanted connection is rejected with 403 before the upgrade."),
    "S-WS-NAMESPACES": R("#server-rules, #namespaces", "The paths of all eight namespaces accept WebSockets."),
    "S-WS-BINARY": R("#urls", "Binary frames are read as UTF-8."),
    "S-WS-LARGE-FRAMES": R("#server-rules", "Frames of many megabytes are accepted, as images come in one."),
    "S-WS-TEXT-FRAMES": R("#server-rules", "Frames to the client are text frames."),
    # Authentication
    "S-AUTH-FIRST": R(
        "#first-frame, #authentication-result", 'The first valid credentials get the reply {"success":true}.'
    ),
    "S-AUTH-IGNORES-NOISE": R(
        "#authentication-rules", "What is no JSON or no credentials is ignored, and the client may try again."
    ),
    "S-AUTH-LENGTH": R("#first-frame", "Credentials have at most 256 characters each."),
    "S-AUTH-TIMEOUT": R("#authentication-rules", "After 10 s without success the server says so and closes."),
    "S-AUTH-FIRST-COME": R(
        "#authentication-result, #authentication-rules",
        "The first socket of a client fixes its passkey; another passkey is rejected in the known words.",
    ),
    "S-AUTH-REUSE": R("#authentication-rules", "An identifier is free again when all its sockets are gone."),
    "S-AUTH-FAILURE-CLOSES": R("#authentication-result", "After rejecting credentials, the server closes the socket."),
    "S-AUTH-TOKEN": R("#credentials", "With tokens, only their halves are accepted as credentials."),
    # Framing
    "S-FRAMES-TWO-TABLES": R(
        "#server-rules, #ids", "Calls and channels have tables of their own: equal ids do not collide."
    ),
    "S-FRAMES-VOID": R("#server-rules, #rpc, #serialization", "A void result has no result key."),
    "S-FRAMES-NOT-FOUND": R("#server-rules, #model-endpoints", "A result that is not found has no result key."),
    "S-FRAMES-KEEP-ALIVE": R(
        "#server-rules, #warnings", "keepAlive gets the reply keepAliveAck, and only then is one sent."
    ),
    "S-FRAMES-CLOSE": R(
        "#server-rules, #channels", "A channel ends with its terminal packet and channelClose, or with channelError."
    ),
    "S-FRAMES-ORDER": R("#server-framework", "Frames of one handler keep their order."),
    "S-FRAMES-CONCURRENT": R(
        "#rpc, #server-framework", "Requests run at the same time: a slow prediction does not delay a listing."
    ),
    "S-FRAMES-GONE-CHANNEL": R("#channels", "A packet for a channel that has ended gets the warning channelUnknown."),
    "S-FRAMES-ACK": R("#channels", "An ackId is accepted and not needed."),
    # Bad input
    "S-BAD-NOT-JSON": R(
        "#server-frames, #server-framework",
        "A frame that is no JSON, has an unknown type or lacks its id is dropped without a word.",
    ),
    "S-BAD-ENDPOINT": R("#server-framework", "An unknown endpoint gets one warning that names it, and no response."),
    "S-BAD-SIGNAL": R("#server-framework", "A subscription gets one warning, as no endpoint is a signal."),
    "S-BAD-PARAMETER": R("#server-framework", "An invalid parameter gets a warning with its kind, and no response."),
    "S-BAD-NULL-VOID": R("#server-rules, #serialization", "null is no void parameter."),
    "S-BAD-DUPLICATE": R("#server-framework", "A channel id that is in use gets the warning channelAlreadyOpen."),
    "S-BAD-PACKET": R(
        "#server-framework", "An invalid packet gets the warning channelMessageTypeError, and the channel stays open."
    ),
    "S-BAD-FIVE": R("#warnings, #server-framework", "There are at most five warnings per connection."),
    "S-BAD-LAYER": R("#config-stacks", "A layer name outside the list makes the request invalid."),
    "S-BAD-UNKNOWN-FIELDS": R(
        "#server-rules, #config-stacks", "Unknown fields and config keys are accepted and ignored."
    ),
    "S-BAD-PLAIN-CONTENT": R("#llm-endpoints", "A plain string as the content of a message is invalid."),
    # Errors
    "S-ERROR-TITLE": R("#errors", "Errors have a title and the same rootTitle."),
    "S-ERROR-CODES": R("#errors", "A displayData has every member of its code."),
    "S-ERROR-WRONG-KIND": R("#errors", "A model of the other kind is rejected with generic.domainMismatch."),
    "S-ERROR-UNKNOWN-MODEL": R("#model-endpoints", "An unknown model is rejected with generic.pathNotFound."),
    "S-ERROR-UNKNOWN-LOADED": R(
        "#model-endpoints", "A query that nothing loaded fits is rejected with generic.noModelMatchingQuery."
    ),
    "S-ERROR-STALE-REFERENCE": R(
        "#server-checklist", "The reference of an unloaded instance is rejected with generic.specificModelUnloaded."
    ),
    "S-ERROR-PRESET": R("#llm-endpoints", "An unknown preset is rejected with generic.presetNotFound."),
    # Loading
    "S-LOAD-SEQUENCE": R("#model-endpoints", "loadModel sends resolved, progress, success and closes."),
    "S-LOAD-AMBIGUOUS": R("#model-endpoints", "ambiguous is there only if several models matched; the first is used."),
    "S-LOAD-SUFFIX": R("#model-endpoints", "A default identifier that is taken gets :N appended."),
    "S-LOAD-DUPLICATE": R(
        "#model-endpoints, #server-checklist",
        "A duplicate identifier is rejected with a title that says it already exists.",
    ),
    "S-LOAD-NO-TTL": R("#model-endpoints, #product-behavior", "loadModel without ttlMs has no TTL."),
    "S-LOAD-CANCEL": R("#model-endpoints, #server-checklist", "A load can be cancelled, and ends its channel."),
    "S-LOAD-CONFIG": R(
        "#model-endpoints", "The effective load configuration has full keys, with the context length among them."
    ),
    "S-GET-ALREADY": R(
        "#model-endpoints",
        "getOrLoad of something loaded sends alreadyLoaded and closes; TTL and config are untouched.",
    ),
    "S-GET-SEQUENCE": R(
        "#model-endpoints", "getOrLoad of something else sends startLoading, loadProgress, loadSuccess and closes."
    ),
    "S-GET-EVICT": R(
        "#model-endpoints, #product-behavior", "A just-in-time load unloads earlier ones, of any kind, and says so."
    ),
    "S-GET-EVICT-EXPLICIT": R("#product-behavior", "Models that were loaded explicitly are not evicted."),
    "S-GET-TTL": R("#ttl", "Without a TTL, getOrLoad gives 60 minutes."),
    "S-MATCH-ORDER": R(
        "#model-specifiers",
        "A name means an identifier, then a key, an alias, or the beginning of a path in either case.",
    ),
    "S-MATCH-QUERY": R("#model-specifiers", "All members of a query must match; an empty one means any loaded model."),
    "S-MATCH-LOADED-ONLY": R("#model-specifiers", "Requests match loaded models only, and never load one."),
    "S-REFERENCE-UNIQUE": R("#model-specifiers", "An instanceReference is unique per load."),
    "S-NAMESPACE-DOMAIN": R("#endpoint-table", "A namespace lists the instances of its own kind only."),
    "S-TTL-IDLE": R(
        "#server-checklist, #product-behavior",
        "The TTL runs while the model idles, starts again with every use, and unloads it.",
    ),
    "S-TTL-WORKING": R("#product-behavior", "A model that works is not idle."),
    "S-UNLOAD-VOID": R("#model-endpoints", "unloadModel returns void."),
    "S-UNLOAD-NAMED": R("#model-endpoints", "unloadModel unloads the instance that is named, and no other."),
    "S-UNLOAD-PREDICTING": R("#server-checklist", "Unloading ends a running prediction with modelUnloaded."),
    "S-STATE": R(
        "#model-endpoints",
        "getInstanceProcessingState tells what the instance does, and counts waiting and running requests.",
    ),
    "S-SLOTS": R("#product-behavior", "No more predictions run at once than numParallelSessions; the others wait."),
    "S-INFO-FIELDS": R(
        "#server-rules, #model-info",
        "Infos have every field that the newest schema requires, null only where it may be.",
    ),
    "S-INFO-INTS": R("#server-rules", "Integer fields are JSON integers."),
    # Predictions
    "S-PREDICT-PROGRESS": R(
        "#server-rules, #llm-endpoints", "Prompt progress is sent for at least 0 and 1, with all details, which add up."
    ),
    "S-PREDICT-FRAGMENT": R("#fragments", "Fragments have all fields, isStructural among them."),
    "S-PREDICT-SUCCESS": R("#llm-endpoints", "success has stats, modelInfo, loadModelConfig and predictionConfig."),
    "S-PREDICT-STATS": R(
        "#prediction-stats",
        "The total count is the sum of prompt and predicted; the end of sequence counts as predicted.",
    ),
    "S-PREDICT-CANCEL": R(
        "#llm-endpoints, #canceling-predictions", "After cancel comes success with userStopped, then channelClose."
    ),
    "S-PREDICT-CANCEL-QUEUED": R("#server-checklist", "A prediction can be cancelled before its first token."),
    "S-PREDICT-DISCONNECT": R("#server-framework", "The work of a socket stops when the socket goes."),
    "S-PREDICT-CRASH": R(
        "#llm-endpoints", "A crash of the model fails all its predictions, those that wait among them."
    ),
    "S-PREDICT-IMAGE-BLIND": R("#llm-endpoints", "An image for a model that sees none is rejected."),
    "S-PREDICT-PRESET-ORDER": R("#llm-endpoints, #config-stacks", "A preset ranks below the request's own settings."),
    "S-PREDICT-LATER-LAYER": R("#config-stacks", "A later layer overrides an earlier one, key by key."),
    "S-PREDICT-FALSE-IS-OFF": R("#value-encodings", "A checkbox whose value is false is off."),
    "S-COMPLETE-RAW": R("#llm-endpoints", "completeRawText continues a text without a template."),
    "S-COMPLETE-LEGACY": R("#prediction-keys", "The layer completeModeFormatting asks for the same by predict."),
    "S-PREDICT-TOOLS-STOPPED": R(
        "#llm-endpoints", "A tool call whose prediction is stopped has its Failed all the same."
    ),
    "S-PREDICT-TOOLS": R("#llm-endpoints", "A tool call is Start, maybe name and arguments, and exactly one End."),
    # Texts
    "S-TEXT-TOKENS": R("#llm-endpoints", "countTokens of an LLM is the length of tokenize."),
    "S-TEXT-MARKS": R("#embedding-endpoints", "tokenize of an embedding model has two more tokens than countTokens."),
    "S-TEXT-TEMPLATE": R(
        "#server-checklist", "applyPromptTemplate takes files that were never uploaded and a second system message."
    ),
    "S-TEXT-EMBED": R("#embedding-endpoints", "embedString returns one vector for one string."),
    # Files
    "S-FILES-IDENTIFIERS": R("#file-endpoints", "The same content uploaded twice gets two identifiers."),
    "S-FILES-TYPES": R(
        "#file-endpoints", "A file's type is decided by content for images, else by extension, else it is unknown."
    ),
    "S-FILES-OTHER-SOCKET": R(
        "#credentials", "A file is usable on every socket of its client, and on no other client's."
    ),
    "S-FILES-LIFETIME": R("#credentials, #file-endpoints", "A file is gone when its client's last socket is."),
    "S-FILES-PARSE": R("#file-endpoints", "parseDocument sends parserLoaded, progress, result and closes."),
    "S-FILES-RETRIEVE": R(
        "#file-endpoints", "retrieve tells of each file and each step, and returns entries with score and source."
    ),
    # System, repository, diagnostics
    "S-SYSTEM-DOWNLOADED": R("#system-endpoints", "listDownloadedModels lists both kinds, with their type."),
    "S-SYSTEM-VERSION": R("#system-endpoints", "version returns a version and a build."),
    "S-SYSTEM-ALIVE": R("#system-endpoints", "alive stays open without a packet until the socket goes."),
    "S-REPOSITORY-SEARCH": R(
        "#repository-endpoints", "searchModels returns names and identifiers, no more than the limit."
    ),
    "S-REPOSITORY-OPTIONS": R(
        "#repository-endpoints", "getModelDownloadOptions returns size, fit and a download identifier."
    ),
    "S-REPOSITORY-DOWNLOAD": R(
        "#repository-endpoints",
        "downloadModel sends progress, startFinalizing, success, and the model can then be loaded.",
    ),
    "S-REPOSITORY-PLAN": R(
        "#repository-endpoints",
        "createDownloadPlan says what it would fetch, and fetches it when the client commits.",
    ),
    "S-REPOSITORY-PICKS": R(
        "#repository-endpoints", "fuzzyFindStaffPicks and getModelCatalog list what createDownloadPlan can fetch."
    ),
    "S-REPOSITORY-LINK": R("#repository-endpoints", "lmLinkStatus is offline and says why."),
    "S-UNSUPPORTED": R(
        "#repository-endpoints",
        "An endpoint that is known but not served gets an empty result where that is the truth, else an error.",
    ),
    "S-DIAGNOSTICS-LOGS": R(
        "#other-endpoints", "streamLogs sends predictions, requests and loads until it is stopped."
    ),
}
