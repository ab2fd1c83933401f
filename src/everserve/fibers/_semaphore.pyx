# cython: binding=False
"""`Semaphore`, compiled; `semaphore.py` is its reference.

What the reference does under a lock is done here while no other thread can run: taking and giving
are one test each.
"""
from everserve.fibers._hub import current
from everserve.fibers.waiters import Waiter


cdef class Semaphore:
    """At most `value` holders at a time, first come first served. For fibers and for threads."""

    def __cinit__(self, Py_ssize_t value=1):
        if value < 0:
            raise ValueError(f"a semaphore cannot begin at {value}: give 0 or more")
        self.value = value
        self.queue = []

    cdef bint take(self) noexcept:
        """Take a place if there is one."""
        if self.value > 0:
            self.value -= 1
            return True
        return False

    cdef int give(self) except -1:
        """Give a place back, or pass it on to the first waiter."""
        if not self.queue:
            self.value += 1
            return 0
        waiter = self.queue.pop(0)
        waiter.notified = True   # before another thread can run, and give up
        waiter.notify()
        return 0

    def acquire(self, bint blocking=True, timeout=None):
        """Take a place, waiting at most `timeout` seconds; False when there was none in time."""
        if self.take():
            return True
        if not blocking:
            return False
        waiter = Waiter()
        if self.take():          # making the waiter may have let another thread run
            return True
        self.queue.append(waiter)
        try:
            if waiter.wait(timeout, current()):
                return True
        except BaseException:
            if not self.leave(waiter):
                self.give()
            raise
        return not self.leave(waiter)

    def release(self):
        """Give a place back."""
        self.give()

    cdef bint leave(self, waiter) except -1:
        """Remove a waiter that gives up; False when it has been notified already."""
        if waiter.notified:
            return False
        self.queue.remove(waiter)
        return True

    def __enter__(self):
        return True if self.take() else self.acquire()

    def __exit__(self, *_error):
        self.give()
