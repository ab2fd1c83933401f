"""What happens to hubs at the end of the interpreter: those of other threads stand still before it.

Such a thread is a daemon, as the interpreter waits for the others. Before Python 3.14 it is ended by
pthread_exit(3) when it next asks for the GIL. That crashes on the stack of a fiber, and is harmless
on the stack of the hub, which turns the fibers.
"""

import sys
import threading
from time import monotonic
from typing import Final

from everserve.fibers.exits import FiberExit
from everserve.fibers.forking import LiveHub, hubs

__all__ = ["halt_hubs"]

_REPEAT: Final = 0.2
"""Seconds that a hub has to answer before its fiber is killed, and killed again."""

_PATIENCE: Final = 1.0
"""Seconds after which a hub is left alone: its fiber is in a call that does not return."""


def halt_hubs() -> None:
    """Have the hubs of all other threads stand still, where their fibers give way or can be ended.

    A fiber that neither waits nor returns gets a `FiberExit`, as if it was killed, where Python code
    runs in it. One that is in a system call beyond that is left: it does not ask for the GIL.
    """
    running = sys._current_frames().keys() - {threading.get_ident()}
    waiting = [_Halt(hub) for hub in hubs() if not hub.closed and hub.thread_id in running]
    ends = monotonic() + _PATIENCE
    while waiting and monotonic() < ends:
        for halt in waiting:
            halt.hub.end_round()  # of thousands of ready fibers, which would run before
        until = monotonic() + _REPEAT
        waiting = [h for h in waiting if not h.done.wait(max(0.0, until - monotonic()))]
        for halt in waiting:
            _interrupt(halt.hub.thread_id)


class _Halt:
    """One hub that is to stand still."""

    def __init__(self, hub: LiveHub) -> None:
        self.done = threading.Event()
        self.hub = hub
        self._lock = threading.Lock()
        self._lock.acquire()
        hub.call_from_thread(self._stand_still)

    def _stand_still(self) -> None:
        self.done.set()
        self._lock.acquire()  # for ever


def _interrupt(thread_id: int) -> None:
    """Raise `FiberExit` in what Python code that thread runs next."""
    try:
        from ctypes import c_ulong, py_object, pythonapi  # noqa: PLC0415  # some Pythons lack it
    except ImportError:
        return
    pythonapi.PyThreadState_SetAsyncExc(c_ulong(thread_id), py_object(FiberExit))
