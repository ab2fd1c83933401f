/* load - the clients of the benchmarks: many connections, one thread, epoll, no dependencies.
 *
 * It speaks to loopback addresses only, is bounded in count and in time, ends by itself and prints
 * one JSON line. Every small reply is compared with what was sent; a server that answers anything
 * else has not been fast, it has failed.
 *
 *   load echo     N connections; each sends a message of B bytes and waits for its echo, over and
 *                 over. It sends and receives at the same time, so B may exceed all socket buffers.
 *                 With --lines K a message is K lines of B bytes each, sent in one segment
 *                 (ping-pong, pipelined and large are this mode with different sizes). With --idle M,
 *                 M connections are first opened, used once, and kept open the whole time.
 *   load hold     open M connections, use each once, print {"held": M}, then wait for end of file
 *                 on standard input while somebody looks at the server.
 *   load connect  N at a time: connect, one request, its reply, reset. A reset (SO_LINGER of 0)
 *                 leaves no TIME_WAIT, so that ports do not run out.
 *   load udp      N sockets keep W datagrams of B bytes in flight each.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_FDS = 20000,
    MAX_CONNECTIONS = MAX_FDS - 64,
    MAX_SECONDS = 600,
    MAX_WINDOW = 256,
    MAX_ERRORS = 100,           /* after which a run is given up */
    SET_UP_SECONDS = 120,       /* for opening all connections */
    STAMPED_BYTES = 16 << 10,   /* messages up to this size are unique and compared every time */
    RECEIVE_BYTES = 256 << 10,
    MAX_MESSAGE_BYTES = 64 << 20,
    EVENTS = 1024,
};

static struct {
    const char *mode, *host;
    int port, connections, idle, lines, window;
    size_t bytes;
    double seconds, warmup;
} options = {.host = "127.0.0.1", .connections = 64, .lines = 1, .window = 32, .bytes = 128,
             .seconds = 2, .warmup = 0.3};

static struct sockaddr_in server;
static size_t message_bytes;    /* of one message: bytes x lines */
static char received[RECEIVE_BYTES];

/* ------------------------------------------------------------------ time, results */

static uint64_t now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

static struct {
    uint64_t begins, ends;      /* the measured window; replies outside of it do not count */
    uint64_t messages, lost;
    uint64_t fewest, most;      /* messages of one connection: shows unfairness */
    int starved;                /* connections that never got a whole reply */
    double busy;                /* processor seconds of this process inside the window */
    int errors;
    char first_error[200];
} result;

static void failed(const char *format, ...) {
    if (result.errors++ == 0) {
        va_list values;
        va_start(values, format);
        vsnprintf(result.first_error, sizeof result.first_error, format, values);
        va_end(values);
    }
}

