"""The commands and options of `headway`. This module imports nothing heavy, because help and completion use it."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import NoReturn, TypeVar, cast

from headway.cli import argument_types, completion
from headway.cli.exit_codes import USAGE

CODES = (
    "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
    "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
"""google.rpc.Code from 1 on, in order."""

STATUSES = ("PENDING", "RUNNING", "LOST", "COMPLETED", "FAILED", "CANCELLED")
"""headway.v1.JobStatus from 1 on, in order."""

EPILOG = """\
exit status:
    0    done; of watch and wait: the job is COMPLETED
  1    refused by the server, or another error
  2    wrong usage
  3    there is no such job in this session
  4    the server does not answer; with --offline it is 0, and the call is sent later
  5    of watch and wait: the job is FAILED
  6    of watch and wait: the job is CANCELLED
  124  of wait: a job has not ended within --timeout
  130  interrupted with Ctrl-C
  141  the reader of the output closed it
  of several jobs: the highest of theirs
  of run: the program's own; 128+n if signal n killed it, 127 if it is not found, 126 if it cannot be executed
  of pipe: as cat; 128+n after signal n

environment:
  HEADWAY_SESSION, HEADWAY_TARGET, HEADWAY_TOKEN, HEADWAY_CA   as the options
  HEADWAY_PAGE     as --page of `headway open`
  HEADWAY_OFFLINE  1: --offline for every command that has it (HEADWAY_KEEP is the former name)
  HEADWAY_SPOOL    the folder of what `headway flush` sends; empty: save nothing

durations are written 90, 90s, 5m, 2h or 7d. In a shell script:
  export HEADWAY_OFFLINE=1
  JOB=$(headway create --name "Nightly export" --size 3 --unit files)
  headway report $JOB --advance 1 --message "patrons.csv"
  headway finish $JOB --results '{"files": 3}'
