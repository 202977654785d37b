/* template_value.c - the values of a render: making, growing and looking into them. */
#include "text/template_internal.h"

#include "base/mem.h"

#include <string.h>

struct arena_chunk {
    struct arena_chunk *next;
    size_t n, used;
    _Alignas(16) char data[];
};

enum { CHUNK_BYTES = 32 << 10 };

void *template_alloc(struct arena *a, size_t bytes)
{
    struct arena_chunk *c = a->head;
    size_t need = (bytes + 15) & ~(size_t)15;
    if (!c || c->n - c->used < need) {
        size_t n = need > CHUNK_BYTES / 4 ? need : CHUNK_BYTES;
        struct arena_chunk *fresh = mem_alloc(sizeof(*fresh) + n);
        *fresh = (struct arena_chunk){ .n = n };
        if (c && n != CHUNK_BYTES) { /* a large piece stands alone: the open chunk stays open */
            fresh->next = c->next;
            c->next = fresh;
        } else {
            fresh->next = c;
            a->head = fresh;
        }
        c = fresh;
    }
    void *p = c->data + c->used;
    c->used += need;
    a->used += need;
    return memset(p, 0, need);
}

void template_arena_fini(struct arena *a)
{
    while (a->head) {
        struct arena_chunk *next = a->head->next;
        mem_free(a->head);
        a->head = next;
    }
    a->used = 0;
}

/* Memory of a size that the template decides: NULL and failed past the bound. */
static void *alloc_sized(struct render *r, size_t n, size_t elem_bytes)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, elem_bytes, &bytes) || bytes > TEMPLATE_MEMORY_MAX ||
        r->arena.used > TEMPLATE_MEMORY_MAX - bytes) {
        template_fail(r, ERR_TOO_LARGE, "more than %d MiB of memory are needed", TEMPLATE_MEMORY_MAX >> 20);
        return NULL;
    }
    return template_alloc(&r->arena, bytes);
}

struct value value_none(void)
{
    return (struct value){ .type = V_NONE };
}

struct value value_undef(void)
{
    return value_absent(STR("an undefined value is used"));
}

struct value value_absent(struct str why)
{
    return (struct value){ .type = V_UNDEF, .s = why };
}

struct value value_missing(struct str name, enum value_type of)
{
    return (struct value){ .type = V_UNDEF, .sub = (uint8_t)(of + 1), .s = name };
}

struct value value_bool(bool b)
{
    return (struct value){ .type = V_BOOL, .b = b };
}

struct value value_int(int64_t i)
{
    return (struct value){ .type = V_INT, .i = i };
}

struct value value_float(double f)
{
    return (struct value){ .type = V_FLOAT, .f = f };
}

struct value value_str(struct str s)
{
    return (struct value){ .type = V_STR, .s = s };
}

struct value value_copy(struct render *r, struct str s)
{
    bool mixed = s.own != NULL && s.own != STR_OWN;
    char *copy = alloc_sized(r, mixed ? 2 * s.n : s.n, 1);
    if (!copy) return value_undef();
    if (s.n) memcpy(copy, s.p, s.n);
    if (mixed) s.own = memcpy(copy + s.n, s.own, s.n);
    return value_str((struct str){ copy, s.n, s.own });
}

struct value value_take(struct render *r, struct text_out *o)
{
    struct value v = value_undef();
    if (o->text.overflowed)
        template_fail(r, ERR_TOO_LARGE, "a text longer than %d MiB", TEMPLATE_OUTPUT_MAX >> 20);
    else if (template_charge(r, o->text.n))
        v = value_copy(r, out_view(o));
    out_fini(o);
    return v;
}

struct value value_list(struct render *r, enum value_type type)
{
    struct list *l = template_alloc(&r->arena, sizeof(*l));
    return (struct value){ .type = (uint8_t)type, .list = l };
}

struct value value_dict(struct render *r, enum value_type type)
{
    struct dict *d = template_alloc(&r->arena, sizeof(*d));
    return (struct value){ .type = (uint8_t)type, .dict = d };
}

void list_push(struct render *r, struct list *l, struct value v)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 4;
        struct value *grown = alloc_sized(r, cap, sizeof(*grown));
        if (!grown) return;
        if (l->n) memcpy(grown, l->v, l->n * sizeof(*grown));
        l->v = grown;
        l->cap = cap;
    }
    l->v[l->n++] = v;
}

struct value *dict_find(struct render *r, const struct dict *d, struct value key)
{
    if (!template_charge(r, d->n * 4)) return NULL;
    for (size_t i = 0; i < d->n; i++) {
        struct value *k = &d->e[i].key;
        if (k->type == V_STR && key.type == V_STR) {
            if (str_eq(k->s, key.s)) return &d->e[i].value;
        } else if (k->type != V_STR && key.type != V_STR && value_equal(r, *k, key, 0)) {
            return &d->e[i].value;
        }
    }
    return NULL;
}

