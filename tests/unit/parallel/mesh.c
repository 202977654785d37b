/* mesh: every layer is on exactly one stage, all of whose members hold it. */
#include "parallel/mesh.h"

#include <criterion/criterion.h>
#include <string.h>

Test(mesh, gives_every_layer_to_one_stage)
{
    for (uint32_t tp = 1; tp <= 8; tp++)
        for (uint32_t pp = 1; pp <= 7; pp++) {
            const struct mesh m = { tp, pp, 7 };
            uint32_t next = 0;
            struct error err;
            cr_assert_eq(mesh_check(&m, &err), OK, "%s", err.text);
            cr_assert_eq(mesh_n_ranks(&m), tp * pp);
            for (uint32_t r = 0; r < mesh_n_ranks(&m); r++) {
                const struct shard layers = mesh_layers(&m, r), first = mesh_layers(&m, r - r % tp);
                cr_assert(layers.begin == first.begin && layers.end == first.end && layers.begin < layers.end);
                if (r % tp == 0) cr_assert_eq(layers.begin, next, "tp %u pp %u", tp, pp);
                next = layers.end;
            }
            cr_assert_eq(next, m.n_layers);
        }
}

Test(mesh, refuses_ranks_that_would_hold_nothing)
{
    static const struct {
        struct mesh mesh;
        const char *says;
    } cases[] = {
        { { 0, 1, 4 }, "tp is 0 and pp 1" },
        { { 1, 0, 4 }, "tp is 1 and pp 0" },
        { { 1, 5, 4 }, "pp is 5, but the model has only 4 layers" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error err = { 0 };
        cr_assert_eq(mesh_check(&cases[i].mesh, &err), ERR_INVALID);
        cr_assert(strstr(err.text, cases[i].says), "%s", err.text);
    }
}
