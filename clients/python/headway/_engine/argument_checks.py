"""Explains wrong arguments of a call better than Python does."""

import difflib
import inspect
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from typing import ParamSpec, TypeVar, get_args

P = ParamSpec("P")
Result = TypeVar("Result")

# Names that other libraries use, and likely guesses.
_MEANT = {
    "count": "size",
    "desc": "name",
    "description": "name",
    "duration": "timeout",
    "host": "target",
    "id": "job_id",
    "length": "size",
    "server": "target",
    "session_id": "session",
    "state": "statuses",
    "states": "statuses",
    "status": "statuses",
    "tags": "labels",
    "title": "name",
    "total": "size",
    "url": "target",
    "user": "invoker",
}

_INSTEAD = {
    "name": "set job.name, or job.message",
    "size": "set job.size, or give it to hw.job()",
}
"""Advice for an argument that other calls have."""


def unknown_argument(function: str, given: str, known: Iterable[str]) -> TypeError:
    """The error of a call with an unknown keyword argument. It suggests the argument that was probably meant."""
    names = sorted(known)
    meant = _MEANT.get(given, given)
    close = [meant] if meant in names else difflib.get_close_matches(given, names, 1)
    hint = f"did you mean {close[0]}=?" if close else _INSTEAD.get(meant, f"it has {', '.join(names)}")
    return TypeError(f"{function}() has no keyword argument {given!r}: {hint}")


def checked(function: Callable[P, Result]) -> Callable[P, Result]:
    """Raises TypeError for keyword arguments that neither the function nor its options, a TypedDict, have. It raises at
    the call, also for a generator, and suggests the argument that may have been meant."""
    known: set[str] = set()
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            # Unpack[Options]
            for options in get_args(parameter.annotation):
                known.update(options.__annotations__)
        else:
            known.add(parameter.name)
    known -= {"self"}

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Result:
        if not kwargs.keys() <= known:
            raise unknown_argument(function.__name__, next(name for name in kwargs if name not in known), known)
        return function(*args, **kwargs)

    if sys.version_info >= (3, 12) and inspect.iscoroutinefunction(function):
        inspect.markcoroutinefunction(call)
    return call


def checked_with_session(function: Callable[P, Result]) -> Callable[P, Result]:
    """As `checked`, for a method that begins with a session and a name. A single positional argument could be either. A
    name that is used as a session would create a job that nobody finds."""
    checked_function = checked(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Result:
        if len(args) == 2 and "name" not in kwargs:
            raise TypeError(
                f"{function.__name__}() takes a session and a name: write {function.__name__}(session, name),"
                f" {function.__name__}(name=…) in the session of the client or of HEADWAY_SESSION,"
                f" or {function.__name__}(session=…) for a job without a name."
            )
        return checked_function(*args, **kwargs)

    return call
