# cython: binding=False
"""The compiled accepting in batches: all waiting connections, as fiber sockets.

It stands between a listener and the server that starts a fiber for each connection; `accepting.py` is
its reference.
"""
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINTR, errno
from posix.unistd cimport close
from everserve.fibers._sockets cimport adopt, fiber_socket_type
from everserve.fibers._transfer cimport raise_errno

cdef extern from *:
    """
    #include <arpa/inet.h>
    #include <fcntl.h>
    #include <netinet/in.h>
    #include <stddef.h>
    #include <sys/socket.h>
    #include <sys/un.h>
    """
    ctypedef unsigned int socklen_t
    struct sockaddr:
        unsigned short sa_family
    struct sockaddr_storage:
        pass
    struct in_addr:
        pass
    struct in6_addr:
        pass
    struct sockaddr_in:
        unsigned short sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        unsigned short sin6_port
        unsigned int sin6_flowinfo
        in6_addr sin6_addr
        unsigned int sin6_scope_id
    int accept4(int fd, sockaddr *address, socklen_t *size, int flags)
    int fcntl(int fd, int command, ...)
    const char *inet_ntop(int family, const void *source, char *target, socklen_t size)
    unsigned short ntohs(unsigned short port)
    unsigned int ntohl(unsigned int value)
    size_t UNIX_PATH "offsetof(struct sockaddr_un, sun_path)"
    enum:
        AF_INET
        AF_INET6
        AF_UNIX
        F_GETFL
        F_SETFL
        O_NONBLOCK
        SOCK_CLOEXEC
        SOCK_NONBLOCK
        SOCK_STREAM


def accept_many(int fd, int limit=100, cls=None):
    """Accept at most `limit` waiting connections: a list of (socket, address); may be empty.

    An error of accept(2) is raised if no connection was accepted before it, and else left to the
    next call.
    """
    cdef sockaddr_storage storage
    cdef socklen_t size
    cdef int accepted
    cdef list found = []
    if cls is None:
        cls = fiber_socket_type
    never_block(fd)
    while len(found) < limit:
        size = sizeof(sockaddr_storage)
        accepted = accept4(fd, <sockaddr *>&storage, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if accepted < 0:
            if errno == EINTR:
                PyErr_CheckSignals()
                continue
            if errno != EAGAIN and not found:
                raise_errno()
            break
        found.append(accepted_socket(cls, accepted, <sockaddr *>&storage, size))
    return found


cdef int never_block(int fd) except -1:
    """Make the listener non-blocking: each process that shares it may have changed its mode.

    An accept that blocks would hold the GIL, and so stop the whole process.
    """
    cdef int mode = fcntl(fd, F_GETFL)
    if mode < 0 or (not mode & O_NONBLOCK and fcntl(fd, F_SETFL, mode | O_NONBLOCK) < 0):
        raise_errno()
    return 0


cdef object accepted_socket(cls, int fd, sockaddr *address, socklen_t size):
    cdef int family = address.sa_family
    try:
        if cls is fiber_socket_type:
            sock = adopt(cls, fd, family, SOCK_STREAM, 0)
        else:
            sock = cls._adopt(fd, family, SOCK_STREAM, 0)
    except BaseException:
        close(fd)
        raise
    return sock, address_of(sock, address, size)


cdef object address_of(sock, sockaddr *address, socklen_t size):
    """The address of the peer, as `socket.accept` gives it."""
    cdef char text[64]
    cdef sockaddr_in *four
    cdef sockaddr_in6 *six
    if address.sa_family == AF_INET:
        four = <sockaddr_in *>address
        inet_ntop(AF_INET, &four.sin_addr, text, sizeof(text))
        return (<bytes>text).decode("ascii"), ntohs(four.sin_port)
    if address.sa_family == AF_INET6:
        six = <sockaddr_in6 *>address
        inet_ntop(AF_INET6, &six.sin6_addr, text, sizeof(text))
        return ((<bytes>text).decode("ascii"), ntohs(six.sin6_port),
                ntohl(six.sin6_flowinfo), six.sin6_scope_id)
    if address.sa_family == AF_UNIX and size <= UNIX_PATH:
        return ""
    try:
        return sock.getpeername()
    except OSError:
        return ""
