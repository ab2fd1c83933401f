/* Echoed messages, and connections that are only held. */
#include "load.h"
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void begin_message(struct connection *c) {
    c->sent = c->got = 0;
    c->serial++;
    if (message_bytes <= STAMPED_BYTES)
        stamp(c->message, c->serial);
    c->started = now();
    send_more(c);
}

static void receive_more(struct connection *c) {
    while (c->fd >= 0) {
        ssize_t n = transport_receive(c, received, sizeof received);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (n <= 0) {
            if (n == 0)
                errno = 0;
            connection_failed(c, n ? "receive failed" : "closed by the server");
            return;
        }
        if (c->got + (size_t)n > message_bytes) {
            errno = EBADMSG;
            connection_failed(c, "more came back than was sent");
            return;
        }
        /* Large messages are compared only during warm-up: the comparison must not limit the load. */
        if ((message_bytes <= STAMPED_BYTES || c->serial < 3) &&
            memcmp(received, c->message + c->got, (size_t)n)) {
            errno = EBADMSG;
            connection_failed(c, "something else came back than was sent");
            return;
        }
        c->got += (size_t)n;
        if (c->got == message_bytes) {
            count(c->started, &c->own);
            begin_message(c);   /* c->got is 0 from here on */
        }
        if (transport_is_drained(c, (size_t)n))
            return;
    }
}

struct connection *open_echo(int epoll) {
    struct connection *all = calloc((size_t)options.connections, sizeof *all);
    char *shared = message_bytes > STAMPED_BYTES ? new_message(0) : NULL;
    for (int i = 0; i < options.connections; i++) {
        all[i].message = shared ? shared : new_message(i);
        open_connection(&all[i]);
        set_nonblocking(all[i].fd);
        watch(epoll, &all[i]);
    }
    return all;
}

void begin_echo(struct connection *all) {
    for (int i = 0; i < options.connections; i++)
        begin_message(&all[i]);
}

void go_on_with_echo(struct epoll_event *event) {
    struct connection *c = event->data.ptr;
    if (event->events & EPOLLOUT)
        send_more(c);
    if (event->events & ~(uint32_t)EPOLLOUT)
        receive_more(c);
}

void end_echo(struct connection *all) {
    result.fewest = UINT64_MAX;
    for (int i = 0; i < options.connections; i++) {
        result.fewest = all[i].own < result.fewest ? all[i].own : result.fewest;
        result.most = all[i].own > result.most ? all[i].own : result.most;
        result.starved += all[i].serial < 2;
        if (all[i].fd >= 0)
            transport_close(&all[i]);
    }
}

void run_echo(void) {
    struct connection *idle = open_idle();
    int epoll = epoll_create1(0);
    struct connection *all = open_echo(epoll);
    begin_window();
    begin_echo(all);
    static struct epoll_event events[EVENTS];
    while (running()) {
        int n = wait_for_events(epoll, events);
        for (int i = 0; i < n; i++)
            go_on_with_echo(&events[i]);
    }
    end_echo(all);
    close_idle(idle);
}

void run_hold(void) {
    struct connection *idle = open_idle();
    printf("{\"held\": %d}\n", options.idle);
    fflush(stdout);
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    poll(&input, 1, (int)(options.seconds * 1000));
    close_idle(idle);
}
