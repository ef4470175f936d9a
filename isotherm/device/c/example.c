/* Sends readings that come on standard input, a line each: METRIC UNIT VALUE [TIME], the unit "-" for none, the time in µs.
 *
 *     echo "temperature Cel 21.5" | ./example 127.0.0.1 7301 pump-7 TOKEN
 *
 * Ends with 0 when the platform has everything, 1 when it refused or lacks something after 60 s.
 */
#include <inttypes.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "isotherm.h"

int main(int count, char **argument) {
    if (count < 4) {
        fprintf(stderr, "usage: %s HOST PORT DEVICE [TOKEN [CAPACITY [SECONDS]]]\n", argument[0]);
        return 2;
    }
    setlocale(LC_ALL, "");
    isotherm *device = isotherm_new(&(isotherm_options){
        .host = argument[1],
        .port = argument[2],
        .device = argument[3],
        .token = count > 4 ? argument[4] : NULL,
        .capacity = count > 5 ? strtoul(argument[5], NULL, 10) : 0,
    });
    if (device == NULL) {
        fprintf(stderr, "an option is wrong, or there is no memory\n");
        return 2;
    }
    char line[512], metric[160], unit[32], value[64];
    while (fgets(line, sizeof line, stdin) != NULL) {
        int64_t at = 0;
        if (sscanf(line, "%159s %31s %63s %" SCNd64, metric, unit, value, &at) < 3) continue;
        int status = isotherm_add(device, metric, strcmp(unit, "-") ? unit : NULL, strtod(value, NULL), at);
        if (status < 0) fprintf(stderr, "not kept (%d): %s", status, line);
        isotherm_work(device, 0);
    }
    int seconds = count > 6 ? atoi(argument[6]) : 60, status = ISOTHERM_PENDING;
    for (int i = 0; i < seconds && status != ISOTHERM_OK; i++) status = isotherm_work(device, 1000);

    isotherm_counts counts = isotherm_counted(device);
    printf("{\"status\":%d,\"acknowledged\":%" PRIu64 ",\"refused\":%" PRIu64 ",\"dropped\":%" PRIu64 ",\"connections\":%" PRIu64
           ",\"pending\":%zu}\n",
           status, counts.acknowledged, counts.refused, counts.dropped, counts.connections, isotherm_pending(device));
    if (*isotherm_problem(device)) fprintf(stderr, "%s\n", isotherm_problem(device));
    isotherm_free(device);
    return status != ISOTHERM_OK || counts.refused > 0;
}
