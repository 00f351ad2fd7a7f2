"""Models that work beside a chat model, embedding models and rerankers: how they stay loaded, and their handles."""

from typing import Self

from pydantic import Field

from lmstudio_integrations._adapters.connection_settings import ConnectionSettings
from lmstudio_integrations._adapters.runtime import HandleT
from lmstudio_integrations.client.api.base import BaseModelHandle
from lmstudio_integrations.client.support.tracebacks import with_short_traceback
from lmstudio_integrations.client.transport.flows import arun, run
from lmstudio_integrations.types.config import LoadPolicy


class AuxiliaryModelSettings(ConnectionSettings):
    """How to load a model that works beside a chat model."""

    load_policy: LoadPolicy = Field(
        default="explicit",
        description="How the model is found or loaded; see `load_policy` of the language models. The default is "
        "`explicit`, so that no other model evicts this one.",
    )

    def _handle(self, kind: type[HandleT]) -> HandleT:
        return self._runtime.clients.handle(kind, self._resolve_model(vars(self)))

    def _async_handle(self, kind: type[HandleT]) -> HandleT:
        return self._runtime.async_clients.handle(kind, self._resolve_model(vars(self)))

    @with_short_traceback
    def load(self) -> Self:
        """Load the model if it is not loaded; return this object.

        Raises:
            LMStudioServerError: If the server fails.
        """
        run(self._handle(BaseModelHandle).model.get_info(load=True))
        return self

    @with_short_traceback
    async def aload(self) -> Self:
        """Load the model if it is not loaded; see `load`."""
        await arun(self._async_handle(BaseModelHandle).model.get_info(load=True))
        return self
