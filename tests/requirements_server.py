"""What the description of the protocol asks of a server: an id, the section, one sentence.

`test_requirements_server.py` sees to it that a test names each of them with `proves`, and none besides.
"""

from tests.requirements import Requirement

R = Requirement

REQUIREMENTS: dict[str, Requirement] = {
    # Transport
    "S-HTTP-GREETING": R("§0, §1.3", 'GET /lmstudio-greeting on the same port answers {"lmstudio":true} as JSON.'),
    "S-HTTP-STATUS": R("§1.3", "GET /lms-status answers package and version, both strings."),
    "S-HTTP-UNKNOWN-PATH": R("§2.5, §9.2", "An unknown path gets 404, with and without an upgrade."),
    "S-HTTP-ORIGIN": R("§2.5", "An unwanted connection is refused with 403 before the upgrade."),
    "S-WS-NAMESPACES": R("§0, §1.2", "The paths of all eight namespaces accept WebSockets."),
    "S-WS-BINARY": R("§1.1", "Binary frames are read as UTF-8."),
    "S-WS-LARGE-FRAMES": R("§0", "Frames of many megabytes are accepted, as images come in one."),
    "S-WS-TEXT-FRAMES": R("§0", "Frames to the client are text frames."),
    # Authentication
    "S-AUTH-FIRST": R("§2.1, §2.2", 'The first valid credentials are answered with {"success":true}.'),
    "S-AUTH-IGNORES-NOISE": R("§2.5", "What is no JSON or no credentials is ignored, and the client may try again."),
    "S-AUTH-LENGTH": R("§2.1", "Credentials have at most 256 characters each."),
    "S-AUTH-TIMEOUT": R("§2.5", "After 10 s without success the server says so and closes."),
    "S-AUTH-FIRST-COME": R(
        "§2.2, §2.5", "The first socket of a client fixes its passkey; another passkey is refused in the known words."
    ),
    "S-AUTH-REUSE": R("§2.5", "An identifier is free again when all its sockets are gone."),
    "S-AUTH-FAILURE-CLOSES": R("§2.2", "After a refusal the server closes the socket."),
    "S-AUTH-TOKEN": R("§2.3", "With tokens, only their halves are accepted as credentials."),
    # Framing
    "S-FRAMES-TWO-TABLES": R("§0, §3.3", "Calls and channels have tables of their own: equal ids do not collide."),
    "S-FRAMES-VOID": R("§0, §3.4, §3.8", "A void result has no result key."),
    "S-FRAMES-NOT-FOUND": R("§0, §4.2", "A result that is not found has no result key."),
    "S-FRAMES-KEEP-ALIVE": R("§0, §3.6", "keepAlive is answered with keepAliveAck, and only then is one sent."),
    "S-FRAMES-CLOSE": R("§0, §3.5", "A channel ends with its terminal packet and channelClose, or with channelError."),
    "S-FRAMES-ORDER": R("§9.1", "Frames of one handler keep their order."),
    "S-FRAMES-CONCURRENT": R(
        "§3.4, §9.1", "Requests run at the same time: a slow prediction does not delay a listing."
    ),
    "S-FRAMES-GONE-CHANNEL": R("§3.5", "A packet for a channel that has ended gets the warning channelUnknown."),
    "S-FRAMES-ACK": R("§3.5", "An ackId is accepted and not needed."),
    # Bad input
    "S-BAD-NOT-JSON": R(
        "§3.2, §9.1", "A frame that is no JSON, has an unknown type or lacks its id is dropped without a word."
    ),
    "S-BAD-ENDPOINT": R("§9.1", "An unknown endpoint gets one warning that names it, and no answer."),
    "S-BAD-SIGNAL": R("§9.1", "A subscription gets one warning, as no endpoint is a signal."),
    "S-BAD-PARAMETER": R("§9.1", "An invalid parameter gets a warning with its kind, and no answer."),
    "S-BAD-NULL-VOID": R("§0, §3.8", "null is no void parameter."),
    "S-BAD-DUPLICATE": R("§9.1", "A channel id that is in use gets the warning channelAlreadyOpen."),
    "S-BAD-PACKET": R(
        "§9.1", "An invalid packet gets the warning channelMessageTypeError, and the channel stays open."
    ),
    "S-BAD-FIVE": R("§3.6, §9.1", "There are at most five warnings per connection."),
    "S-BAD-LAYER": R("§5.3", "A layer name outside the list makes the request invalid."),
    "S-BAD-UNKNOWN-FIELDS": R("§0, §5.3", "Unknown fields and config keys are accepted and ignored."),
    "S-BAD-PLAIN-CONTENT": R("§4.3", "A plain string as the content of a message is invalid."),
    # Errors
    "S-ERROR-TITLE": R("§3.7", "Errors have a title and the same rootTitle."),
    "S-ERROR-CODES": R("§3.7", "A displayData has every member of its code."),
    "S-ERROR-WRONG-KIND": R("§3.7", "A model of the other kind is refused with generic.domainMismatch."),
    "S-ERROR-UNKNOWN-MODEL": R("§4.2", "An unknown model is refused with generic.pathNotFound."),
    "S-ERROR-UNKNOWN-LOADED": R(
        "§4.2", "A query that nothing loaded fits is refused with generic.noModelMatchingQuery."
    ),
    "S-ERROR-STALE-REFERENCE": R(
        "§9.2", "The reference of an unloaded instance is refused with generic.specificModelUnloaded."
    ),
    "S-ERROR-PRESET": R("§4.3", "An unknown preset is refused with generic.presetNotFound."),
    # Loading
    "S-LOAD-SEQUENCE": R("§4.2", "loadModel sends resolved, progress, success and closes."),
    "S-LOAD-AMBIGUOUS": R("§4.2", "ambiguous is there only if several models matched; the first is used."),
    "S-LOAD-SUFFIX": R("§4.2", "A default identifier that is taken gets :N appended."),
    "S-LOAD-DUPLICATE": R("§4.2, §9.2", "A duplicate identifier is refused with a title that says it already exists."),
    "S-LOAD-NO-TTL": R("§4.2, §9.3", "loadModel without ttlMs has no TTL."),
    "S-LOAD-CANCEL": R("§4.2, §9.2", "A load can be cancelled, and ends its channel."),
    "S-LOAD-CONFIG": R("§4.2", "The effective load configuration has full keys, with the context length among them."),
    "S-GET-ALREADY": R(
        "§4.2", "getOrLoad of something loaded sends alreadyLoaded and closes; TTL and config are untouched."
    ),
    "S-GET-SEQUENCE": R(
        "§4.2", "getOrLoad of something else sends startLoading, loadProgress, loadSuccess and closes."
    ),
    "S-GET-EVICT": R("§4.2, §9.3", "A just-in-time load unloads earlier ones, of any kind, and says so."),
    "S-GET-EVICT-EXPLICIT": R("§9.3", "Models that were loaded explicitly are not evicted."),
    "S-GET-TTL": R("§5.2", "Without a TTL, getOrLoad gives 60 minutes."),
    "S-MATCH-ORDER": R(
        "§5.1", "A name means an identifier, then a key, an alias, or the beginning of a path in either case."
    ),
    "S-MATCH-QUERY": R("§5.1", "All members of a query must match; an empty one means any loaded model."),
    "S-MATCH-LOADED-ONLY": R("§5.1", "Requests match loaded models only, and never load one."),
    "S-REFERENCE-UNIQUE": R("§5.1", "An instanceReference is unique per load."),
    "S-NAMESPACE-DOMAIN": R("§4.1", "A namespace lists the instances of its own kind only."),
    "S-TTL-IDLE": R("§9.2, §9.3", "The TTL runs while the model idles, starts again with every use, and unloads it."),
    "S-TTL-WORKING": R("§9.3", "A model that works is not idle."),
    "S-UNLOAD-VOID": R("§4.2", "unloadModel answers void."),
    "S-UNLOAD-NAMED": R("§4.2", "unloadModel unloads the instance that is named, and no other."),
    "S-UNLOAD-PREDICTING": R("§9.2", "Unloading ends a running prediction with modelUnloaded."),
    "S-STATE": R(
        "§4.2", "getInstanceProcessingState tells what the instance does, and counts waiting and running requests."
    ),
    "S-SLOTS": R("§9.3", "No more predictions run at once than numParallelSessions; the others wait."),
    "S-INFO-FIELDS": R(
        "§0, §6.6", "Infos have every field that the newest schema requires, null only where it may be."
    ),
    "S-INFO-INTS": R("§0", "Integer fields are JSON integers."),
    # Predictions
    "S-PREDICT-PROGRESS": R(
        "§0, §4.3", "Prompt progress is sent for at least 0 and 1, with all details, which add up."
    ),
    "S-PREDICT-FRAGMENT": R("§6.4", "Fragments have all fields, isStructural among them."),
    "S-PREDICT-SUCCESS": R("§4.3", "success has stats, modelInfo, loadModelConfig and predictionConfig."),
    "S-PREDICT-STATS": R(
        "§6.5", "The total count is the sum of prompt and predicted; the end of sequence counts as predicted."
    ),
    "S-PREDICT-CANCEL": R("§4.3, §7.5", "After cancel comes success with userStopped, then channelClose."),
    "S-PREDICT-CANCEL-QUEUED": R("§9.2", "A prediction can be cancelled before its first token."),
    "S-PREDICT-DISCONNECT": R("§9.1", "The work of a socket stops when the socket goes."),
    "S-PREDICT-CRASH": R("§4.3", "A crash of the model fails all its predictions, those that wait among them."),
    "S-PREDICT-IMAGE-BLIND": R("§4.3", "An image for a model that sees none is refused."),
    "S-PREDICT-PRESET-ORDER": R("§4.3, §5.3", "A preset ranks below the request's own settings."),
    "S-PREDICT-LATER-LAYER": R("§5.3", "A later layer overrides an earlier one, key by key."),
    "S-PREDICT-FALSE-IS-OFF": R("§5.4", "A checkbox whose value is false is off."),
    "S-COMPLETE-RAW": R("§4.3", "completeRawText continues a text without a template."),
    "S-COMPLETE-LEGACY": R("§5.6", "The layer completeModeFormatting asks for the same by predict."),
    "S-PREDICT-TOOLS-STOPPED": R("§4.3", "A tool call whose prediction is stopped has its Failed all the same."),
    "S-PREDICT-TOOLS": R("§4.3", "A tool call is Start, maybe name and arguments, and exactly one End."),
    # Texts
    "S-TEXT-TOKENS": R("§4.3", "countTokens of an LLM is the length of tokenize."),
    "S-TEXT-MARKS": R("§4.4", "tokenize of an embedding model has two more tokens than countTokens."),
    "S-TEXT-TEMPLATE": R(
        "§9.2", "applyPromptTemplate takes files that were never uploaded and a second system message."
    ),
    "S-TEXT-EMBED": R("§4.4", "embedString returns one vector for one string."),
    # Files
    "S-FILES-IDENTIFIERS": R("§4.6", "The same content uploaded twice gets two identifiers."),
    "S-FILES-TYPES": R("§4.6", "A file's type is told by content for images, else by extension, else it is unknown."),
    "S-FILES-OTHER-SOCKET": R("§2.3", "A file is usable on every socket of its client, and on no other client's."),
    "S-FILES-LIFETIME": R("§2.3, §4.6", "A file is gone when its client's last socket is."),
    "S-FILES-PARSE": R("§4.6", "parseDocument sends parserLoaded, progress, result and closes."),
    "S-FILES-RETRIEVE": R(
        "§4.6", "retrieve tells of each file and each step, and returns entries with score and source."
    ),
    # System, repository, diagnostics
    "S-SYSTEM-DOWNLOADED": R("§4.5", "listDownloadedModels lists both kinds, told apart by type."),
    "S-SYSTEM-VERSION": R("§4.5", "version returns a version and a build."),
    "S-SYSTEM-ALIVE": R("§4.5", "alive stays open without a packet until the socket goes."),
    "S-REPOSITORY-SEARCH": R("§4.7", "searchModels returns names and identifiers, no more than the limit."),
    "S-REPOSITORY-OPTIONS": R("§4.7", "getModelDownloadOptions returns size, fit and a download identifier."),
    "S-REPOSITORY-DOWNLOAD": R(
        "§4.7", "downloadModel sends progress, startFinalizing, success, and the model can then be loaded."
    ),
    "S-REPOSITORY-LINK": R("§4.7", "lmLinkStatus is offline, says why, and reports the settings that clients changed."),
    "S-UNSUPPORTED": R(
        "§4.7", "An endpoint that is known but not served gets an empty result where that is the truth, else an error."
    ),
    "S-DIAGNOSTICS-LOGS": R("§4.8", "streamLogs sends input and output of predictions until it is stopped."),
}