static void give_up(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* Latencies in nanoseconds, in buckets of 1/64 of a power of two (1.6 %). */
enum { SUB_BITS = 6, BUCKETS = 64 << SUB_BITS };
static uint64_t histogram[BUCKETS];

static unsigned bucket_of(uint64_t value) {
    if (value < 1u << SUB_BITS)
        return (unsigned)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - SUB_BITS;
    return ((shift + 1) << SUB_BITS) + (unsigned)((value >> shift) & ((1u << SUB_BITS) - 1));
}

static double bucket_value(unsigned bucket) {
    if (bucket < 1u << SUB_BITS)
        return bucket;
    unsigned shift = (bucket >> SUB_BITS) - 1;
    uint64_t start = ((1u << SUB_BITS) + (bucket & ((1u << SUB_BITS) - 1)));
    return (double)(start << shift);
}

static double quantile_us(double share) {
    uint64_t seen = 0, wanted = (uint64_t)(share * (double)result.messages);
    for (unsigned bucket = 0; bucket < BUCKETS; bucket++) {
        seen += histogram[bucket];
        if (seen > wanted)
            return bucket_value(bucket) / 1000.0;
    }
    return 0;
}

static double processor_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void begin_window(void) {
    result.begins = now() + (uint64_t)(options.warmup * 1e9);
    result.ends = result.begins + (uint64_t)(options.seconds * 1e9);
}

/* True while the run goes on; notes the processor time at the edge of the window. */
static int running(void) {
    static int begun;
    uint64_t at = now();
    if (!begun && at >= result.begins) {
        begun = 1;
        result.busy = -processor_seconds();
    }
    if (at < result.ends && result.errors < MAX_ERRORS)
        return 1;
    result.busy += processor_seconds();
    return 0;
}

/* Count one reply to what was sent at `started` (0: not known). */
static void count(uint64_t started, uint64_t *own) {
    uint64_t at = now();
    if (at < result.begins || at >= result.ends)
        return;
    result.messages++;
    if (started)
        histogram[bucket_of(at - started)]++;
    if (own)
        ++*own;
}

static void print_result(void) {
    double rate = (double)result.messages / options.seconds;
    for (char *c = result.first_error; *c; c++)
        if (*c == '"' || *c == '\\' || *c < ' ')
            *c = '\'';
    printf("{\"mode\": \"%s\", \"connections\": %d, \"idle\": %d, \"bytes\": %zu, \"lines\": %d, "
           "\"seconds\": %.3f, \"messages\": %llu, \"per_second\": %.1f, "
           "\"lines_per_second\": %.1f, \"bytes_per_second\": %.1f, "
           "\"p50_us\": %.1f, \"p99_us\": %.1f, \"fewest\": %llu, \"most\": %llu, "
           "\"starved\": %d, \"lost\": %llu, \"load_busy\": %.3f, \"errors\": %d, \"first_error\": \"%s\"}\n",
           options.mode, options.connections, options.idle, options.bytes, options.lines,
           options.seconds, (unsigned long long)result.messages, rate, rate * options.lines,
           rate * (double)message_bytes, quantile_us(0.50), quantile_us(0.99),
           (unsigned long long)result.fewest, (unsigned long long)result.most, result.starved,
           (unsigned long long)result.lost, result.busy / options.seconds, result.errors,
           result.first_error);
}

/* ------------------------------------------------------------------ messages */

/* Lines of letters, so that every server mode can echo them: the last byte of each is LF. */
static char *new_message(int of) {
    char *message = malloc(message_bytes);
    if (!message)
        give_up("malloc");
    for (size_t i = 0; i < message_bytes; i++)
        message[i] = (char)('a' + (i + i / 4093 + (size_t)of) % 26);
    for (int line = 1; line <= options.lines; line++)
        message[options.bytes * (size_t)line - 1] = '\n';
    return message;
}

/* Make the message unlike its predecessor, so that a late or doubled reply is noticed. */
static void stamp(char *message, uint64_t serial) {
    for (size_t i = 0; i < 8 && i + 1 < options.bytes; i++, serial >>= 4)
        message[i] = "0123456789ABCDEF"[serial & 15];
}

/* ------------------------------------------------------------------ connections */

static void set_option(int fd, int level, int name, int value) {
    if (setsockopt(fd, level, name, &value, sizeof value))
        give_up("setsockopt");
}

static int open_connection(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0)
        give_up("socket");
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    struct timeval patience = {.tv_sec = 10};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(fd, (struct sockaddr *)&server, sizeof server))
        give_up("connect");
    return fd;
}

/* One message there and back, blocking. */
static void use_once(int fd, const char *message) {
    if (send(fd, message, message_bytes, MSG_NOSIGNAL) != (ssize_t)message_bytes)
        give_up("send of a first message");
    for (size_t got = 0; got < message_bytes;) {
        size_t room = message_bytes - got < RECEIVE_BYTES ? message_bytes - got : RECEIVE_BYTES;
        ssize_t n = recv(fd, received, room, 0);
        if (n == 0)
            errno = ECONNRESET;
        if (n <= 0)
            give_up("no reply to a first message");
        if (memcmp(received, message + got, (size_t)n)) {
            errno = EBADMSG;
            give_up("first reply");
        }
        got += (size_t)n;
    }
}

