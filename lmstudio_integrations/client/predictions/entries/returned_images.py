"""Images that a tool or a model has returned, where the server rejects the conversation with them.

It cannot decode one, or the chat template takes none. Every later call with that message would fail, so the
conversation is sent once more, with notes in their places.
"""

from lmstudio_integrations.client.predictions.middleware import Ask, Middleware
from lmstudio_integrations.errors import (
    LMStudioError,
    LMStudioFileExpiredError,
    LMStudioPredictionError,
    LMStudioPromptTemplateError,
    LMStudioServerError,
    LMStudioUnsupportedError,
)

_MAYBE_ABOUT_IMAGES = frozenset(
    {LMStudioServerError, LMStudioPredictionError, LMStudioPromptTemplateError, LMStudioUnsupportedError}
    | {LMStudioFileExpiredError}
)
"""The classes of errors about the content of a request. Those derived from them are about something else."""


class ReturnedImages(Middleware):
    """Omits them after an error."""

    def repeats_after(self, error: LMStudioError, ask: Ask) -> bool:
        """Whether they were sent, and the server may have rejected them."""
        if ask.request is None or type(error) not in _MAYBE_ABOUT_IMAGES or self.plan.omits_images is not None:
            return False
        self.plan.omits_images = "the server has rejected it"
        return True
