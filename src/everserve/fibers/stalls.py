"""The stall watch: one thread that notices when a fiber holds its loop, and says where.

It looks at the hubs from outside, through a number that grows with every switch; a hub that waits
in the kernel is left alone until it wakes.
"""

import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

__all__ = ["StallWatch", "watch_stalls"]

SILENCE: Final = 60.0  # seconds until the same place is told again
_PLACES: Final = 256  # places remembered at once

StallCallback = Callable[[Any, str], object]


class _Subject:
    """One hub, as it was at the last look."""

    def __init__(self, hub: Any, callback: StallCallback, threshold: float) -> None:
        self.hub = hub
        self.callback = callback
        self.threshold = threshold
        self._switches = -1
        self._since = 0.0
        self._told = False
        self._places: dict[tuple[str, int], float] = {}

    def look(self, now: float) -> bool:
        """Tell of a stall; say whether the hub has done anything since the last look."""
        fiber, switches = self.hub.running, self.hub.switches
        if switches != self._switches:
            self._switches, self._since, self._told = switches, now, False
            return True
        if fiber is None:
            return False
        if not self._told and now - self._since >= self.threshold:
            self._told = True
            self._tell(fiber, now)
        return True

    def _tell(self, fiber: Any, now: float) -> None:
        frame = sys._current_frames().get(self.hub.thread_id)
        if frame is None or not self._is_news(frame, now):
            return
        stack = "".join(traceback.format_stack(frame))
        try:
            self.callback(fiber, stack)
        except Exception:
            sys.excepthook(*sys.exc_info())

    def _is_news(self, frame: FrameType, now: float) -> bool:
        place = (frame.f_code.co_filename, frame.f_lineno)
        last = self._places.get(place)
        if last is not None and now - last < SILENCE:
            return False
        if len(self._places) >= _PLACES:
            self._places.clear()
        self._places[place] = now
        return True


class StallWatch:
    """Looks after any number of hubs, in one daemon thread that lives while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bell = threading.Event()
        self._subjects: dict[int, _Subject] = {}
        self._thread: threading.Thread | None = None

    def look_after(self, hub: Any, callback: StallCallback, threshold: float) -> None:
        """Call `callback(fiber, stack)`, in this watch's thread, when a fiber holds `hub`."""
        with self._lock:
            self._subjects[id(hub)] = _Subject(hub, callback, threshold)
            hub.watcher = self
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="everserve-stalls", daemon=True
                )
                self._thread.start()
        self._bell.set()

    def leave(self, hub: Any) -> None:
        """Look after `hub` no longer."""
        with self._lock:
            self._subjects.pop(id(hub), None)
        self._bell.set()

    def _run(self) -> None:
        while subjects := self._present():
            pause = min(subject.threshold for subject in subjects) / 2
            active = [subject.look(time.monotonic()) for subject in subjects]
            self._bell.wait(pause if any(active) else self._until_active(subjects, pause))
            self._bell.clear()
            del subjects, active

    def _present(self) -> list[_Subject]:
        with self._lock:
            if not self._subjects:
                self._thread = None
            return list(self._subjects.values())

    def _until_active(self, subjects: list[_Subject], pause: float) -> float | None:
        """Ask the idle hubs to ring; a hub that has become active meanwhile is looked at soon."""
        before = [subject.hub.switches for subject in subjects]
        for subject in subjects:
            subject.hub.loop.call_when_active(self._bell.set)
        after = [subject.hub.switches for subject in subjects]
        # Between a wait and the fiber that it woke, nothing runs and yet the hub does not rest.
        busy = any(s.hub.running is not None or not s.hub.idle for s in subjects)
        return pause if busy or before != after else None


_watch = StallWatch()


def watch_stalls(hub: Any, callback: StallCallback, threshold: float = 0.1) -> None:
    """Tell `callback(fiber, stack)` when one fiber has held `hub` for `threshold` seconds.

    Called in a thread of its own while the fiber still holds the loop, once a place a minute.
    `stack` is text, as `traceback.format_stack` makes it. Ends when the hub closes.
    """
    global _watch
    thread = _watch._thread
    if thread is not None and not thread.is_alive():
        _watch = StallWatch()  # a child of fork: the thread has stayed with the parent
    _watch.look_after(hub, callback, threshold)
