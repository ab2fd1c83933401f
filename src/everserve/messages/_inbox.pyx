# cython: binding=False
"""The compiled inbox of a connection; `inbox.py` is its reference."""
from everserve.fibers._sockets cimport receive_now
from everserve.messages._replies cimport Replies
from everserve.wire._codec cimport decode_many

import socket

from everserve.errors import FrameError
from everserve.wire.codec import missing

cdef enum:
    READ_BYTES = 65536
    LONGEST_READ = 1 << 20

cdef int DONTWAIT = socket.MSG_DONTWAIT


cdef class Inbox:
    """What has come over one socket, and is not handled yet."""

    def __init__(self, sock, hub, parking):
        self.sock = sock
        self.hub = hub
        self.parking = parking

    cpdef tuple unread(self):
        """The part of a message that has come, and how many bytes are missing at least."""
        return None if self.rest is None else b"".join(self.rest), self.needed

    cpdef take_unread(self, rest, Py_ssize_t needed):
        """Go on with what `unread` of another inbox has returned."""
        self.rest = None if rest is None else [rest]
        self.needed = needed

    cpdef object serve(self, handler, replies, handle):
        """Handle what comes: see the reference."""
        served = None
        while True:
            data = self.receive()
            if data is None:
                return served
            if not data:
                if self.rest is not None:
                    refuse(handler, FrameError("the stream ended inside a message"), replies)
                return False
            if not self.take(data, handler, replies, handle):
                return False
            served = True

    cdef object receive(self):
        """What has come, `b""` at the end; None if it can be parked, and nothing is there."""
        cdef Py_ssize_t size = READ_BYTES
        if self.needed > READ_BYTES:
            size = min(self.needed, <Py_ssize_t>LONGEST_READ)
        if self.parking is None:
            return self.sock.recv(size)
        if self.hub is not None:
            return receive_now(self.sock, size)
        try:
            if self.sock.gettimeout() is not None and not self.parking.has_news(self.sock):
                raise BlockingIOError
            return self.sock.recv(size, DONTWAIT)
        except BlockingIOError:
            return self.sock.recv(size) if self.parking.linger(self.sock) else None

    cpdef bint take(self, bytes data, handler, replies, handle) except -1:
        """Handle the messages that are whole. False if the rest of the stream cannot be read."""
        cdef Py_ssize_t start = 0, end = 0, depth = handler.pipeline_depth
        cdef list messages
        if self.rest is not None:
            self.rest.append(data)
            self.needed -= len(data)
            if self.needed > 0:
                return True
            data = b"".join(self.rest)
            self.rest = None
            self.needed = 0
        codec = handler.codec
        while start < len(data):
            try:
                end = start
                messages = decode_many(codec, data, &end, depth)
            except FrameError as error:
                resumes_at = refuse(handler, error, replies)
                if resumes_at is None:
                    return False
                start = resumes_at
                continue
            if not messages:
                self.rest = [data[start:] if start else data]
                self.needed = missing(codec, data, start)
                return True
            start = end
            if answer(replies, messages, handle):
                self.rest = [data[start:]]  # where it goes on later, this is next
                return False
        return True


cdef bint answer(replies, list messages, handle) except -1:
    """Have messages handled, and replies sent; true if no more are to be handled."""
    cdef Replies ours
    if type(replies) is Replies:         # a call in C, instead of by name
        ours = <Replies>replies
        ours.answer(messages, handle)
        return ours.stopped
    replies.answer(messages, handle)
    return replies.stopped


cdef object refuse(handler, error, replies):
    """Have the handler decide about bytes that are no message."""
    replies.add(handler.on_bad_message(error))
    replies.flush()
    return error.resumes_at
