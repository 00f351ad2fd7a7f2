"""The state of a chat: the model, the conversation, and the stats of the last response."""

from dataclasses import dataclass, field

from lmstudio_integrations.cli._chat.response import ChatResponse, print_response
from lmstudio_integrations.client.api.sync import LLM, Client
from lmstudio_integrations.types.chat import Chat
from lmstudio_integrations.types.results import LlmPredictionStats


@dataclass(slots=True)
class Transcript:
    """What was said so far.

    Attributes:
        system_prompt: Instructions for the model.
        turns: Each message of the user with the response.
    """

    system_prompt: str | None = None
    turns: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def with_message(self, text: str) -> Chat:
        """Return the conversation with a new message of the user."""
        chat = Chat(self.system_prompt)
        for message, response in self.turns:
            chat.add_user_message(message)
            chat.add_assistant_response(response)
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
        last_stats: The stats of the last response.
    """

    client: Client
    model: LLM
    conversation: Transcript
    ttl: int | None = None
    last_stats: LlmPredictionStats | None = None

    def respond(self, text: str) -> ChatResponse:
        """Print the response to a message.

        After an error the conversation is what it was before. A response that was stopped is part of the conversation
        as far as it came; if nothing came, neither it nor the message is.
        """
        chat = self.conversation.with_message(text)
        response = print_response(self.model.respond_stream(chat, check_context=True))
        if response.text or not response.stopped:
            self.conversation.turns.append((text, response.text))
        self.last_stats = response.stats
        return response
