/* bpe.c - BPE of bytes or characters: a heap of merges over a linked list of symbols, n log n in a piece's length. */
#include "text/bpe.h"

#include "base/mem.h"
#include "text/bytelevel.h"
#include "text/merge_queue.h"
#include "text/pretokenize.h"
#include "text/token_map.h"
#include "text/tokenizer.h"
#include "text/utf8.h"
#include "text/vocab.h"

#include <assert.h>
#include <string.h>
#include <xxhash.h>

#define END          UINT32_MAX
#define NO_PAIR      UINT64_MAX
#define SPACE_MARK   "\xe2\x96\x81" /* U+2581 stands for a space where merges are of characters */
#define KEEP_SYMBOLS (1u << 16)     /* scratch of a longer piece is given back */

struct pair {     /* two neighbours and what they become */
    uint64_t key; /* left id in the high half, right id in the low one; NO_PAIR where free */
    uint32_t rank;
    int32_t id;
};

struct symbol {
    uint32_t prev, next; /* END at the borders */
    int32_t id;          /* TOKEN_NONE: merged into the one before it */
};

struct bpe {
    struct token_map *map;
    struct pretokenizer *pre;
    struct pair *pairs;
    size_t pair_mask;
    int32_t byte_ids[256]; /* TOKEN_NONE where the vocabulary has none */
    bool is_text;          /* merges are of characters; bytes are what other characters fall apart into */
};

struct bpe_scratch {
    const struct bpe *bpe;
    struct pretokenize_scratch *pre;
    char *text; /* of a token, token_map_longest() bytes */
    struct symbol *symbols;
    size_t symbols_cap;
    struct merge_queue queue;
    struct token_list *out; /* of the call under way */
    const atomic_bool *stop;
};

