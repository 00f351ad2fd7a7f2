"""What the protocol requires of a client: an id, the section of docs/protocol.md, one sentence.

`test_requirements_client.py` checks that a test names each of them with `proves`, and no other ids.
"""

from tests.requirements import Requirement

R = Requirement

REQUIREMENTS: dict[str, Requirement] = {
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
    "C-OMIT-UNSET": R("#client-rules, #serialization", "What was not set is not sent."),
    "C-STOP-WORDS": R("#endpoints", "Each channel has its own packet to cancel it: cancel, stop, or none."),
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
