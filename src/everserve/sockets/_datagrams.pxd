# The exchange of datagrams: what `_datagrams.pyx` gives to other modules.
from cpython.object cimport PyObject
from everserve.sockets._messages cimport BATCH, CONTROL, Place, iovec, mmsghdr, msghdr, socklen_t
from everserve.sockets._outbox cimport Outbox


cdef enum:
    ENTRIES = 8192               # of the cache of addresses


cdef struct Entry:
    Place place
    PyObject *address


cdef class Exchange:
    cdef Outbox outbox
    cdef object start
    cdef int fd
    cdef Py_ssize_t size
    cdef size_t stride
    cdef char *buffer
    cdef size_t room             # for what the kernel says beside the bytes
    cdef int used                # messages to prepare for the next call
    cdef object credentials      # those of the process that sent the last datagram
    cdef object local
    cdef mmsghdr messages[BATCH]
    cdef iovec pieces[BATCH]
    cdef char control[BATCH][CONTROL]
    cdef Place places[BATCH]
    cdef Entry *entries[ENTRIES]
    cdef Entry *found[ENTRIES]   # the same, by the address of the Python object
    cdef PyObject *request       # of the handler that runs; borrowed
    cdef PyObject *address
    cdef unsigned int last_drops
    cdef object calling          # of the last run, which the next may use too
    cdef readonly object drops
    cdef readonly bint cut

    cdef int make_room(self, Py_ssize_t size) except -1
    cdef int read_control(self, Place *place, msghdr *message) except -1
    cdef object address_of(self, Place *place, socklen_t size)
    cdef Entry **slot_of(self, Place *place) noexcept
    cdef void file(self, Entry *entry) noexcept
    cdef void forget(self, Entry *entry) noexcept
    cdef Entry *entry_of(self, PyObject *address) noexcept
    cdef object send(self, data, Entry *entry)
