# What the other compiled modules see of a fiber.
cimport cython
from everserve.fibers._loop cimport Loop, Task

cdef extern from "greenlet/greenlet.h":
    ctypedef class greenlet.greenlet [object PyGreenlet]:
        pass


cdef inline int raise_current() except -1:
    return -1                    # the error is set already


cdef class Corked:
    cdef int settle(self) except -1


cdef class Timer(Task):
    cdef Loop loop
    cdef object callback


cdef class Host:
    cdef object __weakref__
    cdef readonly Loop loop
    cdef Fiber current           # the fiber that holds the loop
    cdef unsigned long thread    # that turns the hub; 0 before the first turn
    cdef set alive
    cdef object escaped          # what must leave turn()

    cpdef bint is_here(self)
    cdef int report(self, Fiber fiber, error) except -1


@cython.final
cdef class Fiber(Task):
    cdef object __weakref__
    cdef readonly Host hub
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
    cdef int settle(self) except -1
    cdef int finish(self) except -1
    cdef int execute(self) except -1
    cdef int meet_error(self) except -1
    cdef int settle_last(self) except -1
    cdef int take_error(self) noexcept
    cdef int meet_doom(self) except -1
