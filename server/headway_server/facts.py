"""What the database remembers from one start of a server to the next."""

from headway_server.change import Rules
from headway_server.clock import Clock, SteadyClock
from headway_server.limits import MICROSECONDS
from headway_server.servers import CORRECTION
from headway_server.shared_clock import Correction, SharedClock, correction_at_start
from headway_server.store import Store

TIME = "time"
"""The fact that says what time (µs) it was when a server last noted it."""

RULES = "rules"
"""The fact that says by which retention and abandon_after the jobs' wake_time was reckoned."""

NOTE_INTERVAL = 60 * MICROSECONDS
"""How often (µs) the time is noted."""


def start_time(store: Store) -> int:
    """When to start the clock (µs): now; or behind all that was stored, if the time of day was set back since."""
    now = store.now()
    noted = int(store.fact(TIME) or 0)
    if noted > now:
        noted += NOTE_INTERVAL
    return max(now, noted, *(latest + 1 for latest in store.latest_times()))


def start_clock(store: Store) -> Clock:
    """The clock for a server that starts; where servers share the database, the one that they agree on."""
    if not store.engine.shared:
        return SteadyClock(start_time(store))
    kept, now = Correction.parse(store.fact(CORRECTION)), store.now()
    correction = correction_at_start(kept, now, int(store.fact(TIME) or 0))
    if correction != kept:
        with store.transaction():
            store.remember(CORRECTION, str(correction))
    return SharedClock(now + correction.at(now), SteadyClock.elapsed)


def note_time(store: Store, now: int) -> None:
    """Remember that it was `now`; the transaction is the caller's."""
    store.remember(TIME, str(now))


def follow_rules(store: Store, rules: Rules) -> None:
    """If the rules have changed since the last start, let the sweep look at every job anew."""
    text = f"{rules.retention} {rules.abandon_after}"
    if store.fact(RULES) != text:
        with store.transaction():
            store.wake_all()
            store.remember(RULES, text)