static int *open_idle(void) {
    int *fds = calloc((size_t)options.idle + 1, sizeof *fds);
    char *message = new_message(0);
    for (int i = 0; i < options.idle; i++) {
        fds[i] = open_connection();
        use_once(fds[i], message);
    }
    free(message);
    return fds;
}

/* How many of the idle connections the server has not kept open; closes them all. */
static void close_idle(int *fds) {
    for (int i = 0; i < options.idle; i++) {
        char byte;
        ssize_t n = recv(fds[i], &byte, 1, MSG_DONTWAIT);
        if (n >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) {
            result.lost++;
            failed("an idle connection did not stay silent and open");
        }
        close(fds[i]);
    }
    free(fds);
}

static int wait_for_events(int epoll, struct epoll_event *events) {
    int n = epoll_wait(epoll, events, EVENTS, 20);
    if (n < 0 && errno != EINTR)
        give_up("epoll_wait");
    return n;
}

static void watch(int epoll, int fd, void *data) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = data};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
        give_up("epoll_ctl");
}

/* ------------------------------------------------------------------ echo */

struct connection {
    int fd;
    char *message;
    size_t sent, got;
    uint64_t started, serial, own;
};

static void connection_failed(struct connection *c, const char *what) {
    failed("%s after %llu messages: %s", what, (unsigned long long)c->serial, strerror(errno));
    close(c->fd);
    c->fd = -1;
}

static void send_more(struct connection *c) {
    while (c->fd >= 0 && c->sent < message_bytes) {
        ssize_t n = send(c->fd, c->message + c->sent, message_bytes - c->sent,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) {
            if (errno != EAGAIN && errno != EWOULDBLOCK)
                connection_failed(c, "send failed");
            return;
        }
        c->sent += (size_t)n;
    }
}

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
        ssize_t n = recv(c->fd, received, sizeof received, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (n <= 0) {
            if (n == 0)
                errno = 0;
            connection_failed(c, n ? "receive failed" : "closed by the server");
            return;
        }
        if (c->got + (size_t)n > c->sent) {
            errno = EBADMSG;
            connection_failed(c, "more came back than was sent");
            return;
        }
        /* Large messages are compared while warming up only: it is the server that is measured. */
        if ((message_bytes <= STAMPED_BYTES || c->serial < 3) &&
            memcmp(received, c->message + c->got, (size_t)n)) {
            errno = EBADMSG;
            connection_failed(c, "something else came back than was sent");
            return;
        }
        c->got += (size_t)n;
        if (c->got == message_bytes) {
            count(c->started, &c->own);
            begin_message(c);
        }
        if ((size_t)n < sizeof received)
            return;             /* a short read has emptied the socket: edge-triggered is safe */
    }
}

static void run_echo(void) {
    int *idle = open_idle();
    struct connection *all = calloc((size_t)options.connections, sizeof *all);
    char *shared = message_bytes > STAMPED_BYTES ? new_message(0) : NULL;
    int epoll = epoll_create1(0);
    for (int i = 0; i < options.connections; i++) {
        all[i].fd = open_connection();
        all[i].message = shared ? shared : new_message(i);
        watch(epoll, all[i].fd, &all[i]);
    }
    begin_window();
    for (int i = 0; i < options.connections; i++)
        begin_message(&all[i]);
    static struct epoll_event events[EVENTS];
    while (running()) {
        int n = wait_for_events(epoll, events);
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT)
                send_more(c);
            if (events[i].events & ~(uint32_t)EPOLLOUT)
                receive_more(c);
        }
    }
    result.fewest = UINT64_MAX;
    for (int i = 0; i < options.connections; i++) {
        result.fewest = all[i].own < result.fewest ? all[i].own : result.fewest;
        result.most = all[i].own > result.most ? all[i].own : result.most;
        result.starved += all[i].serial < 2;
        if (all[i].fd >= 0)
            close(all[i].fd);
    }
    close_idle(idle);
}

/* ------------------------------------------------------------------ hold */

