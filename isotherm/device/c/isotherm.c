/* See isotherm.h.
 *
 * Readings are numbered from 0 in the order in which they were added; each has its line ready in a ring.
 *
 *     kept from `head` | sent until `sent` | added until `tail`
 *
 * The platform answers in order and counts a connection's readings: {"ack":n} says how many of them it has, {"error":{…,"count":k}}
 * that k were refused. Both together say up to which reading of the connection, which began at `base`, all is settled.
 */
#define _POSIX_C_SOURCE 200809L

#include "isotherm.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <netdb.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HELLO_BYTES 1024u
#define ANSWER_BYTES 65536u /* the longest line that the platform sends is shorter */
#define BACKOFF_MS 500
#define MAX_BACKOFF_MS 30000

typedef struct {
    size_t length;
    char line[ISOTHERM_LINE_BYTES];
} slot;

struct isotherm {
    char *host, *port;
    char hello[HELLO_BYTES];
    size_t hello_length;
    int connect_ms, answer_ms;
    int64_t first;

    slot *ring;
    size_t capacity;
    uint64_t head, sent, tail, base;
    size_t written;        /* bytes of the hello, and then of the line `sent`, that are on their way */
    bool greeted, proven;  /* the hello has gone; the platform has taken something */
    uint64_t acknowledged, refused; /* of this connection */

    int socket;
    int failures;
    int64_t next_try, heard; /* ms of the monotonic clock */
    char answer[ANSWER_BYTES];
    size_t answer_length;
    isotherm_status trouble;
    char problem[256];
    isotherm_counts counts;
};

static int64_t clock_of(clockid_t id, int64_t unit) {
    struct timespec now;
    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * unit + (int64_t)now.tv_nsec / (1000000000 / unit);
}

static int64_t now_ms(void) { return clock_of(CLOCK_MONOTONIC, 1000); }

/* Text: what is written into a buffer of so many bytes; `ok` becomes false when it is full. */

typedef struct {
    char *at, *end;
    bool ok;
} text;

static void put(text *out, const char *bytes, size_t count) {
    if (!out->ok || (size_t)(out->end - out->at) < count) {
        out->ok = false;
        return;
    }
    memcpy(out->at, bytes, count);
    out->at += count;
}

static void put_text(text *out, const char *what) { put(out, what, strlen(what)); }

/* RFC 8259, section 7 */
static void put_string(text *out, const char *what) {
    put_text(out, "\"");
    for (; *what; what++) {
        unsigned char byte = (unsigned char)*what;
        char escaped[8];
        if (byte == '"' || byte == '\\') {
            snprintf(escaped, sizeof escaped, "\\%c", byte);
            put_text(out, escaped);
        } else if (byte < 0x20) {
            snprintf(escaped, sizeof escaped, "\\u%04x", byte);
            put_text(out, escaped);
        } else {
            put(out, what, 1);
        }
    }
    put_text(out, "\"");
}

/* The shortest of 15 to 17 digits that means the same, with a point, whatever the locale writes in its place. */
static void put_number(text *out, double value) {
    char digits[64];
    for (int precision = 15; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtod(digits, NULL) == value) break;
    }
    const char *point = localeconv()->decimal_point;
    char *found = *point ? strstr(digits, point) : NULL;
    if (found == NULL) {
        put_text(out, digits);
        return;
    }
    put(out, digits, (size_t)(found - digits));
    put_text(out, ".");
    put_text(out, found + strlen(point));
}

static bool is_text(const char *what) { return what != NULL && *what != '\0'; }

static char *copy_of(const char *what) {
    size_t bytes = strlen(what) + 1;
    char *copy = malloc(bytes);
    return copy == NULL ? NULL : memcpy(copy, what, bytes);
}

