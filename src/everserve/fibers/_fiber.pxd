# What the other compiled modules see of a fiber.
cimport cython
from everserve.fibers._loop cimport Loop, Task

cdef extern from "greenlet/greenlet.h":
    ctypedef class greenlet.greenlet [object PyGreenlet]:
        pass


cdef inline int raise_current() except -1:
    return -1                    # the exception is set already


cdef class Buffered:
    cdef int flush_quietly(self) except -1


cdef class Timer(Task):
    cdef Loop loop
    cdef object callback


cdef class Host:
    cdef object __weakref__
    cdef readonly Loop loop
    cdef Fiber current           # the fiber that holds the loop
    cdef unsigned long thread    # the one that turns the hub; 0 before the first turn
    cdef set alive
    cdef object escaped          # to be raised from turn()

    cpdef bint is_here(self)
    cdef int report(self, Fiber fiber, error) except -1


@cython.final
cdef class Fiber(Task):
    cdef object __weakref__
    cdef readonly Host hub
    cdef object function
    cdef object arguments
    cdef greenlet greenlet
    cdef object context
    cdef object buffered         # the writers to flush: None, one, or a list of them
    cdef object pending_exception    # raised in it when it resumes
    cdef list joiners
    cdef double limit            # when its present wait ends; negative: never
    cdef bint late               # that time has passed
    cdef bint begun
    cdef void *chunk             # where its Python frames begin, if that memory is ours

    cdef int add_buffered(self, Buffered writer) except -1
    cdef int drop_buffered(self, Buffered writer) except -1
    cdef int flush_buffered(self) except -1
    cdef int finish(self) except -1
    cdef int execute(self) except -1
    cdef int handle_error(self, error) except -1
    cdef int handle_current(self) except -1
    cdef int flush_last(self) except -1
    cdef int keep_error(self) noexcept
    cdef int raise_pending(self) except -1