static void run_hold(void) {
    int *idle = open_idle();
    printf("{\"held\": %d}\n", options.idle);
    fflush(stdout);
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    poll(&input, 1, (int)(options.seconds * 1000));
    close_idle(idle);
}

/* ------------------------------------------------------------------ connect */

static void reset(struct connection *c) {
    struct linger at_once = {.l_onoff = 1};
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(c->fd);
    c->fd = -1;
}

static void begin_connection(int epoll, struct connection *c) {
    c->started = now();
    c->sent = c->got = 0;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        give_up("socket");
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS) {
        connection_failed(c, "connect failed");
        return;
    }
    watch(epoll, c->fd, c);
    send_more(c);               /* on loopback the connection mostly stands already */
}

static void run_connect(void) {
    struct connection *all = calloc((size_t)options.connections, sizeof *all);
    int epoll = epoll_create1(0);
    for (int i = 0; i < options.connections; i++)
        all[i].message = new_message(i);
    begin_window();
    for (int i = 0; i < options.connections; i++)
        begin_connection(epoll, &all[i]);
    static struct epoll_event events[EVENTS];
    while (running()) {
        int n = wait_for_events(epoll, events);
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            send_more(c);
            ssize_t bytes = c->fd < 0 ? 0 : recv(c->fd, received, sizeof received, 0);
            if (bytes < 0 && errno == EAGAIN)
                continue;
            if (c->fd >= 0 && bytes <= 0)
                connection_failed(c, "no reply");
            else if (bytes > 0) {
                if (c->got + (size_t)bytes > c->sent ||
                    memcmp(received, c->message + c->got, (size_t)bytes))
                    failed("something else came back than was sent");
                c->got += (size_t)bytes;
                if (c->got < message_bytes)
                    continue;
                count(c->started, NULL);
                reset(c);
            }
            begin_connection(epoll, c);
        }
        for (int i = 0; n == 0 && i < options.connections; i++)
            if (all[i].fd < 0)
                begin_connection(epoll, &all[i]);
    }
    for (int i = 0; i < options.connections; i++)
        if (all[i].fd >= 0)
            reset(&all[i]);
}

/* ------------------------------------------------------------------ udp */

struct flow {
    int fd, in_flight;
    uint64_t heard, own;
    struct mmsghdr out[MAX_WINDOW], in[MAX_WINDOW];
    struct iovec out_vector, in_vectors[MAX_WINDOW];
    char *message, *replies;
};

static void fill_window(struct flow *f) {
    int room = options.window - f->in_flight;
    if (room <= 0)
        return;
    int n = sendmmsg(f->fd, f->out, (unsigned)room, MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN && errno != ENOBUFS)
        failed("sendmmsg: %s", strerror(errno));
    if (n > 0)
        f->in_flight += n;
}

static void take_replies(struct flow *f) {
    int n = recvmmsg(f->fd, f->in, (unsigned)options.window, MSG_DONTWAIT, NULL);
    if (n < 0) {
        if (errno != EAGAIN)
            failed("recvmmsg: %s", strerror(errno));
        return;
    }
    for (int i = 0; i < n; i++) {
        if (f->in[i].msg_len != message_bytes ||
            memcmp(f->in_vectors[i].iov_base, f->message, message_bytes))
            failed("something else came back than was sent");
        count(0, &f->own);
    }
    f->heard = now();
    f->in_flight = f->in_flight > n ? f->in_flight - n : 0;
}

static struct flow *new_flow(int of) {
    struct flow *f = calloc(1, sizeof *f);
    f->fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (f->fd < 0 || connect(f->fd, (struct sockaddr *)&server, sizeof server))
        give_up("socket");
    f->message = new_message(of);
    f->replies = malloc(message_bytes * MAX_WINDOW);
    f->out_vector = (struct iovec){f->message, message_bytes};
    for (int i = 0; i < MAX_WINDOW; i++) {
        f->in_vectors[i] = (struct iovec){f->replies + message_bytes * (size_t)i, message_bytes};
        f->out[i].msg_hdr = (struct msghdr){.msg_iov = &f->out_vector, .msg_iovlen = 1};
        f->in[i].msg_hdr = (struct msghdr){.msg_iov = &f->in_vectors[i], .msg_iovlen = 1};
    }
    f->heard = now();
    return f;
}

