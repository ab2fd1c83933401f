"""The compiled exchange of datagrams: recvmmsg(2), sendmmsg(2), and replies that leave together.

It stands between the socket of a datagram server and the acceptor; `datagrams.py` is its reference.
"""
import os
import socket

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.errno cimport EAGAIN, EINTR, EINVAL, EIO, EMSGSIZE, errno
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset
from posix.unistd cimport close, read
from everserve.fibers._slots cimport slot, slot_offset

from everserve.sockets import datagrams as reference
from everserve.sockets.datagrams import Datagram, PeerAddress

cdef extern from *:
    """
    #include <arpa/inet.h>
    #include <netinet/in.h>
    #include <netinet/udp.h>
    #include <poll.h>
    #include <pthread.h>
    #include <stddef.h>
    #include <sys/socket.h>
    #include <sys/timerfd.h>
    #include <sys/un.h>
    #ifndef UDP_SEGMENT
    #define UDP_SEGMENT 103
    #endif
    #ifndef SOL_UDP
    #define SOL_UDP 17
    #endif
    /* An alarm in `after` nanoseconds, once. */
    static int everserve_alarm(int fd, long after) {
        struct itimerspec when = {{0, 0}, {0, after}};
        return timerfd_settime(fd, 0, &when, NULL);
    }
    #define everserve_load(field) __atomic_load_n(&(field), __ATOMIC_SEQ_CST)
    #define everserve_store(field, value) __atomic_store_n(&(field), (value), __ATOMIC_SEQ_CST)
    """
    ctypedef unsigned int socklen_t
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *lock, void *attributes) nogil
    int pthread_mutex_lock(pthread_mutex_t *lock) nogil
    int pthread_mutex_trylock(pthread_mutex_t *lock) nogil
    int pthread_mutex_unlock(pthread_mutex_t *lock) nogil
    struct iovec:
        void *iov_base
        size_t iov_len
    struct msghdr:
        void *msg_name
        socklen_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    struct in_addr:
        unsigned int s_addr
    struct in6_addr:
        unsigned char s6_addr[16]
    struct sockaddr_in:
        unsigned short sin_family
        unsigned short sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        unsigned short sin6_port
        unsigned int sin6_flowinfo
        in6_addr sin6_addr
        unsigned int sin6_scope_id
    struct in_pktinfo:
        int ipi_ifindex
        in_addr ipi_spec_dst
        in_addr ipi_addr
    struct in6_pktinfo:
        in6_addr ipi6_addr
        unsigned int ipi6_ifindex
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *waits, unsigned long n, int timeout) nogil
    int recvmmsg(int fd, mmsghdr *messages, unsigned int n, int flags, void *timeout) nogil
    int sendmmsg(int fd, mmsghdr *messages, unsigned int n, int flags) nogil
    ssize_t sendmsg(int fd, const msghdr *message, int flags) nogil
    int timerfd_create(int clock, int flags)
    int everserve_alarm(int fd, long after) nogil
    int everserve_load(int field) nogil
    void everserve_store(int field, int value) nogil
    const char *inet_ntop(int family, const void *source, char *target, socklen_t size)
    unsigned short ntohs(unsigned short port)
    unsigned int ntohl(unsigned int value)
    size_t CMSG_SPACE(size_t size) nogil
    size_t CMSG_LEN(size_t size) nogil
    cmsghdr *CMSG_FIRSTHDR(msghdr *message) nogil
    cmsghdr *CMSG_NXTHDR(msghdr *message, cmsghdr *header) nogil
    void *CMSG_DATA(cmsghdr *header) nogil
    size_t UNIX_PATH "offsetof(struct sockaddr_un, sun_path)"
    enum:
        AF_INET
        AF_INET6
        AF_UNIX
        CLOCK_MONOTONIC
        IPPROTO_IP
        IPPROTO_IPV6
        IPV6_PKTINFO
        IP_PKTINFO
        MSG_DONTWAIT
        MSG_TRUNC
        POLLIN
        SOL_SOCKET
        SOL_UDP
        SCM_CREDENTIALS
        SO_RXQ_OVFL
        TFD_CLOEXEC
        UDP_SEGMENT

