"""The text that a server prints when it is ready: its addresses, commands to try, and where its admin token is."""

import os
import shutil
import stat
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

STDOUT = 1


def token_file(folder: Path, address: str) -> Path:
    """The file for the admin token of a running server, if the token is not on standard output."""
    return folder / f"headway.{address.rpartition(':')[2]}.admin-token"


def greeting(address: str, page: str, database: str, token: str, file: Path) -> str:
    """The lines for standard output. They contain the token if standard output is a terminal or a pipe. A file or the
    system's journal would store it: then the token is written to `file`, which only this user can read."""
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
    """Write the token to the file. Returns a text that says where it is."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Make a new file: others may be able to read an old one.
        with suppress(FileNotFoundError):
            path.unlink()
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(f"{token}\n")
    except OSError as error:
        return f"none: {path} cannot be written: {error.strerror}"
    return f"in {path}"


def _command() -> str:
    """How to call the command line from the current folder."""
    beside = Path(sys.executable).with_name("headway")
    if shutil.which("headway") or not beside.exists():
        return "headway"
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)
