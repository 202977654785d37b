/* mesh: over all ranks every (layer, kv head) is owned exactly once, and a rank holds what its query heads read. */
#include "parallel/mesh.h"

#include <criterion/criterion.h>
#include <string.h>

Test(mesh, owns_every_head_of_every_layer_once)
{
    static const uint32_t heads[][2] = { { 9, 3 }, { 16, 2 }, { 24, 8 }, { 8, 8 }, { 12, 1 } };
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++)
        for (uint32_t tp = 1; tp <= 8; tp++)
            for (uint32_t pp = 1; pp <= 3; pp++) {
                const struct mesh m = { tp, pp, 7, heads[i][0], heads[i][1] };
                uint8_t owned[7][8] = { { 0 } };
                struct error err;
                cr_assert_eq(mesh_check(&m, &err), OK, "%s", err.text);
                for (uint32_t r = 0; r < mesh_n_ranks(&m); r++) {
                    const struct mesh_part p = mesh_part(&m, r);
                    const uint32_t group = m.n_heads / m.n_kv_heads;
                    cr_assert(p.layers.begin < p.layers.end && p.heads.begin < p.heads.end);
                    for (uint32_t q = p.heads.begin; q < p.heads.end; q++)
                        cr_assert(q / group >= p.kv_heads.begin && q / group < p.kv_heads.end);
                    for (uint32_t l = p.layers.begin; l < p.layers.end; l++)
                        for (uint32_t h = p.own_kv_heads.begin; h < p.own_kv_heads.end; h++) owned[l][h]++;
                }
                for (uint32_t l = 0; l < 7; l++)
                    for (uint32_t h = 0; h < m.n_kv_heads; h++) cr_assert_eq(owned[l][h], 1, "tp %u pp %u", tp, pp);
            }
}

Test(mesh, refuses_ranks_that_would_hold_nothing)
{
    static const struct {
        struct mesh mesh;
        const char *says;
    } cases[] = {
        { { 0, 1, 4, 8, 2 }, "tp is 0 and pp 1" },
        { { 1, 0, 4, 8, 2 }, "tp is 1 and pp 0" },
        { { 9, 1, 4, 8, 2 }, "tp is 9, but the model has only 8 heads" },
        { { 1, 5, 4, 8, 2 }, "pp is 5, but the model has only 4 layers" },
        { { 1, 1, 4, 8, 3 }, "8 heads do not divide among 3 kv heads" },
        { { 1, 1, 4, 8, 0 }, "8 heads do not divide among 0 kv heads" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error err = { 0 };
        cr_assert_eq(mesh_check(&cases[i].mesh, &err), ERR_INVALID);
        cr_assert(strstr(err.text, cases[i].says), "%s", err.text);
    }
}