"""


_EXACT = frozenset({"session", "token", "target", "ca", "page", "results_file", "command_line"})
"""Arguments that must stay exact to the byte: secrets, addresses, files, and the command to run."""

_NEVER_EMPTY = {"session": "--session", "target": "--target", "ca": "--ca", "job": "the job's id", "jobs": "a job's id"}

_Given = TypeVar("_Given")


class _Parser(argparse.ArgumentParser):
    """Prints one line with the error and what was probably meant."""

    words: Sequence[str] = ()
    """The whole command line."""
    commands: argparse._SubParsersAction[_Parser] | None = None

    def error(self, message: str) -> NoReturn:
        # The first parser reports unknown arguments, although they were meant for a subcommand.
        named = (
            (self.commands.choices[word] for word in self.words if word in self.commands.choices)
            if self.commands
            else ()
        )
        parser = next(iter(named), self)
        self.exit(USAGE, f"headway: {parser._explained(message)} (see {parser.prog} --help)\n")

    def _explained(self, message: str) -> str:
        wrong = re.match(r"argument COMMAND: invalid choice: '([^']*)'", message)
        if wrong and self.commands is not None:
            return f"there is no command {wrong[1]!r}{_meant(wrong[1], self.commands.choices)}"
        if not message.startswith(("unrecognized arguments", "the following arguments are required")):
            return message
        # A missing option may be misspelt.
        for word in self.words:
            option = word.partition("=")[0]
            if option == "--":
                break
            if option.startswith("--") and option not in self._option_string_actions:
                return f"there is no option {option}{_meant(option, self._option_string_actions)}"
        if message.startswith("the following arguments are required: JOB"):
            return (
                "the job's id is missing; write it before options that take several values, such as --count and --error"
            )
        return message


def _meant(word: str, known: Iterable[str]) -> str:
    close = get_close_matches(word, known, 1)
    return f"; did you mean {close[0]}?" if close else ""


def parse(parser: _Parser, words: Sequence[str]) -> argparse.Namespace:
    """The arguments. Prints an error and exits if they are wrong.

    Texts get the replacement character for each byte that is not UTF-8, so that one byte does not lose the rest.
    """
    for one in (parser, *(parser.commands.choices.values() if parser.commands else ())):
        one.words = words
    args = parser.parse_args(words)
    for name, value in vars(args).items():
        if (value == "" or (name == "jobs" and "" in value)) and name in _NEVER_EMPTY:
            parser.exit(USAGE, f"headway: {_NEVER_EMPTY[name]} is empty; check that its variable is set\n")
        if name not in _EXACT:
            setattr(args, name, _readable(value))
    return args


def _readable(value: _Given) -> _Given:
    found: object = value
    match value:
        case str():
            # This is how Python represents bytes that are not UTF-8.
            found = re.sub("[\udc80-\udcff]", "\N{REPLACEMENT CHARACTER}", value)
        case list() | tuple():
            found = type(value)(_readable(one) for one in value)
        case dict():
            found = {_readable(key): _readable(one) for key, one in value.items()}
    return cast(_Given, found)


def build() -> _Parser:
    """The parser. The result has the command's name in `command`, and no attributes for absent common options."""
    common = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    options = common.add_argument_group("options of every command")
    options.add_argument("--target", metavar="HOST:PORT", help="the server; https:// before it for TLS")
    options.add_argument("--token", help="bearer token; HEADWAY_TOKEN is safer, because other users can see options")
    options.add_argument("--ca", metavar="FILE", help="trust the authorities in this PEM file; means TLS")
    options.add_argument("--session", metavar="ID", help="the session that the job is in")
    options.add_argument(
        "--timeout", metavar="DURATION", type=argument_types.seconds,
        help="how long a call may take (10s); of watch: how long the server may be unreachable (5m);  "
        "of wait: how long to wait at all (as long as it takes)",
    )  # fmt: skip
    options.add_argument("--json", action="store_true",
        help="print the reply as JSON, with the names of the HTTP API; errors as JSON on standard error")  # fmt: skip

    parser = _Parser(
        prog="headway",
        description="Create, follow and report jobs of a Headway server.",
        epilog=EPILOG,
        parents=[common],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=_Parser)
    parser.commands = commands

    def command(name: str, text: str, *, job: bool = True) -> Callable[..., argparse.Action]:
        sub = commands.add_parser(name, help=text, description=text, parents=[common], allow_abbrev=False)
        if job:
            _complete(sub.add_argument("job", metavar="JOB", help="the job's id, or a unique beginning of it"))
        return sub.add_argument

    command("serve", "Run the server; `headway serve --help` shows its options.", job=False)
    _create(command("create", "Create a job; prints its id alone.", job=False))
    _retry(command("retry", "Carry on a job that has ended, or is LOST, in a new one; prints its id alone."))
    add = command("start", "Start a PENDING job, or take one over; prints the attempt alone.")
    add("--take-over", action="store_true", help="take a RUNNING or LOST job from its worker")
    add = command("get", "Show a job.")
    add("--wait", metavar="DURATION", type=argument_types.seconds, help="wait for a change, at most 60s")
    add(
        "--after-revision",
        metavar="N",
        type=argument_types.amount,
        default=0,
        help="the change must be newer than this",
    )
    _list(command("list", "List the jobs of the session, newest first.", job=False))
    add = command("watch", "Follow a job until it ends, or all jobs of the session.", job=False)
    _complete(add("job", metavar="JOB", nargs="?", help="the job's id; all jobs without it"))
    add("--plain", action="store_true", help="print one line a change, also on a terminal")
    _filter(add)
    add = command("open", "Open the server's page in the browser, at a job if one is named.", job=False)
    _complete(add("job", metavar="JOB", nargs="?", help="the job's id; all jobs without it"))
    add("--page", metavar="URL", help="the address of the page (default: the server tells it)")
    add("--print", action="store_true", help="only print the address; it gives access to the session")
    add = command("wait", "Wait until jobs have ended; the exit status tells how.", job=False)
    _complete(add("jobs", metavar="JOB", nargs="+", help="the job's id"))
    _report(command("report", "Report progress; with no amount only a heartbeat."))
    _run(command("run", "Run any program as a job; its exit status, output and signals stay unchanged.", job=False))
    _pipe(command("pipe", "Copy standard input to standard output as a job.", job=False))
    add = command("finish", "End a job as COMPLETED.")
    add("--results", metavar="JSON", type=argument_types.results, default=..., help="the results")
    add("--results-file", metavar="FILE", help="the results from a file; - is standard input")
    _attempt(add)
    _offline(add)
    add = command("fail", "End jobs as FAILED, or with code CANCELLED as CANCELLED.", job=False)
    _several(add, "not ended")
    add("--message", required=True, help="why")
    add("--code", choices=CODES, default="UNKNOWN", metavar="NAME", help="a google.rpc.Code (UNKNOWN)")
    _attempt(add)
    _offline(add)
    add = command("cancel", "Ask the workers of jobs to end them early.", job=False)
    _several(add, "not ended")
    add("--reason", default="", help="why, for the worker and for people")
    add("--grace", metavar="DURATION", type=argument_types.seconds, help="how long it may take (60s); 0 = end it now")
    add = command("set", "Set variables of a job.")
    add("set", metavar="NAME=JSON", nargs="*", type=argument_types.variable, help="other values than JSON are texts")
    add("--remove", metavar="NAME", action="append", default=[], help="remove a variable; may be repeated")
    _offline(add)
    add = command("update", "Change the description of a job.")
    add("--name", help="what the job is")
    add("--invoker", help="who or what started it")
    add("--size", metavar="N", type=argument_types.amount, help="how much there is to do; 0 = not known")
    add("--unit", help="what is counted: records, bytes, …")
    _offline(add)
    add = command("vars", "Show variables of a job, as NAME=JSON.")
    add("names", metavar="NAME", nargs="*", help="the names; all variables by default")
    command("results", "Show the results of a job, as JSON; nothing unless it is COMPLETED.")
    command("errors", "Show the records that failed: the first and the last 100.")
    add = command("clear", "Remove jobs with all their data.", job=False)
    _several(add, "ended")
    add("--allow-missing", action="store_true", help="a missing job is not an error")
    add = command("flush", "Send reports and calls that could not be delivered.", job=False)
    add("--list", action="store_true", help="only list the waiting files")
    add("--discard", metavar="JOB|HOST:PORT", nargs="+", action="extend", default=[],
        help="discard the files for this job or server instead of sending them; all: all files")  # fmt: skip
    add = command("completion", "Print the script that lets a shell complete `headway`.", job=False)
    add("shell", choices=("bash", "zsh", "fish"), help='bash: eval "$(headway completion bash)"')
    return parser


