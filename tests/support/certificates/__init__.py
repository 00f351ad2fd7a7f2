"""Self-signed certificates with their keys, for servers of the tests.

`localhost.pem` is valid, `expired.pem` has expired, and `elsewhere.pem` is for another host.
"""

from pathlib import Path

CERTIFICATES = Path(__file__).parent
LOCALHOST = CERTIFICATES / "localhost.pem"
