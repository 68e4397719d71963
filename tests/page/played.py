"""Watches that a test sends to a tab in place of the server, at times that the test chooses."""

import json
import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime

from playwright.sync_api import Route

from tests.page.tab import Tab
from tests.support.caller import Json

REASON_EXPIRED = "STREAM_EXPIRED"
"""Why a watch ends that is taken up at once."""


def change(job_id: str, **fields: str | datetime) -> Json:
    """A change of a job. Fields are named as in JSON."""
    texts = {name: iso(field) if isinstance(field, datetime) else field for name, field in fields.items()}
    job: dict[str, str] = {"id": job_id, "name": job_id, "status": "JOB_STATUS_RUNNING", "revision": "1"}
    return {"job": {**job, **texts}, "resumeToken": "token"}


def iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def ending(*messages: Json, reason: str = REASON_EXPIRED) -> bytes:
    """A watch that says this, and then ends for this reason."""
    error = {"code": "unavailable", "details": [{"type": "google.rpc.ErrorInfo", "debug": {"reason": reason}}]}
    frames: list[tuple[int, Mapping[str, object] | Json]] = [(0, message) for message in messages]
    encoded = [(flags, json.dumps(frame).encode()) for flags, frame in [*frames, (2, {"error": error})]]
    return b"".join(struct.pack(">BI", flags, len(text)) + text for flags, text in encoded)


def play(tab: Tab, *watches: tuple[datetime, bytes]) -> None:
    """Load the tab again, with these as its next watches, each at its time; later ones are silent."""
    left = list(watches)

    def answer(route: Route) -> None:
        if not left:
            return
        moment, body = left.pop(0)
        date = format_datetime(moment.astimezone(UTC), usegmt=True)
        route.fulfill(status=200, headers={"Date": date, "Content-Type": "application/connect+json"}, body=body)

    tab.page.route("**/WatchJobs", answer)
    tab.page.reload()
