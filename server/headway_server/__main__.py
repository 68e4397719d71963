"""`headway serve`, `python -m headway_server`: the server's process."""

import asyncio
import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server with these arguments; the exit status."""
    # gRPC's own library writes to standard error in a form of its own.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from headway_server import logs, settings
    from headway_server.database import StartError

    try:
        wanted = settings.from_process(sys.argv[1:] if arguments is None else arguments)
        logs.configure(wanted.log)
        from headway_server.app import serve

        asyncio.run(serve(wanted))
    except StartError as error:
        print(f"headway serve: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
