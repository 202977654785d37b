/* disk.h - what the disk can do at most with a file: the ceiling of loading and of streaming. */
#ifndef BENCH_DISK_H
#define BENCH_DISK_H
#include "base/error.h"

#include <stdint.h>

/* Seconds of reading all of a file past the page cache, many reads at once, into buffers that are used again. */
enum status disk_read_raw(const char *path, double *seconds, uint64_t *bytes, struct error *err) MUST_CHECK;
/* Takes the file out of the page cache. */
enum status disk_drop_cache(const char *path, struct error *err) MUST_CHECK;
#endif
