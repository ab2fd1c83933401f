/* The limit: an echo server in C on edge-triggered epoll, one thread, no framework.
 *
 * Modes: echo; lines (each line is found, then all that a read brought leave together); udp
 * (recvmmsg and sendmmsg); collect (recvmmsg; a question is answered with how many have come). It is the upper bound for a Python server.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RECEIVE_BYTES = 256 << 10, EVENTS = 1024, BATCH = 64, DATAGRAM_BYTES = 2048 };

/* The bytes still to send to the peer, or (lines) the beginning of an unfinished line.
 * Most connections never allocate memory: replies are sent at once, from the shared buffer. */
struct connection {
    int fd;
    int blocked;                /* the peer does not read: `kept` waits to be sent */
    char *kept;
    size_t kept_bytes;
};

static char buffer[RECEIVE_BYTES];
static int lines;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void end(struct connection *c) {
    close(c->fd);
    free(c->kept);
    free(c);
}

static void keep(struct connection *c, const char *bytes, size_t count) {
    c->kept = realloc(c->kept, c->kept_bytes + count);
    if (!c->kept)
        fail("realloc");
    memcpy(c->kept + c->kept_bytes, bytes, count);
    c->kept_bytes += count;
}

/* Send what can be sent, keep the rest; 0 when the connection has failed. */
static int reply(struct connection *c, const char *bytes, size_t count) {
    ssize_t n = send(c->fd, bytes, count, MSG_NOSIGNAL);
    if (n < 0) {
        if (errno != EAGAIN)
            return 0;
        n = 0;
    }
    if ((size_t)n < count) {
        keep(c, bytes + n, count - (size_t)n);
        c->blocked = 1;
    }
    return 1;
}

static int send_kept(struct connection *c) {
    char *bytes = c->kept;
    size_t count = c->kept_bytes;
    c->kept = NULL;
    c->kept_bytes = 0;
    c->blocked = 0;
    int alive = reply(c, bytes, count);
    free(bytes);
    return alive;
}

/* The bytes up to the end of the last whole line, each line having been looked at. */
static size_t whole_lines(const char *bytes, size_t count) {
    const char *at = bytes, *found;
    while ((found = memchr(at, '\n', (size_t)(bytes + count - at))))
        at = found + 1;
    return (size_t)(at - bytes);
}

static int handle(struct connection *c, size_t count) {
    size_t whole = lines ? whole_lines(buffer, count) : count;
    int alive = 1;
    if (whole && c->kept_bytes) {
        keep(c, buffer, whole);
        alive = send_kept(c);
    } else if (whole) {
        alive = reply(c, buffer, whole);
    }
    if (whole < count)
        keep(c, buffer + whole, count - whole);
    return alive;
}

static void serve(struct connection *c) {
    if (c->blocked && !send_kept(c)) {
        end(c);
        return;
    }
    while (!c->blocked) {
        ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0 || !handle(c, (size_t)n)) {
            end(c);
            return;
        }
        if ((size_t)n < sizeof buffer)
            return;             /* a short read has emptied the socket */
    }
}

static void accept_all(int epoll, int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (fd < 0)
            return;
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct connection *c = calloc(1, sizeof *c);
        c->fd = fd;
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
            fail("epoll_ctl");
    }
}

static void serve_streams(int listener) {
    static struct epoll_event events[EVENTS];
    int epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (listen(listener, 4096) || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event))
        fail("listen");
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < n; i++)
            if (events[i].data.ptr)
                serve(events[i].data.ptr);
            else
                accept_all(epoll, listener);
    }
}

static void serve_datagrams(int fd, int collects) {
    unsigned long count = 0;
    static struct mmsghdr messages[BATCH];
    static struct iovec vectors[BATCH];
    static struct sockaddr_in peers[BATCH];
    static char bytes[BATCH][DATAGRAM_BYTES];
    for (;;) {
        for (int i = 0; i < BATCH; i++) {
            vectors[i] = (struct iovec){bytes[i], DATAGRAM_BYTES};
            messages[i].msg_hdr = (struct msghdr){.msg_name = &peers[i],
                                                  .msg_namelen = sizeof peers[i],
                                                  .msg_iov = &vectors[i],
                                                  .msg_iovlen = 1};
        }
        int n = recvmmsg(fd, messages, BATCH, MSG_WAITFORONE, NULL);
        for (int i = 0; i < n && collects; i++) {
            count++;
            if (bytes[i][0] == '?') {
                int size = sprintf(bytes[i], "%lu", count);
                sendto(fd, bytes[i], (size_t)size, 0, (struct sockaddr *)&peers[i],
                       sizeof peers[i]);
            }
        }
        if (collects)
            continue;
        for (int i = 0; i < n; i++)
            vectors[i].iov_len = messages[i].msg_len;
        for (int sent = 0; sent < n;) {
            int m = sendmmsg(fd, messages + sent, (unsigned)(n - sent), 0);
            sent += m > 0 ? m : 1;
        }
    }
}

int main(int count, char **arguments) {
    int port = 0;
    const char *mode = "echo";
    for (int i = 1; i + 1 < count; i += 2) {
        if (!strcmp(arguments[i], "--port"))
            port = atoi(arguments[i + 1]);
        else if (!strcmp(arguments[i], "--mode"))
            mode = arguments[i + 1];
    }
    lines = !strcmp(mode, "lines");
    int collects = !strcmp(mode, "collect");
    int datagrams = collects || !strcmp(mode, "udp");
    int fd = datagrams ? socket(AF_INET, SOCK_DGRAM, 0) : socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((unsigned short)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) ||
        getsockname(fd, (struct sockaddr *)&address, &size))
        fail("bind");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    if (datagrams)
        serve_datagrams(fd, collects);
    else
        serve_streams(fd);
}