static bool prepare(isotherm *d, const isotherm_options *o) {
    text hello = {d->hello, d->hello + sizeof d->hello, true};
    put_text(&hello, "{\"hello\":{\"device\":");
    put_string(&hello, o->device);
    if (is_text(o->token)) {
        put_text(&hello, ",\"token\":");
        put_string(&hello, o->token);
    }
    put_text(&hello, ",\"ack\":true}}\n");
    d->hello_length = (size_t)(hello.at - d->hello);
    d->capacity = o->capacity ? o->capacity : 1000;
    d->connect_ms = o->connect_ms ? o->connect_ms : 10000;
    d->answer_ms = o->answer_ms ? o->answer_ms : 60000;
    d->first = o->first ? o->first : clock_of(CLOCK_REALTIME, 1000000);
    d->ring = calloc(d->capacity, sizeof *d->ring);
    d->host = copy_of(o->host);
    d->port = copy_of(is_text(o->port) ? o->port : "7301");
    return hello.ok && d->ring != NULL && d->host != NULL && d->port != NULL;
}

isotherm *isotherm_new(const isotherm_options *o) {
    if (o == NULL || !is_text(o->host) || !is_text(o->device)) return NULL;
    if (o->connect_ms < 0 || o->answer_ms < 0 || o->first < 0) return NULL;
    isotherm *d = calloc(1, sizeof *d);
    if (d == NULL) return NULL;
    d->socket = -1;
    d->trouble = ISOTHERM_PENDING;
    if (prepare(d, o)) return d;
    isotherm_free(d);
    return NULL;
}

isotherm_status isotherm_add(isotherm *d, const char *metric, const char *unit, double value, int64_t time_us) {
    if (d == NULL || !is_text(metric) || !isfinite(value) || time_us < 0) return ISOTHERM_INVALID;
    if (time_us == 0) time_us = clock_of(CLOCK_REALTIME, 1000000);
    char line[ISOTHERM_LINE_BYTES], rest[96];
    text out = {line, line + sizeof line, true};
    put_text(&out, "{\"n\":");
    put_string(&out, metric);
    if (is_text(unit)) {
        put_text(&out, ",\"u\":");
        put_string(&out, unit);
    }
    put_text(&out, ",\"v\":");
    put_number(&out, value);
    snprintf(rest, sizeof rest, ",\"t\":%" PRId64 ".%06" PRId64 ",\"seq\":%" PRId64 "}\n", time_us / 1000000, time_us % 1000000,
             d->first + (int64_t)d->tail);
    put_text(&out, rest);
    if (!out.ok) return ISOTHERM_TOO_LONG;

    isotherm_status status = ISOTHERM_OK;
    if (d->tail - d->head == d->capacity) {
        d->counts.dropped++;
        status = ISOTHERM_DROPPED;
        if (d->sent == d->head && d->greeted && d->written > 0) return status; /* half of the oldest has gone */
        d->head++;
        if (d->sent < d->head) { /* it was not sent, so this connection never counts it */
            d->base += d->head - d->sent;
            d->sent = d->head;
        }
    }
    slot *kept = &d->ring[d->tail++ % d->capacity];
    kept->length = (size_t)(out.at - line);
    memcpy(kept->line, line, kept->length);
    return status;
}

/* The connection. */

static void drop_connection(isotherm *d, isotherm_status trouble, const char *why) {
    if (d->socket >= 0) close(d->socket);
    d->socket = -1;
    d->trouble = trouble;
    if (why != NULL) snprintf(d->problem, sizeof d->problem, "%s", why);
    int64_t most = BACKOFF_MS;
    for (int i = 0; i < d->failures && most < MAX_BACKOFF_MS; i++) most *= 2;
    if (most > MAX_BACKOFF_MS) most = MAX_BACKOFF_MS;
    d->failures++;
    /* devices that lost the platform at one time do not come back at one time */
    uint64_t chance = (uint64_t)clock_of(CLOCK_REALTIME, 1000000000) * 2654435761u ^ (uint64_t)(uintptr_t)d;
    d->next_try = now_ms() + most / 2 + (int64_t)(chance % (uint64_t)(most / 2 + 1));
}

