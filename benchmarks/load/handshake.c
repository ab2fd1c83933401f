/* Full handshakes of TLS 1.3 (RFC 8446), as many as the server can do: for load-tls only.
 *
 * Each connection is a handshake, one request, its reply, close_notify, and the end. libssl takes
 * 400 us for a client's handshake (3.0, mostly to look up algorithms), more than a server takes for
 * its side: the servers would wait for the load. So this file implements the one handshake that is
 * needed, with libcrypto, in 80 us: one cipher suite, one group, one kind of signature, no
 * resumption. To the server it looks like any other handshake.
 *
 * The client's key is the same each time; servers do not check that. The client checks that the server
 * has the same secrets and saw the same messages (its Finished, the tag of each record, and the reply).
 * It does not check the signature: in the mode echo, libssl does.
 */
#define OPENSSL_SUPPRESS_DEPRECATED     /* SHA512_CTX is a value, which EVP_MD_CTX is not */
#include "load.h"
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { HASH = 48, KEY = 32, IV = 12, TAG = 16, HEADER = 5, SHARE = 32, RANDOM = 32 };
enum { ALERT = 21, HANDSHAKE = 22, DATA = 23, CHANGE_CIPHER_SPEC = 20 };    /* section 5.1 */
enum { SERVER_HELLO = 2, FINISHED = 20 };                                   /* section 4 */
enum { MOST_BYTES = 16 << 10 };         /* of the server's messages, and of a record */

typedef unsigned char byte;

struct direction {                      /* the keys of what one side sends */
    byte secret[HASH], key[KEY], iv[IV];
    uint64_t records;
};

struct client {
    struct connection c;                /* first, so that events lead here */
    enum { HELLO_SENT, SECURED, OPEN } state;
    SHA512_CTX transcript;
    byte master[HASH];
    struct direction sending, receiving;
    size_t in, pending;
    byte input[MOST_BYTES], messages[MOST_BYTES];   /* records as they come; handshake messages */
};

static EVP_PKEY *key;
static EVP_CIPHER_CTX *sealing, *opening;
static byte hello[512], zeros[HASH], nothing[HASH], derived[HASH];
static size_t hello_bytes;

/* ------------------------------------------------------------------ the key schedule, section 7.1 */

static void hash(byte *out, const byte *bytes, size_t size) {
    SHA512_CTX hashing;
    SHA384_Init(&hashing);
    SHA384_Update(&hashing, bytes, size);
    SHA384_Final(out, &hashing);
}

static void hash_so_far(byte *out, const SHA512_CTX *transcript) {
    SHA512_CTX copy = *transcript;
    SHA384_Final(out, &copy);
}

/* HMAC (RFC 2104) of keys of 48 bytes; it is HKDF-Extract too. */
static void mac(byte *out, const byte *secret, const byte *bytes, size_t size) {
    byte pad[SHA512_CBLOCK], inner[HASH];
    SHA512_CTX hashing;
    for (int outer = 0; outer < 2; outer++) {
        memset(pad, outer ? 0x5c : 0x36, sizeof pad);
        for (int i = 0; i < HASH; i++)
            pad[i] ^= secret[i];
        SHA384_Init(&hashing);
        SHA384_Update(&hashing, pad, sizeof pad);
        SHA384_Update(&hashing, outer ? inner : bytes, outer ? HASH : size);
        SHA384_Final(outer ? out : inner, &hashing);
    }
}

/* HKDF-Expand-Label, of at most one hash. */
static void expand(byte *out, size_t size, const byte *secret, const char *label,
                   const byte *context, size_t context_bytes) {
    byte info[128], block[HASH];
    size_t n = 0, length = strlen(label) + 6;
    info[n++] = 0;
    info[n++] = (byte)size;
    info[n++] = (byte)length;
    memcpy(info + n, "tls13 ", 6);
    memcpy(info + n + 6, label, length - 6);
    n += length;
    info[n++] = (byte)context_bytes;
    memcpy(info + n, context, context_bytes);
    n += context_bytes;
    info[n++] = 1;
    mac(block, secret, info, n);
    memcpy(out, block, size);
}

static void derive(byte *out, const byte *secret, const char *label, const byte *messages) {
    expand(out, HASH, secret, label, messages, HASH);
}

