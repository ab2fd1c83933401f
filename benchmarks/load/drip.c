/* Echoed messages among clients that drip: each sends a byte a second, of a line that never ends.
 *
 * The good connections are measured while all others drip. The server must cut the dripping ones when
 * they are due, not before, and not much later; until then the good ones continue.
 */
#include "load.h"
#include <stdlib.h>
#include <sys/socket.h>

static const double EARLY = 0.1;        /* seconds: tolerance for the clock */
static const double PATIENCE = 3;       /* seconds after the last one was due */

static struct {
    struct connection *all;
    int left;                   /* not yet cut */
    uint64_t sent;              /* bytes of all drips, in turn */
    uint64_t began;
} drips;

static int is_drip(struct connection *c) {
    return c >= drips.all && c < drips.all + options.drips;
}

static uint64_t due(struct connection *c) {
    return c->started + (uint64_t)(options.due * 1e9);
}

static void open_drips(int epoll) {
    drips.all = calloc((size_t)options.drips + 1, sizeof *drips.all);
    for (int i = 0; i < options.drips; i++) {
        struct connection *c = &drips.all[i];
        open_connection(c);
        c->started = now();
        set_nonblocking(c->fd);
        watch(epoll, c);
    }
    drips.left = options.drips;
    drips.began = now();
}

/* The server has closed it: check the time. */
static void was_cut(struct connection *c) {
    double late = ((double)now() - (double)due(c)) / 1e9;
    if (late < -EARLY)
        failed("a drip was cut %.2f s before it was due", -late);
    if (late > result.last_cut)
        result.last_cut = late;
    drips.left--;
    transport_close(c);
}

static void look_at_drip(struct connection *c) {
    ssize_t n = c->fd < 0 ? -1 : transport_receive(c, received, sizeof received);
    if (c->fd < 0 || (n < 0 && errno == EAGAIN))
        return;
    if (n > 0)
        failed("a drip got an answer before its line had ended");
    was_cut(c);
}

/* Send the bytes that are due since the last call, at a byte a second for each drip. */
static void let_drip(void) {
    uint64_t wanted = (uint64_t)((double)(now() - drips.began) / 1e9 * options.drips);
    for (; drips.sent < wanted; drips.sent++) {
        struct connection *c = &drips.all[drips.sent % (uint64_t)options.drips];
        if (c->fd >= 0 && transport_send(c, "x", 1) < 0 && errno != EAGAIN)
            was_cut(c);
    }
}

static void go_on(int epoll) {
    static struct epoll_event events[EVENTS];
    let_drip();
    int n = wait_for_events(epoll, events);
    for (int i = 0; i < n; i++)
        if (is_drip(events[i].data.ptr))
            look_at_drip(events[i].data.ptr);
        else
            go_on_with_echo(&events[i]);
}

void run_drip(void) {
    int epoll = epoll_create1(0);
    open_drips(epoll);
    struct connection *good = open_echo(epoll);
    begin_window();
    if (options.drips && result.ends > due(&drips.all[0])) {
        errno = ETIME;
        give_up("the drips are due before the measured time ends: make it shorter");
    }
    begin_echo(good);
    while (running())
        go_on(epoll);
    if (options.drips) {
        uint64_t last = due(&drips.all[options.drips - 1]) + (uint64_t)(PATIENCE * 1e9);
        while (drips.left && now() < last && result.errors < MAX_ERRORS)
            go_on(epoll);
        if (drips.left)
            failed("%d drips were not cut within %.0f s of being due", drips.left, PATIENCE);
    }
    end_echo(good);
}
