/* Short connections: they end after one request, or before it. */
#include "load.h"
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static void begin_connection(int epoll, struct connection *c, step *begun) {
    c->started = now();
    c->sent = c->got = 0;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        give_up("socket");
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS) {
        connection_failed(c, "connect failed");
        return;
    }
    watch(epoll, c);
    begun(c);                   /* on loopback it is usually connected already */
}

void run_connections(size_t size, step *begun, step *go_on) {
    struct connection **all = calloc((size_t)options.connections, sizeof *all);
    int epoll = epoll_create1(0);
    for (int i = 0; i < options.connections; i++) {
        all[i] = calloc(1, size);
        all[i]->message = new_message(i);
    }
    begin_window();
    for (int i = 0; i < options.connections; i++)
        begin_connection(epoll, all[i], begun);
    static struct epoll_event events[EVENTS];
    while (running()) {
        int n = wait_for_events(epoll, events);
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            go_on(c);
            if (c->fd < 0)
                begin_connection(epoll, c, begun);
        }
        for (int i = 0; n == 0 && i < options.connections; i++)
            if (all[i]->fd < 0)
                begin_connection(epoll, all[i], begun);
    }
    for (int i = 0; i < options.connections; i++)
        if (all[i]->fd >= 0) {
            result.starved += now() - all[i]->started > (uint64_t)(options.seconds * 1e9 / 2);
            reset(all[i]);
        }
}

/* ------------------------------------------------------------------ connect */

static void send_request(struct connection *c) {
    transport_open(c);
    send_more(c);
}

static void take_reply(struct connection *c) {
    send_more(c);
    while (c->fd >= 0) {
        ssize_t n = transport_receive(c, received, sizeof received);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            connection_failed(c, "no reply");
            return;
        }
        if (c->got + (size_t)n > message_bytes || memcmp(received, c->message + c->got, (size_t)n)) {
            errno = EBADMSG;
            connection_failed(c, "something else came back than was sent");
            return;
        }
        c->got += (size_t)n;
        if (c->got == message_bytes) {
            count(c->started, NULL);
            reset(c);
        }
    }
}

void run_connect(void) {
    run_connections(sizeof(struct connection), send_request, take_reply);
}

/* ------------------------------------------------------------------ refused */

static void nothing(struct connection *c) {
    (void)c;
}

static void expect_end(struct connection *c) {
    ssize_t n = recv(c->fd, received, sizeof received, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n == 0 || (n < 0 && errno == ECONNRESET)) {
        count(c->started, NULL);
        reset(c);               /* else TIME_WAIT uses up the ports */
    } else {
        errno = n > 0 ? EBADMSG : errno;
        connection_failed(c, "instead of being refused");
    }
}

void run_refused(void) {
    struct connection *idle = open_idle();
    run_connections(sizeof(struct connection), nothing, expect_end);
    close_idle(idle);
}
