# What the system calls of datagrams take and give, and the place that a reply goes to.
from libc.string cimport memcmp, memcpy

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

cdef enum:
    BATCH = 64                   # datagrams of one call: udp(7) takes as many segments at once
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
