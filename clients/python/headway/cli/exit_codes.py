"""The exit codes of `headway`, once for all commands. `headway --help` lists them."""

OK = 0
ERROR = 1
"""The server refused the call, or something else failed."""
USAGE = 2
NOT_FOUND = 3
"""There is no such job in the session."""
UNAVAILABLE = 4
"""The server does not answer."""
FAILED = 5
"""Of watch and wait: the job is FAILED."""
CANCELLED = 6
"""Of watch and wait: the job is CANCELLED."""
TIMED_OUT = 124
"""Of wait: a job did not end within --timeout."""
NOT_EXECUTABLE = 126
"""Of run: the program cannot be executed."""
COMMAND_NOT_FOUND = 127
"""Of run: there is no such program."""
SIGNAL_BASE = 128
"""Plus n: signal n ended the program or the command."""
INTERRUPTED = 130
"""Ctrl-C ended the command: SIGNAL_BASE + SIGINT."""
PIPE_CLOSED = 141
"""The reader of the output closed it: SIGNAL_BASE + SIGPIPE."""
TERMINATED = 143
"""SIGTERM ended the command: SIGNAL_BASE + SIGTERM."""
