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

static enum status open_file(struct gguf **out, const char *path, struct error *err)
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

/* The others are found by the first's name. */
static enum status open_rest(struct gguf **rest, uint32_t *n_rest, const struct gguf *first, const char *path,
                             struct error *err)
{
    struct strbuf name = STRBUF_INIT;
    enum status st = OK;

    for (*n_rest = 0; st == OK && *n_rest + 1 < first->split.count; *n_rest += st == OK) {
        if (!gguf_part_path(&name, path, *n_rest + 1, first->split.count))
            st = error_set(err, ERR_INVALID,
                           "%s: the first of %u parts of a model, but its name does not end in -00001-of-%05u.gguf, by "
                           "which the others are found",
                           path, first->split.count, first->split.count);
        else if ((st = open_file(&rest[*n_rest], strbuf_cstr(&name), err)) != OK)
            error_prefix(err, "part %u of %u", *n_rest + 2, first->split.count);
    }
    strbuf_fini(&name);
    return st;
}

static enum status not_the_first(const struct gguf *g, const char *path, struct error *err)
{
    struct strbuf name = STRBUF_INIT;
    bool named = gguf_part_path(&name, path, 0, g->split.count);
    enum status st = error_set(err, ERR_INVALID, "%s: part %u of %u of a model, which is opened by its first part%s%s",
                               path, g->split.no + 1, g->split.count, named ? ", " : "", strbuf_cstr(&name));
    strbuf_fini(&name);
    return st;
}

enum status gguf_open(struct gguf **out, const char *path, struct error *err)
{
    struct gguf *g = NULL, **rest = NULL;
    void *mem;
    uint32_t n_rest = 0;
    enum status st;

    if ((st = open_file(&g, path, err)) != OK) return st;
    if (g->split.no > 0) {
        st = not_the_first(g, path, err);
        goto out;
    }
    if ((st = mem_try_array(&mem, g->split.count, sizeof(struct gguf *))) != OK) {
        error_set(err, st, "%s: no memory for %u parts", path, g->split.count);
        goto out;
    }
    rest = mem;
    if ((st = open_rest(rest, &n_rest, g, path, err)) == OK) {
        if ((st = gguf_join(g, rest, n_rest, err)) != OK) error_prefix(err, "%s", path);
    } else {
        while (n_rest > 0) gguf_close(rest[--n_rest]);
    }
    mem_free(rest);
out:
    if (st == OK)
        *out = g;
    else
        gguf_close(g);
    return st;
}

static enum status open_memory(struct gguf **out, struct bytes file, struct error *err)
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

enum status gguf_open_bytes(struct gguf **out, struct bytes file, struct error *err)
{
    return gguf_open_parts(out, &file, 1, err);
}

enum status gguf_open_parts(struct gguf **out, const struct bytes *parts, uint32_t n_parts, struct error *err)
{
    struct gguf **all = mem_array(n_parts, sizeof(struct gguf *));
    uint32_t n = 0;
    enum status st = OK;

    while (n < n_parts && (st = open_memory(&all[n], parts[n], err)) == OK) n++;
    if (st == OK) {
        st = gguf_join(all[0], all + 1, n - 1, err);
        n = 1; /* the first has the others now */
    }
    if (st == OK)
        *out = all[0];
    else
        while (n > 0) gguf_close(all[--n]);
    mem_free(all);
    return st;
}

void gguf_close(struct gguf *g)
{
    if (!g) return;
    for (uint32_t i = 1; i < g->n_parts; i++) gguf_close(g->parts[i]);
    mem_free(g->parts);
    mem_free(g->fds);
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
    return gguf_find_key(g, bytes_of(key, strlen(key)));
}

const struct gguf_kv *gguf_find_key(const struct gguf *g, struct bytes want)
{
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

uint32_t gguf_n_parts(const struct gguf *g)
{
    return g->n_parts;
}

struct bytes gguf_part(const struct gguf *g, uint32_t part)
{
    return g->parts[part]->file;
}

uint64_t gguf_all_bytes(const struct gguf *g)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < g->n_parts; i++) n += g->parts[i]->file.n;
    return n;
}

struct bytes gguf_tensor_bytes(const struct gguf *g, const struct tensor_entry *t)
{
    return bytes_of(g->parts[t->part]->file.p + t->offset, (size_t)t->bytes);
}

const int *gguf_fds(const struct gguf *g)
{
    return g->fds;
}

static enum status check_part_unchanged(const struct gguf *g, struct error *err)
{
    const struct stat *was = &g->opened;
    struct stat now;
    if (fstat(g->fd, &now) != 0)
        return error_set(err, ERR_IO, "the model's file cannot be looked at: %s", strerror(errno));
    if (now.st_size == was->st_size && now.st_mtim.tv_sec == was->st_mtim.tv_sec &&
        now.st_mtim.tv_nsec == was->st_mtim.tv_nsec)
        return OK;
    return error_set(err, ERR_CORRUPT,
                     "the model's file was changed while in use: it had %lld bytes and has %lld; start again to use it",
                     (long long)was->st_size, (long long)now.st_size);
}

enum status gguf_check_unchanged(const struct gguf *g, struct error *err)
{
    enum status st = OK;
    for (uint32_t i = 0; g->fds && st == OK && i < g->n_parts; i++) st = check_part_unchanged(g->parts[i], err);
    return st;
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
    if (!g->fds) return;
    for (size_t i = 0; i < g->dir.n; i++) {
        struct bytes b = sample_of(g, i);
        uintptr_t at = (uintptr_t)b.p / page * page;
        madvise((void *)at, (uintptr_t)b.p + b.n - at, MADV_WILLNEED); /* only a hint */
    }
}

/* Metadata and tables are hashed as they lie in the files.  The sample is taken from a tensor's middle: fine
 * tuning changes whole tensors, and first rows are often padding or unused tokens. */
uint64_t gguf_fingerprint(const struct gguf *g)
{
    XXH3_state_t *state = XXH3_createState();

    assert(state && XXH3_64bits_reset(state) == XXH_OK);
    prefetch_samples(g);
    for (uint32_t i = 0; i < g->n_parts; i++)
        XXH3_64bits_update(state, g->parts[i]->file.p, (size_t)g->parts[i]->data_start);
    for (size_t i = 0; i < g->dir.n; i++) {
        struct bytes b = sample_of(g, i);
        XXH3_64bits_update(state, b.p, b.n);
    }
    uint64_t hash = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return hash;
}
