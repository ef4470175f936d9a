/* A device's readings to Isotherm over TCP, and commands to it. C99, POSIX sockets, nothing else; not thread-safe: one thread for each device.
 *
 *     isotherm *device = isotherm_new(&(isotherm_options){.host = "iot.example", .device = "pump-7", .token = "…"});
 *     isotherm_add(device, "temperature", "Cel", 21.5, 0);
 *     isotherm_work(device, 1000);        // again and again: connects, sends, takes acknowledgements
 *
 * Commands, before it first works: isotherm_on_command(device, "open", open_valve, valve);
 *
 * What is added is kept until the platform has acknowledged it, and sent again after a lost connection with the same number, by
 * which the platform knows it. The way is not encrypted: a tunnel (stunnel, SSH) to port 7312 does that.
 */
#ifndef ISOTHERM_H
#define ISOTHERM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    ISOTHERM_OK = 0,           /* done; of isotherm_work: everything is acknowledged */
    ISOTHERM_PENDING = 1,      /* the time is over, and some readings are not acknowledged yet */
    ISOTHERM_DROPPED = 2,      /* there was no room: the oldest reading is lost, or this one while the oldest is half sent */
    ISOTHERM_INVALID = -1,     /* an argument is wrong: no name, or a value that is not finite */
    ISOTHERM_TOO_LONG = -2,    /* the line would be longer than ISOTHERM_LINE_BYTES */
    ISOTHERM_UNREACHABLE = -3, /* no connection; it is tried again by itself, after 0.5 to 30 s */
    ISOTHERM_UNAUTHORIZED = -4, /* the token is not this device's; tried again, too */
    ISOTHERM_UNAVAILABLE = -5  /* the platform cannot take anything now; tried again, too */
} isotherm_status;

#define ISOTHERM_COMMANDS 16u        /* handlers, at most */
#define ISOTHERM_KNOWN_COMMANDS 64u  /* commands whose replies are remembered: one that comes again is answered, not done again */
#define ISOTHERM_RESULT_BYTES 4096u  /* of what a handler writes */
#define ISOTHERM_LINE_BYTES 320u /* of one reading as JSON, its newline included; memory is capacity times this */

typedef struct {
    const char *host;    /* name or address */
    const char *port;    /* NULL: "7301" */
    const char *device;  /* whose metrics these are */
    const char *token;   /* its own or its gateway's; NULL where none is needed */
    size_t capacity;     /* readings that are kept; 0: 1,000 */
    int connect_ms;      /* how long to try one address; 0: 10,000 */
    int answer_ms;       /* how long what was sent may stay without any answer before it is sent anew; 0: 60,000 */
    int64_t first;       /* number of the first reading, greater than all before; 0: µs since the epoch, by the clock */
} isotherm_options;

typedef struct {
    uint64_t acknowledged; /* readings that the platform has */
    uint64_t refused;      /* readings that it has kept as rejects: isotherm_problem says why */
    uint64_t dropped;      /* readings that were lost because there was no room */
    uint64_t connections;  /* how often it has connected */
    uint64_t commands;     /* commands that were carried out, or refused by their handlers */
} isotherm_counts;

typedef struct isotherm isotherm;

/* Returns NULL when an option is missing or impossible, or there is no memory. Connects when it first works. */
isotherm *isotherm_new(const isotherm_options *options);

/* Keeps a reading; unit is that of RFC 8428 or NULL, time µs since the epoch or 0 for now. Never waits.
 * ISOTHERM_OK, _DROPPED, _INVALID or _TOO_LONG. */
isotherm_status isotherm_add(isotherm *device, const char *metric, const char *unit, double value, int64_t time_us);

/* Carries out a command. `parameters` is a JSON object, as it came. Writes its result as JSON on one line, or nothing for null, into
 * `answer`, which has ISOTHERM_RESULT_BYTES, and returns true; or writes why it cannot, as text, and returns false. Runs within isotherm_work. */
typedef bool (*isotherm_handler)(void *context, const char *parameters, char *answer, size_t room);

/* Has commands of a name carried out; the device is then always connected. ISOTHERM_OK, or _INVALID: no name, too many, or it has
 * worked already. */
isotherm_status isotherm_on_command(isotherm *device, const char *name, isotherm_handler handler, void *context);

/* Sends and listens for at most so many ms, 0 for as far as it goes without waiting, and returns as soon as everything is
 * acknowledged; with handlers of commands it listens for all of them. Where it has to connect first, that may take connect_ms for each address of the host, and resolving its name.
 * ISOTHERM_OK, _PENDING, _UNREACHABLE, _UNAUTHORIZED or _UNAVAILABLE. */
isotherm_status isotherm_work(isotherm *device, int ms);

size_t isotherm_pending(const isotherm *device);           /* readings that are not acknowledged */
isotherm_counts isotherm_counted(const isotherm *device);
const char *isotherm_problem(const isotherm *device);      /* the last one, in words; "" when there was none */

/* Disconnects and forgets what is not acknowledged; NULL is allowed. */
void isotherm_free(isotherm *device);

#endif
