/* keys.h - API keys: the key file, the constant-time lookup, and the limit on failed logins per
 * address. A key is held as its SHA-256 only. Names may be logged, keys never are. Owner: the I/O
 * thread.
 */
#ifndef KT_SERVE_KEYS_H
#define KT_SERVE_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "serve/http.h"

#define KEY_NAME_MAX 64
#define KEYS_MAX 4096
#define LOGIN_SLOTS 512
#define LOGIN_BURST 20              /* wrong keys from one address ... */
#define LOGIN_REFILL_NS 3000000000u /* ... and one more per this time */

struct key {
    char name[KEY_NAME_MAX + 1];
    enum http_scope scope;
    uint8_t digest[32];
};

struct keys {
    struct key *list;
    uint32_t n;
};

struct logins {
    struct {
        uint8_t address[16];
        uint64_t seen_ns, failed_ns; /* failed_ns: when the bucket will be empty again */
    } slot[LOGIN_SLOTS];
};

/* One `scope name key-or-sha256:hex` per line, '#' starts a comment line. 0, or -1 with a message;
 * *out is untouched then. */
int keys_read(const char *path, struct keys *out, char *err, size_t errlen);
/* The same on text; path is for messages. */
int keys_parse(const char *text, const char *path, struct keys *out, char *err, size_t errlen);
void keys_free(struct keys *k);
/* The entry of this key or NULL; the time does not depend on which entry matches. */
const struct key *keys_find(const struct keys *k, const char *presented);

/* Seconds until this address may try a key again; 0: now. */
unsigned logins_wait(struct logins *l, const struct sockaddr *peer, uint64_t now_ns);
void logins_failed(struct logins *l, const struct sockaddr *peer, uint64_t now_ns);

#endif
