/* A device that obeys: ./valve PORT DEVICE COMMANDS; ends when it has carried out so many, and prints how many it has. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "isotherm.h"

static bool open_valve(void *context, const char *parameters, char *answer, size_t room) {
    (*(int *)context)++;
    snprintf(answer, room, "{\"opened\":%s}", parameters);
    return true;
}

static bool fail(void *context, const char *parameters, char *answer, size_t room) {
    (void)context;
    (void)parameters;
    snprintf(answer, room, "no \"wings\"\n");
    return false;
}

int main(int count, char **argument) {
    if (count < 4) return 2;
    isotherm_options options = {.host = "127.0.0.1", .port = argument[1], .device = argument[2]};
    isotherm *device = isotherm_new(&options);
    uint64_t wanted = strtoull(argument[3], NULL, 10);
    int opened = 0;
    char longest[80];
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    if (isotherm_on_command(device, longest, fail, NULL) != ISOTHERM_INVALID) return 3;
    if (isotherm_on_command(device, "open", open_valve, &opened) != ISOTHERM_OK) return 3;
    if (isotherm_on_command(device, "fails", fail, NULL) != ISOTHERM_OK) return 3;
    for (int i = 0; i < 60 && isotherm_counted(device).commands < wanted; i++) isotherm_work(device, 500);
    isotherm_work(device, 1500); /* one that comes again */
    isotherm_add(device, "position", NULL, 0.5, 0);
    for (int i = 0; i < 60 && isotherm_pending(device) > 0; i++) isotherm_work(device, 500);
    printf("%d %" PRIu64 " %zu\n", opened, isotherm_counted(device).commands, isotherm_pending(device));
    isotherm_free(device);
    return 0;
}