cdef extern from "Python.h":
    object PyContext_CopyCurrent()
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    object PyObject_Vectorcall(object function, PyObject **arguments, size_t n, PyObject *names)
    object PyUnicode_DecodeFSDefaultAndSize(const char *text, Py_ssize_t size)

cdef enum:
    BATCH = 64                   # datagrams of one call: udp(7) takes as many segments at once
    ENTRIES = 4096               # of the cache of addresses
    NAME = 112                   # sockaddr_un has 110 bytes
    UCRED = 12                   # bytes of a struct ucred: unix(7)
    CONTROL = 128                # what the kernel may say beside a datagram
    LARGEST_GROUP = 65000        # of all segments of one message
    LARGEST = 65507              # a longer one fails at once, in the handler
    PATIENCE = 2000000           # nanoseconds that a reply may wait for the rest of its batch


cdef struct Place:               # where a reply goes, and the address that it leaves from
    unsigned int hash
    socklen_t size
    int local                    # bytes of `info`: 0, or those of in_pktinfo, in6_pktinfo
    int family
    char name[NAME]
    char info[24]


cdef struct Entry:
    Place place
    PyObject *address


cdef struct Reply:
    PyObject *data
    PyObject *request
    PyObject *address
    char *text                   # the bytes of `data`
    size_t size
    bint sent
    int error
    Place place


cdef int generation = 0          # of processes: fork(2) has left this one its thread alone


def _become_child():
    global generation
    generation += 1


os.register_at_fork(after_in_child=_become_child)


cdef inline void note_place(Place *target, Place *source) noexcept nogil:
    target.hash = source.hash
    target.size = source.size
    target.local = source.local
    target.family = source.family
    memcpy(target.name, source.name, source.size)
    memcpy(target.info, source.info, source.local)


cdef inline bint is_same_place(Place *one, Place *other) noexcept nogil:
    return (
        one.hash == other.hash and one.size == other.size and one.local == other.local
        and memcmp(one.name, other.name, one.size) == 0
        and memcmp(one.info, other.info, one.local) == 0
    )


cdef inline unsigned int hash_of(const char *data, size_t size) noexcept nogil:
    cdef unsigned long value = 1469598103934665603u
    cdef unsigned long word
    cdef size_t i = 0
    while i + 8 <= size:
        memcpy(&word, data + i, 8)
        value = (value ^ word) * 0x9E3779B97F4A7C15u
        value ^= value >> 29
        i += 8
    while i < size:
        value = (value ^ <unsigned char>data[i]) * 1099511628211u
        i += 1
    return <unsigned int>(value ^ (value >> 32))


cdef void control_of(msghdr *message, char *buffer, Place *place, size_t segment) noexcept nogil:
    """What the kernel is to know of a message: its local address, the size of its segments."""
    cdef cmsghdr *header
    cdef size_t used = 0
    if place.local:
        header = <cmsghdr *>buffer
        header.cmsg_level = IPPROTO_IP if place.local == sizeof(in_pktinfo) else IPPROTO_IPV6
        header.cmsg_type = IP_PKTINFO if place.local == sizeof(in_pktinfo) else IPV6_PKTINFO
        header.cmsg_len = CMSG_LEN(place.local)
        memcpy(CMSG_DATA(header), place.info, place.local)
        used = CMSG_SPACE(place.local)
    if segment:
        header = <cmsghdr *>(buffer + used)
        header.cmsg_level = SOL_UDP
        header.cmsg_type = UDP_SEGMENT
        header.cmsg_len = CMSG_LEN(2)
        (<unsigned short *>CMSG_DATA(header))[0] = <unsigned short>segment
        used += CMSG_SPACE(2)
    message.msg_control = buffer if used else NULL
    message.msg_controllen = used


