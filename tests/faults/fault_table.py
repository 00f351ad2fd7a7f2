"""The fault table: one row for each thing that can go wrong. `docs/internals/reliability.md` is written from it."""

from tests.faults import calling, connecting, mending, responding, stopping
from tests.faults.model import Row

TABLE: tuple[Row, ...] = (*connecting.ROWS, *calling.ROWS, *responding.ROWS, *mending.ROWS, *stopping.ROWS)
