"""Headway's client: report how far a long-running job has come, and follow the jobs of others.

    import headway

    with headway.connect() as hw, hw.job(session, "Stage MARC records", size=len(batch), unit="records") as job:
        for record in job.track(batch):
            ...
        job.results = {"added": 412, "updated": 88}

`headway.aio` is the same for asyncio.
"""

from typing import TYPE_CHECKING

from headway.channel import Target
from headway.client import Client, connect
from headway.errors import (
    HeadwayError,
    InvalidError,
    JobCancelled,
    NotFoundError,
    StateError,
    UnavailableError,
)
from headway.job import Job, Status
from headway.meter import Meter

if TYPE_CHECKING:
    from headway import aio as aio

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


def __getattr__(name: str) -> object:
    # Both cost more than most programs need.
    if name == "aio":
        import importlib

        return importlib.import_module("headway.aio")
    if name == "__version__":
        from importlib.metadata import version

        return version("headway")
    raise AttributeError(f"module 'headway' has no attribute {name!r}")