cdef class Outbox:
    """The replies of a batch that have not left yet.

    Whoever adds to it has the GIL. `sending` is locked while a thread sends: the one that flushes, or
    the one that looks after replies that wait too long, which never takes the GIL for that.
    """

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

    def __cinit__(self):
        self.fd = self.timer = -1
        pthread_mutex_init(&self.sending, NULL)
        self.generation = generation
        self.failures = []

    def __dealloc__(self):
        self.forget()
        if self.timer >= 0:
            close(self.timer)

    cdef void forget(self) noexcept:
        cdef int i
        for i in range(self.count):
            Py_XDECREF(self.replies[i].data)
            Py_XDECREF(self.replies[i].request)
            Py_XDECREF(self.replies[i].address)
        everserve_store(self.count, 0)

    cdef int become_own(self) except -1:
        """In a child of fork: the replies are the parent's, and so is the thread."""
        self.generation = generation
        pthread_mutex_init(&self.sending, NULL)
        self.forget()
        self.held = self.armed = 0
        self.looked_after = False
        if self.timer >= 0:
            close(self.timer)
            self.timer = -1
        return 0

    cdef int hold(self, start) except -1:
        """Collect replies from now on, if a thread can look after them; `start` starts one."""
        if self.generation != generation:
            self.become_own()
        if not self.looked_after:
            if self.timer < 0:
                self.timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC)
                if self.timer < 0:
                    return 0
            self.looked_after = start(self.look_after) is not None
        everserve_store(self.held, self.looked_after)
        return 0

    cdef int release(self) except -1:
        everserve_store(self.held, 0)
        return self.flush()

    cdef inline bint takes(self) noexcept:
        return self.held and self.generation == generation

    cdef int add(self, data, Place *place, PyObject *request, PyObject *address) except -1:
        cdef Reply *reply
        if self.count == BATCH:
            self.flush()
        reply = &self.replies[self.count]
        note_place(&reply.place, place)
        reply.data = <PyObject *>data
        reply.text = PyBytes_AS_STRING(data)
        reply.size = PyBytes_GET_SIZE(data)
        reply.request = request
        reply.address = address
        reply.sent = False
        reply.error = 0
        Py_INCREF(data)
        if request is not NULL:
            Py_INCREF(<object>request)
        if address is not NULL:
            Py_INCREF(<object>address)
        everserve_store(self.count, self.count + 1)
        if not everserve_load(self.armed):
            everserve_store(self.armed, 1)
            everserve_alarm(self.timer, PATIENCE)
        return 0

    cdef int flush(self) except -1:
        """Send what waits. What fails is noted in `failures`."""
        cdef int i, n
        cdef Reply *reply
        while self.count and self.generation == generation:
            n = self.count
            with nogil:
                pthread_mutex_lock(&self.sending)
                self.deliver(n, 0)
            if n != self.count:      # another thread has added one meanwhile
                pthread_mutex_unlock(&self.sending)
                continue
            for i in range(n):
                reply = &self.replies[i]
                if reply.error:
                    self.failures.append((
                        OSError(reply.error, os.strerror(reply.error)),
                        None if reply.request is NULL else <object>reply.request,
                        None if reply.address is NULL else <object>reply.address,
                    ))
            self.forget()
            pthread_mutex_unlock(&self.sending)
        return 0

    cdef int deliver(self, int n, int flags) noexcept nogil:
        """Send the first `n` replies that have not been sent, in the order of each peer."""
        cdef int i, j, made = 0, used = 0, first = 0, sent, code
        cdef size_t total
        cdef Reply *one
        cdef Reply *other
        cdef bint taken[BATCH]
        cdef mmsghdr *message
        memset(taken, 0, sizeof(taken))
        for i in range(n):
            one = &self.replies[i]
            if one.sent or taken[i]:
                continue
            message = &self.messages[made]
            memset(message, 0, sizeof(mmsghdr))
            message.msg_hdr.msg_name = one.place.name
            message.msg_hdr.msg_namelen = one.place.size
            message.msg_hdr.msg_iov = &self.pieces[used]
            total = 0
            for j in range(i, n if self.may_segment(one) else i + 1):
                other = &self.replies[j]
                if other.sent or taken[j] or not is_same_place(&one.place, &other.place):
                    continue
                if j > i and (
                    other.size > one.size or other.size == 0
                    or total + other.size > LARGEST_GROUP
                ):
                    break
                self.pieces[used].iov_base = other.text
                self.pieces[used].iov_len = other.size
                self.members[used] = j
                taken[j] = True
                used += 1
                total += other.size
                if other.size < one.size:
                    break            # the last segment alone may be shorter
            message.msg_hdr.msg_iovlen = &self.pieces[used] - message.msg_hdr.msg_iov
            control_of(
                &message.msg_hdr, self.control[made], &one.place,
                one.size if message.msg_hdr.msg_iovlen > 1 else 0,
            )
            made += 1
        while first < made:
            sent = sendmmsg(self.fd, &self.messages[first], made - first, flags)
            code = errno
            for i in range(sent):
                self.note_sent(&self.messages[first + i].msg_hdr, 0)
            if sent > 0:
                first += sent
            elif code == EINTR:
                continue
            elif code == EAGAIN and flags:
                return 0
            elif self.messages[first].msg_hdr.msg_iovlen > 1 and code in (EINVAL, EIO, EMSGSIZE):
                # The route takes no such segments: those replies go one by one, as all others.
                total = self.messages[first].msg_hdr.msg_iov.iov_len
                if code == EIO:
                    self.segments = False
                elif total <= self.largest_segment:
                    self.largest_segment = total - 1
                return self.deliver(n, flags)
            else:
                self.note_sent(&self.messages[first].msg_hdr, code)
                first += 1
        return 0

    cdef inline bint may_segment(self, Reply *reply) noexcept nogil:
        return self.segments and 0 < reply.size <= self.largest_segment

    cdef void note_sent(self, msghdr *message, int code) noexcept nogil:
        cdef size_t i
        cdef size_t start = message.msg_iov - &self.pieces[0]
        for i in range(start, start + message.msg_iovlen):
            self.replies[self.members[i]].sent = True
            self.replies[self.members[i]].error = code

    def look_after(self):
        """Run as a thread: send replies that have waited for long, as a handler takes its time."""
        cdef unsigned long expirations
        with nogil:
            while True:
                if read(self.timer, &expirations, sizeof(expirations)) < 0 and errno != EINTR:
                    break
                if everserve_load(self.ended):
                    break
                everserve_store(self.armed, 0)
                if pthread_mutex_trylock(&self.sending) == 0:
                    if self.count and not self.ended:
                        self.deliver(everserve_load(self.count), MSG_DONTWAIT)
                    pthread_mutex_unlock(&self.sending)
                if everserve_load(self.held) or everserve_load(self.count):
                    everserve_store(self.armed, 1)
                    everserve_alarm(self.timer, PATIENCE)

    cdef int end(self) except -1:
        """The socket is about to be closed: no thread may use its descriptor after that."""
        if self.generation != generation:
            self.become_own()
        self.flush()
        with nogil:
            pthread_mutex_lock(&self.sending)
            everserve_store(self.held, 0)
            everserve_store(self.ended, 1)
            pthread_mutex_unlock(&self.sending)
        if self.timer >= 0:
            everserve_alarm(self.timer, 1)
        return 0


