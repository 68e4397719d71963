"""What a server says when it serves: where, what to try, and where its admin token is."""

import os
import shutil
import stat
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

STDOUT = 1


def token_file(folder: Path, address: str) -> Path:
    """Where the admin token of a server is kept while it runs, if it is not on standard output."""
    return folder / f"headway.{address.rpartition(':')[2]}.admin-token"


def greeting(address: str, page: str, database: str, token: str, file: Path) -> str:
    """The lines for standard output. They hold the token if a person or a program reads them: if that is a terminal or
    a pipe. A file, and the socket of the system's journal, would keep it: then `file` holds it, for this user alone."""
    headway = _command()
    shown = os.isatty(STDOUT) or stat.S_ISFIFO(os.fstat(STDOUT).st_mode)
    fragment = f"#token={token}" if shown else ""
    where = token if shown else _write(file, token)
    lines = [
        f"headway serving on {address} (version {version('headway')}, database {database})",
        f"  page:           http://{page}/{fragment}" if page else "",
        f"  create a job:   {headway} --target {address} --session demo create --name 'First job' --size 100",
        f"  watch it:       {headway} --target {address} --session demo watch",
        f"  look around:    grpcurl -plaintext {address} list",
        f"  admin token of this run, for --session -:  {where}",
        "  stop:           Ctrl-C",
    ]
    return "\n".join(line for line in lines if line)


def _write(path: Path, token: str) -> str:
    """Where the token is now."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # A new file: one that was there before may be open to others.
        with suppress(FileNotFoundError):
            path.unlink()
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(f"{token}\n")
    except OSError as error:
        return f"none, for {path} cannot be written: {error.strerror}"
    return f"in {path}"


def _command() -> str:
    """How to call the command line from here."""
    beside = Path(sys.executable).with_name("headway")
    if shutil.which("headway") or not beside.exists():
        return "headway"
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)