def _complete(job: argparse.Action) -> None:
    # argcomplete looks for it here.
    vars(job)["completer"] = completion.job_ids


def _create(add: Callable[..., argparse.Action]) -> None:
    add("--id", metavar="ID", help="an id of your own, 32 hexadecimal digits: makes the call safe to repeat")
    add("--name", default="", help="what the job is")
    add("--invoker", default="", help="who or what started it")
    add(
        "--size",
        metavar="N",
        type=argument_types.amount,
        default=0,
        help="how much there is to do; 0 = not known yet",
    )
    add("--unit", default="", help="what is counted: records, bytes, …")
    add("--label", metavar="K=V", action="append", type=argument_types.pair, default=[], help="may be repeated")
    add("--heartbeat-timeout", metavar="DURATION", type=argument_types.seconds, help="no contact for this long: LOST")
    add("--stall-timeout", metavar="DURATION", type=argument_types.seconds, help="no progress for this long: stalled")
    add("--retention", metavar="DURATION", type=argument_types.seconds, help="how long it is kept after its end")
    add("--pending", action="store_true", help="wait for `headway start`")
    add(
        "--key",
        default="",
        help="take over the unfinished job with this key, or create it",
    )
    _offline(add)


def _retry(add: Callable[..., argparse.Action]) -> None:
    add("--id", metavar="ID", help="an id of your own for the new job: makes the call safe to repeat")
    add("--heartbeat-timeout", metavar="DURATION", type=argument_types.seconds, help="no contact for this long: LOST")
    add("--pending", action="store_true", help="wait for `headway start`")
    _offline(add)