cdef class Exchange:
    """Receives the datagrams of one socket in batches, and sends the replies of a batch together.

    `drops` counts the datagrams for which the kernel had no room in the socket's buffer; `cut` is
    true if the end of one of the last batch was lost.
    """

    cdef Outbox outbox
    cdef object start
    cdef int fd
    cdef Py_ssize_t size
    cdef size_t stride
    cdef char *buffer
    cdef size_t room             # for what the kernel says beside the bytes
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
    cdef readonly object drops
    cdef readonly bint cut

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
        for i in range(limit):
            header = &self.messages[i].msg_hdr
            header.msg_namelen = NAME
            header.msg_control = self.control[i]
            header.msg_controllen = self.room
        while True:
            n = recvmmsg(self.fd, self.messages, limit, MSG_DONTWAIT, NULL)
            if n >= 0:
                break
            if errno == EAGAIN:
                return []
            if errno != EINTR:
                raise OSError(errno, os.strerror(errno))
        received = []
        self.cut = False
        for i in range(n):
            header = &self.messages[i].msg_hdr
            data = PyBytes_FromStringAndSize(<char *>self.pieces[i].iov_base, self.messages[i].msg_len)
            self.places[i].local = 0
            if header.msg_controllen:
                self.read_control(&self.places[i], header)
            request = Datagram((data, sock))
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
        cdef unsigned int number
        place.size = size
        if size < 2:
            return None
        place.family = (<sockaddr_in *>place.name).sin_family
        place.hash = hash_of(place.name, size)
        if place.local:
            place.hash ^= hash_of(place.info, place.local)
        number = place.hash & (ENTRIES - 1)
        entry = self.entries[number]
        if entry is not NULL and is_same_place(&entry.place, place):
            return <object>entry.address
        address = address_in(place, self.local)
        if address is None:
            return None
        if entry is NULL:
            entry = <Entry *>calloc(1, sizeof(Entry))
            if entry is NULL:
                raise MemoryError
            self.entries[number] = entry
        else:
            self.found[place_in_found(entry.address)] = NULL
            Py_XDECREF(entry.address)
        note_place(&entry.place, place)
        entry.address = <PyObject *>address
        Py_INCREF(address)
        self.found[place_in_found(entry.address)] = entry
        return address

    cdef Entry *entry_of(self, PyObject *address) noexcept:
        """The entry of an address that came from here; NULL if the cache has dropped it."""
        cdef Entry *entry = self.found[place_in_found(address)]
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


