"""The compiled exchange of datagrams: recvmmsg(2), sendmmsg(2), and replies that leave together.

It stands between the socket of a datagram server and the acceptor; `datagrams.py` is its reference.
"""
import os
import socket

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from everserve.fibers._slots cimport slot, slot_offset
from everserve.sockets._messages cimport (
    AF_INET, AF_INET6, AF_UNIX, BATCH, CMSG_DATA, CMSG_FIRSTHDR, CMSG_NXTHDR, CMSG_SPACE,
    CONTROL, IPPROTO_IP, IPPROTO_IPV6, IPV6_PKTINFO, IP_PKTINFO, LARGEST, MSG_DONTWAIT,
    MSG_TRUNC, NAME, POLLIN, Place, SCM_CREDENTIALS, SOL_SOCKET, SO_RXQ_OVFL, UCRED, UNIX_PATH,
    cmsghdr, everserve_alarm, everserve_store, hash_of, in6_pktinfo, in_pktinfo, inet_ntop,
    iovec, is_same_place, msghdr, note_place, ntohl, ntohs, poll, pollfd, recvmmsg, sendmsg,
    sockaddr_in, sockaddr_in6, socklen_t,
)
from everserve.sockets._outbox cimport Outbox, control_of

from everserve.sockets import datagrams as reference
from everserve.sockets.datagrams import Datagram, PeerAddress

cdef extern from *:
    """
    /* As calling the class with a pair, which costs twice as much: a `Datagram` is a tuple of two. */
    static PyObject *everserve_datagram(PyObject *kind, PyObject *data, PyObject *sock) {
        PyObject *datagram = ((PyTypeObject *)kind)->tp_alloc((PyTypeObject *)kind, 2);
        if (datagram == NULL) return NULL;
    #if PY_VERSION_HEX >= 0x030E0000
        ((PyTupleObject *)datagram)->ob_hash = -1;      /* not computed yet */
    #endif
        Py_INCREF(data);
        PyTuple_SET_ITEM(datagram, 0, data);
        Py_INCREF(sock);
        PyTuple_SET_ITEM(datagram, 1, sock);
        return datagram;
    }
    """
    object new_datagram "everserve_datagram"(object kind, object data, object sock)

cdef extern from "Python.h":
    object PyUnicode_DecodeFSDefaultAndSize(const char *text, Py_ssize_t size)


