"""Model management: load a model with your settings, watch the progress, read its profile, and unload it.

Connects to LM Studio on this machine, or to `LMSTUDIO_HOST`. Set `LMSTUDIO_MODEL` to use another model.
"""

import os

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio

MODEL = os.environ.get("LMSTUDIO_MODEL", "smollm2-135m-instruct")


def main() -> None:
    """Load a separate instance, use it and unload it; then use the default load policy."""
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
    print(profile)
    assert progress[-1] == 1.0
    assert profile.get("max_input_tokens") == 2048

    response = model.invoke("Hello!")
    identifier = response.response_metadata["instance_identifier"]
    assert response.response_metadata["context_length"] == 2048

    with lms.Client() as client:
        print([loaded.identifier for loaded in client.list_loaded_models()])
        client.llm.unload(identifier)
        assert identifier not in [loaded.identifier for loaded in client.list_loaded_models()]

    # The default policy: use the model if it is loaded, else load it. It is unloaded after ten idle minutes.
    response = ChatLMStudio(model=MODEL, ttl=600, max_tokens=20).invoke("Hello!")
    print(response.text)
    assert response.text.strip()


if __name__ == "__main__":
    main()