static bool is_hashable(struct value key)
{
    if (key.type == V_TUPLE) {
        for (size_t i = 0; i < key.list->n; i++) {
            /* A tuple cannot contain itself: its items exist before it does. */
            struct value item = key.list->v[i];
            if (item.type == V_LIST || item.type == V_DICT || !is_hashable(item)) return false;
        }
    }
    return key.type != V_LIST && key.type != V_DICT;
}

static void dict_append(struct render *r, struct dict *d, struct value key, struct value v)
{
    if (d->n == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 4;
        struct pair *grown = alloc_sized(r, cap, sizeof(*grown));
        if (!grown) return;
        if (d->n) memcpy(grown, d->e, d->n * sizeof(*grown));
        d->e = grown;
        d->cap = cap;
    }
    d->e[d->n++] = (struct pair){ key, v };
}

void dict_set(struct render *r, struct dict *d, struct value key, struct value v)
{
    if (!is_hashable(key)) {
        template_fail(r, ERR_INTERNAL, "unhashable type: '%s'", value_type_name(key));
        return;
    }
    struct value *slot = dict_find(r, d, key);
    if (slot)
        *slot = v;
    else if (r->status == OK)
        dict_append(r, d, key, v);
}

void dict_remove(struct dict *d, const struct value *slot)
{
    size_t i = 0;
    while (&d->e[i].value != slot) i++;
    d->n--;
    memmove(&d->e[i], &d->e[i + 1], (d->n - i) * sizeof(*d->e));
}

/* A word that the template's author expects under this name counts as the template's own. */
static struct value member_value(struct render *r, struct str name, const json_t *j, int depth)
{
    struct value v = value_json(r, j, depth);
    if (v.type != V_STR || !r->in->own_name || !str_is(name, r->in->own_name)) return v;
    for (const char *const *word = r->in->own_words; *word; word++)
        if (str_is(v.s, *word)) v.s.own = STR_OWN;
    return v;
}

static struct value object_value(struct render *r, const json_t *j, int depth)
{
    struct value v = value_dict(r, V_DICT);
    const char *key;
    json_t *member;
    json_object_foreach((json_t *)j, key, member)
    {
        /* The names of an object differ from each other, so nothing need be looked up. */
        struct str name = { key, strlen(key), r->reads_own ? STR_OWN : NULL };
        dict_append(r, v.dict, value_str(name), member_value(r, name, member, depth + 1));
        if (r->status != OK) break;
    }
    return v;
}

struct value value_json(struct render *r, const json_t *j, int depth)
{
    if (depth > TEMPLATE_DATA_DEPTH)
        return template_fail(r, ERR_TOO_LARGE, "data nested deeper than %d", TEMPLATE_DATA_DEPTH);
    if (!template_charge(r, 16)) return value_undef();
    switch (json_typeof(j)) {
    case JSON_NULL: return value_none();
    case JSON_TRUE: return value_bool(true);
    case JSON_FALSE: return value_bool(false);
    case JSON_INTEGER: return value_int(json_integer_value(j));
    case JSON_REAL: return value_float(json_real_value(j));
    case JSON_STRING:
        return value_str((struct str){ json_string_value(j), json_string_length(j), r->reads_own ? STR_OWN : NULL });
    case JSON_OBJECT: return object_value(r, j, depth);
    case JSON_ARRAY: break;
    }
    struct value v = value_list(r, V_LIST);
    for (size_t i = 0; i < json_array_size(j) && r->status == OK; i++)
        list_push(r, v.list, value_json(r, json_array_get(j, i), depth + 1));
    return v;
}

bool value_is_number(struct value v)
{
    return v.type == V_BOOL || v.type == V_INT || v.type == V_FLOAT;
}

bool value_is_seq(struct value v)
{
    return v.type >= V_LIST && v.type <= V_ITER;
}

bool value_as_int(struct value v, int64_t *out)
{
    if (v.type == V_INT)
        *out = v.i;
    else if (v.type == V_BOOL)
        *out = v.b;
    else
        return false;
    return true;
}

double value_as_float(struct value v)
{
    return v.type == V_FLOAT ? v.f : v.type == V_BOOL ? (double)v.b : (double)v.i;
}

bool value_truth(struct value v)
{
    switch (v.type) {
    case V_ABSENT:
    case V_UNDEF:
    case V_NONE: return false;
    case V_BOOL: return v.b;
    case V_INT: return v.i != 0;
    case V_FLOAT: return v.f != 0;
    case V_STR: return v.s.n > 0;
    case V_LIST:
    case V_TUPLE:
    case V_RANGE:
    case V_VIEW: return v.list->n > 0;
    case V_DICT: return v.dict->n > 0;
    default: return true;
    }
}

