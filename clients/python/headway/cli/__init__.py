# PYTHON_ARGCOMPLETE_OK
"""The command line `headway`: create, follow and report jobs from a shell.

It imports the modules of a command only when that runs, so that `headway --help` and completion are fast.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from headway.cli.escaping import warn
from headway.cli.exit_codes import ERROR, INTERRUPTED, NOT_FOUND, OK, PIPE_CLOSED, USAGE
from headway.cli.parser import build, parse


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (that of the process by default) and returns its exit status.

    Prints errors as one line on standard error and raises nothing but the SystemExit of argparse.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that cannot show a character gets an escape, not a traceback.
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None and words[:1] not in (["serve"], ["run"], ["pipe"]):
        sys.stdout = _Closed()
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


class _Closed(io.TextIOBase):
    """Replaces a closed standard output. Writing fails, so that a script learns that its output is lost."""

    def write(self, _: str) -> int:
        raise OSError(errno.EBADF, "standard output is closed")


def _run(words: list[str]) -> int:
    if words[:1] == ["serve"]:
        return _serve(words[1:])
    parser = build()
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        from headway.cli.completion import is_offered

        argcomplete.autocomplete(parser, validator=is_offered)
    args = parse(parser, words)
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
        # They work without a server too, so everything for the server is loaded in parallel.
        work = getattr(import_module(f"headway.cli.run.{args.command}"), args.command)
        return int(work(args))
    return _call(args)


def _flush(args: argparse.Namespace) -> int:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from headway.cli.flush import flush
    from headway.target import Target

    try:
        target = Target.from_environment(
            getattr(args, "target", None), getattr(args, "token", None), getattr(args, "ca", None)
        )
        return flush(args, target)
    except ValueError as error:
        return _complain(str(error), USAGE)


def _open(args: argparse.Namespace) -> int:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from headway.cli.open import open_page
    from headway.target import Target

    # Without a session, the page asks for one.
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
    # gRPC's own log is for its developers. Important problems are errors too.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import grpc

    from headway.cli import error_output
    from headway.cli.bulk import with_whole_ids
    from headway.cli.call_context import Caller
    from headway.cli.commands import COMMANDS
    from headway.cli.offline import ANSWER_TIMEOUT, OfflineCalls, catch_up
    from headway.cli.run.job_of_run import waiting_for_job
    from headway.errors import HeadwayError, from_rpc_error
    from headway.target import Target, open_channel
    from headway.v1.job_service_pb2_grpc import JobServiceStub

    session = getattr(args, "session", None) or os.environ.get("HEADWAY_SESSION", "")
    if not session:
        return _complain("no session: give --session or set HEADWAY_SESSION", USAGE)
    if not _is_text(session):
        return _complain("the session is not UTF-8", USAGE)
    address, as_json = "", getattr(args, "json", False)
    offline = getattr(args, "offline", False)
    try:
        target = Target.from_environment(
            getattr(args, "target", None), getattr(args, "token", None), getattr(args, "ca", None)
        )
        if not (target.token or "").isascii() or not (target.token or "").isprintable():
            return _complain("the token must be printable ASCII", USAGE)
        address = f"{target.address} over TLS" if target.tls else target.address
        # Offline mode saves a call at once, without retries.
        with open_channel(target, retry=not offline) as channel:
            timeout = getattr(args, "timeout", None)
            offline_calls = OfflineCalls(target, channel, timeout) if offline else None
            stub = JobServiceStub(waiting_for_job(channel))
            caller = Caller(target, address, stub, session, timeout, as_json, offline_calls)
            with_whole_ids(args, caller)
            if not offline or args.command in ("create", "retry"):
                catch_up(target, channel, _jobs(args), ANSWER_TIMEOUT if offline else caller.call_timeout)
            return COMMANDS[args.command](args, caller)
    except grpc.RpcError as error:
        return error_output.tell(from_rpc_error(error), address, as_json=as_json)
    except HeadwayError as error:
        return error_output.tell(error, address, as_json=as_json)
    except LookupError as error:
        return _complain(str(error), NOT_FOUND)
    except (argparse.ArgumentTypeError, ValueError) as error:
        return _complain(str(error), USAGE)


def _jobs(args: argparse.Namespace) -> Sequence[str]:
    """The ids of the jobs that a command is about; "" stands for the job with a key."""
    if getattr(args, "key", ""):
        return [""]
    return [*getattr(args, "jobs", ()), *filter(None, [getattr(args, "job", None)])]


def _serve(words: list[str]) -> int:
    try:
        return int(import_module("headway_server.__main__").main(words) or OK)
    except ModuleNotFoundError as error:
        part = (error.name or "headway_server").partition(".")[0]
        return _complain(f"the server needs {part}: pip install 'headway[server]'", ERROR)


def _complain(message: str, status: int) -> int:
    warn(message)
    return status


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _abandon_stdout() -> None:
    """Prevents a second error from the interpreter's flush at exit."""
    if sys.stdout is None:
        return
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        sys.stdout = None
