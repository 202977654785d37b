/* kv_tier: blocks come back bit for bit or not at all, whatever the memory and the disk under it do. */
#include "store/kv_tier.h"

#include "base/mem.h"
#include "store/kv_tier_disk.h"
#include "store/kv_tier_read.h"
#include "unit/store/kv_blocks.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#define WAIT_S 60

static struct prefix_hash hash_of(uint32_t content)
{
    return (struct prefix_hash){ content, content * 3 };
}

static void put(struct kv_tier *t, uint32_t content)
{
    struct prefix_hash h = hash_of(content);
    fill(1, content);
    kv_tier_put(t, &h, 1);
}

static enum kv_tier_found get_once(struct kv_tier *t, uint32_t content, bool may_read)
{
    const struct prefix_hash h = hash_of(content);
    fill(2, 9999);
    enum kv_tier_found found = kv_tier_get(t, &h, 1, 2, 0, may_read);
    if (found == KV_TIER_FOUND) expect_content(2, content);
    return found;
}

/* Whether it is there, after a read if need be; then its bytes are right. */
static bool get(struct kv_tier *t, uint32_t content)
{
    enum kv_tier_found found;
    for (int i = 0; i < 10000 * WAIT_S && (found = get_once(t, content, true)) == KV_TIER_COMING; i++) usleep(100);
    cr_assert_neq(found, KV_TIER_COMING);
    return found == KV_TIER_FOUND;
}

static struct kv_tier_stats stats_of(const struct kv_tier *t)
{
    struct kv_tier_stats s;
    kv_tier_stats(t, &s);
    return s;
}

static struct kv_tier *tier_of(uint32_t ram, uint32_t disk, const struct kv_tier_io *io)
{
    struct kv_tier *t = NULL;
    struct error err = { 0 };
    const struct kv_tier_options o = { .ram_bytes =
                                           (uint64_t)(ram + (disk ? KV_TIER_MIN_QUEUE + 1 : 0)) * BLOCK_BYTES + 5,
                                       .path = disk ? "/tmp" : "",
                                       .disk_bytes = (uint64_t)disk * BLOCK_BYTES,
                                       .io = io };
    cr_assert_eq(kv_tier_create(&t, &kv, &o, &err), OK, "%s", err.text);
    return t;
}

Test(kv_tier, keeps_as_many_blocks_as_its_bytes_hold)
{
    struct kv_tier *t = tier_of(4, 0, NULL);
    for (uint32_t c = 0; c < 4; c++) put(t, c);
    for (uint32_t c = 0; c < 4; c++) cr_assert(get(t, c));
    put(t, 0); /* known: used just now */
    kv_tier_touch(t, &(struct prefix_hash){ 1, 3 }, 1);
    for (uint32_t c = 4; c < 6; c++) put(t, c);
    for (uint32_t c = 0; c < 6; c++) cr_assert_eq(get(t, c), c != 2 && c != 3, "%u", c);
    struct kv_tier_stats s = stats_of(t);
    cr_assert(s.blocks[KV_TIER_RAM] == 4 && s.blocks[KV_TIER_DISK] == 0);
    cr_assert(s.hits[KV_TIER_RAM] == 8 && s.dropped[KV_TIER_NO_ROOM] == 2);
    kv_tier_destroy(t);
}

Test(kv_tier, what_a_chain_ends_with_falls_out_first)
{
    struct kv_tier *t = tier_of(3, 0, NULL);
    struct prefix_hash chain[3];
    for (uint32_t c = 0; c < 3; c++) {
        put(t, c);
        chain[c] = hash_of(c);
    }
    kv_tier_touch(t, chain, 3);
    put(t, 7);
    cr_assert(get(t, 0) && get(t, 1) && !get(t, 2));
    kv_tier_destroy(t);
}

Test(kv_tier, a_flipped_bit_in_ram_loses_the_block)
{
    struct kv_tier *t = tier_of(4, 0, NULL);
    put(t, 1);
    last_copy[17] ^= 4;
    put(t, 2);
    cr_assert_not(get(t, 1));
    cr_assert_not(get(t, 1));
    cr_assert(get(t, 2));
    struct kv_tier_stats s = stats_of(t);
    cr_assert(s.dropped[KV_TIER_CORRUPT] == 1 && s.blocks[KV_TIER_RAM] == 1);
    put(t, 1);
    cr_assert(get(t, 1));
    kv_tier_destroy(t);
}

