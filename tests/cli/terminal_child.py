"""Runs the command line on the terminal that is its stdin; `terminal.py` starts it as the leader of a session."""

import fcntl
import signal
import termios

from lmstudio_integrations.cli import main

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits SIG_IGN
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C of this terminal reaches this process
    main()
