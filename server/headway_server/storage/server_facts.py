"""What the database remembers from one start of a server to the next, and what that says about the clock.

A server notes the time while it runs. So the next start can tell a wrong clock: nothing is removed because of time
during which no server ran, and a clock that was ahead leaves no times in the future behind.
"""

import json
import logging
import time
from dataclasses import dataclass, replace

from headway_server.domain.change import Change, Rules
from headway_server.domain.gaps import Gap
from headway_server.domain.job import Key, no_later_than
from headway_server.domain.limits import MICROSECONDS
from headway_server.domain.shared_clock import Correction, SharedClock, correction_at_start
from headway_server.resources.clock import Clock, SteadyClock
from headway_server.storage.servers import CORRECTION
from headway_server.storage.store import Store

TIME = "time"
"""The fact that says what time (µs) it was when a server last noted it."""

RULES = "rules"
"""The fact that says by which retention and abandon_after the jobs' wake_time was reckoned."""

APPLIED = "rules_applied"
"""The fact that says up to which job, in the order of their keys, RULES are applied; absent: to all."""

GAPS = "gaps"
"""The fact that lists when no server ran."""

NOTE_INTERVAL = 60 * MICROSECONDS
"""How often (µs) the time is noted."""

DOWNTIME_MIN = 86_400 * MICROSECONDS
"""A shorter time (µs) without a server is not worth remembering: no retention that matters is that short."""

GAPS_MAX = 100
"""Gaps that are remembered: the last ones."""

CATCH_UP_MAX = 86_400 * MICROSECONDS
"""A clock that is further (µs) behind the database is taken for a wrong one, and not waited for."""

CORRECTION_BATCH = 200
"""Jobs whose times are corrected in one commit."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Start:
    """How the clock starts."""

    time: int
    """What it shows first (µs)."""
    ahead: int = 0
    """By how much (µs) that is ahead of the time of day, and has to be given back."""
    gaps: tuple[Gap, ...] = ()
    """When no server ran."""
    read_at: int = 0
    """What `SteadyClock.elapsed` gave (µs) when that was the time, where servers share the database."""


def start(store: Store, now: int) -> Start:
    """How the clock starts if the time of day is `now` (µs).

    - Later than what the database knows: it is `now`, and a gap of a day or more is remembered. It does not count for
      retention, for nobody can tell a long rest from a wrong clock.
    - Within the last gap: the clock was ahead at the start that made that gap, and is right again. It is `now`; what
      was stored with later times gets `now`.
    - A little earlier: it goes on behind what is stored, and loses a tenth until it has come down to the time of day.
    - Much earlier: the time of day is wrong. It goes on behind what is stored.
    """
    noted = int(store.fact(TIME) or 0)
    known = noted + NOTE_INTERVAL if noted > now else noted
    known = max([known, *(latest + 1 for latest in store.latest_times() if latest)])
    gaps = tuple(Gap(*pair) for pair in json.loads(store.fact(GAPS) or "[]"))
    if now >= known:
        if known and now - known >= DOWNTIME_MIN:
            gaps = (*gaps, Gap(known, now))[-GAPS_MAX:]
            _remember(store, gaps, now)
            log.warning(
                "no server ran for %.1f days, or the clock is wrong: ended jobs are kept that much longer",
                gaps[-1].length / DOWNTIME_MIN,
            )
        return Start(now, gaps=gaps)
    if gaps and gaps[-1].start <= now < gaps[-1].end:
        changed = _correct(store, now)
        gaps = gaps[:-1]
        _remember(store, gaps, now)
        log.warning("the clock was ahead until %s; the times of %d jobs were set to the present", _day(known), changed)
        return Start(now, gaps=gaps)
    if known - now > CATCH_UP_MAX:
        log.warning(
            "the clock says %s, but the database knows of %s: time goes on from there; set the clock and restart",
            _day(now),
            _day(known),
        )
        return Start(known, gaps=gaps)
    return Start(known, ahead=known - now, gaps=gaps)


def _remember(store: Store, gaps: tuple[Gap, ...], now: int) -> None:
    with store.transaction():
        store.remember(GAPS, json.dumps([[gap.start, gap.end] for gap in gaps]))
        note_time(store, now)


def _correct(store: Store, now: int) -> int:
    """Let nothing stored be later than `now`; how many jobs were."""
    keys = store.later_than(now)
    for start in range(0, len(keys), CORRECTION_BATCH):
        with store.transaction():
            jobs = store.load(keys[start : start + CORRECTION_BATCH]).values()
            store.save([Change(no_later_than(job, now), rewritten=True) for job in jobs])
    with store.transaction():
        store.bring_back(now)
        store.remember(APPLIED, "")
    return len(keys)


def _day(moment: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment // MICROSECONDS))


def start_shared(store: Store) -> Start:
    """The same where servers share the database, and with it the correction of its time."""
    kept, now = Correction.parse(store.fact(CORRECTION)), store.now()
    read_at = SteadyClock.elapsed()
    correction = correction_at_start(kept, now, int(store.fact(TIME) or 0))
    corrected = now + correction.at(now)
    begin = start(store, corrected)
    if begin.time != corrected:
        correction = Correction(begin.time - now, now)
    if correction != kept:
        with store.transaction():
            store.remember(CORRECTION, str(correction))
    return replace(begin, read_at=read_at)


def running_clock(begin: Start, *, shared: bool) -> Clock:
    """The clock of a server that has started so."""
    if shared:
        return SharedClock(begin.time, SteadyClock.elapsed, begin.read_at)
    return SteadyClock(begin.time, begin.ahead)


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
