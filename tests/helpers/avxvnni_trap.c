/* avxvnni_trap.c - executes AVX-VNNI's dot products on the vector registers that a signal's frame holds. */
#include "helpers/avxvnni_trap.h"

#include "helpers/vex_trap.h"

#include <cpuid.h>
#include <string.h>

/* XSAVE's standard form, which Linux writes into the frame; what it says about it is in FXSAVE's unused bytes. */
#define XMM_AT         160
#define SOFTWARE_AT    464
#define XSTATE_BV_AT   512
#define XCOMP_BV_AT    520
#define YMM_HIGH_AT    576
#define SOFTWARE_MAGIC 0x46505853u
#define END_MAGIC      0x46505845u

enum component { SSE = 1, YMM_HIGH = 2, ZMM_HIGH = 6 };

struct software {
    uint32_t magic, extended_bytes;
    uint64_t features;
    uint32_t xsave_bytes;
};

union lanes {
    int32_t dword[8];
    int16_t word[16];
    int8_t s8[32];
    uint8_t u8[32];
};

/* Of 16 registers: 16 bytes each, 16 bytes each, 32 bytes each or NULL if they are all zero. */
struct registers {
    uint8_t *xmm, *ymm_high, *zmm_high;
};

static uint32_t zmm_high_at; /* 0: this processor has none */

/* A component that was in its initial state may not have been written: now it is. */
static void make_present(uint8_t *area, enum component c, uint8_t *at, size_t bytes)
{
    uint64_t present;
    memcpy(&present, area + XSTATE_BV_AT, sizeof(present));
    if (present >> c & 1) return;
    memset(at, 0, bytes);
    present |= 1u << c;
    memcpy(area + XSTATE_BV_AT, &present, sizeof(present));
}

static struct registers registers_of(const ucontext_t *u)
{
    uint8_t *area = (uint8_t *)u->uc_mcontext.fpregs;
    struct registers r = { area + XMM_AT, area + YMM_HIGH_AT, NULL };
    struct software software;
    uint64_t present, compact;
    uint32_t end;
    memcpy(&software, area + SOFTWARE_AT, sizeof(software));
    VEX_FAULT_UNLESS(software.magic == SOFTWARE_MAGIC && software.xsave_bytes >= YMM_HIGH_AT + 256);
    memcpy(&end, area + software.xsave_bytes, sizeof(end));
    memcpy(&compact, area + XCOMP_BV_AT, sizeof(compact));
    VEX_FAULT_UNLESS(end == END_MAGIC && compact == 0 && software.features >> YMM_HIGH & 1);
    make_present(area, SSE, r.xmm, 256);
    make_present(area, YMM_HIGH, r.ymm_high, 256);
    memcpy(&present, area + XSTATE_BV_AT, sizeof(present));
    if (zmm_high_at && present >> ZMM_HIGH & 1) r.zmm_high = area + zmm_high_at;
    return r;
}

static union lanes get(const struct registers *r, unsigned i)
{
    union lanes x;
    memcpy(x.u8, r->xmm + 16 * i, 16);
    memcpy(x.u8 + 16, r->ymm_high + 16 * i, 16);
    return x;
}

/* Clears what lies above, as VEX does. */
static void set(const struct registers *r, unsigned i, const union lanes *x, size_t bytes)
{
    memcpy(r->xmm + 16 * i, x->u8, 16);
    memset(r->ymm_high + 16 * i, 0, 16);
    memcpy(r->ymm_high + 16 * i, x->u8 + 16, bytes - 16);
    if (r->zmm_high) memset(r->zmm_high + 32 * i, 0, 32);
}

static int32_t saturated(int64_t x)
{
    return x > INT32_MAX ? INT32_MAX : x < INT32_MIN ? INT32_MIN : (int32_t)x;
}

static bool execute(ucontext_t *u, const struct vex_instruction *i)
{
    if (i->map != VEX_MAP_0F38 || i->pp != VEX_66 || i->w || i->opcode < 0x50 || i->opcode > 0x53) return false;
    const bool words = i->opcode & 2, saturates = i->opcode & 1;
    const size_t bytes = i->l ? 32 : 16;
    const struct registers r = registers_of(u);
    union lanes c = get(&r, i->reg), a = get(&r, i->vvvv), b;
    if (i->memory)
        memcpy(&b, i->at + i->index, bytes);
    else
        b = get(&r, i->rm);
    for (size_t k = 0; k < bytes / 4; k++) {
        int64_t sum = c.dword[k];
        for (size_t j = 4 * k; !words && j < 4 * k + 4; j++) sum += a.u8[j] * b.s8[j];
        for (size_t j = 2 * k; words && j < 2 * k + 2; j++) sum += a.word[j] * b.word[j];
        c.dword[k] = saturates ? saturated(sum) : (int32_t)(uint32_t)sum;
    }
    set(&r, i->reg, &c, bytes);
    return true;
}

bool avxvnni_trap_install(void)
{
    const unsigned long before = vex_trap_count();
    uint32_t size, b, c, d;
    __cpuid_count(0xd, ZMM_HIGH, size, b, c, d);
    zmm_high_at = size ? b : 0;
    vex_trap_install(execute);
    __asm__ volatile("%{vex%} vpdpbusd %%xmm0, %%xmm0, %%xmm0" ::: "xmm0");
    return vex_trap_count() > before;
}
