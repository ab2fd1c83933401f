# What the hub, the compiled sockets and the streams see of the scheduler.
from everserve.fibers._fiber cimport Fiber, Host, greenlet
from everserve.fibers._loop cimport Watch


cdef class Scheduler(Host):
    cdef greenlet main
    cdef Py_ssize_t budget       # how many fibers of the ready queue belong to this round
    cdef int credit              # operations left before the running fiber gives way
    cdef double slice_end
    cdef readonly unsigned long long switches
    cdef list spare              # greenlets of finished fibers, parked
    cdef bint closing
    cdef bint deep               # a fiber has parked with more frames than fit into our chunk
    cdef char *scratch

    cdef int run_ready(self) except -1
    cdef Fiber successor(self)
    cdef int begin(self, Fiber fiber) except -1
    cdef int enter(self, Fiber fiber) noexcept
    cdef int work_on(self, void *chunk) except -1
    cdef int leave(self, Fiber me) noexcept
    cdef int park_quietly(self, Fiber me, double limit) noexcept
    cdef int park_raw(self, double limit) except -1
    cdef int await_io(self, Watch watch, bint writing, double limit) except -1
    cdef bint park_watch(self, Watch watch, function) except -1
    cdef int take_watch(self, Watch watch) except -1
    cdef int await_elsewhere(self, Watch watch, bint writing, double limit) except -1
    cdef int give_way(self) except -1
    cdef int checkpoint(self) except -1
    cdef int dismiss_spare(self) except -1


cdef void *get_turning() noexcept
cdef void set_turning(void *hub) noexcept
cdef Scheduler running_hub()