static uint64_t pair_key(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static struct pair *pair_slot(const struct bpe *b, uint64_t key)
{
    size_t i = XXH3_64bits(&key, sizeof(key)) & b->pair_mask;

    while (b->pairs[i].key != NO_PAIR && b->pairs[i].key != key) i = (i + 1) & b->pair_mask;
    return &b->pairs[i];
}

/* The lowest rank of a pair counts.  A merge whose parts or result are no tokens can do nothing. */
static void add_merge(struct bpe *b, const struct vocab_merge *m, uint32_t rank, char *text)
{
    size_t n = (size_t)m->n_left + m->n_right;
    int32_t left = token_map_find(b->map, m->left, m->n_left);
    int32_t right = token_map_find(b->map, m->right, m->n_right);

    if (left == TOKEN_NONE || right == TOKEN_NONE || n > token_map_longest(b->map)) return;
    memcpy(text, m->left, m->n_left);
    memcpy(text + m->n_left, m->right, m->n_right);
    int32_t id = token_map_find(b->map, text, n);
    struct pair *slot = pair_slot(b, pair_key(left, right));
    if (id == TOKEN_NONE || slot->key != NO_PAIR) return;
    *slot = (struct pair){ pair_key(left, right), rank, id };
}

static void add_merges(struct bpe *b, const struct vocab *v)
{
    size_t n_slots = 16;

    while (n_slots < 2 * (size_t)v->n_merges) n_slots *= 2;
    b->pairs = mem_array(n_slots, sizeof(*b->pairs));
    b->pair_mask = n_slots - 1;
    for (size_t i = 0; i < n_slots; i++) b->pairs[i].key = NO_PAIR;
    char *text = mem_alloc(token_map_longest(b->map));
    for (uint32_t rank = 0; rank < v->n_merges; rank++) add_merge(b, &v->merges[rank], rank, text);
    mem_free(text);
}

/* Of characters, bytes are byte tokens; of bytes, the letters of the byte-level alphabet. */
static void find_bytes(struct bpe *b, const struct vocab *v)
{
    for (int byte = 0; byte < 256; byte++) {
        char c[2];
        b->byte_ids[byte] = b->is_text ? TOKEN_NONE : token_map_find(b->map, c, bytelevel_encode((uint8_t)byte, c));
    }
    for (uint32_t id = 0; b->is_text && id < v->n_tokens; id++) {
        int byte = vocab_token_byte(v, (int32_t)id);
        if (byte >= 0 && b->byte_ids[byte] == TOKEN_NONE) b->byte_ids[byte] = (int32_t)id;
    }
}

enum status bpe_create(struct bpe **out, const struct vocab *v, struct error *err)
{
    struct bpe *b = mem_zalloc(sizeof(*b));
    enum status st = pretokenize_create(&b->pre, v->pre ? v->pre : "", err);

    if (st != OK) {
        bpe_destroy(b);
        return st;
    }
    b->map = token_map_create(v);
    b->is_text = v->kind == VOCAB_BPE_TEXT;
    find_bytes(b, v);
    add_merges(b, v);
    *out = b;
    return OK;
}

void bpe_destroy(struct bpe *b)
{
    if (!b) return;
    mem_free(b->pairs);
    token_map_destroy(b->map);
    pretokenize_destroy(b->pre);
    mem_free(b);
}

size_t bpe_count_known(const struct bpe *b, const char *text, size_t n)
{
    size_t known = 0;
    for (size_t i = 0; i < n; i++) known += b->byte_ids[(uint8_t)text[i]] != TOKEN_NONE; /* of text: at least these */
    return known;
}

enum status bpe_scratch_create(struct bpe_scratch **out, const struct bpe *b)
{
    struct bpe_scratch *s = mem_zalloc(sizeof(*s));
    enum status st = pretokenize_scratch_create(&s->pre);

    s->bpe = b;
    s->text = mem_alloc(token_map_longest(b->map));
    if (st != OK) {
        bpe_scratch_destroy(s);
        return st;
    }
    *out = s;
    return OK;
}

void bpe_scratch_destroy(struct bpe_scratch *s)
{
    if (!s) return;
    merge_queue_fini(&s->queue);
    mem_free(s->symbols);
    mem_free(s->text);
    pretokenize_scratch_destroy(s->pre);
    mem_free(s);
}

static enum status reserve(struct bpe_scratch *s, size_t n)
{
    size_t cap = 64;
    void *symbols = NULL;
    enum status st;

    if ((st = merge_queue_reset(&s->queue, n)) != OK) return st;
    if (n <= s->symbols_cap) return OK;
    while (cap < n) cap *= 2;
    if ((st = mem_try_array(&symbols, cap, sizeof(*s->symbols))) != OK) return st;
    mem_free(s->symbols);
    s->symbols = symbols;
    s->symbols_cap = cap;
    return OK;
}

static void release_large(struct bpe_scratch *s)
{
    if (s->symbols_cap <= KEEP_SYMBOLS) return;
    merge_queue_fini(&s->queue);
    mem_free(s->symbols);
    s->symbols = NULL;
    s->symbols_cap = 0;
}

static void push_pair(struct bpe_scratch *s, uint32_t left)
{
    uint32_t right = left == END ? END : s->symbols[left].next;

    if (right == END) return;
    int32_t left_id = s->symbols[left].id, right_id = s->symbols[right].id;
    const struct pair *p = pair_slot(s->bpe, pair_key(left_id, right_id));
    if (p->key == NO_PAIR) return;
    merge_queue_push(&s->queue,
                     (struct merge){ (uint64_t)p->rank << 32 | left, (uint32_t)left_id, (uint32_t)right_id });
}

static void do_merge(struct bpe_scratch *s, const struct merge *m)
{
    uint32_t left = (uint32_t)m->key;
    struct symbol *l = &s->symbols[left];

    if (l->id != (int32_t)m->a || l->next == END) return;
    struct symbol *r = &s->symbols[l->next];
    if (r->id != (int32_t)m->b) return;

    l->id = pair_slot(s->bpe, pair_key(l->id, r->id))->id;
    r->id = TOKEN_NONE;
    l->next = r->next;
    if (l->next != END) s->symbols[l->next].prev = left;
    push_pair(s, l->prev);
    push_pair(s, left);
}

/* The id of a piece that is a token as a whole. */
static int32_t whole_token(const struct bpe_scratch *s, const char *piece, size_t n)
{
    size_t used = 0, longest = token_map_longest(s->bpe->map);

    for (size_t i = 0; i < n; i++) {
        char c[2];
        size_t len = bytelevel_encode((uint8_t)piece[i], c);
        if (used + len > longest) return TOKEN_NONE;
        memcpy(s->text + used, c, len);
        used += len;
    }
    return token_map_find(s->bpe->map, s->text, used);
}

static uint32_t add_symbol(struct bpe_scratch *s, uint32_t count, int32_t id)
{
    if (id == TOKEN_NONE) return count;
    s->symbols[count] = (struct symbol){ count - 1, count + 1, id };
    return count + 1;
}

static uint32_t fill_bytes(struct bpe_scratch *s, uint32_t count, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) count = add_symbol(s, count, s->bpe->byte_ids[(uint8_t)bytes[i]]);
    return count;
}

