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
#define ID_BYTES 64u
#define NAME_BYTES 65u /* a command's name has 64 characters at most */

typedef struct {
    size_t length;
    char line[ISOTHERM_LINE_BYTES];
} slot;

typedef struct {
    char name[NAME_BYTES];
    isotherm_handler handle;
    void *context;
} handler;

/* What was replied to a command; `told` when the platform has said that it has the reply. */
typedef struct {
    char id[ID_BYTES];
    char *line;
    bool told;
} reply;

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

    handler handlers[ISOTHERM_COMMANDS];
    size_t handler_count;
    reply replies[ISOTHERM_KNOWN_COMMANDS];
    size_t reply_count;    /* of all times: they are kept in a ring */
    char *out;             /* replies that are on their way */
    size_t out_length, out_sent;

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

#define END "}}\n"
#define COMMANDS_END ",\"commands\":true}}\n"

static bool prepare(isotherm *d, const isotherm_options *o) {
    text hello = {d->hello, d->hello + sizeof d->hello, true};
    put_text(&hello, "{\"hello\":{\"device\":");
    put_string(&hello, o->device);
    if (is_text(o->token)) {
        put_text(&hello, ",\"token\":");
        put_string(&hello, o->token);
    }
    put_text(&hello, ",\"ack\":true");
    d->hello_length = (size_t)(hello.at - d->hello);
    hello.ok = hello.ok && sizeof d->hello - d->hello_length >= sizeof COMMANDS_END;
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

isotherm_status isotherm_on_command(isotherm *d, const char *name, isotherm_handler handle, void *context) {
    if (d == NULL || handle == NULL || !is_text(name) || strlen(name) >= NAME_BYTES) return ISOTHERM_INVALID;
    if (d->counts.connections > 0 || d->handler_count == ISOTHERM_COMMANDS) return ISOTHERM_INVALID;
    handler *one = &d->handlers[d->handler_count++];
    snprintf(one->name, sizeof one->name, "%s", name);
    one->handle = handle;
    one->context = context;
    return ISOTHERM_OK;
}

/* Puts a line behind those that are to be sent; without memory for it the reply is lost, as a broken connection loses it. */
static void say(isotherm *d, const char *line) {
    size_t length = strlen(line);
    char *more = realloc(d->out, d->out_length + length);
    if (more == NULL) return;
    memcpy(more + d->out_length, line, length);
    d->out = more;
    d->out_length += length;
}

static void forget_out(isotherm *d) {
    free(d->out);
    d->out = NULL;
    d->out_length = d->out_sent = 0;
}

static size_t known_replies(const isotherm *d) {
    return d->reply_count < ISOTHERM_KNOWN_COMMANDS ? d->reply_count : ISOTHERM_KNOWN_COMMANDS;
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
    forget_out(d);
    say(d, d->handler_count ? COMMANDS_END : END);
    size_t begin = d->reply_count - known_replies(d);
    for (size_t at = begin; at < d->reply_count; at++) {
        const reply *one = &d->replies[at % ISOTHERM_KNOWN_COMMANDS];
        if (!one->told && one->line != NULL) say(d, one->line);
    }
    d->greeted = d->proven = false;
    d->acknowledged = d->refused = 0;
    d->heard = now_ms();
    d->counts.connections++;
}

static bool may_send(const isotherm *d) {
    /* One reading first: of a device that is not let in, the platform keeps what it has sent as rejects. */
    return d->sent < d->tail && (d->proven || d->sent == d->base || d->written > 0);
}

/* Sends the hello, whose end is the first of `out`; then replies between lines of readings. */
static void send_some(isotherm *d) {
    while (d->socket >= 0 && (!d->greeted || d->out_length > 0 || may_send(d))) {
        bool is_out = d->greeted && d->written == 0 && d->out_length > 0;
        if (is_out) {
            ssize_t count = send(d->socket, d->out + d->out_sent, d->out_length - d->out_sent, MSG_NOSIGNAL);
            if (count < 0 && errno == EINTR) continue;
            if (count < 0 && errno != EAGAIN && errno != EWOULDBLOCK) drop_connection(d, ISOTHERM_UNREACHABLE, strerror(errno));
            if (count < 0) return;
            d->out_sent += (size_t)count;
            if (d->out_sent == d->out_length) forget_out(d);
            continue;
        }
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

/* Commands. The platform writes JSON without white space between its parts. */

/* Returns what follows a value, or NULL when it does not end: an object, an array, a string, or anything else without them. */
static const char *after_value(const char *at) {
    int depth = 0;
    bool is_string = false;
    for (; *at; at++) {
        if (is_string) {
            if (*at == '\\' && at[1]) at++;
            else if (*at == '"') is_string = false;
        } else if (*at == '"') {
            is_string = true;
        } else if (*at == '{' || *at == '[') {
            depth++;
        } else if (*at == '}' || *at == ']') {
            if (depth == 0) return at;
            depth--;
        } else if ((*at == ',' || *at == ':') && depth == 0) {
            return at;
        }
        if (depth == 0 && !is_string && (*at == '"' || *at == '}' || *at == ']')) return at + 1;
    }
    return depth == 0 && !is_string ? at : NULL;
}

/* Finds a member of an object, which may be whatever a stranger has written, and returns its value, or NULL; `end` is what follows it. */
static const char *member(const char *object, const char *name, const char **end) {
    if (*object != '{') return NULL;
    for (const char *at = object + 1; *at == '"';) {
        const char *after = after_value(at);
        if (after == NULL || *after != ':') return NULL;
        bool is_it = (size_t)(after - at) == strlen(name) + 2 && strncmp(at + 1, name, strlen(name)) == 0;
        const char *value = after + 1;
        if ((*end = after_value(value)) == NULL) return NULL;
        if (is_it) return value;
        if (**end != ',') return NULL;
        at = *end + 1;
    }
    return NULL;
}

/* Copies a string of JSON that has no escapes, as ids and names have none; returns whether it is one and has room. */
static bool copy_plain(const char *object, const char *name, char *into, size_t room) {
    const char *end, *value = member(object, name, &end);
    if (value == NULL || *value != '"' || (size_t)(end - value - 1) > room) return false;
    size_t length = (size_t)(end - value) - 2;
    memcpy(into, value + 1, length);
    into[length] = '\0';
    return strchr(into, '\\') == NULL;
}

static const reply *known_reply(const isotherm *d, const char *id) {
    for (size_t at = 0; at < known_replies(d); at++) {
        if (strcmp(d->replies[at].id, id) == 0) return &d->replies[at];
    }
    return NULL;
}

/* Has a command carried out and returns its reply as a line, to be freed, or NULL when there is no memory. */
static char *carry_out(isotherm *d, const char *id, const char *name, const char *parameters) {
    static const size_t room = 2 * ISOTHERM_RESULT_BYTES * 6; /* each byte of an error may become six */
    char answer[ISOTHERM_RESULT_BYTES] = "";
    char *line = malloc(room);
    if (line == NULL) return NULL;
    const handler *found = NULL;
    for (size_t at = 0; at < d->handler_count; at++) {
        if (strcmp(d->handlers[at].name, name) == 0) found = &d->handlers[at];
    }
    bool done = false;
    if (found == NULL) snprintf(answer, sizeof answer, "there is no command %s", name);
    else done = found->handle(found->context, parameters, answer, sizeof answer);
    answer[sizeof answer - 1] = '\0';
    text out = {line, line + room - 1, true};
    put_text(&out, "{\"reply\":{\"id\":");
    put_string(&out, id);
    put_text(&out, done ? ",\"result\":" : ",\"error\":");
    if (done) put_text(&out, *answer ? answer : "null");
    else put_string(&out, answer);
    put_text(&out, "}}\n");
    *out.at = '\0';
    d->counts.commands++;
    return line;
}

static void take_command(isotherm *d, const char *command) {
    char id[ID_BYTES], name[NAME_BYTES], received[ID_BYTES + 64];
    const char *rest = after_value(command);
    if (rest == NULL || strcmp(rest, "}") != 0) return; /* it does not end */
    if (!copy_plain(command, "id", id, sizeof id) || !copy_plain(command, "name", name, sizeof name)) return;
    d->proven = true;
    d->failures = 0;
    const reply *known = known_reply(d, id);
    if (known == NULL) {
        snprintf(received, sizeof received, "{\"reply\":{\"id\":\"%s\",\"received\":true}}\n", id);
        say(d, received);
        send_some(d);
        const char *end, *value = member(command, "parameters", &end);
        size_t length = value != NULL ? (size_t)(end - value) : 2;
        char *parameters = malloc(length + 1);
        if (parameters == NULL) return;
        memcpy(parameters, value != NULL ? value : "{}", length);
        parameters[length] = '\0';
        char *line = carry_out(d, id, name, parameters);
        free(parameters);
        reply *kept = &d->replies[d->reply_count++ % ISOTHERM_KNOWN_COMMANDS];
        free(kept->line);
        *kept = (reply){.line = line};
        memcpy(kept->id, id, sizeof id);
        known = kept;
    }
    if (d->socket >= 0 && known->line != NULL) say(d, known->line);
}

static void take_replied(isotherm *d, const char *line) {
    char id[ID_BYTES];
    if (!copy_plain(line, "replied", id, sizeof id)) return;
    for (size_t at = 0; at < known_replies(d); at++) {
        if (strcmp(d->replies[at].id, id) == 0) d->replies[at].told = true;
    }
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
            for (size_t at = 0; count == 0 && at < known_replies(d); at++) d->replies[at].told = true; /* one was refused */
            d->counts.refused += count;
            d->refused += count;
            settle(d);
        }
    } else if (strncmp(line, "{\"replied\":", 11) == 0) {
        take_replied(d, line);
    } else if (strncmp(line, "{\"command\":", 11) == 0 && d->handler_count > 0) {
        take_command(d, line + 11);
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
    if (!d->greeted || d->out_length > 0 || may_send(d)) wait.events |= POLLOUT;
    (void)poll(&wait, 1, left_of(waits && silent < until ? silent : until));
    if (waits && now_ms() >= silent) drop_connection(d, ISOTHERM_UNREACHABLE, "the platform does not answer");
}

isotherm_status isotherm_work(isotherm *d, int ms) {
    if (d == NULL || ms < 0) return ISOTHERM_INVALID;
    int64_t until = now_ms() + ms;
    for (;;) {
        if (d->socket < 0 && (d->head < d->tail || d->handler_count > 0) && now_ms() >= d->next_try) open_connection(d);
        send_some(d);
        receive_some(d);
        send_some(d);
        if (d->head == d->tail && d->handler_count == 0) return ISOTHERM_OK;
        if (now_ms() >= until) return d->head == d->tail ? ISOTHERM_OK : d->trouble;
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
    for (size_t at = 0; at < ISOTHERM_KNOWN_COMMANDS; at++) free(d->replies[at].line);
    free(d->out);
    free(d->ring);
    free(d->host);
    free(d->port);
    free(d);
}
