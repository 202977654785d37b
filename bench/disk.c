/* disk.c - reads a file as fast as the disk gives it. */
#include "bench/disk.h"

#include "base/clock.h"
#include "base/io_read.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SLOTS      16u
#define SLOT_BYTES (4u << 20)

static enum status read_whole(int fd, uint64_t bytes, double *seconds, struct error *err)
{
    struct io_options opt = { .fds = &fd, .n_files = 1, .n_slots = SLOTS, .slot_bytes = SLOT_BYTES };
    struct io_reader *r = NULL;
    const uint8_t *unused;
    uint64_t n = (bytes + SLOT_BYTES - 1) / SLOT_BYTES;
    enum status st = io_reader_create(&r, &opt, err);
    if (st != OK) return st;
    uint64_t t0 = clock_now_us();
    for (uint64_t i = 0; i < n + SLOTS && st == OK; i++) {
        uint32_t slot = (uint32_t)(i % SLOTS);
        if (i >= SLOTS && i - SLOTS < n) st = io_reader_wait(r, slot, &unused, err);
        uint64_t at = i * SLOT_BYTES, left = i < n ? bytes - at : 0;
        if (i < n && st == OK) io_reader_start(r, slot, 0, at, left < SLOT_BYTES ? (size_t)left : SLOT_BYTES);
    }
    *seconds = (double)(clock_now_us() - t0) * 1e-6;
    if (st == OK && !io_reader_is_direct(r))
        st = error_set(err, ERR_UNSUPPORTED, "the file system refuses O_DIRECT: there is no raw speed to compare with");
    io_reader_destroy(r);
    return st;
}

enum status disk_read_raw(const char *path, double *seconds, uint64_t *bytes, struct error *err)
{
    struct stat sb;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &sb) != 0) {
        if (fd >= 0) close(fd);
        return error_set(err, ERR_IO, "%s: %s", path, strerror(errno));
    }
    *bytes = (uint64_t)sb.st_size;
    enum status st = read_whole(fd, *bytes, seconds, err);
    close(fd);
    return st;
}

enum status disk_drop_cache(const char *path, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return error_set(err, ERR_IO, "%s: %s", path, strerror(errno));
    int e = fdatasync(fd) == 0 ? posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) : errno;
    close(fd);
    return e == 0 ? OK : error_set(err, ERR_IO, "%s: cannot drop it from the page cache: %s", path, strerror(e));
}
