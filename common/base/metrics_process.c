/* metrics_process.c - this process's own numbers, read from /proc. */
#include "base/metrics.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Reads a /proc file whole into buf (NUL-terminated); false if it cannot be read. */
static bool slurp(const char *path, char *buf, size_t cap)
{
    FILE *f = fopen(path, "re");
    if (!f) return false;
    size_t n = fread(buf, 1, cap - 1, f);
    fclose(f);
    buf[n] = '\0';
    return n > 0;
}

static double count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    if (!dir) return 0;
    double n = 0;
    while (readdir(dir)) n++;
    closedir(dir);
    return n > 3 ? n - 3 : 0; /* ".", ".." and the directory's own */
}

static double boot_time(void)
{
    char line[256];
    double at = 0;
    FILE *f = fopen("/proc/stat", "re");
    if (!f) return 0;
    while (fgets(line, sizeof(line), f)) {
        if (strncmp(line, "btime ", 6) == 0) at = strtod(line + 6, NULL);
    }
    fclose(f);
    return at;
}

static void add(struct strbuf *out, const char *name, const char *type, const char *help, double v)
{
    strbuf_addf(out, "# HELP %s %s\n# TYPE %s %s\n%s %.17g\n", name, help, name, type, name, v);
}

void metrics_add_process(struct strbuf *out)
{
    char stat[2048];
    double ticks = (double)sysconf(_SC_CLK_TCK);
    if (!slurp("/proc/self/stat", stat, sizeof(stat))) return;
    /* The program's name may hold anything; fields are counted from its closing bracket. */
    char *p = strrchr(stat, ')');
    unsigned long long utime, stime, start, vsize;
    long rss_pages;
    if (!p || sscanf(p + 1,
                     " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %*d "
                     "%*d %llu %llu %ld",
                     &utime, &stime, &start, &vsize, &rss_pages) != 5) {
        return;
    }
    add(out, "process_cpu_seconds_total", "counter", "CPU time used, user and system.",
        (double)(utime + stime) / ticks);
    add(out, "process_open_fds", "gauge", "Open file descriptors.", count_fds());
    add(out, "process_resident_memory_bytes", "gauge", "Resident memory.",
        (double)rss_pages * (double)sysconf(_SC_PAGESIZE));
    add(out, "process_start_time_seconds", "gauge", "Start of the process, seconds since 1970.",
        boot_time() + (double)start / ticks);
}
