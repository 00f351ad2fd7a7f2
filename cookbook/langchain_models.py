"""Model management: load with your settings, watch the progress, unload.

Connects to LM Studio on this machine, or to `LMSTUDIO_HOST`. Set `LMSTUDIO_MODEL`
to use another model.
"""

import os

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio

MODEL = os.environ.get("LMSTUDIO_MODEL", "smollm2-135m-instruct")


def main() -> None:
    """Load, use and unload a separate instance; then use the default policy."""
    progress: list[float] = []
    model = ChatLMStudio(
        model=MODEL,
        load_policy="new_instance",
        load_config={"context_length": 2048, "eval_batch_size": 256},
        ttl=60,
        on_load_progress=progress.append,
        max_tokens=20,
    )

    profile = model.load_profile()
    print(f"loaded {progress[-1]:.0%}, {profile.get('max_input_tokens')} tokens")
    assert progress[-1] == 1.0
    assert profile.get("max_input_tokens") == 2048

    response = model.invoke("Hello!")
    identifier = response.response_metadata["instance_identifier"]
    assert response.response_metadata["context_length"] == 2048

    with lms.Client() as client:
        client.llm.unload(identifier)
        print("unloaded", identifier)
        assert identifier not in [
            loaded.identifier for loaded in client.list_loaded_models()
        ]

    # The default policy: use the model if it is loaded, else load it.
    response = ChatLMStudio(model=MODEL, ttl=600, max_tokens=20).invoke("Hello!")
    print(response.text)
    assert response.text.strip()


if __name__ == "__main__":
    main()