cdef class Batch:
    """Datagrams that were received together, and how many of them have been taken."""

    cdef list received
    cdef Py_ssize_t taken

    def __cinit__(self, list received):
        self.received = received


cdef class Run:
    """Handles the datagrams of a batch, one after the other, with nothing around each.

    `handler(request, address, server)` is called in a context of its own; `on_error(request, address,
    error)` with what it raises. `request` and `address` are those of the handler that runs. Whoever
    makes an entry for it sets `noted`; then `on_end(request)` is called at its end. `runner` is the
    thread or fiber.
    """

    cdef Exchange exchange
    cdef Batch batch
    cdef object handler, server, on_error, on_end
    cdef readonly object request, address
    cdef public object runner
    cdef public bint noted
    cdef Py_ssize_t counted

    def __init__(self, Exchange exchange, received, handler, server, on_error, on_end):
        self.exchange = exchange
        self.batch = Batch(received)
        self.handler, self.server = handler, server
        self.on_error, self.on_end = on_error, on_end

    def successor(self):
        """Another run, for what is left of the same batch: this one may wait in a handler."""
        cdef Run run = Run.__new__(Run)
        run.exchange, run.batch = self.exchange, self.batch
        run.handler, run.server = self.handler, self.server
        run.on_error, run.on_end = self.on_error, self.on_end
        return run

    @property
    def left(self):
        """How many datagrams no handler has begun with."""
        return len(self.batch.received) - self.batch.taken

    def count(self):
        """How many handlers this run has begun with since the last call."""
        cdef Py_ssize_t counted = self.counted
        self.counted = 0
        return counted

    def handle(self):
        """Handle what is left."""
        cdef Batch batch = self.batch
        cdef Exchange exchange = self.exchange
        cdef PyObject *arguments[4]
        cdef Py_ssize_t n = len(batch.received)
        cdef tuple pair
        exchange.hold(n)
        try:
            while batch.taken < n:
                pair = <tuple>batch.received[batch.taken]
                batch.received[batch.taken] = None     # a handler that waits keeps no others alive
                batch.taken += 1
                self.counted += 1
                request = self.request = pair[0]
                address = self.address = pair[1]
                exchange.request, exchange.address = <PyObject *>request, <PyObject *>address
                arguments[1] = <PyObject *>request
                arguments[2] = <PyObject *>address
                arguments[3] = <PyObject *>self.server
                try:
                    context = PyContext_CopyCurrent()
                    PyContext_Enter(context)
                    try:
                        PyObject_Vectorcall(self.handler, arguments + 1, 3, NULL)
                    finally:
                        PyContext_Exit(context)
                except Exception as error:
                    self.on_error(request, address, error)
                finally:
                    self.request = self.address = None
                    if self.noted:
                        self.noted = False
                        self.on_end(request)
        finally:
            for error, request, address in exchange.release():
                reference.report(self.on_error, request, address, error)


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
