# What the compiled sockets and streams see of the hub.
cimport cython
from cpython.object cimport PyObject
from everserve.fibers._loop cimport Loop, Task, Watch

cdef extern from "greenlet/greenlet.h":
    ctypedef class greenlet.greenlet [object PyGreenlet]:
        pass


cdef class Corked:
    cdef int settle(self) except -1


@cython.final
cdef class Fiber(Task):
    cdef object __weakref__
    cdef readonly Hub hub
    cdef object function
    cdef object arguments
    cdef greenlet body
    cdef object context
    cdef object pending          # None, a Corked, or a list of them
    cdef object doom             # what to raise in it when it resumes
    cdef list joiners
    cdef double limit            # the moment its present wait ends; negative: none
    cdef bint late               # that moment has passed
    cdef bint begun
    cdef void *chunk             # where its Python frames begin, if that is ours

    cdef int hold(self, Corked corked) except -1
    cdef int finish(self) except -1
    cdef int execute(self) except -1
    cdef int meet_error(self) except -1
    cdef int settle_last(self) except -1
    cdef int take_error(self) noexcept
    cdef int meet_doom(self) except -1


cdef class Timer(Task):
    cdef Loop loop
    cdef object callback


@cython.final
cdef class Hub:
    cdef object __weakref__
    cdef readonly Loop loop
    cdef Fiber current
    cdef greenlet main
    cdef unsigned long thread
    cdef Py_ssize_t budget       # how many of the ready queue belong to this round
    cdef int credit              # operations the running fiber still has before it gives way
    cdef double slice_end
    cdef readonly unsigned long long switches
    cdef set alive
    cdef list spare              # bodies of finished fibers, parked
    cdef object calls
    cdef object escaped          # what must leave turn()
    cdef public object on_error
    cdef public object pool
    cdef public object watcher
    cdef bint closing
    cdef bint deep               # a fiber has parked with more frames than our chunk holds
    cdef char *scratch

    cdef int park_raw(self, double limit) except -1
    cdef int settle(self, Fiber me) except -1
    cdef int await_io(self, Watch watch, bint writing, double limit) except -1
    cdef int give_way(self) except -1
    cdef int spend(self) except -1
    cdef int leave(self, Fiber me) noexcept
    cdef int park_quietly(self, Fiber me, double limit) noexcept
    cdef Fiber successor(self)
    cdef int enter(self, Fiber fiber) noexcept
    cdef int begin(self, Fiber fiber) except -1
    cdef int run_ready(self) except -1
    cdef int work_on(self, void *chunk) except -1
    cdef int run_calls(self) except -1
    cdef int run_callbacks(self) except -1
    cdef int take_thread(self) except -1
    cdef int dismiss_spare(self) except -1
    cdef int report(self, Fiber fiber, error) except -1
    cdef Watch watch_fd(self, int fd)
    cdef Fiber expect_fiber(self)
    cdef bint has_bodies(self)
    cpdef bint is_here(self)


cdef Hub running_hub()