static void run_udp(void) {
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
            if (looked - all[i]->heard > lost_after) {
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
    if (!result.messages)
        failed("no reply at all");
}

/* ------------------------------------------------------------------ command line */

static double number(const char *name, const char *text, double least, double most) {
    char *end;
    double value = strtod(text, &end);
    if (*end || !(value >= least && value <= most)) {
        fprintf(stderr, "load: --%s %s: give a number from %g to %g\n", name, text, least, most);
        exit(2);
    }
    return value;
}

static void read_options(int count, char **arguments) {
    enum { HOST, PORT, CONNECTIONS, IDLE, BYTES, LINES, WINDOW, SECONDS, WARMUP };
    static const struct {
        double least, most;
    } bounds[] = {{0, 0}, {1, 65535}, {1, MAX_CONNECTIONS}, {0, MAX_CONNECTIONS},
                  {2, MAX_MESSAGE_BYTES}, {1, 10000}, {1, MAX_WINDOW},
                  {0.01, MAX_SECONDS}, {0, 60}};
    static const struct option known[] = {
        {"host", 1, 0, HOST}, {"port", 1, 0, PORT}, {"connections", 1, 0, CONNECTIONS},
        {"idle", 1, 0, IDLE}, {"bytes", 1, 0, BYTES}, {"lines", 1, 0, LINES},
        {"window", 1, 0, WINDOW}, {"seconds", 1, 0, SECONDS}, {"warmup", 1, 0, WARMUP}, {0}};
    int which;
    while ((which = getopt_long(count, arguments, "", known, NULL)) != -1) {
        if (which == '?')
            exit(2);
        if (which == HOST) {
            options.host = optarg;
            continue;
        }
        double value = number(known[which].name, optarg, bounds[which].least, bounds[which].most);
        switch (which) {
        case PORT: options.port = (int)value; break;
        case CONNECTIONS: options.connections = (int)value; break;
        case IDLE: options.idle = (int)value; break;
        case BYTES: options.bytes = (size_t)value; break;
        case LINES: options.lines = (int)value; break;
        case WINDOW: options.window = (int)value; break;
        case SECONDS: options.seconds = value; break;
        case WARMUP: options.warmup = value; break;
        }
    }
    options.mode = optind == count - 1 ? arguments[optind] : "";
    message_bytes = options.bytes * (size_t)options.lines;
    if (options.idle + options.connections > MAX_CONNECTIONS || message_bytes > MAX_MESSAGE_BYTES) {
        fprintf(stderr, "load: at most %d connections and %d bytes a message\n", MAX_CONNECTIONS,
                MAX_MESSAGE_BYTES);
        exit(2);
    }
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    if (!options.port || inet_pton(AF_INET, options.host, &server.sin_addr) != 1 ||
        ntohl(server.sin_addr.s_addr) >> 24 != 127) {
        fprintf(stderr, "load: give --port, and as --host a loopback address (127.x.x.x)\n");
        exit(2);
    }
}

static void allow_descriptors(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < MAX_FDS) {
        limit.rlim_cur = limit.rlim_max < MAX_FDS ? limit.rlim_max : MAX_FDS;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int main(int count, char **arguments) {
    static const struct {
        const char *name;
        void (*run)(void);
    } modes[] = {{"echo", run_echo}, {"hold", run_hold}, {"connect", run_connect}, {"udp", run_udp}};
    read_options(count, arguments);
    allow_descriptors();
    alarm((unsigned)(SET_UP_SECONDS + options.warmup + options.seconds + 30));
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(options.mode, modes[i].name)) {
            modes[i].run();
            print_result();
            return 0;
        }
    fprintf(stderr, "usage: load --port P [options] echo|hold|connect|udp\n");
    return 2;
}
