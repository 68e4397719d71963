"""Threads, locks and queues of the operating system, also where gevent or eventlet replace those of Python.

The engine reports from a thread of its own, and gRPC blocks that thread while it waits for the server. In a greenlet
this would stop all other greenlets.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterable
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING, Generic, TypeVar, cast

Result = TypeVar("Result")

_POLL_INTERVAL = 0.005
"""Seconds between two checks of a waiting greenlet. The operating system cannot wake it."""


def _original(module: str, name: str) -> object:
    """The original attribute of a module that may be patched."""
    if (monkey := sys.modules.get("gevent.monkey")) is not None:
        found: object = monkey.get_original(module, name)
    elif (patcher := sys.modules.get("eventlet.patcher")) is not None:
        found = getattr(patcher.original(module), name)
    else:
        found = getattr(import_module(module), name)
    return found


if TYPE_CHECKING:
    from _thread import get_native_id as _get_native_id
    from _thread import start_new_thread as _start_new_thread
    from queue import SimpleQueue as SimpleQueue
    from threading import Lock as Lock
    from threading import RLock as RLock
else:
    _start_new_thread = _original("_thread", "start_new_thread")
    _get_native_id = _original("_thread", "get_native_id")
    SimpleQueue = _original("queue", "SimpleQueue")
    Lock = _original("_thread", "allocate_lock")
    RLock = _original("_thread", "RLock")


def has_greenlets() -> bool:
    """Whether gevent or eventlet replace the threads of this process by greenlets."""
    if (monkey := sys.modules.get("gevent.monkey")) is not None:
        return bool(monkey.is_module_patched("threading"))
    if (patcher := sys.modules.get("eventlet.patcher")) is not None:
        return bool(patcher.is_monkey_patched("thread"))
    return False


def make_ready() -> None:
    """Call this before a thread starts beside greenlets. gevent creates the hub of a thread when the thread first
    waits, and this takes import locks. If another thread holds one of them, both wait for ever."""
    if (gevent := sys.modules.get("gevent")) is not None:
        gevent.get_hub()


class Promise(Generic[Result]):
    """A result that another thread sets later. Greenlets, threads and signal handlers can wait for it."""

    __slots__ = ("_callbacks", "_done", "_error", "_lock", "_result")

    def __init__(self) -> None:
        self._lock = RLock()
        self._done = False
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[], object]] = []

    def done(self) -> bool:
        return self._done

    def result(self) -> Result:
        """The result, or raises the error that was set. Only for a promise that is done."""
        if self._error is not None:
            raise self._error
        return cast("Result", self._result)

    def set_result(self, result: Result) -> None:
        self._settle(result, None)

    def set_exception(self, error: BaseException) -> None:
        self._settle(None, error)

    def _settle(self, result: Result | None, error: BaseException | None) -> None:
        with self._lock:
            if self._done:
                return
            self._result, self._error, self._done = result, error, True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def then(self, callback: Callable[[], object]) -> None:
        """Calls this once when the promise is done, in the thread that settles it, or at once if it is done already."""
        with self._lock:
            if not self._done:
                self._callbacks.append(callback)
                return
        callback()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits at most `timeout` seconds. Returns whether it is done."""
        if self._done:
            return True
        if has_greenlets():
            end = None if timeout is None else time.monotonic() + timeout
            while not self._done and (end is None or time.monotonic() < end):
                time.sleep(_POLL_INTERVAL)
            return self._done
        gate = Lock()
        gate.acquire()
        self.then(gate.release)
        gate.acquire(timeout=-1 if timeout is None else min(max(timeout, 0.0), threading.TIMEOUT_MAX))
        return self._done


def wait(promises: Iterable[Promise[Result]], timeout: float) -> None:
    """Waits until all of these are done, at most `timeout` seconds."""
    end = time.monotonic() + timeout
    for promise in promises:
        promise.wait(end - time.monotonic())


class Thread:
    """A daemon thread of the operating system. RuntimeError if the interpreter is ending and starts no threads."""

    def __init__(self, run: Callable[[], None], name: str) -> None:
        self._run = run
        self._gone: Promise[None] = Promise()
        self.native_id: int | None = None
        self._thread: threading.Thread | None = None
        if has_greenlets():
            make_ready()
            _start_new_thread(self._main, ())
        else:
            self._thread = threading.Thread(target=self._main, name=name, daemon=True)
            self._thread.start()

    def _main(self) -> None:
        self.native_id = _get_native_id()
        try:
            self._run()
        finally:
            self._gone.set_result(None)

    def join(self, timeout: float) -> bool:
        """Waits at most `timeout` seconds. Returns whether it has ended."""
        if self._thread is None:
            return self._gone.wait(timeout)
        self._thread.join(timeout)
        return not self._thread.is_alive()


def beside_greenlets(call: Callable[[], Result]) -> Result:
    """Makes a blocking call. With greenlets it runs in a thread of its own, so that the others continue."""
    if not has_greenlets():
        return call()
    promise: Promise[Result] = Promise()

    def run() -> None:
        try:
            promise.set_result(call())
        except BaseException as error:
            promise.set_exception(error)

    Thread(run, "headway-call")
    promise.wait()
    return promise.result()


def after_fork(call: Callable[[], None]) -> None:
    """Called in a fork hook of the parent. Runs `call` once `os.fork` has returned, because Python 3.12 and 3.13 count
    the threads after the hooks and warn about a thread that a hook has started."""
    global _pending_call
    if sys.version_info < (3, 12) or threading.current_thread() is not threading.main_thread():
        call()
        return
    import ctypes

    if _pending_call is None:
        _pending_call = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(_run_pending)
    # The frames are: this function, the hook, and the caller of os.fork.
    _pending.append((call, sys._getframe(2)))
    if ctypes.pythonapi.Py_AddPendingCall(_pending_call, None):
        _pending.pop()
        call()


def drop_pending_calls() -> None:
    """Called in the hooks before a fork and in the child. A pending call of a former fork must not run during another
    fork, which adds a call of its own. Only the main thread runs pending calls, and only it drops them."""
    if threading.current_thread() is threading.main_thread():
        _pending.clear()


def _run_pending(_: object) -> int:
    """Runs between two instructions of the main thread, which may still be inside a hook."""
    interrupted = sys._getframe(1)
    while _pending:
        call, forking = _pending[-1]
        if interrupted is not forking and _is_called_by(interrupted, forking):
            import ctypes

            if not ctypes.pythonapi.Py_AddPendingCall(_pending_call, None):
                return 0
        _pending.pop()
        call()
    return 0


def _is_called_by(frame: FrameType | None, caller: FrameType) -> bool:
    while frame is not None and frame is not caller:
        frame = frame.f_back
    return frame is caller


_pending: list[tuple[Callable[[], None], FrameType]] = []
_pending_call: object = None
"""The C function. It must live as long as the process."""
