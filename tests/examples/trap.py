"""Runs an import and does something to it at an exact point: `trap.py ACTION MODULE FUNCTION NTH WHEN -- MODULE ARGS…`.

At the NTH call of MODULE's FUNCTION, before or after it (WHEN): `die` kills this process with SIGKILL, `server`
kills the server, `cancel` asks Headway to cancel the job and waits until the worker knows.
"""

import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from operator import attrgetter
from typing import ParamSpec, TypeVar

from examples.tracker import Tracker

P = ParamSpec("P")
R = TypeVar("R")


def act(action: str) -> None:
    if action == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "server":
        os.kill(int(os.environ["SERVER_PID"]), signal.SIGKILL)
        print("the server is dead", flush=True)
    elif action == "cancel":
        job = TRACKERS[-1]._job
        assert job is not None
        command = [sys.executable, "-m", "headway.cli", "cancel", job.id, "--reason", "wrong file", "--grace", "1h"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        assert job.cancelled.wait(20)


def trapped(function: Callable[P, R], action: str, nth: int, when: str) -> Callable[P, R]:
    calls = 0

    @wraps(function)
    def trap(*args: P.args, **kwargs: P.kwargs) -> R:
        nonlocal calls
        calls += 1
        if calls == nth and when == "before":
            act(action)
        result = function(*args, **kwargs)
        if calls == nth and when == "after":
            act(action)
        return result

    return trap


TRACKERS: list[Tracker] = []


def remember(tracker: Tracker) -> Tracker:
    TRACKERS.append(tracker)
    return enter(tracker)


enter = Tracker.__enter__

if __name__ == "__main__":
    action, module, path, nth, when, _, program, *arguments = sys.argv[1:]
    setattr(Tracker, "__enter__", remember)  # noqa: B010
    owner: object = import_module(module)
    *names, name = path.split(".")
    if names:
        owner = attrgetter(".".join(names))(owner)
    setattr(owner, name, trapped(getattr(owner, name), action, int(nth), when))
    sys.argv = [program, *arguments]
    runpy.run_module(program, run_name="__main__")