static uint32_t fill_characters(struct bpe_scratch *s, const char *piece, size_t n)
{
    uint32_t count = 0;

    for (size_t at = 0, len; at < n; at += len) {
        len = utf8_len((uint8_t)piece[at]);
        int32_t id = piece[at] == ' ' ? token_map_find(s->bpe->map, SPACE_MARK, sizeof(SPACE_MARK) - 1)
                                      : token_map_find(s->bpe->map, piece + at, len);
        count = id == TOKEN_NONE ? fill_bytes(s, count, piece + at, len) : add_symbol(s, count, id);
    }
    return count;
}

/* Symbols for the bytes or characters of a piece; returns how many. */
static uint32_t fill_symbols(struct bpe_scratch *s, const char *piece, size_t n)
{
    uint32_t count = s->bpe->is_text ? fill_characters(s, piece, n) : fill_bytes(s, 0, piece, n);

    if (count > 0) s->symbols[count - 1].next = END;
    return count;
}

/* The id of a piece that is taken as a whole: of any where merges are ignored, of line ends where they are text. */
static int32_t taken_whole(const struct bpe_scratch *s, const char *piece, size_t n)
{
    if (s->bpe->is_text) return piece[0] == '\n' ? token_map_find(s->bpe->map, piece, n) : TOKEN_NONE;
    return pretokenize_ignores_merges(s->bpe->pre) ? whole_token(s, piece, n) : TOKEN_NONE;
}

static enum status encode_piece(void *arg, const char *piece, size_t n)
{
    struct bpe_scratch *s = arg;
    enum status st;
    int32_t whole = taken_whole(s, piece, n);

    if (s->stop && atomic_load_explicit(s->stop, memory_order_relaxed)) return ERR_CANCELLED;
    if (whole != TOKEN_NONE) {
        token_list_add(s->out, whole);
        return OK;
    }
    if ((st = reserve(s, n)) != OK) return st;
    uint32_t count = fill_symbols(s, piece, n);
    for (uint32_t i = 0; i + 1 < count; i++) push_pair(s, i);
    for (struct merge m; merge_queue_pop(&s->queue, &m);) do_merge(s, &m);
    for (uint32_t i = 0; i != END && count > 0; i = s->symbols[i].next) {
        token_list_add(s->out, s->symbols[i].id);
    }
    return OK;
}

enum status bpe_encode(struct bpe_scratch *s, const char *text, size_t n, const atomic_bool *stop,
                       struct token_list *out, struct error *err)
{
    s->out = out;
    s->stop = stop;
    enum status st = pretokenize_split(s->bpe->pre, s->pre, text, n, encode_piece, s, err);
    s->out = NULL;
    s->stop = NULL;
    release_large(s);
    return st;
}
