# cython: binding=False
"""`Semaphore`, compiled; `semaphore.py` is its reference.

What the reference does under a lock stands here between two steps of Python, where no other thread
runs: to take and to give are a test each.
"""
from everserve.fibers.tickets import Ticket


cdef class Semaphore:
    """At most `value` holders at a time, first come first served. For fibers and for threads."""

    def __cinit__(self, Py_ssize_t value=1):
        if value < 0:
            raise ValueError(f"a semaphore cannot begin at {value}: give 0 or more")
        self.value = value
        self.line = []

    cdef bint take(self) noexcept:
        """Take a place if there is one."""
        if self.value > 0:
            self.value -= 1
            return True
        return False

    cdef int give(self) except -1:
        """Give a place back, or on to the first in the line."""
        if not self.line:
            self.value += 1
            return 0
        ticket = self.line.pop(0)
        ticket.called = True     # before anybody else can look
        ticket.call()
        return 0

    def acquire(self, bint blocking=True, timeout=None):
        """Take a place, waiting at most `timeout` seconds; False when there was none in time."""
        if self.take():
            return True
        if not blocking:
            return False
        ticket = Ticket()
        if self.take():          # to make the ticket may have let others run
            return True
        self.line.append(ticket)
        try:
            if ticket.wait(timeout):
                return True
        except BaseException:
            if not self.leave(ticket):
                self.give()
            raise
        return not self.leave(ticket)

    def release(self):
        """Give a place back."""
        self.give()

    cdef bint leave(self, ticket) except -1:
        """Give up waiting; False for one that had been called already."""
        if ticket.called:
            return False
        self.line.remove(ticket)
        return True

    def __enter__(self):
        return True if self.take() else self.acquire()

    def __exit__(self, *_error):
        self.give()
