/* keys.c - see keys.h. The key file must be a regular file that others cannot read and the group
 * cannot write. The lookup hashes what was presented and walks all entries, so neither content nor
 * position of a match shows in time. Failed logins: a bucket of LOGIN_BURST per address that
 * empties at one per LOGIN_REFILL_NS. While it is full no key from that address is looked at, right
 * or wrong, else the limit would not slow a search. A fixed table: many addresses evict the oldest,
 * memory stays flat.
 */
#include "serve/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/sha256.h"

#define KEY_FILE_MAX ((size_t)1 << 20)
#define KEY_TEXT_MAX 512

static int read_all(int fd, const char *path, char **text, char *err, size_t errlen)
{
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        snprintf(err, errlen, "API key file %s: not a regular file", path);
        return -1;
    }
    if ((st.st_mode & 027) != 0) {
        snprintf(err, errlen,
                 "API key file %s has mode %03o: others must not read it and the group must not "
                 "write it (chmod 600)",
                 path, (unsigned)st.st_mode & 0777);
        return -1;
    }
    char *data = mem_alloc(KEY_FILE_MAX + 1);
    if (data == NULL) {
        snprintf(err, errlen, "API key file %s: out of memory", path);
        return -1;
    }
    size_t len = 0;
    while (len <= KEY_FILE_MAX) {
        ssize_t got = read(fd, data + len, KEY_FILE_MAX + 1 - len);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            if (got == 0 && memchr(data, 0, len) == NULL) {
                data[len] = '\0';
                *text = data;
                return 0;
            }
            break;
        }
        len += (size_t)got;
    }
    snprintf(err, errlen, "API key file %s: unreadable, above 1 MiB, or holds a NUL byte", path);
    mem_free(data);
    return -1;
}

int keys_read(const char *path, struct keys *out, char *err, size_t errlen)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        snprintf(err, errlen, "API key file %s: %s", path, strerror(errno));
        return -1;
    }
    char *text = NULL;
    int rc = read_all(fd, path, &text, err, errlen);
    close(fd);
    if (rc != 0)
        return -1;
    rc = keys_parse(text, path, out, err, errlen);
    explicit_bzero(text, strlen(text));
    mem_free(text);
    return rc;
}

static bool parse_digest(const char *hex, size_t n, uint8_t digest[32])
{
    if (n != 64)
        return false;
    for (size_t i = 0; i < 64; i++) {
        char c = hex[i];
        int v = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (v < 0)
            return false;
        digest[i / 2] = (uint8_t)(i % 2 ? digest[i / 2] | v : v << 4);
    }
    return true;
}

static void digest_of(const char *text, size_t n, uint8_t digest[32])
{
    struct sha256 s;
    sha256_init(&s);
    sha256_update(&s, text, n);
    sha256_final(&s, digest);
}

static bool is_name(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!((s[i] >= 'a' && s[i] <= 'z') || (s[i] >= 'A' && s[i] <= 'Z') ||
              (s[i] >= '0' && s[i] <= '9') || strchr("._-", s[i]) != NULL))
            return false;
    return n >= 1 && n <= KEY_NAME_MAX;
}

/* NULL, or what is wrong with the line. */
static const char *parse_line(const char *line, size_t len, struct key *k)
{
    const char *word[4];
    size_t n[4], words = 0;
    for (size_t i = 0; i < len && words < 4;) {
        while (i < len && (line[i] == ' ' || line[i] == '\t'))
            i++;
        size_t start = i;
        while (i < len && line[i] != ' ' && line[i] != '\t')
            i++;
        if (i > start) {
            word[words] = line + start;
            n[words++] = i - start;
        }
    }
    if (words != 3)
        return "expected: scope name key";
    if (n[0] == 4 && memcmp(word[0], "user", 4) == 0)
        k->scope = HTTP_USER;
    else if (n[0] == 7 && memcmp(word[0], "metrics", 7) == 0)
        k->scope = HTTP_METRICS;
    else if (n[0] == 5 && memcmp(word[0], "admin", 5) == 0)
        k->scope = HTTP_ADMIN;
    else
        return "the scope must be user, metrics or admin";
    if (!is_name(word[1], n[1]))
        return "the name must be 1 to 64 of A-Z a-z 0-9 . _ -";
    memcpy(k->name, word[1], n[1]);
    k->name[n[1]] = '\0';
    if (n[2] > KEY_TEXT_MAX)
        return "the key is longer than 512 bytes";
    for (size_t i = 0; i < n[2]; i++)
        if (word[2][i] < 0x21 || word[2][i] > 0x7e)
            return "the key must be printable ASCII";
    if (n[2] >= 7 && memcmp(word[2], "sha256:", 7) == 0)
        return parse_digest(word[2] + 7, n[2] - 7, k->digest)
                   ? NULL
                   : "sha256: must be followed by 64 hex digits";
    digest_of(word[2], n[2], k->digest);
    return NULL;
}

