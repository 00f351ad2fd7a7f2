"""What real servers said and real models wrote; README.md has the format."""

import pytest

pytest.register_assert_rewrite("tests.real.players")
