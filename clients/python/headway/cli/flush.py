"""`headway flush`: sends the spool files of this user, which workers could not deliver."""

from __future__ import annotations

import json
import logging
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from headway._spool.sender import Outcome, deliver
from headway._spool.spool import SpoolFile, claims, job_in, spool_files
from headway.cli.escaping import safe, warn
from headway.cli.exit_codes import ERROR, NOT_FOUND, OK, UNAVAILABLE
from headway.target import Target, open_channel

DISCARDED = "discarded"
EVERYTHING = "all"


_COLUMNS = ("outcome", "target", "job", "name", "written", "calls", "reason", "file")


def flush(args: Namespace, target: Target) -> int:
    """Sends all spool files; with `args.list` only shows them; with `args.discard` removes those of the jobs and
    servers that it names (`all`: every one).

    `target` lends its token to its own address alone, and its authorities to every server. Exit status: 0 if nothing is
    left, 4 if something is, since its server does not answer, 1 if all else was refused, 3 if nothing waits for what
    shall be discarded. ValueError if the authorities cannot be read, or what shall be discarded is not clear.
    """
    with _silence():
        return _flush(args, target)


@contextmanager
def _silence() -> Iterator[None]:
    """Each spool file gets a line here. The log of the library would repeat it."""
    log = logging.getLogger("headway")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _flush(args: Namespace, target: Target) -> int:
    lines = list[dict[str, str]]()
    away = dict[Target, str]()
    chosen = _chosen(args.discard)
    found = set[str]()
    for path, spool_file in claims():
        if spool_file is None:
            lines.append({"outcome": Outcome.WAITING, "file": str(path), "reason": "it is in another process's hands"})
            continue
        line, server = _look(spool_file, target)
        if args.discard:
            named = chosen & {EVERYTHING, server.address if "target" in line else "", job_in(path)}
            if not named:
                spool_file.release()
                continue
            found |= named
            spool_file.remove()
            line["outcome"] = DISCARDED
        elif not args.list and server not in away:
            with open_channel(server) as channel:
                outcome, line["reason"] = deliver(spool_file, channel)
            if outcome is Outcome.WAITING:
                away[server] = line["reason"]
            line["outcome"] = outcome
        elif not args.list:
            line["reason"] = away[server]
        spool_file.release()
        lines.append(line)
    if getattr(args, "json", False):
        print(json.dumps(lines, indent=2))
    else:
        for row in _table(lines, headings=args.list):
            print(row)
        if not lines:
            warn("nothing is waiting")
    if missing := chosen - found:
        warn(f"no spool files for {', '.join(sorted(missing))}; `headway flush --list` shows the existing ones")
        return NOT_FOUND
    outcomes = {line["outcome"] for line in lines}
    if Outcome.WAITING in outcomes:
        warn("to discard waiting files, run `headway flush --discard` with the job or the target")
    if args.list or not outcomes - {Outcome.SENT, DISCARDED}:
        return OK
    return UNAVAILABLE if Outcome.WAITING in outcomes else ERROR


def _chosen(names: Sequence[str]) -> set[str]:
    """The names, with whole ids for beginnings of ids. ValueError if a beginning fits several jobs."""
    jobs = {job_in(path) for path in spool_files()}
    chosen = set[str]()
    for name in names:
        meant = {job for job in jobs if job.startswith(name.lower())} if name else set()
        if len(meant) > 1:
            raise ValueError(f"{name} is the beginning of {len(meant)} jobs' ids")
        chosen |= meant or {name}
    return chosen


def _table(lines: Sequence[dict[str, str]], *, headings: bool) -> Iterator[str]:
    """A line for each spool file, in columns."""
    rows = [*([{name: name.upper() for name in _COLUMNS}] if headings and lines else []), *lines]
    used = [name for name in _COLUMNS if any(line.get(name) for line in lines)]
    widths = {name: max(len(safe(row.get(name, ""))) for row in rows) for name in used}
    for row in rows:
        yield "  ".join(f"{safe(row.get(name, '')):{widths[name]}}" for name in used).rstrip()


def _look(spool_file: SpoolFile, target: Target) -> tuple[dict[str, str], Target]:
    line = {"outcome": str(Outcome.WAITING), "file": str(spool_file.path)}
    try:
        record = spool_file.read()
        written = datetime.fromtimestamp(spool_file.path.stat().st_mtime, UTC)
    except (OSError, ValueError) as error:
        return {**line, "reason": str(error)}, target
    server = replace(target, address=record.address, tls=record.tls)
    if server != target:
        # The token is only for the server that it was given for, not for another one that a file names.
        server = replace(server, token=None)
    line |= {"target": record.address, "job": record.job_id, "name": record.name}
    return {**line, "written": written.isoformat(timespec="seconds"), "calls": str(len(record.requests))}, server
