/* amx_trap.c - executes the tile instructions that the kernels use. */
#include "helpers/amx_trap.h"

#include "helpers/vex_trap.h"

#include <string.h>

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
    struct tile tile[TILES];
} state;

static void release(void)
{
    state.configured = false;
    memset(state.tile, 0, sizeof(state.tile));
}

static void load_config(const uint8_t *m)
{
    release();
    if (m[0] == 0) return;
    VEX_FAULT_UNLESS(m[0] == 1 && m[1] == 0); /* palette, start row */
    for (int i = 2; i < CONFIG_COLSB; i++) VEX_FAULT_UNLESS(m[i] == 0);
    for (int i = 0; i < 16; i++) {
        uint16_t colsb;
        uint8_t rows = m[CONFIG_ROWS + i];
        memcpy(&colsb, m + CONFIG_COLSB + 2 * i, sizeof(colsb));
        VEX_FAULT_UNLESS(colsb <= ROW_BYTES && rows <= MAX_ROWS && (colsb == 0) == (rows == 0));
        VEX_FAULT_UNLESS(i < TILES || rows == 0);
        if (i < TILES) state.tile[i].rows = rows, state.tile[i].colsb = colsb;
    }
    state.configured = true;
}

static struct tile *tile_of(unsigned i)
{
    VEX_FAULT_UNLESS(state.configured && i < TILES && state.tile[i].rows > 0);
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
    VEX_FAULT_UNLESS(c != a && c != b && a != b);
    VEX_FAULT_UNLESS(c->colsb % 4 == 0 && a->colsb % 4 == 0 && b->colsb % 4 == 0);
    VEX_FAULT_UNLESS(c->rows == a->rows && a->colsb / 4 == b->rows && c->colsb == b->colsb);
    for (uint32_t m = 0; m < c->rows; m++)
        for (uint32_t n = 0; n < c->colsb / 4; n++) {
            int32_t sum;
            memcpy(&sum, c->data[m] + 4 * n, 4);
            for (uint32_t k = 0; k < a->colsb; k++)
                sum += (int8_t)a->data[m][k] * (int8_t)b->data[k / 4][4 * n + k % 4];
            memcpy(c->data[m] + 4 * n, &sum, 4);
        }
}

static bool execute(ucontext_t *u, const struct vex_instruction *i)
{
    const unsigned what = i->opcode << 2 | i->pp;
    if (i->map != VEX_MAP_0F38 || i->w || i->l) return false;
    switch (what) {
    case 0x49 << 2 | VEX_NP:
        if (i->memory)
            load_config(i->at + i->index);
        else
            release();
        return i->memory || i->rm == 0;
    case 0x49 << 2 | VEX_F2: zero(tile_of(i->reg)); return !i->memory && i->rm == 0;
    case 0x4b << 2 | VEX_F2: load(tile_of(i->reg), i->at, i->index); return i->sib;
    case 0x4b << 2 | VEX_F3: store(tile_of(i->reg), i->at, i->index); return i->sib;
    case 0x5e << 2 | VEX_F2: dot(tile_of(i->reg), tile_of(i->rm), tile_of(i->vvvv)); return !i->memory;
    default: return false;
    }
}

bool amx_trap_install(void)
{
    const unsigned long before = vex_trap_count();
    vex_trap_install(execute);
    __asm__ volatile("tilerelease");
    return vex_trap_count() > before;
}

bool amx_trap_configured(void)
{
    return state.configured;
}
