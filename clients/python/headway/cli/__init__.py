# PYTHON_ARGCOMPLETE_OK
"""The command line `headway`: create, follow and report jobs from a shell.

Imports what a command needs when it runs, so that `headway --help` and completion are quick.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from headway.cli import arguments
from headway.cli.safe import notice

if TYPE_CHECKING:
    from headway.errors import HeadwayError

OK, ERROR, USAGE, NOT_FOUND, UNAVAILABLE, INTERRUPTED, PIPE_CLOSED = 0, 1, arguments.USAGE, 3, 4, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (that of the process by default) and returns its exit status.

    Prints errors as one line on standard error and raises nothing but the SystemExit of argparse.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that can't show a letter gets an escape, not a traceback.
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _run(words)
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _abandon_stdout()
        return PIPE_CLOSED
    except OSError as error:
        _abandon_stdout()
        return _complain(f"cannot write the output: {error.strerror}", ERROR)
    return status


def _run(words: list[str]) -> int:
    for position, word in enumerate(words, start=1):
        # What `run` is to run may have any bytes.
        if words[0] != "run" and not _is_text(word):
            return _complain(f"argument {position} is not UTF-8", USAGE)
    if words[:1] == ["serve"]:
        return _serve(words[1:])
    parser = arguments.build()
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)
    args = parser.parse_args(words)
    if args.version:
        from importlib import metadata

        print(f"headway {metadata.version('headway')}")
        return OK
    if args.command is None:
        parser.print_help()
        return USAGE
    if args.command == "serve":
        return _complain("write `headway serve` first, then its options", USAGE)
    if args.command == "completion":
        from argcomplete.shell_integration import shellcode

        print(shellcode(["headway"], shell=args.shell))
        return OK
    if args.command == "flush":
        return _flush(args)
    if args.command == "open":
        return _open(args)
    if args.command in ("run", "pipe"):
        # They do their work without a server too; all that has to do with one is loaded beside the work.
        work = getattr(import_module(f"headway.cli.{args.command}"), args.command)
        return int(work(args))
    return _call(args)


def _flush(args: argparse.Namespace) -> int:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from headway.channel import Target
    from headway.cli.flush import flush

    try:
        target = Target.from_environment(
            getattr(args, "target", None), getattr(args, "token", None), getattr(args, "ca", None)
        )
        return flush(args, target)
    except ValueError as error:
        return _complain(str(error), USAGE)


def _open(args: argparse.Namespace) -> int:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from headway.channel import Target
    from headway.cli.open import open_page

    # Without a session the page asks for it.
    session = getattr(args, "session", None) or os.environ.get("HEADWAY_SESSION", "")
    if not _is_text(session):
        return _complain("the session is not UTF-8", USAGE)
    try:
        target = Target.from_environment(
            getattr(args, "target", None), getattr(args, "token", None), getattr(args, "ca", None)
        )
        return open_page(args, target, session)
    except (argparse.ArgumentTypeError, ValueError) as error:
        return _complain(str(error), USAGE)


def _call(args: argparse.Namespace) -> int:
    # gRPC's own log is for its developers; what matters of it comes as an error too.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import grpc

    from headway.channel import Target, open_channel
    from headway.cli.commands import COMMANDS, Caller
    from headway.cli.keep import PATIENCE, Keeper, catch_up
    from headway.errors import HeadwayError, from_rpc_error
    from headway.v1.job_service_pb2_grpc import JobServiceStub

    session = getattr(args, "session", None) or os.environ.get("HEADWAY_SESSION", "")
    if not session:
        return _complain("no session: give --session or set HEADWAY_SESSION", USAGE)
    if not _is_text(session):
        return _complain("the session is not UTF-8", USAGE)
    address, as_json = "", getattr(args, "json", False)
    keeping = getattr(args, "keep", False)
    try:
        target = Target.from_environment(
            getattr(args, "target", None), getattr(args, "token", None), getattr(args, "ca", None)
        )
        if not (target.token or "").isascii() or not (target.token or "").isprintable():
            return _complain("the token must be printable ASCII", USAGE)
        address = f"{target.address} over TLS" if target.tls else target.address
        # What can be kept is kept at once.
        with open_channel(target, retry=not keeping) as channel:
            timeout = getattr(args, "timeout", None)
            keeper = Keeper(target, channel, timeout) if keeping else None
            caller = Caller(target, JobServiceStub(channel), session, timeout, as_json, keeper)
            if not keeping or args.command in ("create", "retry"):
                catch_up(target, channel, _jobs(args), PATIENCE if keeping else caller.call_timeout)
            return COMMANDS[args.command](args, caller)
    except grpc.RpcError as error:
        return _refused(from_rpc_error(error), address, as_json)
    except HeadwayError as error:
        return _refused(error, address, as_json)
    except (argparse.ArgumentTypeError, ValueError) as error:
        return _complain(str(error), USAGE)


def _jobs(args: argparse.Namespace) -> Sequence[str]:
    """The ids of the jobs that a command is about; "" for whichever has a key."""
    if getattr(args, "key", ""):
        return [""]
    return [*getattr(args, "jobs", ()), *filter(None, [getattr(args, "job", None)])]


def _refused(error: HeadwayError, address: str, as_json: bool) -> int:
    if as_json:
        return _as_json(error)
    message = error.message
    match error.code.name:
        case "NOT_FOUND":
            return _complain(message, NOT_FOUND)
        case "UNAVAILABLE" if not error.reason:
            start = "start one with `headway serve`, or name another with --target"
            return _complain(f"no server answers at {address}; {start}", UNAVAILABLE)
        case "UNAVAILABLE":
            return _complain(message, UNAVAILABLE)
        case "DEADLINE_EXCEEDED":
            return _complain(f"{address} did not answer in time; --timeout gives it longer", UNAVAILABLE)
        case "UNAUTHENTICATED":
            return _complain(f"{message} Set HEADWAY_TOKEN to a token of this server.", ERROR)
        case "UNIMPLEMENTED":
            return _complain(f"what answers at {address} is no Headway server, or an older one", ERROR)
    # The server's own message names its fields; one from in between may not.
    faults = [f"{field}: {fault}" for field, fault in error.fields if field not in message]
    return _complain("; ".join([message, *faults]), ERROR)


def _as_json(error: HeadwayError) -> int:
    about: dict[str, object] = {"code": error.code.name, "reason": error.reason, "message": error.message}
    about["fields"] = dict(error.fields)
    if error.retry_after is not None:
        about["retry_after"] = error.retry_after
    if sys.stderr is not None:
        print(json.dumps(about), file=sys.stderr)
    match error.code.name:
        case "NOT_FOUND":
            return NOT_FOUND
        case "UNAVAILABLE" | "DEADLINE_EXCEEDED":
            return UNAVAILABLE
    return ERROR


def _serve(words: list[str]) -> int:
    try:
        return int(import_module("headway_server.__main__").main(words) or OK)
    except ModuleNotFoundError as error:
        part = (error.name or "headway_server").partition(".")[0]
        return _complain(f"the server's part {part} is not installed: pip install headway", ERROR)


def _complain(message: str, status: int) -> int:
    notice(message)
    return status


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _abandon_stdout() -> None:
    """Keeps the interpreter's own flush at exit from failing once more."""
    if sys.stdout is None:
        return
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        sys.stdout = None
