"""Maps session ids of requests to the hashes in the database."""

from headway_server.domain.errors import ScopeMissing
from headway_server.domain.limits import Limits
from headway_server.resources.cache import Cache
from headway_server.rpc.call_guard import Caller
from headway_server.rpc.validation import Checks, session_fault
from headway_server.service.job_service import EVERYWHERE
from headway_server.service.sealed_tokens import SessionHasher

ANY_SESSION = "-"

SESSIONS_BYTES = 4 * 1024 * 1024
"""Bytes of cached hashes of sessions: most calls use few sessions."""


class Sessions:
    """The sessions of requests."""

    def __init__(self, hasher: SessionHasher, limits: Limits) -> None:
        self._hasher = hasher
        self._limits = limits
        self._known: Cache[str, str] = Cache(SESSIONS_BYTES)

    def __call__(self, session_id: str, caller: Caller, checks: Checks, field: str = "session_id") -> str | None:
        """The session's hash, or EVERYWHERE for "-" from an admin. Raises ScopeMissing. Other faults are added to
        `checks`."""
        if session_id == ANY_SESSION:
            if not caller.is_admin:
                raise ScopeMissing("Session '-' needs a token with the scope admin; use a session of your own.")
            return EVERYWHERE
        # Check the length first: a look-up hashes the whole text.
        too_long = len(session_id) > self._limits.session_id_bytes
        known = None if too_long else self._known.get(session_id)
        if known is not None:
            return known
        fault = session_fault(session_id, self._limits)
        if fault is not None:
            checks.fault(field, fault)
            return ""
        session_hash = self._hasher(session_id)
        self._known.put(session_id, session_hash, len(session_id.encode()) + len(session_hash))
        return session_hash
