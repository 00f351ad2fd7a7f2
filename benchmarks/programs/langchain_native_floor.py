"""The native floor in the rounds of LangChain: a whole response over LangChain is compared with reading its tokens."""

from benchmarks.meter import Cases
from benchmarks.programs import native_floor


def cases(address: str) -> Cases:
    """Return what is measured."""
    floor = native_floor.cases(address)
    return {name: floor[name] for name in ("whole", "awhole")}