static void set_keys(struct direction *d, const byte *secret, const char *label, const byte *messages) {
    derive(d->secret, secret, label, messages);
    expand(d->key, KEY, d->secret, "key", NULL, 0);
    expand(d->iv, IV, d->secret, "iv", NULL, 0);
    d->records = 0;
}

/* The verify_data of a Finished, section 4.4.4. */
static void finished(byte *out, const struct direction *d, const SHA512_CTX *transcript) {
    byte secret[HASH], messages[HASH];
    expand(secret, HASH, d->secret, "finished", NULL, 0);
    hash_so_far(messages, transcript);
    mac(out, secret, messages, HASH);
}

static int agree(byte *shared, const byte *share) {
    size_t size = SHARE;
    EVP_PKEY *server = EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, share, SHARE);
    EVP_PKEY_CTX *agreeing = EVP_PKEY_CTX_new(key, NULL);
    int good = server && agreeing && EVP_PKEY_derive_init(agreeing) > 0 &&
               EVP_PKEY_derive_set_peer_ex(agreeing, server, 0) > 0 &&
               EVP_PKEY_derive(agreeing, shared, &size) > 0;
    EVP_PKEY_CTX_free(agreeing);
    EVP_PKEY_free(server);
    return good;
}

/* ------------------------------------------------------------------ records, section 5.2 */

static void set_nonce(byte *nonce, struct direction *d) {
    memcpy(nonce, d->iv, IV);
    for (int i = 0; i < 8; i++)
        nonce[IV - 1 - i] ^= (byte)(d->records >> 8 * i);
    d->records++;
}

/* Append a record to `out`; returns its size. */
static size_t seal(byte *out, struct direction *d, byte type, const void *bytes, size_t size) {
    byte nonce[IV];
    int n;
    size_t length = size + 1 + TAG;
    memcpy(out, (byte[]){DATA, 3, 3, (byte)(length >> 8), (byte)length}, HEADER);
    set_nonce(nonce, d);
    EVP_EncryptInit_ex(sealing, NULL, NULL, d->key, nonce);
    EVP_EncryptUpdate(sealing, NULL, &n, out, HEADER);
    EVP_EncryptUpdate(sealing, out + HEADER, &n, bytes, (int)size);
    EVP_EncryptUpdate(sealing, out + HEADER + size, &n, &type, 1);
    EVP_EncryptFinal_ex(sealing, out, &n);
    EVP_CIPHER_CTX_ctrl(sealing, EVP_CTRL_AEAD_GET_TAG, TAG, out + HEADER + size + 1);
    return HEADER + length;
}

/* Open the record of `length` bytes in its place; returns its type, or -1. */
static int unseal(struct direction *d, byte *record, size_t *length) {
    byte nonce[IV], *bytes = record + HEADER;
    int n;
    if (*length <= TAG)
        return -1;
    size_t size = *length - TAG;
    set_nonce(nonce, d);
    EVP_DecryptInit_ex(opening, NULL, NULL, d->key, nonce);
    EVP_DecryptUpdate(opening, NULL, &n, record, HEADER);
    EVP_DecryptUpdate(opening, bytes, &n, bytes, (int)size);
    EVP_CIPHER_CTX_ctrl(opening, EVP_CTRL_AEAD_SET_TAG, TAG, bytes + size);
    if (EVP_DecryptFinal_ex(opening, bytes, &n) <= 0)
        return -1;
    while (size && !bytes[size - 1])
        size--;
    if (!size)
        return -1;
    *length = size - 1;
    return bytes[size - 1];
}

/* ------------------------------------------------------------------ the conversation */

static void add(const void *bytes, size_t size) {
    memcpy(hello + hello_bytes, bytes, size);
    hello_bytes += size;
}

