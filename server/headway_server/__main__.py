"""`headway serve`, `python -m headway_server`: the server's process."""

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

SWITCH_INTERVAL = 0.0002
"""Seconds that the event loop may keep the writer's thread waiting for its turn (Python's own default is 0.005): a
commit takes several turns, and calls wait for it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server with these arguments; the exit status."""
    # gRPC's own library writes to standard error in a form of its own.
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
    """These would end the process, and mean nothing to it: `app.serve` says so for each that comes later."""
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def _raise_file_limit() -> None:
    """Every connection needs a file descriptor, and the usual soft limit of 1024 is one of old programs."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    sys.exit(main())
