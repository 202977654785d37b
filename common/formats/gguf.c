/* gguf.c - opens, maps and closes GGUF files, and hands out their parts. */
#include "formats/gguf.h"

#include "base/mem.h"
#include "formats/gguf_parse.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define SAMPLE_BYTES 4096u

static enum status map_file(struct gguf *g, const char *path, struct error *err)
{
    const struct stat *s = &g->opened;

    g->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe without a writer is not waited for */
    if (g->fd < 0) return error_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "cannot open: %s", strerror(errno));
    if (fstat(g->fd, &g->opened) != 0) return error_set(err, ERR_IO, "cannot stat: %s", strerror(errno));
    if (!S_ISREG(s->st_mode)) return error_set(err, ERR_INVALID, "not a regular file");
    if (fcntl(g->fd, F_SETFL, 0) != 0) return error_set(err, ERR_IO, "cannot open: %s", strerror(errno));
    if (s->st_size == 0) return error_set(err, ERR_PARSE, "not a GGUF file: it is empty");
    void *p = mmap(NULL, (size_t)s->st_size, PROT_READ, MAP_SHARED, g->fd, 0);
    if (p == MAP_FAILED) return error_set(err, ERR_IO, "cannot map: %s", strerror(errno));
    g->file = bytes_of(p, (size_t)s->st_size);
    g->mapped = true;
    return OK;
}

enum status gguf_open(struct gguf **out, const char *path, struct error *err)
{
    struct gguf *g = mem_zalloc(sizeof(*g));
    enum status st;

    if ((st = map_file(g, path, err)) == OK) st = gguf_parse(g, err);
    if (st != OK) {
        error_prefix(err, "%s", path);
        gguf_close(g);
        return st;
    }
    *out = g;
    return OK;
}

enum status gguf_open_bytes(struct gguf **out, struct bytes file, struct error *err)
{
    struct gguf *g = mem_zalloc(sizeof(*g));
    enum status st;

    g->fd = -1;
    g->file = file;
    if ((st = gguf_parse(g, err)) != OK) {
        gguf_close(g);
        return st;
    }
    *out = g;
    return OK;
}

void gguf_close(struct gguf *g)
{
    if (!g) return;
    mem_free(g->names);
    mem_free(g->dir.entries);
    mem_free(g->by_key);
    mem_free(g->kvs);
    if (g->mapped) munmap((void *)g->file.p, g->file.n);
    if (g->fd >= 0) close(g->fd);
    mem_free(g);
}

uint32_t gguf_version(const struct gguf *g)
{
    return g->version;
}

size_t gguf_n_kv(const struct gguf *g)
{
    return g->n_kv;
}

const struct gguf_kv *gguf_kv_at(const struct gguf *g, size_t i)
{
    return i < g->n_kv ? &g->kvs[i] : NULL;
}

const struct gguf_kv *gguf_find(const struct gguf *g, const char *key)
{
    struct bytes want = bytes_of(key, strlen(key));
    size_t lo = 0, hi = g->n_kv;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = gguf_key_compare(g->by_key[mid]->key, want);
        if (c == 0) return g->by_key[mid];
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

const struct tensor_dir *gguf_tensors(const struct gguf *g)
{
    return &g->dir;
}

struct bytes gguf_file(const struct gguf *g)
{
    return g->file;
}

struct bytes gguf_tensor_bytes(const struct gguf *g, const struct tensor_entry *t)
{
    return bytes_of(g->file.p + t->offset, (size_t)t->bytes);
}

int gguf_fd(const struct gguf *g)
{
    return g->fd;
}

enum status gguf_check_unchanged(const struct gguf *g, struct error *err)
{
    const struct stat *was = &g->opened;
    struct stat now;
    if (g->fd < 0) return OK;
    if (fstat(g->fd, &now) != 0)
        return error_set(err, ERR_IO, "the model's file cannot be looked at: %s", strerror(errno));
    if (now.st_size == was->st_size && now.st_mtim.tv_sec == was->st_mtim.tv_sec &&
        now.st_mtim.tv_nsec == was->st_mtim.tv_nsec)
        return OK;
    return error_set(err, ERR_CORRUPT,
                     "the model's file was changed while in use: it had %lld bytes and has %lld; start again to use it",
                     (long long)was->st_size, (long long)now.st_size);
}

/* The middle of a tensor, from which its sample is taken. */
static struct bytes sample_of(const struct gguf *g, size_t i)
{
    struct bytes b = gguf_tensor_bytes(g, &g->dir.entries[i]);
    size_t n = b.n < SAMPLE_BYTES ? b.n : SAMPLE_BYTES;
    return bytes_of(b.p + (b.n - n) / 2, n);
}

/* On a cold disk each sample would be waited for by itself, with all that the kernel reads around it. */
static void prefetch_samples(const struct gguf *g)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    if (!g->mapped) return;
    for (size_t i = 0; i < g->dir.n; i++) {
        struct bytes b = sample_of(g, i);
        uintptr_t at = (uintptr_t)b.p / page * page;
        madvise((void *)at, (uintptr_t)b.p + b.n - at, MADV_WILLNEED); /* only a hint */
    }
}

/* Metadata and table are hashed as they lie in the file.  The sample is taken from a tensor's middle: fine
 * tuning changes whole tensors, and first rows are often padding or unused tokens. */
uint64_t gguf_fingerprint(const struct gguf *g)
{
    XXH3_state_t *state = XXH3_createState();

    assert(state && XXH3_64bits_reset(state) == XXH_OK);
    prefetch_samples(g);
    XXH3_64bits_update(state, g->file.p, (size_t)g->data_start);
    for (size_t i = 0; i < g->dir.n; i++) {
        struct bytes b = sample_of(g, i);
        XXH3_64bits_update(state, b.p, b.n);
    }
    uint64_t hash = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return hash;
}