int keys_parse(const char *text, const char *path, struct keys *out, char *err, size_t errlen)
{
    struct keys k = {0};
    uint32_t cap = 0;
    unsigned number = 0;
    for (const char *line = text; *line != '\0';) {
        size_t len = strcspn(line, "\n"), next = len + (line[len] == '\n');
        number++;
        if (len > 0 && line[len - 1] == '\r')
            len--;
        size_t blank = strspn(line, " \t");
        if (blank >= len || line[blank] == '#') {
            line += next;
            continue;
        }
        if (k.n == cap) {
            cap = cap ? cap * 2 : 16;
            struct key *grown = cap <= KEYS_MAX ? mem_realloc(k.list, cap * sizeof *grown) : NULL;
            if (grown == NULL) {
                snprintf(err, errlen, "API key file %s: more than %d keys, or out of memory", path,
                         KEYS_MAX);
                keys_free(&k);
                return -1;
            }
            k.list = grown;
        }
        const char *wrong = parse_line(line, len, &k.list[k.n]);
        if (wrong != NULL) {
            snprintf(err, errlen, "API key file %s line %u: %s", path, number, wrong);
            keys_free(&k);
            return -1;
        }
        k.n++;
        line += next;
    }
    if (k.n == 0) {
        snprintf(
            err, errlen,
            "API key file %s holds no key: add a line \"user NAME KEY\", or do not name a key file",
            path);
        keys_free(&k);
        return -1;
    }
    *out = k;
    return 0;
}

void keys_free(struct keys *k)
{
    mem_free(k->list);
    memset(k, 0, sizeof *k);
}

const struct key *keys_find(const struct keys *k, const char *presented)
{
    uint8_t digest[32];
    digest_of(presented, strlen(presented), digest);
    uint32_t found = 0; /* index + 1, chosen without a branch */
    for (uint32_t i = 0; i < k->n; i++) {
        unsigned differs = 0;
        for (int b = 0; b < 32; b++)
            differs |= (unsigned)(digest[b] ^ k->list[i].digest[b]);
        uint32_t match = (differs - 1u) >> 31; /* 1 when equal: differs is below 256 */
        found = match * (i + 1) + (1 - match) * found;
    }
    return found > 0 ? &k->list[found - 1] : NULL;
}

/* ---- failed logins */

/* One slot per IPv4 address or IPv6 /64 (a host owns its /64); all UNIX socket clients share one.
 */
static void address_of(const struct sockaddr *peer, uint8_t out[16])
{
    memset(out, 0, 16);
    if (peer == NULL)
        return;
    if (peer->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, peer, sizeof in);
        out[0] = 4;
        memcpy(out + 12, &in.sin_addr, 4);
    } else if (peer->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, peer, sizeof in6);
        if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr)) {
            out[0] = 4;
            memcpy(out + 12, in6.sin6_addr.s6_addr + 12, 4);
        } else {
            out[0] = 6;
            memcpy(out + 1, in6.sin6_addr.s6_addr, 8);
        }
    }
}

unsigned logins_wait(struct logins *l, const struct sockaddr *peer, uint64_t now_ns)
{
    uint8_t address[16];
    address_of(peer, address);
    const uint64_t room = (uint64_t)(LOGIN_BURST - 1) * LOGIN_REFILL_NS;
    for (int i = 0; i < LOGIN_SLOTS; i++)
        if (l->slot[i].seen_ns != 0 && memcmp(l->slot[i].address, address, 16) == 0 &&
            l->slot[i].failed_ns > now_ns + room)
            return (unsigned)((l->slot[i].failed_ns - now_ns - room) / 1000000000u) + 1;
    return 0;
}

void logins_failed(struct logins *l, const struct sockaddr *peer, uint64_t now_ns)
{
    uint8_t address[16];
    address_of(peer, address);
    int at = 0;
    for (int i = 0; i < LOGIN_SLOTS; i++) {
        if (l->slot[i].seen_ns != 0 && memcmp(l->slot[i].address, address, 16) == 0) {
            at = i;
            break;
        }
        if (l->slot[i].seen_ns < l->slot[at].seen_ns)
            at = i;
    }
    if (memcmp(l->slot[at].address, address, 16) != 0 || l->slot[at].failed_ns < now_ns)
        l->slot[at].failed_ns = now_ns;
    memcpy(l->slot[at].address, address, 16);
    l->slot[at].seen_ns = now_ns;
    l->slot[at].failed_ns += LOGIN_REFILL_NS;
}
