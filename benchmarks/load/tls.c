/* A connection with TLS 1.3, by OpenSSL: one cipher suite, one group, and each handshake a full one.
 *
 * The server's signature is verified, as always in TLS 1.3. The certificate chain is not: the servers
 * are measured, not how fast clients build chains.
 */
#include "load.h"
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* Bytes of one system call, for large messages: an eighth less processor time for each than with the
 * 16 KiB of a record, and no more with 256 KiB. */
enum { BATCH_BYTES = 64 << 10 };

struct tls {
    SSL *ssl;
    BIO *out;                   /* gathers records, so that one send(2) takes them all */
    size_t sealed;              /* bytes of the message in records that wait there */
};

static SSL_CTX *context;
static size_t batch_bytes;

static void openssl_gave_up(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, ERR_reason_error_string(ERR_get_error()));
    exit(1);
}

void transport_prepare(void) {
    if (!options.tls) {
        fprintf(stderr, "load: this program speaks TLS only: give --tls CIPHER\n");
        exit(2);
    }
    context = SSL_CTX_new(TLS_client_method());
    if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) ||
        !SSL_CTX_set_ciphersuites(context, options.tls) ||
        !SSL_CTX_set1_groups_list(context, "X25519"))
        openssl_gave_up(options.tls);
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_read_ahead(context, 1);     /* else each record takes two system calls */
    batch_bytes = message_bytes < BATCH_BYTES ? message_bytes : BATCH_BYTES;
    if (message_bytes > STAMPED_BYTES)
        SSL_CTX_set_default_read_buffer_len(context, BATCH_BYTES);
}

void transport_open(struct connection *c) {
    struct tls *t = c->tls = calloc(1, sizeof *t);
    BIO *buffer = BIO_new(BIO_f_buffer()), *to = BIO_new_socket(c->fd, BIO_NOCLOSE);
    BIO *from = BIO_new_socket(c->fd, BIO_NOCLOSE);
    t->ssl = SSL_new(context);
    if (!t->ssl || !buffer || !to || !from || !SSL_set_tlsext_host_name(t->ssl, "localhost") ||
        !BIO_set_write_buffer_size(buffer, (long)batch_bytes + 8192))   /* what records add */
        openssl_gave_up("SSL_new");
    t->out = BIO_push(buffer, to);
    SSL_set_bio(t->ssl, from, t->out);
    SSL_set_connect_state(t->ssl);
}

/* The result of send(2) or recv(2) for a call of OpenSSL that has moved no byte. */
static ssize_t explained(struct connection *c, int returned) {
    switch (SSL_get_error(((struct tls *)c->tls)->ssl, returned)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        errno = EAGAIN;
        return -1;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_SYSCALL:
        if (!errno)
            errno = EPROTO;
        return -1;
    default:
        if (ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
            return 0;
        errno = EPROTO;
        return -1;
    }
}

ssize_t transport_send(struct connection *c, const char *bytes, size_t size) {
    struct tls *t = c->tls;
    ERR_clear_error();
    if (!t->sealed) {
        size = size < batch_bytes ? size : batch_bytes;
        int returned = SSL_write_ex(t->ssl, bytes, size, &t->sealed);
        if (returned <= 0)
            return explained(c, returned);
    }
    if (BIO_flush(t->out) <= 0) {
        errno = BIO_should_retry(t->out) ? EAGAIN : errno;
        return -1;
    }
    ssize_t sent = (ssize_t)t->sealed;
    t->sealed = 0;
    return sent;
}

ssize_t transport_receive(struct connection *c, char *bytes, size_t size) {
    size_t got;
    struct tls *t = c->tls;
    ERR_clear_error();
    int returned = SSL_read_ex(t->ssl, bytes, size, &got);
    return returned > 0 ? (ssize_t)got : explained(c, returned);
}

/* OpenSSL reads one record a call. Within a message, only an empty read shows that no more has
 * arrived. After the end of a message nothing more is expected, which saves that system call. */
int transport_is_drained(struct connection *c, size_t size) {
    (void)size;
    return c->got == 0 && !SSL_has_pending(((struct tls *)c->tls)->ssl);
}

void transport_close(struct connection *c) {
    struct tls *t = c->tls;
    if (t)
        SSL_free(t->ssl);
    free(t);
    c->tls = NULL;
    close(c->fd);
    c->fd = -1;
}
