/* Messages, connections and their events, for all modes. */
#include "load.h"
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

char received[RECEIVE_BYTES];

/* ------------------------------------------------------------------ messages */

enum { HEADER_BYTES = 4 };

/* Lines of letters, so that every server mode can echo them: the last byte of each is LF. With --framed
 * each begins with the length of what follows it, in network order, instead. */
char *new_message(int of) {
    char *message = malloc(message_bytes);
    if (!message)
        give_up("malloc");
    for (size_t i = 0; i < message_bytes; i++)
        message[i] = (char)('a' + (i + i / 4093 + (size_t)of) % 26);
    for (int line = 0; line < options.lines; line++) {
        char *first = message + options.bytes * (size_t)line;
        if (options.framed) {
            uint32_t length = htonl((uint32_t)(options.bytes - HEADER_BYTES));
            memcpy(first, &length, HEADER_BYTES);
        } else
            first[options.bytes - 1] = '\n';
    }
    return message;
}

/* Make each message differ from the previous one, so that a late or doubled reply is noticed. */
void stamp(char *message, uint64_t serial) {
    size_t header = options.framed ? HEADER_BYTES : 0;
    for (size_t i = header; i < header + 8 && i + 1 < options.bytes; i++, serial >>= 4)
        message[i] = "0123456789ABCDEF"[serial & 15];
}

/* ------------------------------------------------------------------ connections */

static void set_option(int fd, int level, int name, int value) {
    if (setsockopt(fd, level, name, &value, sizeof value))
        give_up("setsockopt");
}

void open_connection(struct connection *c) {
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0)
        give_up("socket");
    set_option(c->fd, IPPROTO_TCP, TCP_NODELAY, 1);
    struct timeval patience = {.tv_sec = 10};
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server))
        give_up("connect");
    transport_open(c);
}

void set_nonblocking(int fd) {
    if (fcntl(fd, F_SETFL, O_NONBLOCK))
        give_up("fcntl");
}

void connection_failed(struct connection *c, const char *what) {
    failed("%s after %llu messages: %s", what, (unsigned long long)c->serial, strerror(errno));
    transport_close(c);
}

void send_more(struct connection *c) {
    while (c->fd >= 0 && c->sent < message_bytes) {
        ssize_t n = transport_send(c, c->message + c->sent, message_bytes - c->sent);
        if (n < 0) {
            if (errno != EAGAIN && errno != EWOULDBLOCK)
                connection_failed(c, "send failed");
            return;
        }
        c->sent += (size_t)n;
    }
}

/* Close with a reset: no state lingers on either side. */
void reset(struct connection *c) {
    struct linger at_once = {.l_onoff = 1};
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    transport_close(c);
}

/* ------------------------------------------------------------------ idle connections */

/* One message there and back, blocking. */
static void use_once(struct connection *c) {
    for (c->sent = c->got = 0; c->sent < message_bytes;) {
        ssize_t n = transport_send(c, c->message + c->sent, message_bytes - c->sent);
        if (n <= 0)
            give_up("send of a first message");
        c->sent += (size_t)n;
    }
    while (c->got < message_bytes) {
        size_t left = message_bytes - c->got;
        ssize_t n = transport_receive(c, received, left < RECEIVE_BYTES ? left : RECEIVE_BYTES);
        if (n == 0)
            errno = ECONNRESET;
        if (n <= 0)
            give_up("no reply to a first message");
        if (memcmp(received, c->message + c->got, (size_t)n)) {
            errno = EBADMSG;
            give_up("first reply");
        }
        c->got += (size_t)n;
    }
}

struct connection *open_idle(void) {
    struct connection *idle = calloc((size_t)options.idle + 1, sizeof *idle);
    char *message = new_message(0);
    for (int i = 0; i < options.idle; i++) {
        idle[i].message = message;
        open_connection(&idle[i]);
        use_once(&idle[i]);
    }
    return idle;
}

/* Report the connections that the server has closed; close all of them. */
void close_idle(struct connection *idle) {
    for (int i = 0; i < options.idle; i++) {
        char byte;
        ssize_t n = recv(idle[i].fd, &byte, 1, MSG_DONTWAIT);
        if (n >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) {
            result.lost++;
            failed("an idle connection did not stay silent and open");
        }
        transport_close(&idle[i]);
    }
    free(idle);
}

/* ------------------------------------------------------------------ events */

int wait_for_events(int epoll, struct epoll_event *events) {
    int n = epoll_wait(epoll, events, EVENTS, 20);
    if (n < 0 && errno != EINTR)
        give_up("epoll_wait");
    return n;
}

void watch(int epoll, struct connection *c) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event))
        give_up("epoll_ctl");
}
