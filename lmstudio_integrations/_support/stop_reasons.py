"""Why a response ended, in words for people."""

COMPLETE = "complete"

_WORDS = {
    "eosFound": COMPLETE,
    "stopStringFound": "a stop string was found",
    "toolCalls": "tools were called",
    "userStopped": "stopped",
    "contextLengthReached": "the context window is full",
    "maxPredictedTokensReached": "the token limit is reached",
    "repetition": "stopped, because it only repeated itself",
    "modelUnloaded": "the model was unloaded",
    "disconnected": "the client disconnected",
}


def end_in_words(stop_reason: str) -> str:
    """Return a stop reason of a result or of the emulator's records in words; an unknown one as it is."""
    return _WORDS.get(stop_reason, stop_reason)


REMEDIES = {
    "maxPredictedTokensReached": "raise max_tokens",
    "contextLengthReached": "load the model with a larger context length, or shorten the prompt",
    "repetition": "the model only repeated itself, so use another one, or set repeat_penalty",
}
"""What helps a response that was cut off, by the stop reason."""
