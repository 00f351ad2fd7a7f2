"""Use a chat model, fork, and use it in both processes: `python -m tests.contract.langchain.fork NAME`."""

import os
import sys
import threading

from tests.contract.frameworks import FRAMEWORKS
from tests.contract.suite import NUMBERS

_TIMEOUT = 10.0


def main() -> None:
    """Exit with 0 if both processes get a response."""
    with FRAMEWORKS["langchain"].integrations[sys.argv[1]]() as integration:
        llm = integration.chat()
        assert llm.invoke("count").text == NUMBERS
        child = os.fork()
        if child == 0:
            threading.Timer(_TIMEOUT, os._exit, [2]).start()
            os._exit(0 if llm.invoke("count").text == NUMBERS else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child got no response"
        assert llm.invoke("count").text == NUMBERS


if __name__ == "__main__":
    main()
