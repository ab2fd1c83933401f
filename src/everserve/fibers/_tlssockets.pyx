"""The compiled hot path of TLS on fibers: `recv` and `sendall` of an open connection.

It stands above the fiber's sockets and the records of TLS. A message that comes whole and leaves whole
passes here alone; `sockets/tls/sockets.py`, its reference, does all else.
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
from everserve.sockets.tls._records cimport Records

from everserve.fibers import tlssockets as reference
from everserve.sockets.tls import TLSSocket
from everserve.sockets.tls.records import RECORD
from everserve.sockets.tls.sockets import Phase
from everserve.sockets.tls.wire import BATCH, PIECE, Wire

cdef extern from *:
    bint PyObject_TypeCheck(object o, type t)
    PyObject *type_of "(PyObject *)Py_TYPE"(PyObject *o)

cdef type fiber_tls_socket_type = None
cdef type fiber_wire_type = None
cdef object reference_recv = TLSSocket.recv
cdef object reference_sendall = TLSSocket.sendall
cdef object reference_send_now = Wire.send_now
cdef object SSLError = ssl.SSLError
cdef object OPEN = Phase.OPEN
cdef object NOTHING = 0

cdef enum:
    PIECES = 6                   # records for which there is room in one sendmsg(2)

cdef Py_ssize_t receive_size = PIECE
cdef Py_ssize_t record_size = RECORD
cdef Py_ssize_t batch_size = min(BATCH, PIECES * RECORD)

cdef Py_ssize_t phase_at = slot_offset(TLSSocket.__dict__["_phase"])
cdef Py_ssize_t owed_at = slot_offset(TLSSocket.__dict__["_owed"])
cdef Py_ssize_t wire_at = slot_offset(TLSSocket.__dict__["_wire"])
cdef Py_ssize_t inner_at = slot_offset(Wire.__dict__["inner"])
cdef Py_ssize_t lock_at = slot_offset(Wire.__dict__["lock"])
cdef Py_ssize_t records_at = slot_offset(Wire.__dict__["records"])
cdef Py_ssize_t unsent_at = slot_offset(Wire.__dict__["unsent"])


cdef object usual_wire(sock):
    """The wire of an open connection that stands on a fiber's socket, with compiled parts; else None."""
    if (not PyObject_TypeCheck(sock, fiber_tls_socket_type)
            or slot(sock, phase_at) != <PyObject *>OPEN
            or type_of(slot(sock, wire_at)) != <PyObject *>fiber_wire_type):
        return None
    wire = <object>slot(sock, wire_at)
    if is_on_fiber_socket(wire) and type_of(slot(wire, records_at)) == <PyObject *>Records:
        return wire
    return None


cdef bint is_on_fiber_socket(wire):
    return type_of(slot(wire, inner_at)) == <PyObject *>fiber_socket_type


# --- the socket: what a handler calls --------------------------------------------------------------


def recv(self, Py_ssize_t bufsize=1024, int flags=0):
    """Read up to `bufsize` bytes, of all records received; b"" at the end of the stream."""
    cdef Records records
    cdef Watch watch
    cdef bytes ciphertext
    wire = usual_wire(self)
    if wire is None or flags or bufsize <= 0:
        return reference_recv(self, bufsize, flags)
    records = <Records>slot(wire, records_at)
    watch = watch_of(<object>slot(wire, inner_at))
    if records.has_any_input():
        checkpoint()
        found = decrypt(wire, records, b"", bufsize)
        if found is not None:
            return found
        if records.paused or watch.timeout > 0.0:  # the rest of a record has a limit of its own
            return reference_recv(self, bufsize)
    if watch.timeout == 0.0:
        return reference_recv(self, bufsize)
    if not records.silent and records.has_output:
        wire.answer()
    ciphertext = receive_bytes(watch, receive_size, 0)
    if not PyBytes_GET_SIZE(ciphertext):
        wire.truncated = True
        return self._end_truncated()
    found = decrypt(wire, records, ciphertext, bufsize)
    return reference_recv(self, bufsize) if found is None else found


cdef int checkpoint() except -1:
    """Count a piece of work that does not wait, so that a fiber gives way to the others."""
    cdef Scheduler hub = running_hub()
    if hub is not None:
        hub.checkpoint()
    return 0


cdef object decrypt(wire, Records records, bytes ciphertext, Py_ssize_t size):
    try:
        return records.decrypt(ciphertext, size)
    except SSLError:
        wire.flush_if_unlocked()     # the alert
        raise


