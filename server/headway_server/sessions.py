"""Whose jobs a request is about: from the session id that it carries to what the database knows of it."""

from functools import lru_cache

from headway_server.checks import Checks, session_fault
from headway_server.errors import ScopeMissing
from headway_server.guard import Caller
from headway_server.jobs import EVERYWHERE
from headway_server.limits import Limits
from headway_server.tokens import SessionHasher

ANY_SESSION = "-"

KEPT = 4096
"""Sessions whose hashes are kept at hand: most calls are of few."""


class Sessions:
    """Sessions as requests name them."""

    def __init__(self, hasher: SessionHasher, limits: Limits) -> None:
        self._known = lru_cache(KEPT)(lambda session: (hasher(session), session_fault(session, limits)))

    def __call__(self, session_id: str, caller: Caller, checks: Checks, field: str = "session_id") -> str | None:
        """The session's hash; EVERYWHERE for an admin who writes "-". Raises ScopeMissing; other faults go to
        `checks`."""
        if session_id == ANY_SESSION:
            if not caller.is_admin:
                raise ScopeMissing("Session '-' needs a token with the scope admin; name a session of your own.")
            return EVERYWHERE
        session_hash, fault = self._known(session_id)
        if fault is not None:
            checks.fault(field, fault)
        return session_hash
