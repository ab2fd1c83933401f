"""The replies of a batch that leave together: sendmmsg(2), UDP_SEGMENT.

The `Exchange` of a socket adds to it what its handlers send, and flushes it at the end of the batch.
"""
import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.errno cimport EAGAIN, EINTR, EINVAL, EIO, EMSGSIZE, errno
from libc.string cimport memcpy, memset
from posix.unistd cimport close, read
from everserve.sockets._messages cimport (
    BATCH, CLOCK_MONOTONIC, CMSG_DATA, CMSG_LEN, CMSG_SPACE, IPPROTO_IP, IPPROTO_IPV6,
    IPV6_PKTINFO, IP_PKTINFO, LARGEST_GROUP, MSG_DONTWAIT, PATIENCE, Place, SOL_UDP,
    TFD_CLOEXEC, UDP_SEGMENT, cmsghdr, everserve_alarm, everserve_load, everserve_store,
    in_pktinfo, is_same_place, memcpy, mmsghdr, msghdr, note_place, pthread_mutex_init,
    pthread_mutex_lock, pthread_mutex_trylock, pthread_mutex_unlock, sendmmsg, timerfd_create,
)

cdef int generation = 0          # of processes: fork(2) has left this one its thread alone


def _become_child():
    global generation
    generation += 1


os.register_at_fork(after_in_child=_become_child)


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

    cdef bint takes(self) noexcept:
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

    cdef bint may_segment(self, Reply *reply) noexcept nogil:
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