static int left_of(int64_t until) {
    int64_t left = until - now_ms();
    return left < 0 ? 0 : left > 1000000 ? 1000000 : (int)left;
}

/* Connects to one address within the time; returns 0 or an errno. */
static int reach(int fd, const struct addrinfo *address, int64_t until) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) return errno;
    if (connect(fd, address->ai_addr, address->ai_addrlen) == 0) return 0;
    if (errno != EINPROGRESS && errno != EINTR) return errno;
    struct pollfd wait = {.fd = fd, .events = POLLOUT};
    int ready;
    do ready = poll(&wait, 1, left_of(until));
    while (ready < 0 && errno == EINTR);
    if (ready <= 0) return ready == 0 ? ETIMEDOUT : errno;
    int error = 0;
    socklen_t size = sizeof error;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 ? errno : error;
}

static void open_connection(isotherm *d) {
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found = NULL;
    int failed = getaddrinfo(d->host, d->port, &hints, &found), error = 0;
    if (failed != 0) {
        drop_connection(d, ISOTHERM_UNREACHABLE, gai_strerror(failed));
        return;
    }
    for (const struct addrinfo *one = found; one != NULL && d->socket < 0; one = one->ai_next) {
        int fd = socket(one->ai_family, one->ai_socktype, one->ai_protocol);
        error = fd < 0 ? errno : reach(fd, one, now_ms() + d->connect_ms);
        if (fd >= 0 && error == 0) d->socket = fd;
        else if (fd >= 0) close(fd);
    }
    freeaddrinfo(found);
    if (d->socket < 0) {
        drop_connection(d, ISOTHERM_UNREACHABLE, strerror(error));
        return;
    }
    if (d->trouble == ISOTHERM_UNREACHABLE) d->trouble = ISOTHERM_PENDING;
    d->base = d->sent = d->head;
    d->written = d->answer_length = 0;
    d->greeted = d->proven = false;
    d->acknowledged = d->refused = 0;
    d->heard = now_ms();
    d->counts.connections++;
}

static bool may_send(const isotherm *d) {
    /* One reading first: of a device that is not let in, the platform keeps what it has sent as rejects. */
    return d->sent < d->tail && (d->proven || d->sent == d->base || d->written > 0);
}

static void send_some(isotherm *d) {
    while (d->socket >= 0 && (!d->greeted || may_send(d))) {
        const slot *next = d->greeted ? &d->ring[d->sent % d->capacity] : NULL;
        const char *bytes = next ? next->line : d->hello;
        size_t length = next ? next->length : d->hello_length;
        ssize_t count = send(d->socket, bytes + d->written, length - d->written, MSG_NOSIGNAL);
        if (count < 0) {
            if (errno == EINTR) continue;
            if (errno != EAGAIN && errno != EWOULDBLOCK) drop_connection(d, ISOTHERM_UNREACHABLE, strerror(errno));
            return;
        }
        d->written += (size_t)count;
        if (d->written < length) continue;
        d->written = 0;
        if (next != NULL) {
            if (d->sent == d->head) d->heard = now_ms(); /* nothing waited for an answer before */
            d->sent++;
        }
        d->greeted = true;
    }
}

/* Returns the number that follows the last `name` in a line, or 0. */
static uint64_t number_after(const char *line, const char *name) {
    const char *found = NULL;
    for (const char *at = line; (at = strstr(at, name)) != NULL; at++) found = at + strlen(name);
    return found != NULL && isdigit((unsigned char)*found) ? strtoull(found, NULL, 10) : 0;
}

static void settle(isotherm *d) {
    uint64_t until = d->base + d->acknowledged + d->refused;
    if (until > d->sent) { /* it counts what was not sent: another protocol */
        drop_connection(d, ISOTHERM_UNAVAILABLE, "the platform acknowledged more than it was sent");
        return;
    }
    if (until > d->head) d->head = until;
    d->proven = true;
    d->failures = 0;
    d->trouble = ISOTHERM_PENDING;
}

