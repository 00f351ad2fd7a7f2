"""Runs programs in order in one module, as `python page.py` runs a page; `outputs.py` starts it as a process.

Reads them from stdin as a JSON list, and writes what each of them prints as another. A plain process and no Jupyter
kernel, because `asyncio.run` fails in a kernel, which runs an event loop of its own. With the argument `--await`, an
`await` may stand in no function, as in `python -m asyncio`.
"""

import ast
import asyncio
import inspect
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from types import ModuleType


def outputs(cells: Iterable[str]) -> Iterator[str]:
    """Run programs; yield what each of them prints."""
    module = sys.modules["__main__"] = ModuleType("__main__")
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if "--await" in sys.argv else 0
    for number, cell in enumerate(cells, start=1):
        with redirect_stdout(StringIO()) as output:
            code = compile(cell, f"<example {number}>", "exec", flags)
            result = eval(code, vars(module))
            if code.co_flags & inspect.CO_COROUTINE:
                asyncio.run(result)
        yield output.getvalue()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(list(outputs(json.load(sys.stdin)))))
