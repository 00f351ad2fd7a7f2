"""How to chat: the fields that the adapters of chat models share, which those for completion alone do not have."""

from pydantic import Field

from lmstudio_integrations._adapters.generation_settings import GenerationSettings
from lmstudio_integrations._adapters.reasoning_effort import ReasoningEffort
from lmstudio_integrations.types._numbers import LogProbs, OrOff
from lmstudio_integrations.types.reasoning import SendReasoning


class ChatSettings(GenerationSettings):
    """How to chat: reasoning, tools, images."""

    reasoning_effort: ReasoningEffort | None = Field(
        default=None,
        description="How much the model reasons before it responds, from `none` to `xhigh`. The server gets the "
        "nearest level that the model has. Only models of LM Studio's catalog have levels; for others, only `none` "
        "has an effect. If unset, the model's default applies.",
    )

    send_reasoning: SendReasoning = Field(
        default="auto",
        description="Which earlier thoughts go back to the model. `auto` sends those that its chat template takes, "
        "which is measured once per loaded model; `turn` those since the last user message; `always` or `True` all; "
        "`False` none. The default is `auto`.",
    )

    keep_reasoning: bool = Field(
        default=False,
        description="Whether the chat template is made to keep the thoughts of all turns. The default is `False`: what "
        "it does by itself. If no way works, a call raises an error that names what was tried.",
    )

    think_first: bool = Field(
        default=True,
        description="Whether a call that asks for reasoning and a response format may make two predictions, if the "
        "grammar leaves no room for a thought: one for the thought, and one by grammar that continues it. The default "
        "is `True`.",
    )

    rescue_tool_calls: bool = Field(
        default=True,
        description="Whether calls that the server left in the text become tool calls. Only calls of offered tools "
        "count, and those that are cut off become invalid ones. The metadata has their number as `rescued_tool_calls`. "
        "The default is `True`.",
    )

    repair_tool_calls: bool = Field(
        default=True,
        description="Whether tool calls that do not fit the tools are mended: at once where exactly one reading fits, "
        "otherwise by one more prediction, by grammar. A call is held back until it is complete. The metadata has what "
        "was mended, or could not be, as `repaired_tool_calls`. The default is `True`.",
    )

    required_tool_fallback: bool = Field(
        default=True,
        description="Whether a required tool call that the model did not make is requested again, by grammar. The "
        "metadata then has `forced_by_grammar` and the tokens of both predictions. The default is `True`.",
    )

    logprobs: bool | None = Field(
        default=None,
        description="Whether responses contain the log-probabilities of their tokens. Off by default.",
    )

    top_logprobs: OrOff[LogProbs] | None = Field(
        default=None,
        description="How many alternatives to report for each token, with log-probabilities, from 0 to 100. Turns "
        "`logprobs` on. None by default.",
    )

    allow_image_download: bool = Field(
        default=False,
        description="Whether this process may download images from http and https URLs. The default is `False`. Each "
        "image may take 20 MB, five redirects and 30 seconds (or `timeout`), and must come from a public address.",
    )

    allow_private_image_hosts: bool = Field(
        default=False,
        description="Whether images may also come from addresses that are not public, such as the local network. The "
        "default is `False`; allow it only for messages that you trust.",
    )
