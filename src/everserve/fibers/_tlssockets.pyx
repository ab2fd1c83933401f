"""The compiled hot path of TLS on fibers: `recv` and `sendall` of an open connection.

It stands above the fiber sockets and the records of TLS. `sockets/tlssocket.py` is its reference, and
does everything but messages that are received whole and sent whole.
"""
import ssl

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from everserve.fibers._loop cimport Watch
from everserve.fibers._semaphore cimport Semaphore
from everserve.fibers._slots cimport slot, slot_offset
from everserve.fibers._sockets cimport fiber_socket_type, receive_bytes, watch_of
from everserve.fibers._scheduler cimport Scheduler, running_hub
from everserve.fibers._transfer cimport (
    MSG_DONTWAIT, MSG_MORE, Piece, try_transmit, try_transmit_pieces, would_block,
)
from everserve.sockets._tlsrecords cimport Records

from everserve.fibers import tlssockets as reference
from everserve.sockets import tlssocket
from everserve.sockets import tlswire

cdef extern from *:
    bint PyObject_TypeCheck(object o, type t)
    PyObject *type_of "(PyObject *)Py_TYPE"(PyObject *o)

cdef type fiber_tls_socket_type = None
cdef object receive_by_steps = tlssocket.TLSSocket.recv
cdef object send_by_duplicate = tlssocket.TLSSocket._send_now
cdef object send_by_steps = tlssocket.TLSSocket.sendall
cdef object SSLError = ssl.SSLError
cdef object OPEN = tlswire.Phase.OPEN
cdef Py_ssize_t PIECE = tlswire.PIECE
cdef Py_ssize_t RECORD = tlssocket.RECORD

cdef enum:
    PIECES = 6                   # records for which there is room in one sendmsg(2)

cdef Py_ssize_t BATCH = min(tlswire.BATCH, PIECES * RECORD)


cdef Py_ssize_t offset_of(str name) except -1:
    for cls in reference.FiberTLSSocket.__mro__:
        if name in cls.__dict__:
            return slot_offset(cls.__dict__[name])
    raise AttributeError(name)


cdef Py_ssize_t phase_at = offset_of("_phase")
cdef Py_ssize_t records_at = offset_of("_records")
cdef Py_ssize_t inner_at = offset_of("_inner")
cdef Py_ssize_t turn_at = offset_of("_turn")
cdef Py_ssize_t unsent_at = offset_of("_unsent")
cdef Py_ssize_t owed_at = offset_of("_owed")
cdef object NOTHING = 0


cdef bint is_usual(sock):
    """Whether the connection is open, on a fiber socket, with compiled parts."""
    return (is_of_fiber(sock) and slot(sock, phase_at) == <PyObject *>OPEN
            and type_of(slot(sock, records_at)) == <PyObject *>Records)


cdef bint is_of_fiber(sock):
    return (PyObject_TypeCheck(sock, fiber_tls_socket_type) and slot(sock, inner_at) is not NULL
            and type_of(slot(sock, inner_at)) == <PyObject *>fiber_socket_type)


def recv(self, Py_ssize_t bufsize=1024, int flags=0):
    """Read up to `bufsize` bytes, of the records that are here; b"" at the end of the stream."""
    cdef Records records
    cdef Watch watch
    cdef bytes sealed
    if flags or bufsize <= 0 or not is_usual(self):
        return receive_by_steps(self, bufsize, flags)
    records = <Records>slot(self, records_at)
    watch = watch_of(<object>slot(self, inner_at))
    if records.holds():
        found = open_records(self, records, b"", bufsize)
        if found is not None:
            return found
        if watch.timeout > 0.0:  # the rest of a record gets a time limit of its own
            return receive_by_steps(self, bufsize)
    if watch.timeout == 0.0:
        return receive_by_steps(self, bufsize)
    if not records.quiet and records.speaking:
        self._ship_at_once()
    sealed = receive_bytes(watch, PIECE, 0)
    if not PyBytes_GET_SIZE(sealed):
        return self._end_ragged()
    found = open_records(self, records, sealed, bufsize)
    return receive_by_steps(self, bufsize) if found is None else found


cdef object open_records(sock, Records records, bytes sealed, Py_ssize_t size):
    try:
        return records.open_sealed(sealed, size)
    except SSLError:
        sock._ship_at_once()     # the alert
        raise


