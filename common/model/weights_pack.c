/* weights_pack.c - fills the arena: packed by the backend, private to a process or shared by a host's nodes. */
#include "base/mem.h"
#include "formats/gguf.h"
#include "model/host_memory.h"
#include "model/weights.h"
#include "model/weights_plan.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define SHARED_MAGIC        "BATONWT\n"
#define SHARED_VERSION      2
#define SHARED_HEADER_BYTES 4096 /* a page, so that the arena is aligned like a private one */
#define SHARED_SEALS        (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

/* At the start of a shared arena; the process that maps it trusts nothing else about it. */
struct shared_header {
    char magic[8];
    uint32_t version;
    uint32_t header_bytes;
    uint64_t fingerprint; /* of the model file */
    uint64_t plan_hash;   /* of the arena's plan: what lies where, of which type and shape */
    uint64_t arena_bytes;
    char backend[24]; /* whose layout it is; the same for all its instruction sets */
};
_Static_assert(sizeof(struct shared_header) == 64, "the header's layout is shared between processes");

static uint64_t plan_hash(const struct weights *w)
{
    XXH64_hash_t h = 0;
    for (uint32_t i = 0; i < w->n_items; i++) {
        const struct weight_item *it = &w->items[i];
        const uint64_t facts[] = { it->offset, it->bytes, it->dtype, it->n_rows, it->n_cols, h };
        h = XXH3_64bits(facts, sizeof(facts));
    }
    return h;
}

static struct shared_header header_of(const struct weights *w)
{
    struct shared_header h = { .version = SHARED_VERSION,
                               .header_bytes = SHARED_HEADER_BYTES,
                               .fingerprint = w->fingerprint,
                               .plan_hash = plan_hash(w),
                               .arena_bytes = w->arena_bytes };
    memcpy(h.magic, SHARED_MAGIC, sizeof(h.magic));
    strncpy(h.backend, w->backend->ops->name, sizeof(h.backend) - 1);
    return h;
}

/* The arena has its address: the forward's pointers get theirs. */
static void resolve(struct weights *w)
{
    for (uint32_t i = 0; i < w->n_items; i++) {
        const struct weight_item *it = &w->items[i];
        const void *p = w->arena + it->offset;
        if (it->is_vector) {
            *it->vector = p;
            continue;
        }
        *it->matrix = (struct weight){ .dtype = it->dtype,
                                       .n_rows = it->n_rows,
                                       .n_cols = it->n_cols,
                                       .data = p,
                                       .bytes = it->bytes,
                                       .n_rows_full = it->n_rows,
                                       .n_cols_full = it->n_cols };
    }
}

/* The file's pages of this tensor are in the arena now: without this the process would hold both. */
static void drop_pages(const struct weights *w, const struct tensor_entry *t)
{
    struct bytes b = gguf_tensor_bytes(w->g, t);
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = ((uintptr_t)b.p + page - 1) / page * page;
    uintptr_t end = ((uintptr_t)b.p + b.n) / page * page;
    if (gguf_fd(w->g) >= 0 && end > begin) madvise((void *)begin, end - begin, MADV_DONTNEED); /* only a hint */
}

static enum status pack_vector(struct weights *w, const struct weight_item *it, void *dst)
{
    float *tmp = mem_array(it->n_cols, sizeof(*tmp));
    float *at = tmp;
    for (uint32_t i = 0; i < it->n_src; i++) {
        const struct tensor_entry *t = it->src[i];
        dequantize_row(t->type, gguf_tensor_bytes(w->g, t).p, at, t->ne[0]);
        at += t->ne[0];
    }
    enum status st = w->backend->ops->upload(w->backend, NULL, dst, tmp, it->bytes);
    if (st == OK) st = w->backend->ops->sync(w->backend, NULL);
    mem_free(tmp);
    return st;
}

/* Several tensors become one matrix: their rows are laid one after the other first. */
static enum status stack_rows(const struct weights *w, const struct weight_item *it, void **out)
{
    size_t n = 0, at = 0;
    for (uint32_t i = 0; i < it->n_src; i++) n += it->src[i]->bytes;
    enum status st = mem_try_array(out, n, 1);
    for (uint32_t i = 0; i < it->n_src && st == OK; i++) {
        struct bytes b = gguf_tensor_bytes(w->g, it->src[i]);
        memcpy((uint8_t *)*out + at, b.p, b.n);
        at += b.n;
    }
    return st;
}

static enum status pack_matrix(struct weights *w, const struct weight_item *it, void *dst)
{
    const struct backend_ops *ops = w->backend->ops;
    size_t stride = (size_t)dtype_row_bytes(it->dtype, it->n_cols);
    void *stacked = NULL;
    enum status st = OK;
    if (it->n_src > 1) st = stack_rows(w, it, &stacked);
    const void *src = stacked ? stacked : gguf_tensor_bytes(w->g, it->src[0]).p;
    if (st == OK) st = ops->weight_pack(w->backend, NULL, dst, it->dtype, it->n_rows, it->n_cols, src, stride);
    if (st == OK) st = ops->sync(w->backend, NULL);
    mem_free(stacked);
    return st;
}

static enum status pack_all(struct weights *w, uint8_t *arena, weights_progress_fn progress, void *ctx,
                            struct error *err)
{
    for (uint32_t i = 0; i < w->n_items; i++) {
        const struct weight_item *it = &w->items[i];
        uint8_t *dst = arena + it->offset;
        enum status st = it->is_vector ? pack_vector(w, it, dst) : pack_matrix(w, it, dst);
        if (st != OK) return error_set(err, st, "tensor %s: packing failed (%s)", it->src[0]->name, status_text(st));
        for (uint32_t k = 0; k < it->n_src; k++) drop_pages(w, it->src[k]);
        if (progress) progress(ctx, it->offset + it->bytes, w->arena_bytes);
    }
    return OK;
}

