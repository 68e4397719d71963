"""Headway's client: it reports the progress of long-running jobs and follows other jobs.

    import headway

    with headway.connect() as hw, hw.job(session, "Stage MARC records", size=len(batch), unit="records") as job:
        for record in job.track(batch):
            ...
        job.results = {"added": 412, "updated": 88}

`headway.aio` is the same for asyncio.
"""

import atexit
import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headway import aio as aio
    from headway.client import Client, connect
    from headway.errors import (
        HeadwayError,
        InvalidError,
        JobCancelled,
        NotFoundError,
        StateError,
        UnavailableError,
    )
    from headway.job import Job
    from headway.meter import Meter
    from headway.status import Status
    from headway.target import Target

__all__ = [
    "Client",
    "HeadwayError",
    "InvalidError",
    "Job",
    "JobCancelled",
    "Meter",
    "NotFoundError",
    "StateError",
    "Status",
    "Target",
    "UnavailableError",
    "__version__",
    "connect",
]

__version__: str

_HOMES = {
    "Client": "client",
    "HeadwayError": "errors",
    "InvalidError": "errors",
    "Job": "job",
    "JobCancelled": "errors",
    "Meter": "meter",
    "NotFoundError": "errors",
    "StateError": "errors",
    "Status": "status",
    "Target": "target",
    "UnavailableError": "errors",
    "connect": "client",
}


@atexit.register
def _end_process() -> None:
    # Registered at import, so that it runs after the atexit functions of importing modules, which may end their jobs.
    process = sys.modules.get("headway._engine.lifecycle")
    if process is not None:
        process.end_process()


def __getattr__(name: str) -> object:
    # The command line and the server use the stubs in this package without the client. Importing gRPC takes the most
    # time.
    if name == "aio":
        return import_module("headway.aio")
    if name == "__version__":
        from importlib.metadata import version

        return version("headway")
    if name in _HOMES:
        found: object = getattr(import_module(f"headway.{_HOMES[name]}"), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module 'headway' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "aio"})