cdef class Exchange:
    """Receives the datagrams of one socket in batches, and sends the replies of a batch together.

    `drops` counts the datagrams for which the kernel had no room in the socket's buffer; `cut` is
    true if the end of one of the last batch was lost.
    """

    def __cinit__(self, sock, start):
        cdef int i
        self.outbox = Outbox()
        self.start = start
        self.fd = self.outbox.fd = sock.fileno()
        self.outbox.segments = sock.family in (AF_INET, AF_INET6)
        self.outbox.largest_segment = LARGEST
        # The credentials come first: the descriptors that a peer passes find no room.
        self.room = CONTROL if sock.family in (AF_INET, AF_INET6) else CMSG_SPACE(UCRED)
        self.local = reference.wildcard_of(sock)
        self.drops = 0
        for i in range(BATCH):
            self.messages[i].msg_hdr.msg_iov = &self.pieces[i]
            self.messages[i].msg_hdr.msg_iovlen = 1
            self.messages[i].msg_hdr.msg_name = self.places[i].name
            self.messages[i].msg_hdr.msg_control = self.control[i]
        self.used = BATCH

    def __dealloc__(self):
        cdef int i
        if self.outbox is not None and self.outbox.timer >= 0:
            everserve_store(self.outbox.ended, 1)
            everserve_alarm(self.outbox.timer, 1)
        free(self.buffer)
        for i in range(ENTRIES):
            if self.entries[i] is not NULL:
                Py_XDECREF(self.entries[i].address)
                free(self.entries[i])

    cdef int make_room(self, Py_ssize_t size) except -1:
        cdef int i
        free(self.buffer)
        # Not a multiple of a page: the first bytes of all buffers would share the lines of a cache.
        self.stride = (size + 127) & ~63
        self.buffer = <char *>calloc(BATCH, self.stride)      # the kernel gives pages when touched
        if self.buffer is NULL:
            raise MemoryError
        self.size = size
        for i in range(BATCH):
            self.pieces[i].iov_base = self.buffer + i * self.stride
            self.pieces[i].iov_len = size
        return 0

    def receive(self, sock, Py_ssize_t size, int limit):
        """At most `limit` datagrams that wait, of at most `size` bytes: pairs of request and address.

        Empty if none waits. Raises `OSError`.
        """
        cdef int i, n
        cdef msghdr *header
        if size != self.size:
            self.make_room(size)
        limit = min(limit, BATCH)
        for i in range(self.used):   # those that the kernel has filled in
            self.messages[i].msg_hdr.msg_namelen = NAME
            self.messages[i].msg_hdr.msg_controllen = self.room
        self.used = 0
        while True:
            n = recvmmsg(self.fd, self.messages, limit, MSG_DONTWAIT, NULL)
            if n >= 0:
                break
            if errno == EAGAIN:
                return []
            if errno != EINTR:
                raise OSError(errno, os.strerror(errno))
        self.used = n
        received = []
        self.cut = False
        for i in range(n):
            header = &self.messages[i].msg_hdr
            data = PyBytes_FromStringAndSize(<char *>self.pieces[i].iov_base, self.messages[i].msg_len)
            self.places[i].local = 0
            if header.msg_controllen:
                self.read_control(&self.places[i], header)
            request = new_datagram(Datagram, data, sock)
            if header.msg_flags & MSG_TRUNC:
                request.truncated = self.cut = True
            if self.credentials is not None:
                request.credentials, self.credentials = self.credentials, None
            received.append((request, self.address_of(&self.places[i], header.msg_namelen)))
        return received

    cdef int read_control(self, Place *place, msghdr *message) except -1:
        cdef cmsghdr *header = CMSG_FIRSTHDR(message)
        cdef in_pktinfo *info
        cdef in6_pktinfo *info6
        cdef unsigned int drops
        while header is not NULL:
            if header.cmsg_level == SOL_SOCKET and header.cmsg_type == SO_RXQ_OVFL:
                drops = (<unsigned int *>CMSG_DATA(header))[0]
                self.drops += <unsigned int>(drops - self.last_drops)
                self.last_drops = drops
            elif header.cmsg_level == SOL_SOCKET and header.cmsg_type == SCM_CREDENTIALS:
                self.credentials = PyBytes_FromStringAndSize(<char *>CMSG_DATA(header), UCRED)
            elif header.cmsg_level == IPPROTO_IP and header.cmsg_type == IP_PKTINFO:
                info = <in_pktinfo *>CMSG_DATA(header)
                memset(place.info, 0, sizeof(in_pktinfo))
                (<in_pktinfo *>place.info).ipi_spec_dst = info.ipi_spec_dst
                place.local = sizeof(in_pktinfo) if info.ipi_spec_dst.s_addr else 0
            elif header.cmsg_level == IPPROTO_IPV6 and header.cmsg_type == IPV6_PKTINFO:
                info6 = <in6_pktinfo *>CMSG_DATA(header)
                if info6.ipi6_addr.s6_addr[0] != 0xFF:        # a group is no one's address
                    memset(place.info, 0, sizeof(in6_pktinfo))
                    (<in6_pktinfo *>place.info).ipi6_addr = info6.ipi6_addr
                    if info6.ipi6_addr.s6_addr[0] == 0xFE:    # of one link alone
                        (<in6_pktinfo *>place.info).ipi6_ifindex = info6.ipi6_ifindex
                    place.local = sizeof(in6_pktinfo)
            header = CMSG_NXTHDR(message, header)
        return 0

    cdef object address_of(self, Place *place, socklen_t size):
        """The address in Python: the same object as long as the cache has it."""
        cdef Entry *entry
        cdef Entry **kept
        place.size = size
        if size < 2:
            return None
        place.family = (<sockaddr_in *>place.name).sin_family
        place.hash = hash_of(place.name, size)
        if place.local:
            place.hash ^= hash_of(place.info, place.local)
        kept = self.slot_of(place)
        entry = kept[0]
        if entry is not NULL and is_same_place(&entry.place, place):
            return <object>entry.address
        address = address_in(place, self.local)
        if address is None:
            return None
        if entry is NULL:
            entry = <Entry *>calloc(1, sizeof(Entry))
            if entry is NULL:
                raise MemoryError
            kept[0] = entry
        else:
            self.forget(entry)
            Py_XDECREF(entry.address)
        note_place(&entry.place, place)
        entry.address = <PyObject *>address
        Py_INCREF(address)
        self.file(entry)
        return address

    cdef void file(self, Entry *entry) noexcept:
        """Have `entry_of` find it by the address of its Python object."""
        cdef unsigned int number = place_in_found(entry.address)
        if self.found[number] is not NULL and self.found[number ^ 1] is NULL:
            number ^= 1
        self.found[number] = entry

    cdef void forget(self, Entry *entry) noexcept:
        cdef unsigned int number = place_in_found(entry.address)
        if self.found[number] is not entry:
            number ^= 1
        if self.found[number] is entry:
            self.found[number] = NULL

    cdef Entry **slot_of(self, Place *place) noexcept:
        """Where the entry of a place is, or is to be: one of two slots."""
        cdef Entry **first = &self.entries[place.hash & (ENTRIES - 1)]
        cdef Entry **second = &self.entries[(place.hash & (ENTRIES - 1)) ^ 1]
        if first[0] is not NULL and is_same_place(&first[0].place, place):
            return first
        if second[0] is not NULL and is_same_place(&second[0].place, place):
            return second
        return second if first[0] is not NULL and second[0] is NULL else first

    cdef Entry *entry_of(self, PyObject *address) noexcept:
        """The entry of an address that came from here; NULL if the cache has dropped it."""
        cdef unsigned int number = place_in_found(address)
        cdef Entry *entry = self.found[number]
        if entry is NULL or entry.address is not address:
            entry = self.found[number ^ 1]
        return entry if entry is not NULL and entry.address is address else NULL

    cdef object send(self, data, Entry *entry):
        """Send a reply: now, or with the others of the batch. None if it cannot be done here."""
        cdef msghdr message
        cdef iovec piece
        cdef char control[64]
        cdef Place place
        cdef ssize_t sent
        cdef int code
        if type(data) is not bytes:
            if type(data) is not bytearray and type(data) is not memoryview:
                return None
            data = bytes(data)
        if PyBytes_GET_SIZE(data) > LARGEST:
            return None
        if self.outbox.takes():
            if <PyObject *>self.address is entry.address:
                self.outbox.add(data, &entry.place, self.request, entry.address)
            else:
                self.outbox.add(data, &entry.place, NULL, entry.address)
            return PyBytes_GET_SIZE(data)
        memset(&message, 0, sizeof(message))
        note_place(&place, &entry.place)     # another thread may drop the entry meanwhile
        piece.iov_base = PyBytes_AS_STRING(data)
        piece.iov_len = PyBytes_GET_SIZE(data)
        message.msg_name = place.name
        message.msg_namelen = place.size
        message.msg_iov = &piece
        message.msg_iovlen = 1
        control_of(&message, control, &place, 0)
        with nogil:
            sent = sendmsg(self.fd, &message, 0)
            code = errno
        if sent >= 0:
            return sent
        return None                  # the plain call says what is wrong, or waits

    def wait(self, int wakeup):
        """Wait for a datagram, or until `wakeup` is readable. True if it is not, nor a signal came."""
        cdef pollfd waits[2]
        cdef int n
        waits[0].fd, waits[1].fd = self.fd, wakeup
        waits[0].events = waits[1].events = POLLIN
        waits[0].revents = waits[1].revents = 0
        with nogil:
            n = poll(waits, 2, -1)
        return n == 1 and waits[0].revents == POLLIN

    def hold(self, int size):
        """The handlers of a batch of `size` begin: their replies leave together."""
        if size > 1:
            self.outbox.hold(self.start)

    def note(self, request, address):
        """The handler of that request begins; its caller keeps both alive."""
        self.request, self.address = <PyObject *>request, <PyObject *>address

    def release(self):
        """The handlers have ended: send what waits. Returns what failed: (error, request, address)."""
        self.request = self.address = NULL
        self.outbox.release()
        if not self.outbox.failures:
            return ()
        failures, self.outbox.failures = self.outbox.failures, []
        return failures

    def flush(self):
        """Send the replies that wait."""
        self.outbox.flush()

    def end(self):
        """The socket closes."""
        self.outbox.end()
        self.fd = self.outbox.fd = -1