static atomic_int n_written, may_write; /* whole blocks; how many before the disk stands still */
static atomic_int n_reads, stand_still; /* begun; reads wait */
static atomic_int write_errno, read_errno, flip;

static ssize_t test_write(int fd, const void *p, size_t n, off_t at)
{
    while (atomic_load(&n_written) >= atomic_load(&may_write)) usleep(1000);
    if (atomic_load(&write_errno)) {
        errno = atomic_load(&write_errno);
        return -1;
    }
    ssize_t k = pwrite(fd, p, n > 100 ? 100 : n, at); /* short ones are no errors */
    if (k == (ssize_t)n) atomic_fetch_add(&n_written, 1);
    return k;
}

static ssize_t test_read(int fd, void *p, size_t n, off_t at)
{
    atomic_fetch_add(&n_reads, 1);
    while (atomic_load(&stand_still)) usleep(100);
    if (atomic_load(&read_errno)) {
        errno = atomic_load(&read_errno);
        return -1;
    }
    ssize_t k = pread(fd, p, n, at);
    for (ssize_t i = 0; atomic_load(&flip) && i < k; i += 64) ((uint8_t *)p)[i] ^= 1;
    return k;
}

static const struct kv_tier_io IO = { test_read, test_write };

static void wait_for(const atomic_int *what, int n)
{
    for (int i = 0; i < 1000 * WAIT_S && atomic_load(what) < n; i++) usleep(1000);
    cr_assert_geq(atomic_load(what), n);
}

/* Blocks 0 .. n - 1 through a RAM level of two, each written before the next one comes. */
static struct kv_tier *with_on_disk(uint32_t n, uint32_t disk)
{
    atomic_store(&may_write, 1000000);
    struct kv_tier *t = tier_of(2, disk, &IO);
    for (uint32_t c = 0; c < n + 2; c++) {
        put(t, c);
        if (c >= 2) wait_for(&n_written, (int)c - 1);
    }
    return t;
}

Test(kv_tier, what_falls_out_of_ram_comes_back_from_disk)
{
    struct kv_tier *t = with_on_disk(10, 12);
    for (int round = 0; round < 2; round++)
        for (uint32_t c = 0; c < 12; c++) cr_assert(get(t, c), "%u", c);
    struct kv_tier_stats s = stats_of(t);
    cr_assert(s.hits[KV_TIER_DISK] == 20 && s.hits[KV_TIER_RAM] == 4);
    cr_assert(s.blocks[KV_TIER_RAM] == 2 && s.blocks[KV_TIER_DISK] == 10);
    for (uint32_t c = 0; c < 12; c++) put(t, c); /* from the pool again: all but two are on the disk already */
    wait_for(&n_written, 12);
    for (uint32_t c = 0; c < 12; c++) cr_assert(get(t, c), "%u", c);
    put(t, 12); /* 10 goes, and is there already; then 11; then the oldest of the file must */
    put(t, 13);
    put(t, 14);
    wait_for(&n_written, 13);
    cr_assert(!get(t, 0) && get(t, 12));
    cr_assert_eq(stats_of(t).dropped[KV_TIER_NO_ROOM], 1);
    kv_tier_destroy(t);
}

Test(kv_tier, a_slow_disk_makes_nobody_wait)
{
    struct kv_tier *t = tier_of(2, 100, &IO); /* stands still from the start */
    for (uint32_t c = 0; c < 2 + KV_TIER_MIN_QUEUE + 5; c++) put(t, c);
    cr_assert_eq(stats_of(t).dropped[KV_TIER_QUEUE_FULL], 5);
    /* The first one is being written; leaves come first, so what came last is kept. */
    for (uint32_t c = 0; c < KV_TIER_MIN_QUEUE + 5; c++) cr_assert_eq(get(t, c), c == 0 || c > 5, "%u", c);
    atomic_store(&may_write, 1000000);
    wait_for(&n_written, KV_TIER_MIN_QUEUE);
    for (uint32_t c = 0; c < KV_TIER_MIN_QUEUE + 5; c++) cr_assert_eq(get(t, c), c == 0 || c > 5, "%u", c);
    kv_tier_destroy(t);
}

