/* pack.h - the CPU's layout of a weight matrix: panels of 16 rows, read front to back by every kernel.
 *
 * A panel holds rows 16 p .. 16 p + 15 (rows past the end are zeros) and all columns.  Lanes are rows.
 * Float types: for each column, 16 values.  Quantized types: for each block of 32 columns the codes, in planes
 *
 *     8 bits   8 x 64 bytes; bytes 4 r .. 4 r + 3 of chunk j are columns 4 j .. 4 j + 3 of row r
 *     nibbles  4 x 64 bytes (4, 5, 6 bits); the same, low nibbles columns 4 j .., high nibbles columns 16 + 4 j ..
 *     pairs    2 x 64 bytes (2 and 3 bits; upper two of 6): bits 8 i + 2 j of dword r of chunk p: column 16 p + 4 j + i
 *     bit      64 bytes (the uppermost of 3 and 5 bits): bit 8 i + j of dword r belongs to column 4 j + i
 *
 * then scales [16] each, as enum pack_scales says, and, for types with super-blocks of 256 columns, 64 bytes before
 * each 8 blocks.  Codes are unsigned, and of a codebook's type they name an entry of it; a weight is d (code - offset)
 * or d code + m. */
#ifndef COMPUTE_CPU_PACK_H
#define COMPUTE_CPU_PACK_H
#include "base/status.h"
#include "compute/dtype.h"

#include <stddef.h>
#include <stdint.h>

#define PANEL_ROWS       16
#define COL_QUANTUM      16  /* columns of a weight come in multiples of these */
#define PACK_BLOCK       32  /* columns */
#define PACK_SUPER       256 /* columns */
#define PACK_SUPER_BYTES 64

enum pack_scales {
    PACK_FLOAT, /* not quantized */
    PACK_D,     /* fp16 d[16] */
    PACK_BF,    /* bf16 d[16] */
    PACK_DM,    /* fp16 d[16], fp16 m[16] */
    /* from here on with a super-block: fp16 d[16], dmin[16], or fp32 d[16] where there are no minima */
    PACK_K,    /* u8 sc[16], u8 mn[16]: d sc, m = -(dmin mn) */
    PACK_K16M, /* u8 sc[2][16], u8 mn[2][16]: the same per 16 columns */
    PACK_K32,  /* int8 sc[16]: d sc */
    PACK_K16,  /* int8 sc[2][16], one per 16 columns: d sc */
};

enum pack_book { BOOK_NONE, BOOK_IQ1, BOOK_IQ2, BOOK_IQ3_XXS, BOOK_IQ3_S, BOOK_IQ4, BOOK_FP4, BOOK_COUNT };
/* What a code stands for: the type's value plus the format's offset. */
extern const uint8_t pack_books[BOOK_COUNT][16];

struct pack_format {
    uint8_t bits;         /* 2 to 6 or 8; 16 and 32 for floats */
    uint8_t offset_shift; /* offset = 1 << offset_shift, if has_offset */
    uint8_t has_offset;
    uint8_t scales; /* enum pack_scales */
    uint8_t book;   /* enum pack_book */
};

/* How `type` is packed, or NULL if this backend cannot multiply with it. */
const struct pack_format *pack_format_of(enum dtype type);
/* The type that panels of floats hold: F32 for the types that are converted, else `type` itself. */
enum dtype pack_stored_type(enum dtype type);
/* Bytes of one block of 32 columns, without the super-block's 64. */
size_t pack_block_bytes(const struct pack_format *f);
/* Bytes of a panel. */
size_t pack_panel_bytes(enum dtype type, uint32_t n_cols);
/* Byte offset of block b in its panel (quantized types). */
size_t pack_block_offset(const struct pack_format *f, uint32_t b);
/* Packs panel p of a matrix of n_rows rows, src_stride bytes apart. */
void pack_panel(uint8_t *dst, enum dtype type, uint32_t p, uint32_t n_rows, uint32_t n_cols, const uint8_t *src,
                size_t src_stride);

/* One unpacked block of one row: what the reference computes with. */
struct pack_row_block {
    uint8_t code[PACK_BLOCK]; /* looked up, where there is a book */
    float d[2], m[2];         /* of the first and the last 16 columns */
};
void pack_read_block(struct pack_row_block *out, const struct pack_format *f, const uint8_t *panel, uint32_t b,
                     uint32_t lane);
#endif