/* The ClientHello, section 4.1.2; its random is set for each connection. */
static void write_hello(void) {
    byte share[SHARE];
    size_t size = SHARE;
    static const byte extensions[] = {
        0, 0, 0, 14, 0, 12, 0, 0, 9, 'l', 'o', 'c', 'a', 'l', 'h', 'o', 's', 't',
        0, 43, 0, 3, 2, 3, 4,                   /* supported_versions: 1.3 */
        0, 10, 0, 4, 0, 2, 0, 29,               /* supported_groups: x25519 */
        0, 13, 0, 4, 0, 2, 4, 3,                /* signature_algorithms: ecdsa_secp256r1_sha256 */
        0, 45, 0, 2, 1, 1,                      /* psk_key_exchange_modes: for tickets */
        0, 51, 0, 38, 0, 36, 0, 29, 0, SHARE};  /* key_share */
    size_t extended = sizeof extensions + SHARE, body = 2 + RANDOM + 1 + 32 + 4 + 2 + 2 + extended;
    EVP_PKEY_get_raw_public_key(key, share, &size);
    add((byte[]){HANDSHAKE, 3, 1, (byte)((body + 4) >> 8), (byte)(body + 4)}, HEADER);
    add((byte[]){1, 0, (byte)(body >> 8), (byte)body, 3, 3}, 6);
    add(zeros, RANDOM);
    add((byte[]){32}, 1);
    add(zeros, 32);                             /* a session id, for middleboxes */
    add((byte[]){0, 2, 0x13, 0x02, 1, 0}, 6);   /* TLS_AES_256_GCM_SHA384; no compression */
    add((byte[]){(byte)(extended >> 8), (byte)extended}, 2);
    add(extensions, sizeof extensions);
    add(share, SHARE);
}

static void connection_broke(struct client *k, const char *what) {
    errno = EPROTO;
    connection_failed(&k->c, what);
}

static void send_all(struct client *k, const byte *bytes, size_t size) {
    if (send(k->c.fd, bytes, size, 0) != (ssize_t)size)     /* a new socket has room for that */
        connection_failed(&k->c, "send failed");
}

static void say_hello(struct connection *c) {
    struct client *k = (struct client *)c;
    static uint64_t serial;
    serial++;
    k->state = HELLO_SENT;
    k->in = k->pending = 0;
    c->serial++;
    stamp(c->message, c->serial);
    memcpy(hello + HEADER + 6, &serial, sizeof serial);
    SHA384_Init(&k->transcript);
    SHA384_Update(&k->transcript, hello + HEADER, hello_bytes - HEADER);
    send_all(k, hello, hello_bytes);
}

/* The key share in a ServerHello, section 4.1.3; NULL if it is not the requested one. */
static const byte *share_of(const byte *body, size_t size) {
    size_t at = 2 + RANDOM, end = size;
    if (size < at + 1 + 32 + 5 || body[at] != 32 || body[at + 33] != 0x13 || body[at + 34] != 0x02)
        return NULL;
    for (at += 1 + 32 + 5; at + 4 <= end; at += 4 + (size_t)(body[at + 2] << 8 | body[at + 3]))
        if (body[at + 1] == 51 && at + 8 + SHARE <= end && body[at + 5] == 29)
            return body + at + 8;
    return NULL;
}

static void take_server_hello(struct client *k, const byte *message, size_t size) {
    byte shared[SHARE], messages[HASH], secret[HASH], next[HASH];
    const byte *share = message[0] == SERVER_HELLO ? share_of(message + 4, size - 4) : NULL;
    if (!share || !agree(shared, share)) {
        connection_broke(k, "not the ServerHello that was requested");
        return;
    }
    SHA384_Update(&k->transcript, message, size);
    hash_so_far(messages, &k->transcript);
    mac(secret, derived, shared, SHARE);
    set_keys(&k->sending, secret, "c hs traffic", messages);
    set_keys(&k->receiving, secret, "s hs traffic", messages);
    derive(next, secret, "derived", nothing);
    mac(k->master, next, zeros, HASH);
    k->state = SECURED;
}

/* The server's Finished ends its part. Send the client's Finished and the request together. */
static void take_finished(struct client *k, const byte *message, size_t size) {
    byte expected[HASH], messages[HASH], out[RECEIVE_BYTES / 8], own[4 + HASH] = {FINISHED, 0, 0, HASH};
    finished(expected, &k->receiving, &k->transcript);
    if (size != sizeof own || CRYPTO_memcmp(expected, message + 4, HASH)) {
        connection_broke(k, "a Finished that is wrong");
        return;
    }
    SHA384_Update(&k->transcript, message, size);
    hash_so_far(messages, &k->transcript);
    finished(own + 4, &k->sending, &k->transcript);
    size_t n = seal(out, &k->sending, HANDSHAKE, own, sizeof own);
    set_keys(&k->sending, k->master, "c ap traffic", messages);
    set_keys(&k->receiving, k->master, "s ap traffic", messages);
    n += seal(out + n, &k->sending, DATA, k->c.message, message_bytes);
    k->state = OPEN;
    send_all(k, out, n);
}

