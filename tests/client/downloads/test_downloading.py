"""What a download reports."""

from typing import Any

from lmstudio_integrations.client.downloads.downloading import DownloadReport
from lmstudio_integrations.client.transport.operation import CallbackEffect


def test_sizes_beyond_a_float_are_reported() -> None:
    seen: list[Any] = []
    report = DownloadReport("large", seen.append, None, show_progress="auto")
    for done, total in ((10**400, 1), (-(10**400), 1), (10**399, 10**400)):
        update = {"downloadedBytes": done, "totalBytes": total, "speedBytesPerSecond": 1.0}
        effect = report.read({"type": "downloadProgress", "update": update})
        assert isinstance(effect, CallbackEffect)
        effect()
        assert seen[-1].downloaded_bytes == done
