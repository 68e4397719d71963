"""`headway serve`, `python -m headway_server`: the server's process."""

import asyncio
import os
import sys
from collections.abc import Sequence

SWITCH_INTERVAL = 0.0002
"""Seconds that the event loop may keep the writer's thread waiting for its turn (Python's own default is 0.005): a
commit takes several turns, and calls wait for it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server with these arguments; the exit status."""
    # gRPC's own library writes to standard error in a form of its own.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from headway_server import logs, settings
    from headway_server.database import StartError

    try:
        wanted = settings.from_process(sys.argv[1:] if arguments is None else arguments)
        logs.configure(wanted.log)
        import uvloop

        from headway_server.app import serve

        sys.setswitchinterval(SWITCH_INTERVAL)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(wanted))
    except StartError as error:
        print(f"headway serve: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
