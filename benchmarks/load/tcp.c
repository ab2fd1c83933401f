/* A connection in cleartext: its bytes are those of the socket. */
#include "load.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

void transport_prepare(void) {
    if (options.tls) {
        fprintf(stderr, "load: --tls: this program speaks no TLS, load-tls does\n");
        exit(2);
    }
}

void run_handshake(void) {
    fprintf(stderr, "load: handshake: this program speaks no TLS, load-tls does\n");
    exit(2);
}

void transport_open(struct connection *c) {
    (void)c;
}

ssize_t transport_send(struct connection *c, const char *bytes, size_t size) {
    return send(c->fd, bytes, size, 0);
}

ssize_t transport_receive(struct connection *c, char *bytes, size_t size) {
    return recv(c->fd, bytes, size, 0);
}

/* A short read has emptied the socket: the next event reports further bytes. */
int transport_is_drained(struct connection *c, size_t size) {
    (void)c;
    return size < RECEIVE_BYTES;
}

void transport_close(struct connection *c) {
    close(c->fd);
    c->fd = -1;
}