static void take_answer(isotherm *d, const char *line) {
    d->heard = now_ms();
    if (strncmp(line, "{\"ack\":", 7) == 0) {
        uint64_t count = number_after(line, "\"ack\":");
        if (count > d->acknowledged) {
            d->counts.acknowledged += count - d->acknowledged;
            d->acknowledged = count;
        }
        settle(d);
    } else if (strncmp(line, "{\"error\":", 9) == 0) {
        snprintf(d->problem, sizeof d->problem, "%s", line + 9);
        if (strstr(line, "\"reason\":\"auth\"") != NULL) {
            drop_connection(d, ISOTHERM_UNAUTHORIZED, NULL);
        } else if (strstr(line, "\"reason\":\"unavailable\"") != NULL) {
            d->trouble = ISOTHERM_UNAVAILABLE; /* it goes on by itself, or closes the connection */
        } else if (strstr(line, "\"reason\":\"busy\"") != NULL) {
            drop_connection(d, ISOTHERM_UNAVAILABLE, NULL);
        } else {
            uint64_t count = number_after(line, "\"count\":");
            d->counts.refused += count;
            d->refused += count;
            settle(d);
        }
    } /* else something that this version does not know */
}

static void receive_some(isotherm *d) {
    while (d->socket >= 0) {
        size_t room = sizeof d->answer - 1 - d->answer_length;
        ssize_t count = recv(d->socket, d->answer + d->answer_length, room, 0);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
        if (count <= 0) {
            if (d->trouble == ISOTHERM_UNAVAILABLE) drop_connection(d, d->trouble, NULL); /* it said why */
            else drop_connection(d, ISOTHERM_UNREACHABLE, count < 0 ? strerror(errno) : "the platform closed the connection");
            return;
        }
        d->answer_length += (size_t)count;
        char *line = d->answer, *end = d->answer + d->answer_length, *newline;
        while (d->socket >= 0 && (newline = memchr(line, '\n', (size_t)(end - line))) != NULL) {
            *newline = '\0';
            take_answer(d, line);
            line = newline + 1;
        }
        d->answer_length = (size_t)(end - line);
        memmove(d->answer, line, d->answer_length);
        if (d->answer_length == sizeof d->answer - 1) drop_connection(d, ISOTHERM_UNAVAILABLE, "an answer that is too long");
    }
}

/* Waits until the socket can be read, or written if there is something to send, or for as long as is left. */
static void wait_for_socket(isotherm *d, int64_t until) {
    int64_t silent = d->heard + d->answer_ms;
    bool waits = d->sent > d->head;
    struct pollfd wait = {.fd = d->socket, .events = POLLIN};
    if (!d->greeted || may_send(d)) wait.events |= POLLOUT;
    (void)poll(&wait, 1, left_of(waits && silent < until ? silent : until));
    if (waits && now_ms() >= silent) drop_connection(d, ISOTHERM_UNREACHABLE, "the platform does not answer");
}

isotherm_status isotherm_work(isotherm *d, int ms) {
    if (d == NULL || ms < 0) return ISOTHERM_INVALID;
    int64_t until = now_ms() + ms;
    for (;;) {
        if (d->socket < 0 && d->head < d->tail && now_ms() >= d->next_try) open_connection(d);
        send_some(d);
        receive_some(d);
        if (d->head == d->tail) return ISOTHERM_OK;
        if (now_ms() >= until) return d->trouble;
        if (d->socket >= 0) wait_for_socket(d, until);
        else (void)poll(NULL, 0, left_of(d->next_try < until ? d->next_try : until));
    }
}

size_t isotherm_pending(const isotherm *d) { return d == NULL ? 0 : (size_t)(d->tail - d->head); }

isotherm_counts isotherm_counted(const isotherm *d) { return d->counts; }

const char *isotherm_problem(const isotherm *d) { return d->problem; }

void isotherm_free(isotherm *d) {
    if (d == NULL) return;
    if (d->socket >= 0) close(d->socket);
    free(d->ring);
    free(d->host);
    free(d->port);
    free(d);
}
