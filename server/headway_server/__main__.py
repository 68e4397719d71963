"""`headway serve`, `python -m headway_server`: the server's process."""

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

SWITCH_INTERVAL = 0.0002
"""Seconds after which the event loop must release the interpreter's lock to the commit writer's thread (Python's own
default is 0.005). A commit needs the lock several times, and calls wait for it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server with these arguments. Returns the exit status."""
    # gRPC's library would write to standard error in its own format.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from headway_server import logs, settings
    from headway_server.storage.database import StartError

    logs.open_standard_streams()
    _ignore_signals()
    _raise_file_limit()
    try:
        wanted = settings.from_process(sys.argv[1:] if arguments is None else arguments)
        logs.configure(wanted.log)
        import uvloop

        from headway_server.app import serve

        sys.setswitchinterval(SWITCH_INTERVAL)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(wanted))
    except StartError as error:
        logs.complain(f"headway serve: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        logs.flush()
    return 0


def _ignore_signals() -> None:
    """Ignore signals that have no meaning for the server and would end it. `app.serve` logs later ones."""
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def _raise_file_limit() -> None:
    """Raise the soft limit of open files, usually 1024: every connection needs a file descriptor."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    sys.exit(main())
