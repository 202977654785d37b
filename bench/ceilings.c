/* ceilings.c - a streaming read and a register-only dot-product loop, on all threads at once. */
#include "bench/ceilings.h"

#include "base/clock.h"
#include "base/cpu.h"
#include "base/mem.h"
#include "base/team.h"

#include <immintrin.h>
#include <stdatomic.h>
#include <string.h>

#define READ_BYTES  ((size_t)256 << 20)
#define READ_PIECE  ((size_t)2 << 20) /* taken from a counter: a thread that is held up costs little */
#define READ_PASSES 6
#define DOT_ROUNDS  2000000

struct ceilings {
    struct team *team;
    uint8_t *buffer;
    uint32_t flags;
    bool is_prefetching;
    _Atomic size_t next;   /* byte to read */
    _Atomic uint32_t sink; /* keeps results alive */
};

enum status ceilings_create(struct ceilings **out, unsigned n_threads, struct error *err)
{
    struct ceilings *c = mem_zalloc(sizeof(*c));
    void *buffer = NULL;
    enum status st = team_create(&c->team, n_threads, NULL, err);
    if (st == OK && (st = mem_try_map(&buffer, READ_BYTES)) != OK)
        st = error_set(err, st, "no memory for the read test");
    c->buffer = buffer;
    if (st != OK) {
        ceilings_destroy(c);
        return st;
    }
    memset(buffer, 1, READ_BYTES); /* real pages: untouched ones are all the one zero page */
    c->flags = cpu_flags();
    *out = c;
    return OK;
}

void ceilings_destroy(struct ceilings *c)
{
    if (!c) return;
    mem_unmap(c->buffer, READ_BYTES);
    team_destroy(c->team);
    mem_free(c);
}

__attribute__((target("avx2"))) static uint32_t read_avx2(const uint8_t *p, size_t n, size_t ahead)
{
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    for (size_t at = 0; at + 128 <= n; at += 128) {
        const __m256i *v = (const __m256i *)(p + at);
        if (ahead > 0) {
            _mm_prefetch((const char *)(p + at + ahead), _MM_HINT_T0);
            _mm_prefetch((const char *)(p + at + ahead + 64), _MM_HINT_T0);
        }
        a = _mm256_add_epi32(a, _mm256_load_si256(v));
        b = _mm256_add_epi32(b, _mm256_load_si256(v + 1));
        c = _mm256_add_epi32(c, _mm256_load_si256(v + 2));
        d = _mm256_add_epi32(d, _mm256_load_si256(v + 3));
    }
    a = _mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d));
    return (uint32_t)_mm256_extract_epi32(a, 0);
}

static uint32_t read_any(const uint8_t *p, size_t n)
{
    uint64_t sum = 0, v;
    for (size_t at = 0; at + 8 <= n; at += 8) {
        memcpy(&v, p + at, 8);
        sum += v;
    }
    return (uint32_t)sum;
}

static void read_member(void *arg, uint32_t idx, uint32_t n)
{
    struct ceilings *c = arg;
    for (size_t at; (at = atomic_fetch_add_explicit(&c->next, READ_PIECE, memory_order_relaxed)) < READ_BYTES;) {
        const uint8_t *p = c->buffer + at;
        uint32_t sum =
            c->flags & CPU_AVX2 ? read_avx2(p, READ_PIECE, c->is_prefetching ? 2048 : 0) : read_any(p, READ_PIECE);
        atomic_store_explicit(&c->sink, sum, memory_order_relaxed);
    }
}

double ceilings_read_bandwidth(struct ceilings *c)
{
    double best = 0.0;
    for (int i = 0; i < READ_PASSES; i++) { /* some memory is faster with prefetches, some without */
        c->is_prefetching = i % 2 == 1;
        atomic_store_explicit(&c->next, 0, memory_order_relaxed);
        uint64_t t0 = clock_now_us();
        team_share(c->team, read_member, c);
        double rate = (double)READ_BYTES / ((double)(clock_now_us() - t0) * 1e-6);
        if (rate > best) best = rate;
    }
    return best;
}

/* In assembly, so that nothing but the dot products is in the loop: a compiler may keep accumulators in memory or move
 * products out.  Integers: what the registers hold at the start does not matter. */
#define DOT_CHAINS_VNNI 24 /* more than latency times issue width */
#define VNNI(acc)       "vpdpbusd %%zmm1, %%zmm0, %%zmm" #acc "\n\t"

__attribute__((target("avx512f,avx512vnni"))) static void dot_vnni(void)
{
    for (int r = 0; r < DOT_ROUNDS; r++)
        __asm__ volatile(VNNI(2) VNNI(3) VNNI(4) VNNI(5) VNNI(6) VNNI(7) VNNI(8) VNNI(9) VNNI(10) VNNI(11) VNNI(12)
                             VNNI(13) VNNI(14) VNNI(15) VNNI(16) VNNI(17) VNNI(18) VNNI(19) VNNI(20) VNNI(21) VNNI(22)
                                 VNNI(23) VNNI(24) VNNI(25)
                         :
                         :
                         : "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
                           "xmm13", "xmm14", "xmm15", "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22",
                           "xmm23", "xmm24", "xmm25");
}

#define DOT_CHAINS_AVX2 10
#define MADD(acc, t)                                                                                                   \
    "vpmaddubsw %%ymm1, %%ymm0, %%ymm" #t "\n\t"                                                                       \
    "vpmaddwd %%ymm2, %%ymm" #t ", %%ymm" #t "\n\t"                                                                    \
    "vpaddd %%ymm" #t ", %%ymm" #acc ", %%ymm" #acc "\n\t"

__attribute__((target("avx2"))) static void dot_avx2(void)
{
    for (int r = 0; r < DOT_ROUNDS; r++)
        __asm__ volatile(MADD(3, 13) MADD(4, 14) MADD(5, 15) MADD(6, 13) MADD(7, 14) MADD(8, 15) MADD(9, 13)
                             MADD(10, 14) MADD(11, 15) MADD(12, 13)
                         :
                         :
                         : "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",
                           "xmm14", "xmm15");
}

static void dot_member(void *arg, uint32_t idx, uint32_t n)
{
    struct ceilings *c = arg;
    if (c->flags & CPU_AVX512_VNNI)
        dot_vnni();
    else
        dot_avx2();
}

double ceilings_int8_peak(struct ceilings *c, const char **how)
{
    bool vnni = (c->flags & CPU_AVX512_VNNI) != 0;
    *how = vnni ? "avx512 vpdpbusd" : c->flags & CPU_AVX2 ? "avx2 vpmaddubsw" : "none";
    if (!(c->flags & CPU_AVX2)) return 0.0;
    double per_thread = 2.0 * DOT_ROUNDS * (vnni ? 64.0 * DOT_CHAINS_VNNI : 32.0 * DOT_CHAINS_AVX2);
    uint64_t t0 = clock_now_us();
    team_run(c->team, dot_member, c);
    return per_thread * team_size(c->team) / ((double)(clock_now_us() - t0) * 1e-6);
}
