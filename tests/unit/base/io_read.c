/* io_read: whatever way a file is read, the bytes are the file's or the error names where they end. */
#include "base/io_read.h"

#include "base/mem.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FILE_BYTES 1000003u
#define N_SLOTS    5
#define SLOT_BYTES 70000

static uint8_t byte_at(uint64_t i)
{
    return (uint8_t)(i * 2654435761u >> 13);
}

static int file_of(const char *dir)
{
    char path[64];
    uint8_t *all = mem_alloc(FILE_BYTES);
    for (uint32_t i = 0; i < FILE_BYTES; i++) all[i] = byte_at(i);
    snprintf(path, sizeof(path), "%s/baton-io-XXXXXX", dir);
    int fd = mkstemp(path);
    if (fd < 0) cr_skip_test("no file can be made in %s: %s", dir, strerror(errno));
    unlink(path);
    const ssize_t n = write(fd, all, FILE_BYTES);
    if (n != (ssize_t)FILE_BYTES) cr_skip_test("%s has no room for a file of %u bytes", dir, FILE_BYTES);
    mem_free(all);
    return fd;
}

static struct io_reader *reader_of_kind(int fd, enum io_kind kind)
{
    struct io_options opt = { .fds = &fd, .n_files = 1, .kind = kind, .n_slots = N_SLOTS, .slot_bytes = SLOT_BYTES };
    struct io_reader *r = NULL;
    struct error err = { 0 };
    enum status st = io_reader_create(&r, &opt, &err);
    cr_assert(st == OK || kind == IO_URING, "%s", err.text);
    return r;
}

static void expect_bytes(struct io_reader *r, uint32_t slot, uint64_t offset, size_t n)
{
    const uint8_t *p;
    struct error err = { 0 };
    cr_assert_eq(io_reader_wait(r, slot, &p, &err), OK, "%s", err.text);
    for (size_t i = 0; i < n; i++) cr_assert_eq(p[i], byte_at(offset + i), "at %zu", (size_t)offset + i);
}

/* Ranges at all alignments, with all slots under way, to the file's last byte. */
static void read_all(struct io_reader *r)
{
    uint64_t offset[64];
    size_t n[64];
    for (uint32_t i = 0; i < 64; i++) {
        n[i] = 1 + (i * 7919u) % SLOT_BYTES;
        offset[i] = i == 63 ? FILE_BYTES - n[i] : (i * 99991u) % (FILE_BYTES - n[i]);
    }
    for (uint32_t i = 0; i < 64 + N_SLOTS; i++) {
        if (i >= N_SLOTS) expect_bytes(r, i % N_SLOTS, offset[i - N_SLOTS], n[i - N_SLOTS]);
        if (i < 64) io_reader_start(r, i % N_SLOTS, 0, offset[i], n[i]);
    }
}

static void read_file_of(const char *dir, enum io_kind kind)
{
    int fd = file_of(dir);
    struct io_reader *r = reader_of_kind(fd, kind);
    if (!r) cr_skip_test("there is no io_uring here, or %s takes no direct reads", dir);
    read_all(r);
    io_reader_destroy(r);
    close(fd);
}

Test(io_read, gives_the_files_bytes)
{
    read_file_of("/tmp", IO_AUTO);
    read_file_of("/tmp", IO_PREAD);
}

Test(io_read, gives_the_files_bytes_from_memory)
{
    read_file_of("/dev/shm", IO_AUTO);
    read_file_of("/dev/shm", IO_PREAD);
}

Test(io_read, gives_the_files_bytes_through_io_uring)
{
    read_file_of("/tmp", IO_URING);
}

