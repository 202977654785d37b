"""One KV block of SmolLM2-135M in bytes: from the block to single values. docs/kv-format.md explains it."""
from svg import SOFT, Svg

LAYERS, KV_HEADS, HEAD_DIM, TOKENS = 30, 3, 64, 64  # the model's, and KV_BLOCK_TOKENS (common/base/kv_block.h)
VALUES, SCALES = TOKENS * HEAD_DIM, TOKENS * 4  # one byte a value, one float a token
PART = VALUES + SCALES  # K or V of one head: kv_slice_part_bytes()
SLICE = 2 * KV_HEADS * PART  # one layer: kv_slice_bytes()
BLOCK = LAYERS * SLICE
LEFT, WIDTH = 24, 1180


def zoom(s, x0, x1, y0, X0, X1, y1):
    s.polygon([(x0, y0), (x1, y0), (X1, y1), (X0, y1)], "#f4f4f4")


def block(s, y):
    s.text(LEFT, y - 10, f"a block: 64 tokens, {LAYERS} layers = {BLOCK:,} bytes", 14, bold=True)
    s.text(LEFT + WIDTH, y - 10, f"{2 * LAYERS * KV_HEADS * (HEAD_DIM + 4):,} bytes a token (in 16 bits: {2 * LAYERS * KV_HEADS * HEAD_DIM * 2:,})", 12,
           "end", SOFT)
    w = WIDTH / LAYERS
    for i in range(LAYERS):
        s.box(LEFT + i * w, y, w, 30, "plain", str(i), 10, radius=0)
    return LEFT + 7 * w, LEFT + 8 * w


def slice_of_layer(s, y):
    s.text(LEFT, y - 10, f"its slice of one layer: {KV_HEADS} kv heads = {SLICE:,} bytes", 14, bold=True)
    s.text(LEFT + WIDTH, y - 10, "memory is one run per layer: a block's slices lie apart", 12, "end", SOFT)
    w = WIDTH / (2 * KV_HEADS)
    for h in range(KV_HEADS):
        for v in range(2):
            x = LEFT + (2 * h + v) * w
            s.box(x, y, w, 34, "value" if v else "key", f"head {h}: {'V' if v else 'K'}, {PART:,} bytes", 12, radius=0)
    return LEFT + 2 * w, LEFT + 3 * w


def part(s, y, kind):
    """Values, then scales: widths in proportion."""
    w = WIDTH * VALUES / PART
    s.box(LEFT, y, w, 34, kind, f"{TOKENS} tokens x {HEAD_DIM} values, int8: {VALUES:,} bytes", 12, radius=0)
    s.box(LEFT + w, y, WIDTH - w, 34, "scale", f"{SCALES}", 12, radius=0)
    s.text(LEFT + WIDTH, y + 50, f"a scale (float) for each of the {TOKENS} tokens", 11, "end", SOFT)


def cells(s, y, kind, names, more):
    w = 118
    for i, name in enumerate(names):
        s.box(LEFT + i * w, y, w - 6, 36, kind, name, 11, radius=0)
    s.text(LEFT + len(names) * w + 6, y + 22, more, 12, color=SOFT)


def draw():
    s = Svg(2 * LEFT + WIDTH + 10, 800, "One KV block in bytes")
    s.text(LEFT, 28, "One KV block of SmolLM2-135M, INT8, as the CPU keeps it", 16, bold=True)
    x0, x1 = block(s, 74)
    zoom(s, x0, x1, 104, LEFT, LEFT + WIDTH, 150)
    x0, x1 = slice_of_layer(s, 170)
    zoom(s, x0, x1, 204, LEFT, LEFT + WIDTH, 248)
    s.text(LEFT, 260, f"K (or V) of one head = {PART:,} bytes", 14, bold=True)
    part(s, 270, "key")
    s.text(LEFT, 350, "K's values in memory: 4 groups of 16 tokens, in each 16 lines of 64 bytes. A line holds 4 dimensions of 16 tokens.", 13, bold=True)
    cells(s, 360, "key", [f"token {t}\ndims 0 1 2 3" for t in range(8)], "... token 15")
    cells(s, 400, "key", [f"token {t}\ndims 4 5 6 7" for t in range(8)], "... token 15, and so on to dims 60 to 63")
    s.text(LEFT, 470, "V's values in memory: 16 groups of 4 tokens, in each 64 dimensions. A line of 64 bytes holds 16 dimensions of 4 tokens.", 13, bold=True)
    cells(s, 480, "value", [f"dim {d}\ntokens 0 1 2 3" for d in range(8)], "... dim 15")
    cells(s, 520, "value", [f"dim {d}\ntokens 0 1 2 3" for d in range(16, 24)], "... dim 31, and so on to dim 63")
    s.text(LEFT, 592, "On the wire (canonical order): the same values token by token, then the scales; K, then V; head by head; layer by layer.", 13, bold=True)
    cells(s, 602, "key", [f"token {t}\ndims 0 to 63" for t in range(8)], "... token 63, then 64 scales, then V")
    s.text(LEFT, 674, "What one number means", 13, bold=True)
    s.text(LEFT, 698, "value = int8 x scale of its token.   scale = largest magnitude of that token's 64 values / 127.", 13)
    s.text(LEFT, 720, "Example: the largest of a token's 64 key values is 3.81. Its scale is 0.03, and a key value of 1.2 is stored as 40.", 13)
    s.text(LEFT, 752, "Why two orders: a kernel multiplies 4 values at a time. K wants many tokens side by side, V many dimensions.", 12, color=SOFT)
    s.text(LEFT, 772, "Other backends may lay blocks out differently. The wire's order is the same for all.", 12, color=SOFT)
    return s
