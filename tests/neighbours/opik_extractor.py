"""Tells Opik's tracers of LangChain the model and the token counts of runs on LM Studio: import it before they run."""

from typing import Any

from opik.integrations.langchain.provider_usage_extractors import usage_extractor
from opik.llm_usage import LLMUsageInfo, OpikUsage


class LMStudioUsage:
    """What Opik calls for each run of a model, among its own extractors."""

    PROVIDER = "lmstudio"

    def is_provider_run(self, run: dict[str, Any]) -> bool:
        """Whether the run is a response of LM Studio."""
        metadata = run["extra"].get("metadata") or {}
        return bool(run["outputs"]) and metadata.get("ls_provider") == self.PROVIDER

    def get_llm_usage_info(self, run: dict[str, Any]) -> LLMUsageInfo:
        """Return what the run's message says about itself."""
        message = run["outputs"]["generations"][-1][-1]["message"]
        metadata = message["kwargs"]["response_metadata"]
        return LLMUsageInfo(
            provider=self.PROVIDER,
            model=metadata["model_name"],
            usage=OpikUsage.from_openai_completions_dict(metadata["token_usage"]),
        )


usage_extractor._REGISTERED_PROVIDER_USAGE_EXTRACTORS.append(LMStudioUsage())
