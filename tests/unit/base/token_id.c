/* token_id: the one bound of token ids. */
#include "base/token_id.h"

#include <criterion/criterion.h>

Test(token_id, is_a_row_of_the_embedding)
{
    cr_assert(token_id_ok(0, 1) && token_id_ok(49151, 49152));
    cr_assert(!token_id_ok(-1, 10) && !token_id_ok(10, 10) && !token_id_ok(0, 0));
    cr_assert(!token_id_ok(INT64_MAX, UINT32_MAX) && !token_id_ok((int64_t)UINT32_MAX + 5, 10));
    cr_assert(!token_id_ok(INT64_MIN, UINT32_MAX));
}
