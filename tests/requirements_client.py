"""What the description of the protocol asks of a client: an id, the section, one sentence.

`test_requirements_client.py` sees to it that a test names each of them with `proves`, and none besides.
"""

from tests.requirements import Requirement

R = Requirement

REQUIREMENTS: dict[str, Requirement] = {
    # Transport
    "C-URL": R(
        "§1.1", "A socket is opened at ws://HOST:PORT/NAMESPACE, or wss, below a path prefix where there is one."
    ),
    "C-LAZY-SOCKETS": R("§1.2", "A namespace's socket is opened on first use, one per namespace."),
    "C-TEXT-FRAMES": R("§0, §1.1", "Every frame is a text frame with one JSON value."),
    "C-DISCOVERY": R("§1.3", "Without a host, the five local ports are probed by their greeting, then port 1234."),
    "C-GREETING": R("§1.3", "What answers without the greeting is not LM Studio, and is told apart."),
    "C-HOST-ENV": R("§1.5", "The environment may name the host."),
    "C-UNREACHABLE": R("§1.3", "A server that is not there is reported with every address that was tried."),
    "C-CONNECT-TIMEOUT": R("§1.6", "A server that accepts and says nothing does not hold the client."),
    "C-LOST": R("§1.6", "A lost socket fails every open call and channel once."),
    "C-RECONNECT": R("§1.6", "The next call after a loss reconnects and authenticates again."),
    "C-CLOSE": R("§1.6", "Closing a client closes its sockets; there is no frame to say goodbye."),
    # Authentication
    "C-AUTH-FRAME": R("§2.1", "The first frame has authVersion 1, clientIdentifier and clientPasskey, and no type."),
    "C-AUTH-FIRST": R("§0, §2.1", "Exactly one authentication frame is sent, before anything else."),
    "C-AUTH-WAIT": R("§0, §2.5", "Nothing is sent until the server has answered with success."),
    "C-AUTH-REFUSED": R("§2.2, §2.4", "A refusal is raised with the server's reason."),
    "C-GUEST": R("§2.3", "Without a token the identifier is guest: and something random, the same on all sockets."),
    "C-TOKEN-HALVES": R("§2.3", "Of a token only its two halves travel."),
    "C-TOKEN-ENV": R(
        "§1.5, §2.3", "The token comes from the argument, else from LM_API_TOKEN, else LMSTUDIO_API_TOKEN."
    ),
    "C-TOKEN-FORMAT": R("§2.3", "A malformed token is refused before connecting."),
    # Framing
    "C-IDS": R("§3.3", "Ids are integers, and none is used twice on a socket."),
    "C-RPC": R("§3.4", "A call gets the one reply that has its id."),
    "C-ANY-ORDER": R("§3.4", "Replies may come in any order."),
    "C-RPC-ERROR": R("§3.4", "An rpcError fails the call with what the server said."),
    "C-VOID-ABSENT": R("§0, §3.8", "A void parameter is absent, never null."),
    "C-VOID-RESULT": R("§3.8", "An absent result and a null one are both void."),
    "C-NO-RPC-CANCEL": R("§3.4", "A call cannot be cancelled on the server, so nothing is sent for it."),
    "C-CHANNEL": R("§3.5", "A channel delivers its packets until the server closes it."),
    "C-CHANNEL-ERROR": R("§3.5", "A channelError fails the channel after what came before it."),
    "C-CLOSED-EARLY": R("§0, §7.10", "A channel that closes without its last packet is an error, not a hang."),
    "C-LATE-FRAMES": R("§3.5", "Frames for what has ended are ignored."),
    "C-LENIENT": R("§3.2, §8", "Frames of unknown or wrong form are skipped."),
    "C-UNKNOWN-PACKET": R("§8", "Packets of unknown types are skipped."),
    "C-ENUMS-OPEN": R("§8", "Unknown enum values are read."),
    "C-WARNING-UNKNOWN-ENDPOINT": R("§0, §9.1", "A warning that an endpoint is unknown fails the calls to it."),
    "C-WARNING-FAILS-CALL": R("§9.1", "A warning about a parameter fails the call that it is about."),
    "C-ROBUST": R("§3.2", "Nothing that a server sends crashes a client or leaves a caller waiting for ever."),
    "C-UNDECODABLE": R("§3.2", "A packet that cannot be read fails its stream: a hole must not pass for the whole."),
    "C-SURROGATES": R("§6.4", "Characters that were cut between two fragments are put together."),
    "C-TRANSCRIPTS": R("§10", "The conversations of the description are held word for word."),
    # Errors
    "C-ERROR-CODES": R("§3.7, §7.10", "Each code of displayData has its exception, with every field as an attribute."),
    "C-ERROR-TEXTS": R("§7.10", "Known texts of servers without code have their exception."),
    "C-LEGACY-ERROR": R("§4.3", "The in-band error packet of older servers fails the prediction."),
    # Endpoints
    "C-ENDPOINTS": R("§4.1", "All endpoints with a schema are known, each in its namespace."),
    "C-PARAMETER-SHAPES": R("§4.2 - §4.7", "Each request has the fields of the description, under their names."),
    "C-OMIT-UNSET": R("§0, §3.8", "What was not set is not sent."),
    "C-STOP-WORDS": R("§4", "Each channel is stopped by its own word: cancel, stop, or none."),
    "C-OLD-SERVERS": R("§8", "What servers of 2025 leave out is done without."),
    "C-COMPLETE-FALLBACK": R("§5.6, §8", "Where completeRawText is unknown, predict with the extra layer is asked."),
    # Models
    "C-ANY-MODEL": R("§4.2", "Without a key, any loaded model of the kind is taken."),
    "C-GET-OR-LOAD": R("§4.2", "A key gets the loaded model, or loads it."),
    "C-NEW-INSTANCE": R("§4.2", "A new instance has the identifier asked for, or one that the server chooses."),
    "C-HANDLE-BY-IDENTIFIER": R("§5.1", "Handles name their model by identifier, and survive a reload."),
    "C-QUERY-NAMES": R("§5.1", "Names in a query have 1 to 1024 characters, none of them a control character."),
    "C-TTL-MS": R("§0, §5.2", "Times to live are seconds for callers and whole milliseconds on the wire."),
    "C-TTL-DEFAULT": R("§5.2", "A model loaded without a word stays an hour; None sends nothing."),
    "C-LOAD-PROGRESS": R("§7.2", "Progress grows strictly, from 0.0 to 1.0."),
    "C-LOAD-CANCEL": R("§4.2, §7.3", "Whoever stops waiting for a load has it cancelled on the server."),
    "C-CONFIG-MISMATCH": R("§7.1", "A model that is loaded with other settings is told."),
    "C-UNLOAD": R("§4.2", "A model is unloaded by its identifier."),
    "C-LISTINGS": R("§4.2, §4.5", "Loaded and downloaded models are listed by kind."),
    "C-KINDS-SKIPPED": R("§4.5", "Models of unknown kinds are left out of a listing."),
    "C-INFO-NEW": R("§6.6", "All fields of the newest servers are read."),
    "C-INFO-OLD": R("§6.6, §8", "Fields that older servers do not send may be missing."),
    "C-MODEL-NOT-FOUND": R("§4.2, §7.10", "An unknown model is an error that names close matches."),
    # Settings
    "C-ONE-LAYER": R("§5.3", "Settings travel in one apiOverride layer, which is there even when empty."),
    "C-SETTINGS-LOAD": R("§5.5", "Every load option has its key and its encoding, both ways."),
    "C-SETTINGS-PREDICTION": R("§5.6", "Every prediction option has its key and its encoding, both ways."),
    "C-SETTINGS-OFF": R("§5.4", "False is sent as an empty checkbox; both SDKs' forms of off are read."),
    "C-SETTINGS-CHECKED": R("§5.4", "Values are checked before they are sent."),
    "C-SETTINGS-UNKNOWN": R("§5.6", "An unknown option is an error with the nearest match, never dropped."),
    "C-SETTINGS-RAW": R("§5.6", "Raw settings rank below the named ones."),
    "C-GPU-SPLIT": R("§5.5", "gpu becomes a ratio and a split, and comes back from them."),
    # Predictions
    "C-PREDICTION-EVENTS": R("§4.3", "Every packet of a prediction has its event."),
    "C-PROMPT-PROGRESS": R("§7.4", "Prompt progress grows strictly from 0.0 to 1.0, even if the server sends none."),
    "C-FIRST-TOKEN": R("§7.4", "The first token is told once."),
    "C-REASONING": R("§7.4", "Reasoning is split from the answer by the type of fragments."),
    "C-RESULT": R("§6.5, §6.7, §7.4", "A result has its text, statistics, model, and both configurations."),
    "C-PRESET": R("§4.3", "A preset travels by its fuzzy identifier."),
    "C-CANCEL": R("§0, §7.5", "Cancelling sends cancel once and reads on until success."),
    "C-ABANDON": R("§7.5", "A stream that is left is cancelled on the server."),
    "C-PREDICTION-FAILS": R(
        "§4.3, §6.5", "A generation that fails or loses its model raises, with what the server said."
    ),
    "C-STRUCTURED": R(
        "§7.6",
        "A class, a schema or a grammar goes out as structured, and a JSON object comes back as a dict or instance.",
    ),
    # Conversations
    "C-CHAT-ROLES": R("§6.1", "Every role has its parts, and content is always a list of them."),
    "C-CHAT-MERGE": R("§7.8", "Consecutive messages of one role become one."),
    "C-CHAT-HISTORY": R("§7.8", "A history may be text, messages with text, or the wire form."),
    "C-CHAT-CHECKED": R("§6.1", "What does not fit a role is refused before it is sent."),
    "C-CHAT-NO-REASONING": R("§6.1", "Of an answer, its reasoning does not go into the history."),
    # Tools
    "C-TOOL-DEFINITION": R("§6.3", "A tool is described by name, description and an object schema with properties."),
    "C-ACT": R("§7.7", "Tools run until the model asks for none; calls and results go into the history."),
    "C-ACT-ORDER": R("§7.7", "Results stand in the order of the requests."),
    "C-ACT-INVALID": R("§7.7", "Unknown tools and bad arguments are told to the model."),
    "C-ACT-LIMIT": R("§7.7", "The last round offers no tools."),
    # Text, files, repository
    "C-EMBED": R("§4.4", "A text gives a vector, a list gives one per text, in order."),
    "C-TOKENIZE": R("§4.3, §4.4", "Texts are tokenised and counted one call each, for both kinds."),
    "C-UPLOAD": R("§4.6, §7.9", "A file is uploaded as base64 under a name with the extension of its content."),
    "C-FILE-LIFETIME": R(
        "§2.3, §4.6", "A file lives while a socket of its client does; after a loss it is uploaded again."
    ),
    "C-DOCUMENTS": R("§4.6", "Documents are parsed and searched, with progress."),
    "C-DOWNLOAD": R("§4.7", "Models are searched and downloaded, with progress."),
    # Timeouts
    "C-CLOCK-RPC": R("§0, §1.6", "A call that is never answered ends by the idle clock."),
    "C-CLOCK-LOAD": R("§1.6", "A load without progress ends by the load clock, and progress feeds it."),
    "C-CLOCK-QUEUE": R("§9.3", "Waiting in a queue that moves is no stall; waiting in one that does not ends."),
    "C-CLOCK-FIRST-TOKEN": R("§1.6", "The clock of the first token begins with the prediction's first packet."),
    "C-CLOCK-IDLE": R("§1.6", "Between packets of an answer the idle clock runs."),
    "C-CLOCK-TOTAL": R("§1.6", "The total clock runs from the call to its end."),
    "C-BOUNDED": R("§1.6", "No call outlives its timeouts, whatever comes and however often a model is loaded again."),
    "C-CLOCK-OFF": R("§1.6", "A clock may be switched off."),
}
