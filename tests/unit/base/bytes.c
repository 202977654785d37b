/* bytes: reads stay inside the view; a failed read moves nothing. */
#include "base/bytes.h"

#include "base/mem.h"

#include <criterion/criterion.h>

Test(bytes, reads_little_endian_and_moves_on)
{
    static const uint8_t raw[] = { 1, 2, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x3F };
    struct reader r = reader_of(bytes_of(raw, sizeof(raw)));
    uint8_t a;
    uint16_t b;
    uint32_t c;
    uint64_t d;
    float f;
    cr_assert(reader_copy(&r, &a, 1) && reader_copy(&r, &b, 2) && reader_u32(&r, &c) && reader_u64(&r, &d));
    cr_assert(reader_copy(&r, &f, 4));
    cr_assert(a == 1 && b == 2 && c == 3 && d == 4 && f == 1.0f);
    cr_assert_eq(reader_left(&r), 0);
}

Test(bytes, short_reads_change_nothing)
{
    uint8_t *raw = mem_alloc(3); /* on the heap: a read past the end is seen by AddressSanitizer */
    memcpy(raw, "\1\2\3", 3);
    struct reader r = reader_of(bytes_of(raw, 3));
    struct bytes view = { NULL, 77 };
    uint32_t word = 5;
    cr_assert(!reader_u32(&r, &word));
    cr_assert(!reader_take(&r, 4, &view));
    cr_assert(!reader_take(&r, UINT64_MAX, &view));
    cr_assert(word == 5 && view.n == 77 && r.pos == 0);
    cr_assert(reader_take(&r, 3, &view));
    cr_assert(bytes_eq(view, raw, 3));
    cr_assert(reader_take(&r, 0, &view) && view.n == 0);
    mem_free(raw);
}

Test(bytes, sizes_do_not_wrap)
{
    uint64_t out;
    cr_assert(!size_mul(1ull << 33, 1ull << 31, &out));
    cr_assert(!size_add(UINT64_MAX, 1, &out));
    cr_assert(size_mul(3, 4, &out) && out == 12);
    cr_assert(size_add(3, 4, &out) && out == 7);
}
