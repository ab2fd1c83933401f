/* Datagrams: N sockets, each with W of them in flight.
 *
 * In the mode collect only the last of a window is answered, by a collector that says how many datagrams
 * it has counted in all. */
#include "load.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct flow {
    int fd, in_flight;
    uint64_t last_reply, last_sent, own;
    struct mmsghdr out[MAX_WINDOW], in[MAX_WINDOW];
    struct iovec out_vector, question_vector, in_vectors[MAX_WINDOW];
    char *message, *question, *replies;
};

static int collects;                /* the mode is collect */
static uint64_t sent, collected;    /* in the mode collect */

static void fill_window(struct flow *f) {
    int room = options.window - f->in_flight;
    if (room <= 0 || (collects && f->in_flight))
        return;
    uint64_t before = now();
    int n = sendmmsg(f->fd, f->out, (unsigned)room, MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN && errno != ENOBUFS)
        failed("sendmmsg: %s", strerror(errno));
    if (n > 0) {
        f->last_sent = before;
        f->in_flight += n;
        sent += (uint64_t)n;
    }
}

/* The answer to the last of a window: how many the server has counted. */
static void take_count(struct flow *f, const char *reply, size_t size) {
    uint64_t counted = 0;
    for (size_t i = 0; i < size; i++) {
        if (reply[i] < '0' || reply[i] > '9')
            failed("something else came back than a count");
        counted = 10 * counted + (uint64_t)(reply[i] - '0');
    }
    if (counted > sent)
        failed("more were counted than sent");
    collected = counted > collected ? counted : collected;
    f->own += (uint64_t)options.window;
    f->in_flight = 0;
}

static void take_replies(struct flow *f) {
    int n = recvmmsg(f->fd, f->in, (unsigned)options.window, MSG_DONTWAIT, NULL);
    if (n < 0) {
        if (errno != EAGAIN)
            failed("recvmmsg: %s", strerror(errno));
        return;
    }
    f->last_reply = now();
    for (int i = 0; i < n; i++) {
        if (collects) {
            take_count(f, f->in_vectors[i].iov_base, f->in[i].msg_len);
            continue;
        }
        if (f->in[i].msg_len != message_bytes ||
            memcmp(f->in_vectors[i].iov_base, f->message, message_bytes))
            failed("something else came back than was sent");
        count(options.window == 1 ? f->last_sent : 0, &f->own);
    }
    f->in_flight = f->in_flight > n ? f->in_flight - n : 0;
}

static struct flow *new_flow(int of) {
    struct flow *f = calloc(1, sizeof *f);
    f->fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (f->fd < 0 || connect(f->fd, (struct sockaddr *)&server, sizeof server))
        give_up("socket");
    f->message = new_message(of);
    f->question = new_message(of);
    f->question[0] = '?';
    f->replies = malloc(message_bytes * MAX_WINDOW);
    f->out_vector = (struct iovec){f->message, message_bytes};
    for (int i = 0; i < MAX_WINDOW; i++) {
        f->in_vectors[i] = (struct iovec){f->replies + message_bytes * (size_t)i, message_bytes};
        f->out[i].msg_hdr = (struct msghdr){.msg_iov = &f->out_vector, .msg_iovlen = 1};
        f->in[i].msg_hdr = (struct msghdr){.msg_iov = &f->in_vectors[i], .msg_iovlen = 1};
    }
    if (collects) {
        f->question_vector = (struct iovec){f->question, message_bytes};
        f->out[options.window - 1].msg_hdr.msg_iov = &f->question_vector;
    }
    f->last_reply = now();
    return f;
}

void run_udp(void) {
    struct flow **all = calloc((size_t)options.connections, sizeof *all);
    int epoll = epoll_create1(0);
    for (int i = 0; i < options.connections; i++) {
        all[i] = new_flow(i);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = all[i]};
        epoll_ctl(epoll, EPOLL_CTL_ADD, all[i]->fd, &event);
    }
    begin_window();
    for (int i = 0; i < options.connections; i++)
        fill_window(all[i]);
    static struct epoll_event events[EVENTS];
    const uint64_t lost_after = 50 * 1000000;   /* nanoseconds of silence */
    uint64_t looked = now();
    while (running()) {
        int n = wait_for_events(epoll, events);
        for (int i = 0; i < n; i++) {
            take_replies(events[i].data.ptr);
            fill_window(events[i].data.ptr);
        }
        if (now() - looked < lost_after)
            continue;
        looked = now();
        for (int i = 0; i < options.connections; i++)
            if (looked - all[i]->last_reply > lost_after) {
                result.lost += (uint64_t)all[i]->in_flight;
                all[i]->in_flight = 0;
                fill_window(all[i]);
            }
    }
    result.fewest = UINT64_MAX;
    for (int i = 0; i < options.connections; i++) {
        result.fewest = all[i]->own < result.fewest ? all[i]->own : result.fewest;
        result.most = all[i]->own > result.most ? all[i]->own : result.most;
    }
    if (collects) {
        result.messages = collected;
        result.lost = sent - collected;
    }
    if (!result.messages)
        failed("no reply at all");
}

void run_collect(void) {
    collects = 1;
    run_udp();
}
