"""Runs commands on terminals; `terminal.py` starts it once. Each command is a fork of it.

Most of the time of a command is that of its imports, which are done before the fork.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import termios
from importlib import import_module

from lmstudio_integrations.cli import main
from lmstudio_integrations.cli._app import COMMANDS


def serve(requests: socket.socket) -> None:
    """Run a command for each terminal that comes, which a socket for the request accompanies; return in the command."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for what watches a command
    while descriptors := socket.recv_fds(requests, 1, 2)[1]:
        terminal, caller = descriptors
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            requests.detach()  # the terminal takes its place
            return run(terminal, socket.socket(fileno=caller))
        os.close(terminal)
        os.close(caller)
    os._exit(0)


def run(terminal: int, caller: socket.socket) -> None:
    """Start the command that is requested, report its process and how it ends; return in the command."""
    with caller, caller.makefile(encoding="utf-8") as file:
        arguments, environment, folder = json.loads(file.readline())
        if child := os.fork():
            os.close(terminal)
            caller.sendall(b"%d\n" % child)
            _, status = os.waitpid(child, 0)
            with contextlib.suppress(OSError):  # nobody waits for the end of what was killed
                caller.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
            os._exit(0)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits SIG_IGN
    os.setsid()
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)  # so that Ctrl-C of this terminal reaches this process
    for standard in range(3):
        os.dup2(terminal, standard)
    os.close(terminal)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(standard, mode, 1) for standard, mode in enumerate("rww"))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["lmsi", *arguments]


if __name__ == "__main__":
    for name in COMMANDS:
        import_module(f"lmstudio_integrations.cli._{name}")
    serve(socket.socket(fileno=0))
    main()
