"""The stall watch: one thread that notices when a fiber holds its loop, and reports where.

It observes the hubs from outside, by a number that grows with every switch; it does not look at a hub
that waits in the kernel.
"""

import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from everserve.fibers.helperthreads import try_to_start
from everserve.fibers.log import logger

__all__ = ["StallWatch", "watch_stalls"]

SILENCE: Final = 60.0  # seconds until the same place is reported again
RETRY: Final = 1.0  # seconds after which a thread that could not be started is tried again
_PLACES: Final = 256  # places remembered at once

StallCallback = Callable[[Any, str], object]


class _Subject:
    """One hub, and what the last look at it found."""

    def __init__(self, hub: Any, callback: StallCallback, threshold: float) -> None:
        self.hub = hub
        self.callback = callback
        self.threshold = threshold
        self._switches = -1
        self._since = 0.0
        self._reported = False
        self._places: dict[tuple[str, int], float] = {}

    def look(self, now: float) -> bool:
        """Report a stall, if there is one; False if the hub has been idle since the last look."""
        fiber, switches = self.hub.running, self.hub.switches
        if switches != self._switches:
            self._switches, self._since, self._reported = switches, now, False
            return True
        if fiber is None:
            return False
        if not self._reported and now - self._since >= self.threshold:
            self._reported = True
            self._report(fiber, now)
        return True

    def _report(self, fiber: Any, now: float) -> None:
        frame = sys._current_frames().get(self.hub.thread_id)
        if frame is None or not self._is_new(frame, now):
            return
        stack = "".join(traceback.format_stack(frame))
        try:
            self.callback(fiber, stack)
        except BaseException:
            logger.exception("the report of a stall failed")

    def _is_new(self, frame: FrameType, now: float) -> bool:
        place = (frame.f_code.co_filename, frame.f_lineno)
        last = self._places.get(place)
        if last is not None and now - last < SILENCE:
            return False
        if len(self._places) >= _PLACES:
            self._places.clear()
        self._places[place] = now
        return True


class StallWatch:
    """Watches any number of hubs, in one daemon thread that runs while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._notifier = threading.Event()
        self._subjects: dict[int, _Subject] = {}
        self._thread: threading.Thread | None = None

    def watch(self, hub: Any, callback: StallCallback, threshold: float) -> None:
        """Call `callback(fiber, stack)` in the thread of this watch when a fiber holds `hub`."""
        with self._lock:
            self._subjects[id(hub)] = _Subject(hub, callback, threshold)
            hub.watcher = self
        self._start_for(hub)
        self._notifier.set()

    def _start_for(self, hub: Any) -> None:
        """Start the thread; if the system has none left, the hub tries again while it runs."""
        with self._lock:
            if self._thread is None and self._subjects:
                self._thread = try_to_start(self._run, name="everserve-stalls")
            if self._thread is None and id(hub) in self._subjects:
                hub.call_at(time.monotonic() + RETRY, lambda: self._start_for(hub))

    def leave(self, hub: Any) -> None:
        """Stop watching `hub`."""
        with self._lock:
            self._subjects.pop(id(hub), None)
        self._notifier.set()

    def _run(self) -> None:
        while subjects := self._present():
            pause = min(subject.threshold for subject in subjects) / 2
            active = [subject.look(time.monotonic()) for subject in subjects]
            self._notifier.wait(pause if any(active) else self._until_active(subjects, pause))
            self._notifier.clear()
            del subjects, active

    def _present(self) -> list[_Subject]:
        with self._lock:
            if not self._subjects:
                self._thread = None
            return list(self._subjects.values())

    def _until_active(self, subjects: list[_Subject], pause: float) -> float | None:
        """Have the idle hubs notify this thread; how long to wait (None: until then)."""
        before = [subject.hub.switches for subject in subjects]
        for subject in subjects:
            subject.hub.loop.call_when_active(self._notifier.set)
        after = [subject.hub.switches for subject in subjects]
        # Between the end of a wait and the fiber that it woke, no fiber runs, but the hub is not idle.
        busy = any(s.hub.running is not None or not s.hub.idle for s in subjects)
        return pause if busy or before != after else None


_watch = StallWatch()


def watch_stalls(hub: Any, callback: StallCallback, threshold: float = 0.1) -> None:
    """Call `callback(fiber, stack)` when one fiber has held `hub` for `threshold` seconds.

    The call is made in another thread while the fiber still holds the loop, once a minute for each
    place in the code. `stack` is text, as of `traceback.format_stack`. Ends when the hub closes.
    """
    global _watch
    thread = _watch._thread
    if thread is not None and not thread.is_alive():
        _watch = StallWatch()  # in a child of fork: the thread exists in the parent only
    _watch.watch(hub, callback, threshold)
