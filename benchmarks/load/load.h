/* load - the clients of the benchmarks: many connections, one thread, epoll.
 *
 * It connects to loopback addresses only, is bounded in count and in time, ends by itself and prints
 * one JSON line. Every small reply is compared with the request; a server that sends anything else has
 * failed, however fast it is.
 *
 * Two programs are built from these files: `load` with tcp.c, which needs no library, and `load-tls`
 * with tls.c instead, which needs OpenSSL.
 */
#ifndef LOAD_H
#define LOAD_H

#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/types.h>

enum {
    MAX_FDS = 20000,
    MAX_CONNECTIONS = MAX_FDS - 64,
    MAX_SECONDS = 600,
    MAX_WINDOW = 256,
    MAX_ERRORS = 100,           /* after these a run ends */
    SET_UP_SECONDS = 120,       /* for opening all connections */
    STAMPED_BYTES = 16 << 10,   /* messages up to this size are unique and compared every time */
    RECEIVE_BYTES = 256 << 10,
    MAX_MESSAGE_BYTES = 64 << 20,
    EVENTS = 1024,
};

struct options {
    const char *mode, *host, *tls;
    int port, connections, idle, drips, lines, window, framed;
    size_t bytes;
    double seconds, warmup, due;
};

struct connection {
    int fd;
    void *tls;                  /* of tls.c */
    char *message;
    size_t sent, got;
    uint64_t started, serial, own;
};

/* main.c */
extern struct options options;
extern struct sockaddr_in server;
extern size_t message_bytes;    /* of one message: bytes x lines */

/* result.c: the clock, the measured window, and its results */
extern struct result {
    uint64_t begins, ends;      /* the measured window; replies outside of it do not count */
    uint64_t messages, lost;
    uint64_t fewest, most;      /* messages of one connection: shows unfairness */
    int starved;                /* connections that never got a whole reply */
    double busy;                /* processor seconds of this process inside the window */
    double last_cut;            /* drips: seconds from when one was due to when it was cut, the most */
    int errors;
    char first_error[200];
} result;

uint64_t now(void);                                 /* nanoseconds */
void begin_window(void);
int running(void);                                  /* true until the end of the window */
void count(uint64_t started, uint64_t *own);        /* one reply to what was sent at `started` (0: unknown) */
void failed(const char *format, ...);               /* a failure of the server: a result */
void give_up(const char *what);                     /* the run cannot work: ends it, with errno */
void print_result(void);

/* connections.c: messages, connections, idle ones, events */
extern char received[RECEIVE_BYTES];

char *new_message(int of);
void stamp(char *message, uint64_t serial);
void open_connection(struct connection *c);         /* waits until it is connected */
void set_nonblocking(int fd);
void connection_failed(struct connection *c, const char *what);
void send_more(struct connection *c);
void reset(struct connection *c);
struct connection *open_idle(void);
void close_idle(struct connection *idle);
int wait_for_events(int epoll, struct epoll_event *events);
void watch(int epoll, struct connection *c);

/* tcp.c or tls.c: the bytes of a connection. Sending and receiving are as send(2) and recv(2). */
void transport_prepare(void);
void transport_open(struct connection *c);          /* its socket is connected, or connecting */
ssize_t transport_send(struct connection *c, const char *bytes, size_t size);
ssize_t transport_receive(struct connection *c, char *bytes, size_t size);
int transport_is_drained(struct connection *c, size_t size);   /* after that many came: no more now? */
void transport_close(struct connection *c);

/* the modes */
void run_echo(void);            /* echo.c */
void run_hold(void);
void run_drip(void);            /* drip.c */
void run_connect(void);         /* connect.c */
void run_refused(void);
void run_handshake(void);       /* handshake.c, where there is TLS */
void run_udp(void);             /* udp.c */
void run_collect(void);

/* echo.c: the connections of the mode echo, for the mode drip as well */
struct connection *open_echo(int epoll);
void begin_echo(struct connection *all);
void go_on_with_echo(struct epoll_event *event);
void end_echo(struct connection *all);

/* connect.c: N connections at a time, each followed by the next, for the mode handshake as well.
 *
 * A step closes the connection that has ended; `size` is the size of the struct that begins with it. A
 * connection that has waited for its end for half of the window is starved. */
typedef void step(struct connection *c);
void run_connections(size_t size, step *begun, step *go_on);

#endif
