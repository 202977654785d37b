/* amx_trap.c - a SIGILL handler that decodes and executes the tile instructions that the kernels use. */
#include "helpers/amx_trap.h"

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

/* Palette 1. */
#define TILES     8
#define MAX_ROWS  16
#define ROW_BYTES 64

/* What LDTILECFG reads, at the manual's offsets. */
#define CONFIG_COLSB 16 /* u16 each, of 16 tiles */
#define CONFIG_ROWS  48

struct tile {
    uint32_t rows, colsb;
    uint8_t data[MAX_ROWS][ROW_BYTES];
};

static __thread struct {
    bool configured;
    unsigned long count;
    struct tile tile[TILES];
} state;

#define FAULT_UNLESS(cond) ((cond) ? (void)0 : fault(#cond))

static void fault(const char *what)
{
    fprintf(stderr, "amx: fault, not so: %s\n", what);
    abort();
}

/* --- the instructions --- */
static void release(void)
{
    state.configured = false;
    memset(state.tile, 0, sizeof(state.tile));
}

static void load_config(const uint8_t *m)
{
    release();
    if (m[0] == 0) return;
    FAULT_UNLESS(m[0] == 1 && m[1] == 0); /* palette, start row */
    for (int i = 2; i < CONFIG_COLSB; i++) FAULT_UNLESS(m[i] == 0);
    for (int i = 0; i < 16; i++) {
        uint16_t colsb;
        uint8_t rows = m[CONFIG_ROWS + i];
        memcpy(&colsb, m + CONFIG_COLSB + 2 * i, sizeof(colsb));
        FAULT_UNLESS(colsb <= ROW_BYTES && rows <= MAX_ROWS && (colsb == 0) == (rows == 0));
        FAULT_UNLESS(i < TILES || rows == 0);
        if (i < TILES) state.tile[i].rows = rows, state.tile[i].colsb = colsb;
    }
    state.configured = true;
}

static struct tile *tile_of(unsigned i)
{
    FAULT_UNLESS(state.configured && i < TILES && state.tile[i].rows > 0);
    return &state.tile[i];
}

static void zero(struct tile *t)
{
    memset(t->data, 0, sizeof(t->data));
}

static void load(struct tile *t, const uint8_t *p, int64_t stride)
{
    zero(t);
    for (uint32_t r = 0; r < t->rows; r++) memcpy(t->data[r], p + (int64_t)r * stride, t->colsb);
}

static void store(const struct tile *t, uint8_t *p, int64_t stride)
{
    for (uint32_t r = 0; r < t->rows; r++) memcpy(p + (int64_t)r * stride, t->data[r], t->colsb);
}

/* TDPBSSD: dwords of c += four products of signed bytes each. */
static void dot(struct tile *c, const struct tile *a, const struct tile *b)
{
    FAULT_UNLESS(c != a && c != b && a != b);
    FAULT_UNLESS(c->colsb % 4 == 0 && a->colsb % 4 == 0 && b->colsb % 4 == 0);
    FAULT_UNLESS(c->rows == a->rows && a->colsb / 4 == b->rows && c->colsb == b->colsb);
    for (uint32_t m = 0; m < c->rows; m++)
        for (uint32_t n = 0; n < c->colsb / 4; n++) {
            int32_t sum;
            memcpy(&sum, c->data[m] + 4 * n, 4);
            for (uint32_t k = 0; k < a->colsb; k++)
                sum += (int8_t)a->data[m][k] * (int8_t)b->data[k / 4][4 * n + k % 4];
            memcpy(c->data[m] + 4 * n, &sum, 4);
        }
}

/* --- decoding: C4, RXB and map, W vvvv L pp, opcode, ModRM, SIB, displacement --- */
struct operand {
    unsigned reg, rm, vvvv;
    bool memory;
    uint8_t *at;
    int64_t stride;
};

static int64_t register_of(const ucontext_t *u, unsigned i)
{
    static const int order[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                   REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };
    return u->uc_mcontext.gregs[order[i]];
}

/* Returns where the instruction ends. */
static const uint8_t *decode(const ucontext_t *u, const uint8_t *code, struct operand *o)
{
    const unsigned x = code[1] & 0x40 ? 0 : 8, b = code[1] & 0x20 ? 0 : 8, mod = code[4] >> 6;
    const uint8_t *p = code + 5;
    int64_t at = 0;
    *o = (struct operand){ .reg = code[4] >> 3 & 7, .rm = code[4] & 7, .vvvv = ~code[2] >> 3 & 15, .memory = mod != 3 };
    if (!o->memory) return p;
    bool has_base = true;
    unsigned base = o->rm;
    if (o->rm == 4) {
        unsigned sib = *p++, index = (sib >> 3 & 7) + x;
        base = sib & 7;
        has_base = base != 5 || mod != 0;
        if (index != 4) o->stride = register_of(u, index) * (1 << (sib >> 6));
    }
    if (has_base && !(o->rm == 5 && mod == 0)) at = register_of(u, base + b);
    if (mod == 1) {
        at += (int8_t)*p++;
    } else if (mod == 2 || !has_base || (o->rm == 5 && mod == 0)) {
        int32_t disp;
        memcpy(&disp, p, sizeof(disp));
        p += sizeof(disp);
        at += disp;
        if (o->rm == 5 && mod == 0) at += (int64_t)p; /* relative to what follows */
    }
    o->at = (uint8_t *)at;
    return p;
}

static bool execute(unsigned opcode, unsigned prefix, const struct operand *o)
{
    enum { NP, P66, PF3, PF2 };
    const unsigned what = opcode << 2 | prefix;
    switch (what) {
    case 0x49 << 2 | NP:
        if (o->memory)
            load_config(o->at);
        else
            release();
        return o->memory || o->rm == 0;
    case 0x49 << 2 | PF2: zero(tile_of(o->reg)); return !o->memory && o->rm == 0;
    case 0x4b << 2 | PF2: load(tile_of(o->reg), o->at, o->stride); return o->memory && o->rm == 4;
    case 0x4b << 2 | PF3: store(tile_of(o->reg), o->at, o->stride); return o->memory && o->rm == 4;
    case 0x5e << 2 | PF2: dot(tile_of(o->reg), tile_of(o->rm), tile_of(o->vvvv)); return !o->memory;
    default: return false;
    }
}

static void on_illegal(int sig, siginfo_t *info, void *context)
{
    ucontext_t *u = context;
    const uint8_t *code = (const uint8_t *)u->uc_mcontext.gregs[REG_RIP];
    struct operand o;
    FAULT_UNLESS(code[0] == 0xc4 && (code[1] & 0x9f) == 0x82); /* VEX, no R, map 0F38 */
    FAULT_UNLESS((code[2] & 0x84) == 0);                       /* W0, 128 */
    const uint8_t *end = decode(u, code, &o);
    FAULT_UNLESS(execute(code[3], code[2] & 3, &o));
    u->uc_mcontext.gregs[REG_RIP] = (greg_t)end;
    state.count++;
}

void amx_trap_install(void)
{
    struct sigaction action = { .sa_sigaction = on_illegal, .sa_flags = SA_SIGINFO };
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGILL, &action, NULL) != 0) abort();
}

bool amx_trap_configured(void)
{
    return state.configured;
}

unsigned long amx_trap_count(void)
{
    return state.count;
}
