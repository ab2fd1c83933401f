# The hub as other compiled modules would see it.
cimport cython
from everserve.fibers._fiber cimport Fiber
from everserve.fibers._loop cimport Watch
from everserve.fibers._scheduler cimport Scheduler


@cython.final
cdef class Hub(Scheduler):
    cdef object calls
    cdef public object on_error
    cdef public object pool
    cdef public object watcher
    cdef public object host      # what turns it by another loop, if that is so

    cdef int wait_and_run(self, double limit) except -1
    cdef int kill_all(self) except -1
    cdef int turn_on(self, double timeout, list errors) except -1
    cdef int run_calls(self) except -1
    cdef int run_callbacks(self) except -1
    cdef int take_thread(self) except -1
    cdef Watch watch_fd(self, int fd)
    cdef Fiber expect_fiber(self)
    cdef bint has_greenlets(self)
