"""What a download reports."""

import pytest

from lmstudio_integrations.client.downloads.downloading import fraction_of
from lmstudio_integrations.types.downloads import DownloadProgressUpdate


@pytest.mark.parametrize(
    ("done", "total", "fraction"), [(10**400, 1, 1.0), (-(10**400), 1, 0.0), (10**399, 10**400, 0.1), (0, 0, 0.0)]
)
def test_sizes_beyond_a_float_are_reported(done: int, total: int, fraction: float) -> None:
    update = {"downloadedBytes": done, "totalBytes": total, "speedBytesPerSecond": 1.0}
    assert fraction_of(DownloadProgressUpdate.from_dict(update)) == fraction
