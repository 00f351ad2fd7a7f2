"""What the protocol requires of a client (ids `C-…`) and of a server (`S-…`): the section of its page, one sentence.

Tests name what they prove: `@pytest.mark.requirement("C-URL")`; `test_requirements.py` compares the two.
"""

from typing import NamedTuple


class Requirement(NamedTuple):
    """A requirement: its sections of docs/protocol.md, and one sentence."""

    sections: str
    sentence: str


R = Requirement

CLIENT: dict[str, Requirement] = {
    # Transport
    "C-URL": R(
        "#urls", "A socket is opened at ws://HOST:PORT/NAMESPACE, or wss, below a path prefix where there is one."
    ),
    "C-LAZY-SOCKETS": R("#namespaces", "A namespace's socket is opened on first use, one per namespace."),
    "C-TEXT-FRAMES": R("#client-rules, #urls", "Every frame is a text frame with one JSON value."),
    "C-DISCOVERY": R(
        "#discovery", "Without a host, the five local ports are probed by their greeting, then port 1234."
    ),
    "C-GREETING": R("#discovery", "A server without the greeting is not LM Studio, and the error names that."),
    "C-HOST-ENV": R("#environment-variables", "The environment may name the host."),
    "C-UNREACHABLE": R("#discovery", "The error for an unreachable server lists every address that was tried."),
    "C-CONNECT-TIMEOUT": R("#timeouts", "A server that accepts and sends nothing runs into the connect timeout."),
    "C-LOST": R("#timeouts", "A lost socket fails every open call and channel once."),
    "C-RECONNECT": R("#timeouts", "The next call after a loss reconnects and authenticates again."),
    "C-CLOSE": R("#timeouts", "Closing a client closes its sockets; there is no closing frame of the protocol."),
    # Authentication
    "C-AUTH-FRAME": R(
        "#first-frame", "The first frame has authVersion 1, clientIdentifier and clientPasskey, and no type."
    ),
    "C-AUTH-FIRST": R("#client-rules, #first-frame", "Exactly one authentication frame is sent, before anything else."),
    "C-AUTH-WAIT": R(
        "#client-rules, #authentication-rules", "Nothing is sent until the server has replied with success."
    ),
    "C-AUTH-REJECTED": R(
        "#authentication-result, #rejected-credentials", "A rejected authentication is raised with the server's reason."
    ),
    "C-GUEST": R(
        "#credentials", "Without a token the identifier is guest: and something random, the same on all sockets."
    ),
    "C-GUEST-RELEASED": R(
        "#authentication-rules",
        "The identity of a guest is not used again after its last socket to a server has closed.",
    ),
    "C-TOKEN-HALVES": R("#credentials", "Only the two halves of a token are sent."),
    "C-TOKEN-ENV": R(
        "#environment-variables, #credentials",
        "The token comes from the argument, else from LM_API_TOKEN, else LMSTUDIO_API_TOKEN.",
    ),
    "C-TOKEN-FORMAT": R("#credentials", "A malformed token is rejected before connecting."),
    # Framing
    "C-IDS": R("#ids", "Ids are integers, and none is used twice on a socket."),
    "C-RPC": R("#rpc", "A call gets the one reply that has its id."),
    "C-ANY-ORDER": R("#rpc", "Replies may come in any order."),
    "C-RPC-ERROR": R("#rpc", "An rpcError fails the call with the server's error."),
    "C-VOID-ABSENT": R("#client-rules, #serialization", "A void parameter is absent, never null."),
    "C-VOID-RESULT": R("#serialization", "An absent result and a null one are both void."),
    "C-NO-RPC-CANCEL": R("#rpc", "A call cannot be cancelled on the server, so nothing is sent for it."),
    "C-CHANNEL": R("#channels", "A channel delivers its packets until the server closes it."),
    "C-CHANNEL-ERROR": R("#channels", "A channelError fails the channel after what came before it."),
    "C-CLOSED-EARLY": R(
        "#client-rules, #errors-to-exceptions", "A channel that closes without its last packet is an error, not a hang."
    ),
    "C-LATE-FRAMES": R("#channels", "Frames for ended calls and channels are ignored."),
    "C-LENIENT": R("#server-frames, #client-versions", "Frames of unknown or wrong form are skipped."),
    "C-UNKNOWN-PACKET": R("#client-versions", "Packets of unknown types are skipped."),
    "C-ENUMS-OPEN": R("#client-versions", "Unknown enum values are read."),
    "C-WARNING-UNKNOWN-ENDPOINT": R(
        "#client-rules, #server-framework", "A warning that an endpoint is unknown fails the calls to it."
    ),
    "C-WARNING-FAILS-CALL": R("#server-framework", "A warning about a parameter fails the call that it is about."),
    "C-ROBUST": R("#server-frames", "Nothing that a server sends crashes a client or makes a caller wait forever."),
    "C-UNDECODABLE": R(
        "#server-frames", "A packet that cannot be read fails its stream: an incomplete stream must not look complete."
    ),
    "C-SURROGATES": R("#fragments", "Characters that are split between two fragments are joined."),
    "C-TRANSCRIPTS": R("#transcripts", "The transcripts of the description are reproduced exactly."),
    # Errors
    "C-ERROR-CODES": R(
        "#errors, #errors-to-exceptions",
        "Each code of displayData has its exception, with every field as an attribute.",
    ),
    "C-ERROR-TEXTS": R("#errors-to-exceptions", "Known texts of servers without code have their exception."),
    "C-LEGACY-ERROR": R("#llm-endpoints", "The in-band error packet of older servers fails the prediction."),
    # Endpoints
    "C-ENDPOINTS": R("#endpoint-table", "All endpoints with a schema are known, each in its namespace."),
    "C-PARAMETER-SHAPES": R("#endpoints", "Each request has the fields of the description, under their names."),
    "C-OMIT-DECLARED": R("#client-rules, #serialization", "What was not set is not sent."),
    "C-STOP-WORDS": R(
        "#endpoints", "Each channel has its own packet to cancel it: cancel, stop, discardSession, or none."
    ),
    "C-OLD-SERVERS": R("#client-versions", "Fields that servers of 2025 omit are optional."),
    "C-COMPLETE-FALLBACK": R(
        "#prediction-keys, #client-versions",
        "Where completeRawText is unknown, predict with the extra layer is called.",
    ),
    # Models
    "C-ANY-MODEL": R("#model-endpoints", "Without a key, any loaded model of the kind is used."),
    "C-GET-OR-LOAD": R("#model-endpoints", "A key gets the loaded model, or loads it."),
    "C-NEW-INSTANCE": R(
        "#model-endpoints", "A new instance has the requested identifier, or one that the server chooses."
    ),
    "C-HANDLE-BY-IDENTIFIER": R("#model-specifiers", "Handles name their model by identifier, and survive a reload."),
    "C-QUERY-NAMES": R(
        "#model-specifiers", "Names in a query have 1 to 1024 characters, none of them a control character."
    ),
    "C-TTL-MS": R("#client-rules, #ttl", "Times to live are seconds for callers and whole milliseconds on the wire."),
    "C-TTL-DEFAULT": R("#ttl", "The default TTL is an hour; None sends nothing."),
    "C-LOAD-PROGRESS": R("#load-progress", "Progress grows strictly, from 0.0 to 1.0."),
    "C-LOAD-CANCEL": R(
        "#model-endpoints, #canceling-loads", "Cancelling the wait for a load cancels it on the server."
    ),
    "C-CONFIG-MISMATCH": R("#getting-models", "A model that is loaded with other settings causes a warning."),
    "C-UNLOAD": R("#model-endpoints", "A model is unloaded by its identifier."),
    "C-LISTINGS": R("#model-endpoints, #system-endpoints", "Loaded and downloaded models are listed by kind."),
    "C-KINDS-SKIPPED": R("#system-endpoints", "A listing omits models of unknown kinds."),
    "C-INFO-NEW": R("#model-info", "All fields of the newest servers are read."),
    "C-INFO-OLD": R("#model-info, #client-versions", "Fields that older servers do not send may be missing."),
    "C-MODEL-NOT-FOUND": R(
        "#model-endpoints, #errors-to-exceptions", "An unknown model is an error that names close matches."
    ),
    # Settings
    "C-ONE-LAYER": R("#config-stacks", "Settings are sent in one apiOverride layer, which is there even when empty."),
    "C-SETTINGS-LOAD": R("#load-keys", "Every load option has its key and its encoding, both ways."),
    "C-SETTINGS-PREDICTION": R("#prediction-keys", "Every prediction option has its key and its encoding, both ways."),
    "C-SETTINGS-OFF": R("#value-encodings", "False is sent as an empty checkbox; both SDKs' forms of off are read."),
    "C-SETTINGS-CHECKED": R("#value-encodings", "Values are checked before they are sent."),
    "C-SETTINGS-UNKNOWN": R("#prediction-keys", "An unknown option is an error with the nearest match, never dropped."),
    "C-SETTINGS-RAW": R("#prediction-keys", "Raw settings rank below the named ones."),
    "C-GPU-SPLIT": R("#load-keys", "gpu becomes a ratio and a split, and comes back from them."),
    # Predictions
    "C-PREDICTION-EVENTS": R("#llm-endpoints", "Every packet of a prediction has its event."),
    "C-PROMPT-PROGRESS": R(
        "#respond-and-complete", "Prompt progress grows strictly from 0.0 to 1.0, even if the server sends none."
    ),
    "C-FIRST-TOKEN": R("#respond-and-complete", "The first token is told once."),
    "C-REASONING": R("#respond-and-complete", "Reasoning is split from the answer by the type of fragments."),
    "C-RESULT": R(
        "#prediction-stats, #config-in-results, #respond-and-complete",
        "A result has its text, statistics, model, and both configurations.",
    ),
    "C-PRESET": R("#llm-endpoints", "A preset travels by its fuzzy identifier."),
    "C-CANCEL": R("#client-rules, #canceling-predictions", "Cancelling sends cancel once and reads on until success."),
    "C-ABANDON": R("#canceling-predictions", "A stream that is left is cancelled on the server."),
    "C-PREDICTION-FAILS": R(
        "#llm-endpoints, #prediction-stats",
        "A generation that fails or loses its model raises, with what the server said.",
    ),
    "C-STRUCTURED": R(
        "#structured-output",
        "A class, a schema or a grammar goes out as structured, and a JSON object comes back as a dict or instance.",
    ),
    # Conversations
    "C-CHAT-ROLES": R("#chat-history", "Every role has its parts, and content is always a list of them."),
    "C-CHAT-MERGE": R("#chat-helper", "Consecutive messages of one role become one."),
    "C-CHAT-HISTORY": R("#chat-helper", "A history may be text, messages with text, or the wire form."),
    "C-CHAT-CHECKED": R("#chat-history", "What does not fit a role is rejected before it is sent."),
    "C-CHAT-NO-REASONING": R("#chat-history", "Of an answer, its reasoning does not go into the history."),
    # Tools
    "C-TOOL-DEFINITION": R(
        "#tool-definitions", "A tool is described by name, description and an object schema with properties."
    ),
    "C-ACT": R("#tool-loop", "Tools run until the model asks for none; calls and results go into the history."),
    "C-ACT-ORDER": R("#tool-loop", "Results stand in the order of the requests."),
    "C-ACT-INVALID": R("#tool-loop", "Unknown tools and bad arguments are told to the model."),
    "C-ACT-LIMIT": R("#tool-loop", "The last round offers no tools."),
    # Text, files, repository
    "C-EMBED": R("#embedding-endpoints", "A text gives a vector, a list gives one per text, in order."),
    "C-TOKENIZE": R(
        "#llm-endpoints, #embedding-endpoints", "Texts are tokenised and counted one call each, for both kinds."
    ),
    "C-UPLOAD": R(
        "#file-endpoints, #images", "A file is uploaded as base64 under a name with the extension of its content."
    ),
    "C-FILE-LIFETIME": R(
        "#credentials, #file-endpoints",
        "A file lives while a socket of its client does; after a loss it is uploaded again.",
    ),
    "C-DOCUMENTS": R("#file-endpoints", "Documents are parsed and searched, with progress."),
    "C-DOWNLOAD": R("#repository-endpoints", "Models are searched and downloaded, with progress."),
    # Plugins
    "C-PLUGINS-READY": R("#tool-sessions", "Nothing is sent in a tool session before sessionReady; calls wait for it."),
    "C-PLUGINS-CALL-IDS": R(
        "#tool-sessions", "Each session counts its calls from 0, and each call receives the packets with its callId."
    ),
    "C-PLUGINS-ABORT": R(
        "#tool-sessions", "A call whose caller is gone is aborted, once, and what still comes of it is ignored."
    ),
    "C-PLUGINS-UNKNOWN-CALL": R("#tool-sessions", "A packet with an unknown callId is ignored."),
    "C-PLUGINS-DISCARD": R("#tool-sessions", "Closing a session sends discardSession, and nothing after it."),
    "C-PLUGINS-LOST": R("#tool-sessions", "All calls fail with their session, and none is repeated."),
    # Timeouts
    "C-CLOCK-RPC": R("#client-rules, #timeouts", "A call that is never answered ends by the idle clock."),
    "C-CLOCK-LOAD": R("#timeouts", "A load without progress ends by the load clock, and progress feeds it."),
    "C-CLOCK-QUEUE": R(
        "#product-behavior", "Waiting in a queue that moves is no stall; waiting in one that does not ends."
    ),
    "C-CLOCK-FIRST-TOKEN": R("#timeouts", "The clock of the first token begins with the prediction's first packet."),
    "C-CLOCK-IDLE": R("#timeouts", "Between packets of an answer the idle clock runs."),
    "C-CLOCK-TOTAL": R("#timeouts", "The total clock runs from the call to its end."),
    "C-BOUNDED": R(
        "#timeouts", "No call outlives its timeouts, whatever comes and however often a model is loaded again."
    ),
    "C-CLOCK-OFF": R("#timeouts", "A clock may be switched off."),
}

SERVER: dict[str, Requirement] = {
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
    # Plugins
    "S-PLUGINS-PACKETS": R(
        "#tool-sessions, #invalid-input",
        "callTool has a number as its callId, a name and any JSON as arguments, and abortToolCall has a callId.",
    ),
    "S-PLUGINS-GENERATED": R(
        "#generators",
        "The packets of a generator have neither stats nor info, nor an error or raw content of a tool call.",
    ),
    "S-PLUGINS-UNKNOWN-CALL": R("#tool-sessions", "No warning is sent about a callId that is not known."),
    "S-PLUGINS-CLOSED": R(
        "#tool-sessions, #channels", "After its channel has closed, nothing of a session's calls is sent."
    ),
}
