"""The state of a chat: the model, its tools, the conversation, and the stats of the last response."""

from dataclasses import dataclass, field

from lmstudio_integrations.cli._chat.response import ChatResponse, print_response, print_response_with_tools
from lmstudio_integrations.cli._chat.tools import ChatTools
from lmstudio_integrations.client.api.sync import LLM, Client
from lmstudio_integrations.types.chat import Chat, Message
from lmstudio_integrations.types.results import LlmPredictionStats


@dataclass(slots=True)
class Transcript:
    """What was said so far.

    Attributes:
        system_prompt: Instructions for the model.
        messages: The messages of the user and the model, with calls of tools and their results.
    """

    system_prompt: str | None = None
    messages: list[Message] = field(default_factory=list[Message])

    def with_message(self, text: str) -> Chat:
        """Return the conversation with a new message of the user."""
        chat = Chat(self.system_prompt)
        for message in self.messages:
            chat.append(message)
        chat.add_user_message(text)
        return chat


@dataclass(slots=True)
class ChatSession:
    """A chat.

    Attributes:
        client: The server.
        model: The model that responds.
        conversation: The conversation with it, or with a model before it.
        ttl: Unload models that the chat loads after this many idle seconds.
        device: The machine that models are used on; `None` leaves that to the server.
        tools: The tools that models may call, if there are any.
        last_stats: The stats of the last response.
    """

    client: Client
    model: LLM
    conversation: Transcript
    ttl: int | None = None
    device: str | None = None
    tools: ChatTools | None = None
    last_stats: LlmPredictionStats | None = None

    def respond(self, text: str) -> ChatResponse:
        """Print the response to a message.

        After an error the conversation is what it was before. A response that was stopped is part of the conversation
        as far as it came; if nothing came, neither it nor the message is.
        """
        chat = self.conversation.with_message(text)
        if self.tools is None:
            response = print_response(self.model.respond_stream(chat, check_context=True))
        else:
            response = print_response_with_tools(self.model, chat, self.tools)
        if response.messages:
            self.conversation.messages += [Chat().add_user_message(text), *response.messages]
        self.last_stats = response.stats
        return response