Test(kv_tier, a_write_error_ends_the_disk_alone)
{
    struct kv_tier *t = with_on_disk(5, 20);
    atomic_store(&write_errno, ENOSPC);
    for (uint32_t c = 7; c < 20; c++) put(t, c);
    for (int i = 0; i < 1000 * WAIT_S && get(t, 0); i++) usleep(1000);
    for (uint32_t c = 0; c < 18; c++) cr_assert_not(get(t, c));
    cr_assert(get(t, 18) && get(t, 19));
    for (uint32_t c = 20; c < 40; c++) put(t, c);
    cr_assert(get(t, 38) && get(t, 39));
    struct kv_tier_stats s = stats_of(t);
    cr_assert(s.dropped[KV_TIER_WRITE_ERROR] > 0 && s.blocks[KV_TIER_DISK] == 0);
    kv_tier_destroy(t);
}

Test(kv_tier, a_read_error_or_a_flipped_bit_loses_one_block)
{
    struct kv_tier *t = with_on_disk(5, 20);
    atomic_store(&read_errno, EIO);
    cr_assert_not(get(t, 0));
    atomic_store(&read_errno, 0);
    atomic_store(&flip, 1);
    cr_assert_not(get(t, 1));
    atomic_store(&flip, 0);
    cr_assert(!get(t, 0) && !get(t, 1) && get(t, 2));
    struct kv_tier_stats s = stats_of(t);
    cr_assert(s.dropped[KV_TIER_READ_ERROR] == 1 && s.dropped[KV_TIER_CORRUPT] == 1 && s.blocks[KV_TIER_DISK] == 3);
    kv_tier_destroy(t);
}

Test(kv_tier, reads_are_under_way_while_others_are_answered)
{
    struct kv_tier *t = with_on_disk(10, 20); /* 10 and 11 are in RAM */
    const struct prefix_hash chain[] = { hash_of(0), hash_of(1), hash_of(11), hash_of(2), hash_of(3), hash_of(4) };
    cr_assert_eq(get_once(t, 0, false), KV_TIER_COMING, "somebody else's turn");
    int before = atomic_load(&n_reads);
    atomic_store(&stand_still, 1);
    cr_assert_eq(kv_tier_get(t, chain, 6, 2, 0, true), KV_TIER_COMING);
    wait_for(&n_reads, before + KV_TIER_MAX_READS);
    cr_assert_eq(get_once(t, 0, true), KV_TIER_COMING);
    cr_assert_eq(get_once(t, 10, true), KV_TIER_FOUND);
    cr_assert_eq(get_once(t, 5, true), KV_TIER_MISS, "no room for another read: better computed than waited for");
    atomic_store(&stand_still, 0);
    for (uint32_t c = 0; c < 12; c++) cr_assert(get(t, c), "%u", c);
    cr_assert_eq(stats_of(t).hits[KV_TIER_DISK], 10);
    kv_tier_destroy(t);
}

Test(kv_tier, reads_that_nobody_wants_any_more_make_room_when_they_are_over)
{
    struct kv_tier *t = with_on_disk(10, 20);
    atomic_store(&stand_still, 1);
    int before = atomic_load(&n_reads);
    const struct prefix_hash chain[] = { hash_of(0), hash_of(1), hash_of(2), hash_of(3) };
    cr_assert_eq(kv_tier_get(t, chain, KV_TIER_MAX_READS, 2, 0, true), KV_TIER_COMING);
    wait_for(&n_reads, before + KV_TIER_MAX_READS);
    kv_tier_drop_reads(t);
    cr_assert_eq(get_once(t, 0, true), KV_TIER_MISS, "the disk has not answered yet");
    atomic_store(&stand_still, 0);
    for (uint32_t c = 0; c < 12; c++) {
        bool found = get(t, c);
        for (int i = 0; i < 10000 * WAIT_S && !found; i++, found = get(t, c)) usleep(100);
        cr_assert(found, "%u", c);
    }
    atomic_store(&stand_still, 1);
    cr_assert_eq(get_once(t, 0, true), KV_TIER_COMING);
    atomic_store(&stand_still, 0);
    kv_tier_destroy(t); /* with one under way */
}