enum status weights_load(struct weights *w, weights_progress_fn progress, void *ctx, struct error *err)
{
    void *arena = NULL;
    enum status st = host_memory_check(w->backend, w->arena_bytes, "the weights", err);
    if (st != OK) return st;
    if ((st = w->backend->ops->alloc(w->backend, w->arena_bytes, &arena)) != OK)
        return error_set(err, st, "the weights need %zu bytes, which the %s backend cannot give", w->arena_bytes,
                         w->backend->ops->name);
    w->arena = arena;
    resolve(w);
    return pack_all(w, w->arena, progress, ctx, err);
}

static enum status check_shared(const struct weights *w, int fd, struct error *err)
{
    struct shared_header want = header_of(w), have;
    struct stat sb;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & SHARED_SEALS) != SHARED_SEALS)
        return error_set(err, ERR_INVALID, "shared weights: descriptor %d is not a sealed memfd", fd);
    if (fstat(fd, &sb) != 0 || pread(fd, &have, sizeof(have), 0) != (ssize_t)sizeof(have))
        return error_set(err, ERR_IO, "shared weights: cannot read descriptor %d: %s", fd, strerror(errno));
    if (memcmp(have.magic, want.magic, sizeof(want.magic)) != 0 || have.version != want.version)
        return error_set(err, ERR_MISMATCH, "shared weights: not written by this version");
    if (have.fingerprint != want.fingerprint)
        return error_set(err, ERR_MISMATCH, "shared weights are of model %016llx, the file is %016llx",
                         (unsigned long long)have.fingerprint, (unsigned long long)want.fingerprint);
    uint64_t size = want.arena_bytes + SHARED_HEADER_BYTES;
    if (memcmp(&have, &want, sizeof(want)) != 0 || (uint64_t)sb.st_size != size)
        return error_set(err, ERR_MISMATCH,
                         "shared weights: %llu bytes of layout %016llx for %.24s, expected %llu of "
                         "%016llx for %.24s",
                         (unsigned long long)sb.st_size, (unsigned long long)have.plan_hash, have.backend,
                         (unsigned long long)size, (unsigned long long)want.plan_hash, want.backend);
    return OK;
}

enum status weights_map(struct weights *w, int fd, struct error *err)
{
    if (!host_memory_is_of(w->backend))
        return error_set(err, ERR_UNSUPPORTED, "shared weights are for the cpu backend, this is %s",
                         w->backend->ops->name);
    enum status st = check_shared(w, fd, err);
    if (st != OK) return st;
    size_t bytes = w->arena_bytes + SHARED_HEADER_BYTES;
    void *p = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return error_set(err, ERR_NO_MEMORY, "shared weights: cannot map %zu bytes: %s", bytes, strerror(errno));
    w->mapping = p;
    w->mapping_bytes = bytes;
    w->arena = (uint8_t *)p + SHARED_HEADER_BYTES;
    resolve(w);
    for (uint32_t i = 0; i < w->n_items; i++) /* the fingerprint has read a sample of each */
        for (uint32_t k = 0; k < w->items[i].n_src; k++) drop_pages(w, w->items[i].src[k]);
    return OK;
}

static enum status fill_shared(struct weights *w, int fd, weights_progress_fn progress, void *ctx, struct error *err)
{
    size_t bytes = w->arena_bytes + SHARED_HEADER_BYTES;
    if (ftruncate(fd, (off_t)bytes) != 0)
        return error_set(err, ERR_NO_MEMORY, "shared weights: cannot make %zu bytes: %s", bytes, strerror(errno));
    uint8_t *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return error_set(err, ERR_NO_MEMORY, "shared weights: cannot map %zu bytes: %s", bytes, strerror(errno));
    madvise(p, bytes, MADV_HUGEPAGE); /* only a hint */
    enum status st = pack_all(w, p + SHARED_HEADER_BYTES, progress, ctx, err);
    struct shared_header h = header_of(w);
    memcpy(p, &h, sizeof(h));
    munmap(p, bytes);
    if (st != OK) return st;
    if (fcntl(fd, F_ADD_SEALS, SHARED_SEALS | F_SEAL_SEAL) != 0)
        return error_set(err, ERR_IO, "shared weights: cannot seal: %s", strerror(errno));
    return OK;
}

enum status weights_share(struct weights *w, int *fd, weights_progress_fn progress, void *ctx, struct error *err)
{
    if (!host_memory_is_of(w->backend))
        return error_set(err, ERR_UNSUPPORTED, "shared weights are for the cpu backend, this is %s",
                         w->backend->ops->name);
    enum status st = host_memory_check(w->backend, w->arena_bytes, "the shared weights", err);
    if (st != OK) return st;
    int mem = memfd_create("baton-weights", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (mem < 0) return error_set(err, ERR_IO, "shared weights: memfd_create: %s", strerror(errno));
    if ((st = fill_shared(w, mem, progress, ctx, err)) != OK) {
        close(mem);
        return st;
    }
    *fd = mem;
    return OK;
}

void weights_fini(struct weights *w)
{
    if (w->mapping)
        munmap(w->mapping, w->mapping_bytes);
    else if (w->arena)
        w->backend->ops->release(w->backend, w->arena, w->arena_bytes);
    mem_free(w->items);
    mem_free(w->layers);
    mem_free(w->freq_factors);
    *w = (struct weights){ 0 };
}
