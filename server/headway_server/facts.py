"""What the database remembers from one start of a server to the next."""

from headway_server.change import Rules
from headway_server.job import Key
from headway_server.limits import MICROSECONDS
from headway_server.store import Store

TIME = "time"
"""The fact that says what time (µs) it was when a server last noted it."""

RULES = "rules"
"""The fact that says by which retention and abandon_after the jobs' wake_time was reckoned."""

APPLIED = "rules_applied"
"""The fact that says up to which job, in the order of their keys, RULES are applied; absent: to all."""

NOTE_INTERVAL = 60 * MICROSECONDS
"""How often (µs) the time is noted."""


def start_time(store: Store) -> int:
    """When to start the clock (µs): now; or behind all that was stored, if the time of day was set back since."""
    now = store.now()
    noted = int(store.fact(TIME) or 0)
    if noted > now:
        noted += NOTE_INTERVAL
    return max(now, noted, *(latest + 1 for latest in store.latest_times()))


def note_time(store: Store, now: int) -> None:
    """Remember that it was `now`; the transaction is the caller's."""
    store.remember(TIME, str(now))


def follow_rules(store: Store, rules: Rules) -> None:
    """If the rules have changed since the last start, remember that they are yet to be applied to every job."""
    text = _text(rules)
    if store.fact(RULES) != text:
        with store.transaction():
            store.remember(RULES, text)
            store.remember(APPLIED, "")


def rules_applied(store: Store, rules: Rules) -> Key | None:
    """Up to which job, in the order of their keys, the rules are applied; None: to all, or others are in force now."""
    applied = store.fact(APPLIED)
    if applied is None or store.fact(RULES) != _text(rules):
        return None
    session_hash, _, job_id = applied.partition(" ")
    return session_hash, job_id


def note_applied(store: Store, rules: Rules, last: Key | None) -> None:
    """Remember that the rules are applied to the jobs up to this one, or to all; the transaction is the caller's."""
    if store.fact(RULES) != _text(rules):
        # Another server has been started with other rules, and applies those.
        return
    if last is None:
        store.forget(APPLIED)
    else:
        store.remember(APPLIED, " ".join(last))


def _text(rules: Rules) -> str:
    return f"{rules.retention} {rules.abandon_after}"