Test(io_read, reads_of_several_files_go_side_by_side)
{
    static const enum io_kind KINDS[] = { IO_AUTO, IO_PREAD };
    for (int k = 0; k < 2; k++) {
        const int fds[2] = { file_of("/tmp"), file_of("/tmp") };
        const uint8_t *p;
        struct io_options opt = {
            .fds = fds, .n_files = 2, .kind = KINDS[k], .n_slots = N_SLOTS, .slot_bytes = SLOT_BYTES
        };
        struct io_reader *r = NULL;
        struct error err = { 0 };
        cr_assert_eq(pwrite(fds[1], "other", 5, 7000), 5);
        cr_assert_eq(io_reader_create(&r, &opt, &err), OK, "%s", err.text);
        io_reader_start(r, 0, 1, 7000, 5);
        io_reader_start(r, 1, 0, 7000, 5);
        cr_assert_eq(io_reader_wait(r, 0, &p, &err), OK, "%s", err.text);
        cr_assert_arr_eq(p, "other", 5);
        expect_bytes(r, 1, 7000, 5);
        io_reader_destroy(r);
        close(fds[0]);
        close(fds[1]);
    }
}

Test(io_read, a_file_cut_while_in_use_is_an_error)
{
    static const enum io_kind KINDS[] = { IO_AUTO, IO_PREAD };
    for (int k = 0; k < 2; k++) {
        int fd = file_of("/tmp");
        struct io_reader *r = reader_of_kind(fd, KINDS[k]);
        struct error err = { 0 };
        const uint8_t *p;
        cr_assert_eq(ftruncate(fd, 500000), 0);
        io_reader_start(r, 0, 0, 490000, 10000);
        expect_bytes(r, 0, 490000, 10000);
        io_reader_start(r, 0, 0, 490000, 10001);
        io_reader_start(r, 1, 0, 700000, 10);
        cr_assert_eq(io_reader_wait(r, 0, &p, &err), ERR_IO);
        cr_assert(strstr(err.text, "ends at byte 500000, 500001 were expected"), "%s", err.text);
        cr_assert_eq(io_reader_wait(r, 1, &p, &err), ERR_IO);
        io_reader_destroy(r);
        close(fd);
    }
}

static _Atomic int n_reads;

static ssize_t failing_pread(int fd, void *buf, size_t n, off_t at)
{
    if (++n_reads % 3 == 1) {
        errno = EINTR;
        return -1;
    }
    if (at >= 65536) {
        errno = EIO;
        return -1;
    }
    return pread(fd, buf, n < 4096 ? n : 4096, at); /* and short reads on the way */
}

Test(io_read, a_disk_error_names_the_place_and_leaves_the_reader_working)
{
    int fd = file_of("/tmp");
    struct io_options opt = {
        .fds = &fd, .n_files = 1, .kind = IO_PREAD, .n_slots = 2, .slot_bytes = SLOT_BYTES, .pread = failing_pread
    };
    struct io_reader *r = NULL;
    struct error err = { 0 };
    const uint8_t *p;
    cr_assert_eq(io_reader_create(&r, &opt, &err), OK, "%s", err.text);
    io_reader_start(r, 0, 0, 60000, 20000);
    io_reader_start(r, 1, 0, 100, 40000);
    cr_assert_eq(io_reader_wait(r, 0, &p, &err), ERR_IO);
    cr_assert(strstr(err.text, "20000 bytes at 60000 failed: Input/output error"), "%s", err.text);
    expect_bytes(r, 1, 100, 40000);
    io_reader_start(r, 0, 0, 7, 100);
    expect_bytes(r, 0, 7, 100);
    io_reader_destroy(r); /* with nothing under way */
    close(fd);
}

