/* The command line.
 *
 *   load echo     N connections; each sends a message of B bytes and waits for its echo, over and
 *                 over. It sends and receives at the same time, so B may exceed all socket buffers.
 *                 With --lines K a message is K lines of B bytes each, sent in one segment
 *                 (ping-pong, pipelined and large are this mode with different sizes); with --framed 1
 *                 each is a frame, which begins with the four bytes of its length. With --idle M,
 *                 M connections are first opened, used once, and kept open the whole time.
 *   load drip     as echo, among --drips D connections that send a byte a second each, of a line that
 *                 never ends, until the server cuts them, --due S seconds after they were opened.
 *   load hold     open M connections, use each once, print {"held": M}, then wait for end of file
 *                 on standard input while the runner measures the server.
 *   load connect  N at a time: connect, one request, its reply, close. In cleartext the close is a
 *                 reset (SO_LINGER of 0), which leaves no TIME_WAIT, so that ports do not run out.
 *   load handshake  as connect, with a full handshake of TLS before, and close_notify at the end.
 *   load refused  N at a time: connect; the server must close without sending a byte. With --idle M,
 *                 M connections are first opened, used once, and kept open: they fill the server.
 *   load udp      N sockets keep W datagrams of B bytes in flight each.
 *   load collect  the same, but only the last of each W is answered, with how many have been counted.
 *
 * --tls CIPHER is required in the program for TLS, and only there: version 1.3, this cipher suite.
 */
#include "load.h"
#include <arpa/inet.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

struct options options = {.host = "127.0.0.1", .connections = 64, .lines = 1, .window = 32,
                          .bytes = 128, .seconds = 2, .warmup = 0.3, .due = 5};
struct sockaddr_in server;
size_t message_bytes;

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
    enum { HOST, TLS, PORT, CONNECTIONS, IDLE, DRIPS, BYTES, LINES, WINDOW, SECONDS, WARMUP, DUE,
           FRAMED };
    static const struct {
        double least, most;
    } bounds[] = {{0, 0}, {0, 0}, {1, 65535}, {1, MAX_CONNECTIONS}, {0, MAX_CONNECTIONS},
                  {0, MAX_CONNECTIONS}, {2, MAX_MESSAGE_BYTES}, {1, 10000}, {1, MAX_WINDOW},
                  {0.01, MAX_SECONDS}, {0, 60}, {0.1, 60}, {0, 1}};
    static const struct option known[] = {
        {"host", 1, 0, HOST}, {"tls", 1, 0, TLS}, {"port", 1, 0, PORT},
        {"connections", 1, 0, CONNECTIONS}, {"idle", 1, 0, IDLE}, {"drips", 1, 0, DRIPS},
        {"bytes", 1, 0, BYTES}, {"lines", 1, 0, LINES}, {"window", 1, 0, WINDOW},
        {"seconds", 1, 0, SECONDS}, {"warmup", 1, 0, WARMUP}, {"due", 1, 0, DUE},
        {"framed", 1, 0, FRAMED}, {0}};
    int which;
    while ((which = getopt_long(count, arguments, "", known, NULL)) != -1) {
        if (which == '?')
            exit(2);
        if (which == HOST || which == TLS) {
            *(which == HOST ? &options.host : &options.tls) = optarg;
            continue;
        }
        double value = number(known[which].name, optarg, bounds[which].least, bounds[which].most);
        switch (which) {
        case PORT: options.port = (int)value; break;
        case CONNECTIONS: options.connections = (int)value; break;
        case IDLE: options.idle = (int)value; break;
        case DRIPS: options.drips = (int)value; break;
        case BYTES: options.bytes = (size_t)value; break;
        case LINES: options.lines = (int)value; break;
        case WINDOW: options.window = (int)value; break;
        case SECONDS: options.seconds = value; break;
        case WARMUP: options.warmup = value; break;
        case DUE: options.due = value; break;
        case FRAMED: options.framed = (int)value; break;
        }
    }
    options.mode = optind == count - 1 ? arguments[optind] : "";
    message_bytes = options.bytes * (size_t)options.lines;
    if (options.idle + options.drips + options.connections > MAX_CONNECTIONS ||
        message_bytes > MAX_MESSAGE_BYTES) {
        fprintf(stderr, "load: at most %d connections and %d bytes a message\n", MAX_CONNECTIONS,
                MAX_MESSAGE_BYTES);
        exit(2);
    }
    if (options.framed && options.bytes < 6) {
        fprintf(stderr, "load: a frame has at least 6 bytes\n");
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
    } modes[] = {{"echo", run_echo},       {"drip", run_drip},       {"hold", run_hold},
                 {"connect", run_connect}, {"refused", run_refused}, {"udp", run_udp},
                 {"collect", run_collect}, {"handshake", run_handshake}};
    read_options(count, arguments);
    allow_descriptors();
    signal(SIGPIPE, SIG_IGN);
    alarm((unsigned)(SET_UP_SECONDS + options.warmup + options.seconds + 30));
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(options.mode, modes[i].name)) {
            transport_prepare();
            modes[i].run();
            print_result();
            return 0;
        }
    fprintf(stderr, "usage: load --port P [options] echo|drip|hold|connect|refused|udp|collect|"
                    "handshake\n");
    return 2;
}