def _work(add: Callable[..., argparse.Action]) -> None:
    add("--name", default="", help="what the job is")
    add("--invoker", default="", help="who or what started it")
    add("--size", metavar="N", type=argument_types.amount, default=0, help="how much there is to do; 0 = detect it")
    add("--unit", default="", help="what is counted: records, bytes, …")
    add("--label", metavar="K=V", action="append", type=argument_types.pair, default=[], help="may be repeated")
    add("--quiet", action="store_true", help="print nothing about the tracking")
    add("--verbose", action="store_true", help="print the job's id on standard error")


def _run(add: Callable[..., argparse.Action]) -> None:
    _work(add)
    add("--pattern", metavar="REGEX", help="how it prints progress: (?P<done>…) and (?P<total>…), or (?P<percent>…)")
    add("command_line", metavar="-- COMMAND", nargs=argparse.REMAINDER,
        help="the program and its arguments; in $HEADWAY_PROGRESS_FILE it may write N/M")  # fmt: skip


def _pipe(add: Callable[..., argparse.Action]) -> None:
    _work(add)
    add("--lines", action="store_true", help="count lines, not bytes")


def _several(add: Callable[..., argparse.Action], default: str) -> None:
    _complete(add("jobs", metavar="JOB", nargs="*", help="the job's id; several, or the options below in its place"))
    add("--all", action="store_true", help="all jobs of the session, in any state")
    _filter(add, f"; without it those that have {default}")
    add("--dry-run", action="store_true", help="only show the jobs")


def _list(add: Callable[..., argparse.Action]) -> None:
    _filter(add)
    add("--limit", metavar="N", type=argument_types.small, default=1000, help="how many at most (1000); 0 = all")


def _filter(add: Callable[..., argparse.Action], default: str = "") -> None:
    add("--active", action="store_true", help="not ended: pending, running or lost")
    add("--status", choices=STATUSES, action="append", default=[], type=str.upper, metavar="NAME",
        help=f"in this state ({', '.join(STATUSES).lower()}); may be repeated{default}")  # fmt: skip
    add("--name", default="", help="with exactly this name")
    add("--invoker", default="", help="with exactly this invoker")
    add("--label", metavar="K=V", action="append", type=argument_types.pair, default=[], help="may be repeated")
    add("--stalled", action=argparse.BooleanOptionalAction, default=None, help=argparse.SUPPRESS)
    add(
        "--not-stalled",
        dest="stalled",
        action="store_false",
        help="without stalled jobs; --stalled: only stalled jobs",
    )


def _report(add: Callable[..., argparse.Action]) -> None:
    add("--progress", metavar="N", type=argument_types.amount, help="done so far, in units")
    add("--advance", metavar="N", type=argument_types.whole, help="done since the last report")
    add("--part", default="", help="the part of the job")
    add("--sequence", metavar="N", type=argument_types.amount, default=0,
        help="a number that grows with each report of a part: a repeat counts once; --offline sets it")  # fmt: skip
    add("--size", metavar="N", type=argument_types.amount, help="the job's size from now on")
    add("--message", help="what it is doing now")
    add("--count", metavar="NAME=N", nargs="+", action="extend", type=argument_types.counter, default=[],
        help="add to counters")  # fmt: skip
    add("--error", metavar="RECORD:CODE:MESSAGE", nargs="+", action="extend", type=argument_types.record_error,
        default=[], help="records that failed")  # fmt: skip
    add("--set", metavar="NAME=JSON", nargs="+", action="extend", type=argument_types.variable, default=[],
        help="variables to set together with the rest of the report")  # fmt: skip
    _attempt(add)
    _offline(add)


def _attempt(add: Callable[..., argparse.Action]) -> None:
    add("--attempt", metavar="N", type=argument_types.small, default=0,
        help="the number that `headway start` printed: reports of a replaced worker are refused")  # fmt: skip


def _offline(add: Callable[..., argparse.Action]) -> None:
    # --keep and HEADWAY_KEEP are the former names. HEADWAY_OFFLINE wins if both are set.
    wanted = os.environ.get("HEADWAY_OFFLINE", os.environ.get("HEADWAY_KEEP", "")) not in ("", "0")
    add("--offline", "--keep", action=argparse.BooleanOptionalAction, default=wanted,
        help="if the server does not answer, save the call on disk and exit with status 0; the job's next command "
        "or `headway flush` sends it (--keep is the former name)")  # fmt: skip
