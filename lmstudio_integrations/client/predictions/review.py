"""What is done with a response before the caller gets it, so that a tool call is a call and a required one comes.

`requests.py` makes a review of a request that offers tools, and `prediction.py` runs it: it delivers the events that
the review releases, and makes the second prediction that it asks for.
"""

import logging
from collections.abc import Sequence
from typing import Generic

from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.client.predictions.required_call import has_call, log_missing_call
from lmstudio_integrations.client.predictions.second_step import RequestT, SecondStep
from lmstudio_integrations.client.predictions.text_calls.rescue import Rescue
from lmstudio_integrations.errors import LMStudioError
from lmstudio_integrations.protocol.prediction import Accumulator
from lmstudio_integrations.types.results import PredictionEvent, PredictionResult

logger: logging.Logger = logging.getLogger(__name__)


class Review(Generic[RequestT]):
    """The review of one response.

    Args:
        rescue: Reads calls in the text.
        second_step: The prediction that may follow.
        required_choice: The tool choice, if a response without a tool call is to be logged.
    """

    def __init__(
        self, rescue: Rescue | None, second_step: SecondStep[RequestT] | None, required_choice: str | None
    ) -> None:
        self._rescue = rescue
        self._second_step = second_step
        self._required_choice = required_choice
        self._instance: Instance | None = None

    def requests_on(self, instance: Instance) -> Sequence[RequestT] | None:
        """Return the requests of the second prediction, if that is next; `None` if the first is."""
        self._instance, step = instance, self._second_step
        if self._rescue is not None:
            self._rescue.begin_on(instance)
        if step is None:
            return None
        step.begin_on(instance)
        return step.requests if step.is_begun else None

    def forget(self) -> None:
        """Forget what was received of this response: the prediction starts over."""
        for each in (self._rescue, self._second_step):
            if each is not None:
                each.forget()

    def release(self, batch: list[PredictionEvent], received: Accumulator) -> list[PredictionEvent]:
        """Return what may be delivered. At the end of the response, what was received is changed accordingly."""
        step = self._second_step
        if step is not None and step.is_begun:
            return step.release(batch, received)
        if self._rescue is not None:
            batch = self._rescue.release(batch, received)
        if received.end is not None and has_call(received) and self._instance is not None:
            self._instance.missed_calls = 0
        return batch if step is None else step.release(batch, received)

    @property
    def has_more(self) -> bool:
        """Whether a second prediction is to be made, or was."""
        return self._second_step is not None and self._second_step.is_begun

    @property
    def kept(self) -> PredictionResult | None:
        """The first response, if it is complete and is the result where there is no second one."""
        return None if self._second_step is None else self._second_step.kept

    def kept_after(self, error: LMStudioError) -> PredictionResult | None:
        """Return what is kept if the second prediction has failed, and log that; `None` if nothing is."""
        if self.kept is not None:
            logger.warning("the second prediction failed: %s", error)
        if self._instance is not None and self.has_more:
            self._instance.missed_calls = 0  # by grammar, it is no better
        return None if self.kept is None else self._logged(self.kept)

    def completed(self, result: PredictionResult) -> PredictionResult:
        """Return the response with what both predictions have used; log that a required call is missing."""
        if self._second_step is not None:
            result = self._second_step.completed(result)
        return self._logged(result)

    def _logged(self, result: PredictionResult) -> PredictionResult:
        """Log that a required call is missing, if it is; return the result."""
        if self._required_choice is not None:
            log_missing_call(result, self._required_choice)
        return result