static void take_messages(struct client *k, const byte *bytes, size_t length) {
    if (k->state == OPEN)
        return;                 /* NewSessionTicket */
    if (k->pending + length > sizeof k->messages) {
        connection_broke(k, "messages too long for a handshake");
        return;
    }
    memcpy(k->messages + k->pending, bytes, length);
    k->pending += length;
    size_t at = 0, size;
    for (; k->c.fd >= 0 && k->pending - at >= 4; at += size) {
        const byte *message = k->messages + at;
        size = 4 + ((size_t)message[1] << 16 | (size_t)message[2] << 8 | message[3]);
        if (size > k->pending - at)
            break;
        if (k->state == HELLO_SENT)
            take_server_hello(k, message, size);
        else if (message[0] == FINISHED)
            take_finished(k, message, size);
        else
            SHA384_Update(&k->transcript, message, size);
    }
    memmove(k->messages, k->messages + at, k->pending - at);
    k->pending -= at;
}

static void take_data(struct client *k, const byte *bytes, size_t length) {
    if (k->c.got + length > message_bytes || memcmp(bytes, k->c.message + k->c.got, length)) {
        connection_broke(k, "something else came back than was sent");
        return;
    }
    k->c.got += length;
    if (k->c.got < message_bytes)
        return;
    byte out[HEADER + 2 + 1 + TAG];
    static const byte close_notify[] = {1, 0};
    count(k->c.started, NULL);
    send_all(k, out, seal(out, &k->sending, ALERT, close_notify, sizeof close_notify));
    if (k->c.fd >= 0)
        transport_close(&k->c);
}

static void take_record(struct client *k, byte *record, size_t length) {
    int type = record[0];
    if (type == CHANGE_CIPHER_SPEC)
        return;                 /* for middleboxes, appendix D.4 */
    if (k->state != HELLO_SENT && type == DATA)
        type = unseal(&k->receiving, record, &length);
    if (type == HANDSHAKE)
        take_messages(k, record + HEADER, length);
    else if (type == DATA && k->state == OPEN)
        take_data(k, record + HEADER, length);
    else
        connection_broke(k, type == ALERT ? "an alert" : "a record that cannot be opened");
}

static void take_input(struct connection *c) {
    struct client *k = (struct client *)c;
    while (c->fd >= 0) {
        ssize_t n = recv(c->fd, k->input + k->in, sizeof k->input - k->in, 0);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            connection_failed(c, "no handshake");
            return;
        }
        k->in += (size_t)n;
        size_t at = 0, length;
        for (; c->fd >= 0 && k->in - at >= HEADER; at += HEADER + length) {
            length = (size_t)(k->input[at + 3] << 8 | k->input[at + 4]);
            if (HEADER + length > sizeof k->input) {
                connection_broke(k, "a record too long for a handshake");
                return;
            }
            if (HEADER + length > k->in - at)
                break;
            take_record(k, k->input + at, length);
        }
        memmove(k->input, k->input + at, k->in - at);
        k->in -= at;
    }
}

static void prepare(void) {
    const EVP_CIPHER *cipher = EVP_aes_256_gcm();
    byte early[HASH];
    key = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
    sealing = EVP_CIPHER_CTX_new();
    opening = EVP_CIPHER_CTX_new();
    if (!key || !EVP_EncryptInit_ex(sealing, cipher, NULL, NULL, NULL) ||
        !EVP_DecryptInit_ex(opening, cipher, NULL, NULL, NULL) || message_bytes > MOST_BYTES / 2 ||
        strcmp(options.tls, "TLS_AES_256_GCM_SHA384")) {
        errno = EINVAL;
        give_up("handshakes: TLS_AES_256_GCM_SHA384 and small messages only");
    }
    hash(nothing, NULL, 0);
    mac(early, zeros, zeros, HASH);
    derive(derived, early, "derived", nothing);
    write_hello();
}

void run_handshake(void) {
    prepare();
    run_connections(sizeof(struct client), say_hello, take_input);
}