const char *value_type_name(struct value v)
{
    static const char *const views[] = { "dict_keys", "dict_values", "dict_items" };
    static const char *const names[] = {
        [V_ABSENT] = "Undefined", [V_UNDEF] = "Undefined",     [V_NONE] = "NoneType",    [V_BOOL] = "bool",
        [V_INT] = "int",          [V_FLOAT] = "float",         [V_STR] = "str",          [V_LIST] = "list",
        [V_TUPLE] = "tuple",      [V_RANGE] = "range",         [V_VIEW] = "dict_items",  [V_ITER] = "generator",
        [V_DICT] = "dict",        [V_NAMESPACE] = "Namespace", [V_LOOP] = "LoopContext", [V_MACRO] = "Macro",
        [V_NATIVE] = "function",  [V_BOUND] = "method",
    };
    return v.type == V_VIEW ? views[v.sub] : names[v.type];
}

bool str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool str_is(struct str a, const char *b)
{
    return str_eq(a, (struct str){ b, strlen(b), NULL });
}

/* Characters of a text, or keys of a dict, as a list. */
static struct list *items_of_parts(struct render *r, struct value v)
{
    struct list *l = value_list(r, V_LIST).list;
    if (v.type == V_DICT) {
        for (size_t i = 0; i < v.dict->n && r->status == OK; i++) list_push(r, l, v.dict->e[i].key);
    } else if (v.type == V_STR) {
        for (size_t pos = 0; pos < v.s.n && r->status == OK;) {
            size_t from = pos;
            text_next(v.s, &pos);
            list_push(r, l, value_str(str_cut(v.s, from, pos - from)));
        }
    }
    return l;
}

struct list *value_items(struct render *r, struct value v)
{
    switch (v.type) {
    case V_LIST:
    case V_TUPLE:
    case V_RANGE:
    case V_VIEW: return v.list;
    case V_ITER: {
        struct list *rest = value_list(r, V_LIST).list;
        rest->n = rest->cap = v.list->n - v.list->pos;
        if (rest->n) rest->v = v.list->v + v.list->pos;
        v.list->pos = v.list->n;
        return rest;
    }
    case V_DICT:
    case V_STR: template_charge(r, 16 * (v.type == V_STR ? v.s.n : v.dict->n)); return items_of_parts(r, v);
    case V_UNDEF: return items_of_parts(r, v);
    default: template_fail(r, ERR_INTERNAL, "'%s' object is not iterable", value_type_name(v)); return NULL;
    }
}

bool value_length(struct value v, size_t *out)
{
    switch (v.type) {
    case V_UNDEF: *out = 0; return true;
    case V_STR: *out = text_length(v.s); return true;
    case V_LIST:
    case V_TUPLE:
    case V_RANGE:
    case V_VIEW: *out = v.list->n; return true;
    case V_DICT: *out = v.dict->n; return true;
    case V_LOOP: *out = v.loop->items->n; return true;
    default: return false;
    }
}

struct value value_undef_error(struct render *r, struct value v)
{
    static const char *const owners[] = {
        [V_NONE] = "None",
        [V_NAMESPACE] = "jinja2.utils.Namespace object",
        [V_LOOP] = "jinja2.runtime.LoopContext object",
        [V_MACRO] = "jinja2.runtime.Macro object",
    };
    uint8_t owner_sub = v.sub & (uint8_t)~VALUE_NO_ELEMENT;
    enum value_type of = owner_sub ? owner_sub - 1u : V_UNDEF;
    int n = v.s.n > 200 ? 200 : (int)v.s.n;
    if (of == V_UNDEF) return template_fail(r, ERR_INTERNAL, "%.*s", n, n ? v.s.p : "");
    if (of == V_ABSENT) return template_fail(r, ERR_INTERNAL, "'%.*s' is undefined", n, v.s.p);
    char owner[64] = "";
    if (of < sizeof(owners) / sizeof(*owners) && owners[of]) {
        memcpy(owner, owners[of], strlen(owners[of]) + 1);
    } else {
        struct value example = { .type = (uint8_t)of };
        const char *name = value_type_name(example);
        memcpy(owner, name, strlen(name));
        memcpy(owner + strlen(name), " object", sizeof(" object"));
    }
    if (v.sub & VALUE_NO_ELEMENT) return template_fail(r, ERR_INTERNAL, "%s has no element %.*s", owner, n, v.s.p);
    return template_fail(r, ERR_INTERNAL, "'%s' has no attribute '%.*s'", owner, n, v.s.p);
}