cdef inline unsigned int place_in_found(PyObject *address) noexcept:
    return <unsigned int>((<size_t>address >> 4) ^ (<size_t>address >> 16)) & (ENTRIES - 1)


cdef object address_in(Place *place, object port):
    """As `socket` has it; a `PeerAddress` where the local address is known."""
    cdef char text[64]
    cdef sockaddr_in *inet
    cdef sockaddr_in6 *inet6
    if place.family == AF_INET:
        inet = <sockaddr_in *>place.name
        inet_ntop(AF_INET, &inet.sin_addr, text, 64)
        address = (text.decode("ascii"), ntohs(inet.sin_port))
    elif place.family == AF_INET6:
        inet6 = <sockaddr_in6 *>place.name
        inet_ntop(AF_INET6, &inet6.sin6_addr, text, 64)
        address = (
            text.decode("ascii"), ntohs(inet6.sin6_port), ntohl(inet6.sin6_flowinfo),
            inet6.sin6_scope_id,
        )
    elif place.family == AF_UNIX:
        return unix_name(place.name + UNIX_PATH, place.size - UNIX_PATH)
    else:
        return None
    if not place.local or port is None:
        return address
    found = PeerAddress(address)
    if place.local == sizeof(in_pktinfo):
        inet_ntop(AF_INET, &(<in_pktinfo *>place.info).ipi_spec_dst, text, 64)
        found.local = (text.decode("ascii"), port)
    else:
        inet_ntop(AF_INET6, &(<in6_pktinfo *>place.info).ipi6_addr, text, 64)
        found.local = (
            text.decode("ascii"), port, 0, (<in6_pktinfo *>place.info).ipi6_ifindex
        )
    return found