/* What is being read falls out of the file meanwhile: other bytes are never taken for it. */
Test(kv_tier, a_slot_that_is_written_anew_while_it_is_read)
{
    struct kv_tier *t = with_on_disk(9, 9);
    atomic_store(&stand_still, 1);
    int before = atomic_load(&n_reads);
    cr_assert_eq(get_once(t, 0, true), KV_TIER_COMING);
    wait_for(&n_reads, before + 1);
    for (uint32_t c = 11; c < 20; c++) {
        put(t, c);
        wait_for(&n_written, (int)c - 1);
    }
    atomic_store(&stand_still, 0);
    for (uint32_t c = 0; c < 9; c++) cr_assert_not(get(t, c), "%u", c);
    for (uint32_t c = 9; c < 20; c++) cr_assert(get(t, c), "%u", c);
    cr_assert_eq(stats_of(t).dropped[KV_TIER_CORRUPT], 0);
    kv_tier_destroy(t);
}

/* The file has no name: it is lost only through somebody else's hands, or a file system that cannot hold it. */
static ssize_t read_nothing(int fd, void *p, size_t n, off_t at)
{
    return 0;
}

Test(kv_tier, a_file_that_ends_early_is_a_read_error)
{
    struct kv_tier_io io = { read_nothing, pwrite };
    struct kv_tier *t = tier_of(2, 9, &io);
    for (uint32_t c = 0; c < 3; c++) put(t, c);
    for (int i = 0; i < 1000 * WAIT_S && get(t, 0); i++) usleep(1000); /* from the queue, until it is written */
    cr_assert_eq(stats_of(t).dropped[KV_TIER_READ_ERROR], 1);
    kv_tier_destroy(t);
}

Test(kv_tier, is_read_only_where_computing_takes_longer)
{
    cr_assert(kv_tier_disk_pays(0, 10) && kv_tier_disk_pays(10, 0) && kv_tier_disk_pays(9, 10));
    cr_assert_not(kv_tier_disk_pays(10, 9));
    struct kv_tier *t = with_on_disk(3, 20);
    struct prefix_hash h = hash_of(0);
    int tries = 1;
    cr_assert(get(t, 0));
    cr_assert_eq(kv_tier_get(t, &h, 1, 2, 1e-3, true), KV_TIER_MISS);
    while (kv_tier_get(t, &h, 1, 2, 1e-3, true) == KV_TIER_MISS && tries < 1000) tries++; /* the estimate fades */
    cr_assert_lt(tries, 1000);
    kv_tier_destroy(t);
}

static void expect_refused(const struct kv_tier_options *o, enum status st, const char *what)
{
    struct kv_tier *t = NULL;
    struct error err = { 0 };
    cr_assert_eq(kv_tier_create(&t, &kv, o, &err), st, "%s", err.text);
    cr_assert(strstr(err.text, what), "%s", err.text);
    cr_assert_null(t);
}

Test(kv_tier, refuses_what_does_not_fit)
{
    const uint64_t ram = 20 * BLOCK_BYTES;
    expect_refused(&(struct kv_tier_options){ .ram_bytes = BLOCK_BYTES - 1 }, ERR_INVALID,
                   "639 bytes hold 0 KV blocks of 640 bytes, at least 1 are needed");
    expect_refused(&(struct kv_tier_options){ .ram_bytes = ram, .path = "/tmp" }, ERR_INVALID, "set both or none");
    expect_refused(&(struct kv_tier_options){ .ram_bytes = ram, .disk_bytes = ram }, ERR_INVALID, "set both or none");
    expect_refused(&(struct kv_tier_options){ .ram_bytes = 9 * BLOCK_BYTES, .path = "/tmp", .disk_bytes = ram },
                   ERR_INVALID, "at least 10 are needed before a disk");
    expect_refused(&(struct kv_tier_options){ .ram_bytes = ram, .path = "/tmp", .disk_bytes = 8 * BLOCK_BYTES },
                   ERR_INVALID, "at least 9 are needed");
    expect_refused(&(struct kv_tier_options){ .ram_bytes = 1ull << 44 }, ERR_NO_MEMORY,
                   "kv.tier_bytes: 16777216.0 MiB of memory are needed");
    expect_refused(&(struct kv_tier_options){ .ram_bytes = ram, .other_bytes = 1ull << 45 }, ERR_NO_MEMORY,
                   "beside 33554432.0 MiB (KV pool, swap), ");
    expect_refused(&(struct kv_tier_options){ .ram_bytes = ram, .path = "/tmp", .disk_bytes = 1ull << 44 }, ERR_IO,
                   "16777216.0 MiB do not fit /tmp");
    expect_refused(&(struct kv_tier_options){ .ram_bytes = ram, .path = "/tmp/none/such", .disk_bytes = ram }, ERR_IO,
                   "/tmp/none/such: cannot make a file there: No such file");
}
