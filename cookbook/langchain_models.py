"""Model management: load a model as it is needed, watch it load, ask what it can do, and let it go.

Uses the LM Studio of this machine, or the one that `LMSTUDIO_HOST` names; `LMSTUDIO_MODEL` names another model.
"""

import os

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio

MODEL = os.environ.get("LMSTUDIO_MODEL", "smollm2-135m-instruct")


def main() -> None:
    """Load an instance of one's own, use it, unload it; then use whatever is loaded."""
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

    answer = model.invoke("Hello!")
    identifier = answer.response_metadata["instance_identifier"]
    assert answer.response_metadata["context_length"] == 2048

    with lms.Client() as client:
        print([loaded.identifier for loaded in client.list_loaded_models()])
        client.llm.unload(identifier)
        assert identifier not in [loaded.identifier for loaded in client.list_loaded_models()]

    # The usual policy: take what is loaded, else load it; after ten minutes without a call it goes by itself.
    answer = ChatLMStudio(model=MODEL, ttl=600, max_tokens=20).invoke("Hello!")
    print(answer.text)
    assert answer.text.strip()


if __name__ == "__main__":
    main()