def sendall(self, data, int flags=0):
    """Send all of `data`. The socket's time limit is for each wait, as with `ssl.SSLSocket`."""
    cdef Semaphore lock
    wire = usual_wire(self) if flags == 0 and PyBytes_CheckExact(data) else None
    if (wire is not None and has_sent_all(wire)
            and type_of(slot(wire, lock_at)) == <PyObject *>Semaphore):
        lock = <Semaphore>slot(wire, lock_at)
        if lock._take(None):
            try:
                if slot(self, owed_at) != <PyObject *>NOTHING:
                    self._owed = NOTHING
                send_encrypted(wire, data)
            finally:
                lock._give()
            return
    reference_sendall(self, data, flags)


# --- the wire: what goes to the kernel ---------------------------------------------------------------


cdef bint has_sent_all(wire):
    cdef object unsent = <object>slot(wire, unsent_at)
    return PyBytes_CheckExact(unsent) and not PyBytes_GET_SIZE(unsent)


cdef int send_encrypted(wire, bytes data) except -1:
    """Encrypt and send all of `data`, a batch at a time; the lock is held."""
    cdef Records records = <Records>slot(wire, records_at)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data), done = 0
    cdef char *text = PyBytes_AS_STRING(data)
    if size <= record_size:
        return send_record(wire, records.encrypt(data))
    while done < size:
        send_batch(wire, records.encrypt_batch(text + done, min(size - done, batch_size)))
        done += batch_size
    return 0


cdef int send_record(wire, bytes ciphertext) except -1:
    """Send one record. After an error the rest stays in `unsent`: no record is torn."""
    cdef Watch watch
    cdef Py_ssize_t sent = -1
    if not PyBytes_GET_SIZE(ciphertext):
        return 0
    try:
        watch = ready_watch(wire)
        if watch is not None:
            sent = try_transmit(
                watch, PyBytes_AS_STRING(ciphertext), PyBytes_GET_SIZE(ciphertext), 0)
    finally:
        if sent != PyBytes_GET_SIZE(ciphertext):
            wire.unsent = memoryview(ciphertext)[max(sent, 0):]
    return 0 if sent == PyBytes_GET_SIZE(ciphertext) else flush(wire)


cdef int send_batch(wire, list parts) except -1:
    """As `send_record`, of several, each from where it was encrypted: they are not joined."""
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
        watch = ready_watch(wire)
        if watch is not None:
            sent = try_transmit_pieces(watch, pieces, count)
    finally:
        if sent != size:
            wire.unsent = memoryview(b"".join(parts))[max(sent, 0):]
    return 0 if sent == size else flush(wire)


cdef Watch ready_watch(wire):
    """The watch of the inner socket where something can be sent at once; None where not."""
    cdef Watch watch = watch_of(<object>slot(wire, inner_at))
    cdef Scheduler hub = running_hub()
    if hub is None:
        return None
    hub.checkpoint()
    return watch if watch.writable and watch.buffered is None else None


def send_now(self, ciphertext, bint last=False):
    """A send(2) that never waits. What is `last` leaves with the end of the stream."""
    cdef Watch watch
    cdef Py_ssize_t sent
    if (not PyBytes_CheckExact(ciphertext) or not PyObject_TypeCheck(self, fiber_wire_type)
            or not is_on_fiber_socket(self)):
        return reference_send_now(self, ciphertext, last)
    watch = watch_of(<object>slot(self, inner_at))
    sent = try_transmit(watch, PyBytes_AS_STRING(ciphertext), PyBytes_GET_SIZE(ciphertext),
                        MSG_DONTWAIT | MSG_MORE if last else MSG_DONTWAIT)
    return would_block() if sent < 0 else sent


def give_way(self):
    """Let the other fibers run."""
    cdef Scheduler hub = running_hub()
    if hub is not None:
        hub.give_way()


cdef int flush(wire) except -1:
    """Send the rest as the reference does, waiting for room."""
    wire.flush()
    return 0


class FiberWire(Wire):
    """A `Wire` on a `FiberSocket`: the compiled engine's."""

    __slots__ = ()

    send_now = send_now
    give_way = give_way


class FiberTLSSocket(reference.FiberTLSSocket):
    """A `TLSSocket` on a `FiberSocket`: the compiled engine's."""

    __slots__ = ()

    _wire_class = FiberWire
    recv = recv
    sendall = sendall


fiber_tls_socket_type = FiberTLSSocket
fiber_wire_type = FiberWire
