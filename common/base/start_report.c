/* start_report.c - one line on a pipe. */
#include "base/start_report.h"

#include "base/error.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool start_report_failed(int fd, const char *reason)
{
    char line[sizeof(START_FAILED) + ERROR_TEXT_MAX + 1];
    if (fd < 0) return false;
    int n = snprintf(line, sizeof(line) - 1, START_FAILED "%s", reason);
    if (n < 0) return false;
    size_t len = strlen(line);
    for (size_t i = 0; i < len; i++)
        if (line[i] == '\n') line[i] = ' ';
    line[len++] = '\n';
    return write(fd, line, len) == (ssize_t)len;
}
