"""The fault table: one row for each thing that can go wrong. `docs/internals/reliability.md` is written from it."""

from tests.faults import calling, connecting, mending, responding, stopping
from tests.faults.model import Row
from tools.leaves import has_leaf

_ALL: tuple[Row, ...] = (*connecting.ROWS, *calling.ROWS, *responding.ROWS, *mending.ROWS, *stopping.ROWS)

TABLE = tuple(row for row in _ALL if all(map(has_leaf, row.leaves)))
