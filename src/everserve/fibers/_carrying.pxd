# The types of `carrying.py` where it is compiled.
cdef class Carrier:
    cdef readonly object host
    cdef readonly object hub
    cdef public object task
    cdef public object asked
    cdef readonly bint is_stepping
    cdef object _fiber
    cdef object _loop
    cdef object _enter
    cdef object _leave
    cdef list _dirty
    cdef object _stop
    cdef object _passed
    cdef object _awaited
    cdef bint _must_cancel
    cdef bint _is_working
    cdef bint _is_over

    cpdef drive(self, coroutine)
    cpdef end(self)
    cdef object _begin(self, coroutine)
    cdef object _step(self, resume, argument)
    cdef object _send(self)
    cdef object _wait(self, asked)
    cdef object _work(self)
    cdef object _await(self, future)
    cdef object _take_cancel(self)
    cdef object _cancel(self)
    cpdef bint is_own(self) except -1
    cpdef send_soon(self, writer)
