/* A library to preload: while it is armed, it fails some calls of the kernel's, chosen by a seed.

   Each function here stands before the one of libc. A fault is one that the manual page of the call
   allows; their number is bounded, so that a program which tries again gets on. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

static atomic_uint_fast64_t calls;
static atomic_int left;   /* faults that may still be made; 0: it is not armed */
static atomic_int made;
static uint64_t seed;
static unsigned int one_in;
static char only[64];     /* the one function that fails; empty: any */

void chaos_arm(uint64_t new_seed, unsigned int new_one_in, int most, const char *function)
{
    seed = new_seed;
    one_in = new_one_in;
    strncpy(only, function, sizeof(only) - 1);
    atomic_store(&calls, 0);
    atomic_store(&made, 0);
    atomic_store(&left, most);
}

int chaos_disarm(void)
{
    atomic_store(&left, 0);
    return atomic_load(&made);
}

/* Of the n-th call: splitmix64, so that a seed gives the same faults for the same calls. */
static uint64_t draw(void)
{
    uint64_t x = seed + atomic_fetch_add(&calls, 1) * 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* The error to fail with, or 0. */
static int fault(const char *function, const int *errors, size_t count)
{
    uint64_t drawn;
    if (atomic_load(&left) <= 0 || (only[0] && strcmp(only, function) != 0))
        return 0;
    drawn = draw();
    if (drawn % one_in != 0 || atomic_fetch_sub(&left, 1) <= 0)
        return 0;
    atomic_fetch_add(&made, 1);
    return errors[(drawn >> 32) % count];
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) \
        real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define MAY_FAIL(name, ...) \
    do { \
        const int errors[] = {__VA_ARGS__}; \
        int error = fault(name, errors, sizeof(errors) / sizeof(*errors)); \
        if (error) { \
            errno = error; \
            return -1; \
        } \
    } while (0)

/* EAGAIN, where the descriptor may say so; else a signal has come. */
static int again(int fd, int flags)
{
    return (flags & MSG_DONTWAIT) || (fcntl(fd, F_GETFL) & O_NONBLOCK) ? EAGAIN : EINTR;
}

int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
    REAL(accept4);
    MAY_FAIL("accept4", EMFILE, ENFILE, ENOBUFS, ENOMEM, ECONNABORTED, EINTR, again(fd, 0));
    return real(fd, address, size, flags);
}

ssize_t recv(int fd, void *buffer, size_t size, int flags)
{
    REAL(recv);
    MAY_FAIL("recv", again(fd, flags), again(fd, flags), EINTR, ECONNRESET, ETIMEDOUT, ENOMEM);
    return real(fd, buffer, size, flags);
}

ssize_t recvfrom(int fd, void *buffer, size_t size, int flags, struct sockaddr *address,
                 socklen_t *length)
{
    REAL(recvfrom);
    MAY_FAIL("recvfrom", again(fd, flags), EINTR, ENOMEM, ECONNREFUSED);
    return real(fd, buffer, size, flags, address, length);
}

ssize_t send(int fd, const void *data, size_t size, int flags)
{
    REAL(send);
    MAY_FAIL("send", again(fd, flags), again(fd, flags), EINTR, ECONNRESET, EPIPE, ENOBUFS);
    return real(fd, data, size, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    REAL(sendmsg);
    MAY_FAIL("sendmsg", again(fd, flags), EINTR, ECONNRESET, EPIPE, ENOBUFS);
    return real(fd, message, flags);
}

ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *address,
               socklen_t length)
{
    REAL(sendto);
    MAY_FAIL("sendto", again(fd, flags), EINTR, ENOBUFS, ECONNREFUSED);
    return real(fd, data, size, flags, address, length);
}

int epoll_ctl(int epfd, int operation, int fd, struct epoll_event *event)
{
    REAL(epoll_ctl);
    if (operation != EPOLL_CTL_DEL)  /* it needs no memory */
        MAY_FAIL("epoll_ctl", ENOMEM, ENOSPC);
    return real(epfd, operation, fd, event);
}

int epoll_wait(int epfd, struct epoll_event *events, int most, int timeout)
{
    REAL(epoll_wait);
    MAY_FAIL("epoll_wait", EINTR, ENOMEM);
    return real(epfd, events, most, timeout);
}

int poll(struct pollfd *fds, nfds_t count, int timeout)
{
    REAL(poll);
    MAY_FAIL("poll", EINTR, ENOMEM);
    return real(fds, count, timeout);
}

int eventfd(unsigned int initial, int flags)
{
    REAL(eventfd);
    MAY_FAIL("eventfd", EMFILE, ENFILE, ENOMEM);
    return real(initial, flags);
}

int socket(int family, int type, int protocol)
{
    REAL(socket);
    MAY_FAIL("socket", EMFILE, ENFILE, ENOBUFS, ENOMEM);
    return real(family, type, protocol);
}

int shutdown(int fd, int how)
{
    REAL(shutdown);
    MAY_FAIL("shutdown", ENOTCONN);
    return real(fd, how);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                   void *argument)
{
    static const int errors[] = {EAGAIN};
    int error = fault("pthread_create", errors, 1);
    REAL(pthread_create);
    return error ? error : real(thread, attributes, run, argument);
}
