# The replies of a batch: what `_outbox.pyx` gives to other modules.
from cpython.object cimport PyObject
from everserve.sockets._messages cimport BATCH, Place, iovec, mmsghdr, msghdr, pthread_mutex_t


cdef struct Reply:
    PyObject *data
    PyObject *request
    PyObject *address
    char *text                   # the bytes of `data`
    size_t size
    bint sent
    int error
    Place place


cdef void control_of(msghdr *message, char *buffer, Place *place, size_t segment) noexcept nogil


cdef class Outbox:
    cdef Reply replies[BATCH]
    cdef int count
    cdef int held                # a batch is being handled: its end flushes
    cdef int armed               # the alarm is set
    cdef int ended
    cdef int fd
    cdef int timer
    cdef int generation
    cdef bint looked_after       # there is a thread for replies that wait too long
    cdef bint segments           # the kernel may split a message into datagrams
    cdef size_t largest_segment
    cdef pthread_mutex_t sending
    cdef list failures
    cdef mmsghdr messages[BATCH]
    cdef iovec pieces[BATCH]
    cdef int members[BATCH]      # the reply of each piece
    cdef char control[BATCH][64]

    cdef void forget(self) noexcept
    cdef int become_own(self) except -1
    cdef int hold(self, start) except -1
    cdef int release(self) except -1
    cdef bint takes(self) noexcept
    cdef int add(self, data, Place *place, PyObject *request, PyObject *address) except -1
    cdef int flush(self) except -1
    cdef int deliver(self, int n, int flags) noexcept nogil
    cdef bint may_segment(self, Reply *reply) noexcept nogil
    cdef void note_sent(self, msghdr *message, int code) noexcept nogil
    cdef int end(self) except -1
