"""Retries, and defaults against silence: what this package does without being asked, and the observations behind it.

A reader of texts can be tried without a rule, and `rules.py` does. What these rules are for happens in a server, or in
time, so their observations are named by hand.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Default:
    """One of them.

    Attributes:
        name: The class, the function or the setting that has it.
        what: What it does, as a sentence without its end.
        seen: The ids of the observations that ask for it.
    """

    name: str
    what: str
    seen: tuple[str, ...] = ()


DEFAULTS = (
    Default(
        "LMStudioModelUnloadedError",
        "A model that was unloaded is loaded again, and the call is made again",
        ("error-predict-69", "error-predict-71", "error-rpc-01", "fact-164"),
    ),
    Default(
        "LMStudioEngineLostError",
        "A model whose engine is gone counts as unloaded",
        ("error-predict-35", "error-predict-37", "error-predict-39", "error-predict-110"),
    ),
    Default(
        "means_no_explicit_load",
        "A load that the server refuses is made just in time, which evicts other models",
        ("error-load-05", "error-load-07", "error-load-09", "fact-22"),
    ),
    Default(
        "load_or_wait_for_other_program",
        "A load whose identifier is taken finds that instance",
        ("error-load-124",),
    ),
    Default(
        "getOrLoad", "A load goes on while the server evicts a model that was loaded just in time", ("load-packets-01",)
    ),
    Default("SingleFlight", "Calls that need the same model at once load it once", ("fact-144",)),
    Default(
        "LMStudioConfigWarning",
        "Settings with which a model was really loaded are compared with the ones that were requested",
        ("fact-132", "fact-133"),
    ),
    Default(
        "communicationWarning",
        "A request that the server rejects by a warning fails at once, because no reply follows",
        ("warning-01", "warning-101"),
    ),
    Default(
        "LMStudioChannelClosedError",
        "A response without its last packet is an error, and not a short response",
        ("fact-162", "fact-163"),
    ),
    Default("max_retries", "The call after a lost connection reconnects", ("fact-12", "fact-161")),
    Default("LMStudioToolSessionWarning", "A plugin's session that was lost is opened again", ("fact-13",)),
    Default("connect_timeout", "`connect_timeout` ends the wait for a server that does not accept a connection"),
    Default("keepalive", "`keepalive` notices a connection that is dead and not closed", ("fact-161",)),
    Default("load_timeout", "`load_timeout` ends a load without progress", ("fact-159",)),
    Default("queue_timeout", "`queue_timeout` ends the wait for the first packet", ("fact-07", "fact-156", "fact-158")),
    Default(
        "first_token_timeout",
        "`first_token_timeout` ends the processing of a prompt without progress",
        ("fact-156", "fact-157"),
    ),
    Default("idle_timeout", "`idle_timeout` ends a response without packets", ("fact-160",)),
    Default("StopOnRepetition", "A response that only repeats itself is stopped", ("fact-175", "fact-176")),
    Default(
        "max_repeated_tool_calls",
        "The same call again and again is answered with a sentence",
        ("fact-16", "fact-177", "fact-178"),
    ),
    Default(
        "ContextCheck",
        "A prompt that may have been cut in silence is counted, and so are responses of which nothing came",
        ("fact-166", "fact-167", "fact-202", "fact-203"),
    ),
    Default(
        "EffortCheck",
        "An effort of reasoning that a model does not allow is a warning, before the server ignores it",
        ("fact-201", "fact-204", "fact-205", "fact-206", "fact-207"),
    ),
    Default(
        "JsonInReasoning",
        "Structured output that the server took for reasoning is the response",
        ("fact-168", "fact-169", "fact-170"),
    ),
    Default("ThinkFirst", "A model reasons before structured output in a request of its own", ("fact-181",)),
    Default("ToolsFirst", "Tools and a response format go in two requests, because servers take no grammar with tools"),
    Default(
        "RequiredToolFallback",
        "A required tool call that did not come is requested again, by grammar",
        ("fact-172",),
    ),
    Default("MissingCall", "A required tool call that did not come is logged", ("fact-172", "fact-173")),
    Default(
        "RepairCalls",
        "The model is asked again for a call that the server could not parse",
        ("fact-17", "packets-05", "packets-102"),
    ),
    Default("ReadCalls", "A call at the end of the reasoning is read", ("packets-101",)),
    Default("SentReasoning", "A prompt whose template rejects earlier thoughts is sent again without them"),
    Default(
        "ReturnedImages",
        "A conversation that is rejected for an image of a tool is sent again with a note in its place",
        ("error-predict-106",),
    ),
)

RECOVERS_NOTHING = {"Confidence", "LogitBias", "ReasoningBudget"}
"""Steps of a prediction that do what was asked for, or tell what was seen."""
