"""Facts that the database keeps from one start of a server to the next, and the clock that follows from them.

A running server notes the time. So the next start can detect a wrong clock: nothing is removed because of time in which
no server ran, and a clock that was ahead leaves no times in the future.
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
"""The fact with the time (µs) that a server noted last."""

RULES = "rules"
"""The fact with the retention and abandon_after that the jobs' wake_time is based on."""

APPLIED = "rules_applied"
"""The fact with the last job, in the order of keys, to which RULES are applied. Absent: they are applied to all."""

GAPS = "gaps"
"""The fact with the times when no server ran."""

NOTE_INTERVAL = 60 * MICROSECONDS
"""How often (µs) the time is noted."""

DOWNTIME_MIN = 86_400 * MICROSECONDS
"""Shorter times (µs) without a server are not stored: retentions are much longer."""

GAPS_MAX = 100
"""The most gaps that are stored: the latest ones."""

CATCH_UP_MAX = 86_400 * MICROSECONDS
"""If the clock is further (µs) behind the database than this, the time of day counts as wrong."""

CORRECTION_BATCH = 200
"""Jobs whose times are corrected in one commit."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Start:
    """How the clock starts."""

    time: int
    """The first time that the clock shows (µs)."""
    ahead: int = 0
    """How far (µs) the clock is ahead of the time of day. It runs slower until this is made up."""
    gaps: tuple[Gap, ...] = ()
    """When no server ran."""
    read_at: int = 0
    """What `SteadyClock.elapsed` returned (µs) at that time, if servers share the database."""


def start(store: Store, now: int) -> Start:
    """How the clock starts if the time of day is `now` (µs).

    - `now` is later than all times in the database: the clock starts at `now`. A gap of a day or more is stored, and
      does not count for retention, because a long downtime looks like a wrong clock.
    - `now` is within the last gap: the clock was ahead at the start that made the gap, and is right again. The clock
      starts at `now`, and later times in the database are set to `now`.
    - `now` is a little earlier: the clock starts after the stored times, and runs slower by a tenth until it shows the
      time of day.
    - `now` is much earlier: the time of day is wrong. The clock starts after the stored times.
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
        log.warning(
            "the clock was ahead until %s; the times of %d jobs were set to the present time", _day(known), changed
        )
        return Start(now, gaps=gaps)
    if known - now > CATCH_UP_MAX:
        log.warning(
            "the clock shows %s, but the database has times up to %s: time continues there; set the clock and restart",
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
    """Set all later times in the database to `now`. Returns the number of changed jobs."""
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
    """`start` for servers that share the database, and with it the correction of its time."""
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
    """The clock for this start."""
    if shared:
        return SharedClock(begin.time, SteadyClock.elapsed, begin.read_at)
    return SteadyClock(begin.time, begin.ahead)


def note_time(store: Store, now: int) -> None:
    """Store the time `now`, in the caller's transaction."""
    store.remember(TIME, str(now))


def follow_rules(store: Store, rules: Rules) -> None:
    """If the rules have changed since the last start, store that they must be applied to all jobs."""
    text = _text(rules)
    if store.fact(RULES) != text:
        with store.transaction():
            store.remember(RULES, text)
            store.remember(APPLIED, "")


def rules_applied(store: Store, rules: Rules) -> Key | None:
    """The last job, in the order of keys, to which the rules are applied. None: all, or other rules are in force."""
    applied = store.fact(APPLIED)
    if applied is None or store.fact(RULES) != _text(rules):
        return None
    session_hash, _, job_id = applied.partition(" ")
    return session_hash, job_id


def note_applied(store: Store, rules: Rules, last: Key | None) -> None:
    """Store that the rules are applied up to this job, or to all jobs (None), in the caller's transaction."""
    if store.fact(RULES) != _text(rules):
        # Another server was started with other rules, and applies those.
        return
    if last is None:
        store.forget(APPLIED)
    else:
        store.remember(APPLIED, " ".join(last))


def _text(rules: Rules) -> str:
    return f"{rules.retention} {rules.abandon_after}"