def sendall(self, data, int flags=0):
    """Send all of `data`. The timeout of the socket is for each wait, as with `ssl.SSLSocket`."""
    cdef Semaphore turn
    if (flags == 0 and PyBytes_CheckExact(data) and is_usual(self) and has_sent_all(self)
            and type_of(slot(self, turn_at)) == <PyObject *>Semaphore):
        turn = <Semaphore>slot(self, turn_at)
        if turn._take(None):
            try:
                send_sealed(self, data)
            finally:
                turn._give()
            return
    send_by_steps(self, data, flags)


cdef bint has_sent_all(sock):
    cdef object unsent = <object>slot(sock, unsent_at)
    return PyBytes_CheckExact(unsent) and not PyBytes_GET_SIZE(unsent)


cdef int send_sealed(sock, bytes data) except -1:
    """Seal and send all of `data`, a batch at a time; the turn is held."""
    cdef Records records = <Records>slot(sock, records_at)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data), done = 0
    cdef char *text = PyBytes_AS_STRING(data)
    if slot(sock, owed_at) != <PyObject *>NOTHING:
        sock._owed = NOTHING
    if size <= RECORD:
        return send_record(sock, records.seal(data))
    while done < size:
        send_batch(sock, records.seal_batch(text + done, min(size - done, BATCH)))
        done += BATCH
    return 0


cdef int send_record(sock, bytes sealed) except -1:
    """Send one record; what cannot be sent is kept, so that no record is cut short."""
    cdef Watch watch
    cdef Py_ssize_t sent = -1
    if not PyBytes_GET_SIZE(sealed):
        return 0
    try:
        watch = ready_watch(sock)
        if watch is not None:
            sent = try_transmit(watch, PyBytes_AS_STRING(sealed), PyBytes_GET_SIZE(sealed), 0)
    finally:
        if sent != PyBytes_GET_SIZE(sealed):
            sock._unsent = memoryview(sealed)[max(sent, 0):]
    return 0 if sent == PyBytes_GET_SIZE(sealed) else ship(sock)


cdef int send_batch(sock, list parts) except -1:
    """As `send_record`, for several records, without joining them."""
    cdef Watch watch
    cdef Piece pieces[PIECES]
    cdef Py_ssize_t sent = -1, size = 0
    cdef int count = 0
    for part in parts:
        pieces[count].data = PyBytes_AS_STRING(part)
        pieces[count].size = PyBytes_GET_SIZE(part)
        size += pieces[count].size
        count += 1
    try:
        watch = ready_watch(sock)
        if watch is not None:
            sent = try_transmit_pieces(watch, pieces, count)
    finally:
        if sent != size:
            sock._unsent = memoryview(b"".join(parts))[max(sent, 0):]
    return 0 if sent == size else ship(sock)


cdef Watch ready_watch(sock):
    """The watch of the inner socket if something can be sent at once, else None."""
    cdef Watch watch = watch_of(<object>slot(sock, inner_at))
    cdef Scheduler hub = running_hub()
    if hub is None:
        return None
    hub.checkpoint()
    return watch if watch.writable and watch.buffered is None else None


def send_now(self, sealed, bint last=False):
    """A send(2) that never waits. `last`: the bytes are sent with the end of the stream."""
    cdef Watch watch
    cdef Py_ssize_t sent
    if not PyBytes_CheckExact(sealed) or not is_of_fiber(self):
        return send_by_duplicate(self, sealed, last)
    watch = watch_of(<object>slot(self, inner_at))
    sent = try_transmit(watch, PyBytes_AS_STRING(sealed), PyBytes_GET_SIZE(sealed),
                        MSG_DONTWAIT | MSG_MORE if last else MSG_DONTWAIT)
    return would_block() if sent < 0 else sent


cdef int ship(sock) except -1:
    """Send the rest as the reference does, waiting for room."""
    sock._ship()
    return 0


class FiberTLSSocket(reference.FiberTLSSocket):
    """The compiled engine's `FiberTLSSocket`."""

    __slots__ = ()

    recv = recv
    _send_now = send_now
    sendall = sendall


fiber_tls_socket_type = FiberTLSSocket