cdef object unix_name(char *path, Py_ssize_t size):
    cdef Py_ssize_t end = 0
    if size <= 0:
        return None
    if path[0] == 0:
        return PyBytes_FromStringAndSize(path, size)      # an abstract name
    while end < size and path[end]:
        end += 1
    return PyUnicode_DecodeFSDefaultAndSize(path, end)


cdef Py_ssize_t exchange_offset = slot_offset(reference.DatagramSocket._exchange)
cdef object plain_sendto = reference.DatagramSocket.sendto


def sendto(self, data, flags, address=None):
    """As `socket.sendto`; a reply to an address that came from a batch costs less."""
    cdef PyObject *exchange = slot(self, exchange_offset)
    cdef Entry *entry
    if exchange is NULL or <object>exchange is None:
        return plain_sendto(self, data, flags) if address is None else plain_sendto(self, data, flags, address)
    if address is None:
        entry = (<Exchange>exchange).entry_of(<PyObject *>flags)
        if entry is not NULL:
            sent = (<Exchange>exchange).send(data, entry)
            if sent is not None:
                return sent
        (<Exchange>exchange).outbox.flush()      # what comes later must not overtake it
        return plain_sendto(self, data, flags)
    (<Exchange>exchange).outbox.flush()
    return plain_sendto(self, data, flags, address)


class DatagramSocket(reference.DatagramSocket):
    """The compiled engine's `DatagramSocket`."""

    __slots__ = ()

    sendto = sendto

    def exchange(self, start):
        """What receives and sends for it in batches; `start(target)` starts a thread, or returns None."""
        if self._exchange is None:
            self._exchange = Exchange(self, start)
        return self._exchange
