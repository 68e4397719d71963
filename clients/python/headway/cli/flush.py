"""`headway flush`: sends what workers of this user could not deliver while their server was away."""

from __future__ import annotations

import json
import logging
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from headway.channel import Target, open_channel
from headway.cli.safe import notice, safe
from headway.postman import Outcome, deliver
from headway.spool import Letter, claims

OK, REFUSED, UNAVAILABLE = 0, 1, 4


def flush(args: Namespace, target: Target) -> int:
    """Sends all letters, or with `args.list` only shows them.

    `target` lends its token to its own address alone, and its authorities to every server. Exit status: 0 if nothing is
    left, 4 if something is, since its server does not answer, 1 if all else was refused. ValueError if the authorities
    cannot be read.
    """
    with _silence():
        return _flush(args, target)


@contextmanager
def _silence() -> Iterator[None]:
    """Each letter has a line here; the library's own notices would say it twice."""
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
    for path, letter in claims():
        if letter is None:
            lines.append({"outcome": Outcome.WAITING, "file": str(path), "reason": "it is in another process's hands"})
            continue
        line, server = _look(letter, target)
        if not args.list and server not in away:
            with open_channel(server) as channel:
                outcome, line["reason"] = deliver(letter, channel)
            if outcome is Outcome.WAITING:
                away[server] = line["reason"]
            line["outcome"] = outcome
        elif not args.list:
            line["reason"] = away[server]
        letter.release()
        lines.append(line)
    if getattr(args, "json", False):
        print(json.dumps(lines, indent=2))
    else:
        for line in lines:
            print("  ".join(safe(text) for text in line.values() if text))
    if not lines and not getattr(args, "json", False):
        notice("nothing is waiting")
    outcomes = {line["outcome"] for line in lines}
    if args.list or not outcomes - {Outcome.SENT}:
        return OK
    return UNAVAILABLE if Outcome.WAITING in outcomes else REFUSED


def _look(letter: Letter, target: Target) -> tuple[dict[str, str], Target]:
    line = {"outcome": str(Outcome.WAITING), "file": str(letter.path)}
    try:
        words = letter.read()
        written = datetime.fromtimestamp(letter.path.stat().st_mtime, UTC)
    except (OSError, ValueError) as error:
        return {**line, "reason": str(error)}, target
    server = replace(target, address=words.address, tls=words.tls)
    if server != target:
        # A token is for the server that it was given for, and for no other that a file names.
        server = replace(server, token=None)
    line |= {"target": words.address, "job": words.job_id, "name": words.name}
    return {**line, "written": written.isoformat(timespec="seconds"), "calls": str(len(words.requests))}, server
