"""Loggers for the `websockets` library without its debug records, which contain API tokens and all headers."""

import logging


class _RedactingLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger without debug records."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's name
        return level > logging.DEBUG and super().isEnabledFor(level)


client_logger = _RedactingLogger(logging.getLogger("websockets.client"))
server_logger = _RedactingLogger(logging.getLogger("websockets.server"))