Test(io_read, sees_whether_a_file_is_in_the_page_cache)
{
    int fd = file_of("/tmp");
    void *map = mmap(NULL, FILE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    cr_assert(io_is_cached(map, FILE_BYTES), "just written");
    cr_assert_eq(fsync(fd), 0);
    cr_assert_eq(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    struct io_reader *r = reader_of_kind(fd, IO_AUTO);
    if (!io_reader_is_direct(r))
        cr_skip_test("/tmp is no disk: that a file can be out of the page cache is not tested");
    cr_assert(!io_is_cached(map, FILE_BYTES), "dropped");
    io_reader_destroy(r);
    munmap(map, FILE_BYTES);
    close(fd);
}

Test(io_read, says_how_it_reads_and_what_it_takes)
{
    static const struct {
        enum io_kind kind;
        bool cached;
    } rows[] = { { IO_PREAD, false }, { IO_PREAD, true } };
    int fd = file_of("/tmp"), direct = open("/tmp", O_DIRECT | O_TMPFILE | O_RDWR, 0600);
    struct error err = { 0 };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct io_options opt = {
            .fds = &fd, .n_files = 1, .kind = rows[i].kind, .cached = rows[i].cached, .n_slots = 1, .slot_bytes = 100
        };
        struct io_reader *r = NULL;
        cr_assert_eq(io_reader_create(&r, &opt, &err), OK, "%s", err.text);
        cr_assert_str_eq(io_reader_kind(r), "pread");
        if (rows[i].cached) cr_assert_not(io_reader_is_direct(r));
        if (!rows[i].cached && direct >= 0) cr_assert(io_reader_is_direct(r));
        io_reader_start(r, 0, 0, 4095, 100); /* across a block's border, and destroyed while it is under way */
        io_reader_destroy(r);
    }
    if (direct >= 0) close(direct);
    close(fd);
    cr_assert_eq(io_reader_bytes(1, 1), 2 * 4096);
    cr_assert_eq(io_reader_bytes(1, 4096), 2 * 4096);
    cr_assert_eq(io_reader_bytes(3, 4097), 3 * 3 * 4096);
    cr_assert_eq(io_reader_bytes(0, 4097), 0);
}

Test(io_read, a_slot_takes_its_longest_read_from_any_place)
{
    int fd = file_of("/tmp");
    struct io_options opt = { .fds = &fd, .n_files = 1, .kind = IO_PREAD, .n_slots = 2, .slot_bytes = 4096 };
    struct io_reader *r = NULL;
    struct error err = { 0 };
    cr_assert_eq(io_reader_create(&r, &opt, &err), OK, "%s", err.text);
    static const uint64_t offsets[] = { 0, 1, 4095, 4096, 4097, 8191 };
    for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
        io_reader_start(r, 0, 0, offsets[i], 4096);
        io_reader_start(r, 1, 0, offsets[i] + 4096, 4096);
        expect_bytes(r, 0, offsets[i], 4096);
        expect_bytes(r, 1, offsets[i] + 4096, 4096);
    }
    io_reader_destroy(r);
    close(fd);
}

Test(io_read, a_file_that_cannot_be_opened_is_named)
{
    int fd = open("/tmp", O_PATH | O_CLOEXEC);
    close(fd);
    struct io_options opt = { .fds = &fd, .n_files = 1, .kind = IO_PREAD, .n_slots = 1, .slot_bytes = 100 };
    struct io_reader *r = NULL;
    struct error err = { 0 };
    cr_assert_eq(io_reader_create(&r, &opt, &err), ERR_IO);
    cr_assert(strstr(err.text, "cannot open the file for reading: No such file"), "%s", err.text);
    cr_assert_null(r);
    fd = file_of("/tmp");
    opt.slot_bytes = SIZE_MAX / 2 - 8192;
    cr_assert_eq(io_reader_create(&r, &opt, &err), ERR_NO_MEMORY);
    cr_assert(strstr(err.text, "read buffers need"), "%s", err.text);
    io_reader_destroy(NULL);
    close(fd);
}

Test(io_read, nine_tenths_of_the_pages_count_as_cached)
{
    const size_t all = 512 * 4096; /* two pages for each sample */
    void *p = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    madvise(p, all, MADV_NOHUGEPAGE);
    cr_assert(io_is_cached(p, 4095), "less than a page");
    cr_assert_not(io_is_cached(p, all), "nothing was touched");
    memset(p, 1, 462 * 4096); /* 231 of 256 samples */
    cr_assert(io_is_cached(p, all));
    madvise(p, all, MADV_DONTNEED);
    memset(p, 1, 461 * 4096); /* 230 */
    cr_assert_not(io_is_cached(p, all));
    munmap(p, all);
}
