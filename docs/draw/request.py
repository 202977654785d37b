"""A request on a time line: every process, thread and queue that it passes. docs/architecture.md explains the numbers."""
from svg import GRID, SOFT, Svg

LEFT, WIDTH, TOP, ROW = 180, 1016, 84, 64
ROWS = [  # (process, thread, what it does)
    ("client", "client", "any OpenAI client"),
    ("coordinator", "worker", "work.c"),
    ("coordinator", "loop", "HTTP, queue, control"),
    ("prefill", "loop", "control plane"),
    ("prefill", "engine", "and compute team"),
    ("prefill", "KV sender", "kv_send.c"),
    ("decode", "KV receivers", "one a lane, kv_recv.c"),
    ("decode", "loop", "control plane"),
    ("decode", "engine", "and compute team"),
]
CLIENT, WORKER, COORD, P_LOOP, P_ENGINE, SENDER, RECEIVER, D_LOOP, D_ENGINE = range(len(ROWS))


def y_of(row):
    return TOP + ROW * row + ROW / 2


def rows(s):
    names = {"client": "", "coordinator": "coordinator", "prefill": "prefill node", "decode": "decode node"}
    for process in names:
        mine = [i for i, r in enumerate(ROWS) if r[0] == process]
        y, h = TOP + ROW * mine[0] + 4, ROW * len(mine) - 8
        s.box(6, y, LEFT - 16, h, process)
        if names[process]:
            s.text(14, y + 17, names[process], 13, bold=True)
    for i, (_, thread, does) in enumerate(ROWS):
        y = y_of(i)
        s.text(LEFT - 18, y + 4, thread, 13, "end", bold=True)
        s.text(LEFT - 18, y + 19, does, 11, "end", SOFT)
        s.line(LEFT, y, LEFT + WIDTH - 10, y, GRID, 1)


def work(s, row, x0, x1, label="", size=12):
    s.box(LEFT + x0, y_of(row) - 13, x1 - x0, 26, ROWS[row][0], label, size)


def queue(s, row, x):
    """A mailbox or list in which something waits: three slots, before what works on it."""
    for i in range(3):
        s.box(LEFT + x + 6 * i, y_of(row) - 9, 6, 18, "white", radius=0)


def arrow(s, a, x0, b, x1, number="", label="", dashed=False):
    down = 1 if b > a else -1
    ya, yb = y_of(a) + 13 * down, y_of(b) - 13 * down
    s.line(LEFT + x0, ya, LEFT + x1, yb, arrow=True, dashed=dashed)
    if number:
        s.badge(LEFT + x0 + (x1 - x0) * 0.5, ya + (yb - ya) * 0.5, number)
    if label:
        s.text(LEFT + x0 + (x1 - x0) * 0.5 + 13, ya + (yb - ya) * 0.5 + 4, label, 12)


def reading(s):
    work(s, CLIENT, 4, 40, "POST")
    arrow(s, CLIENT, 22, COORD, 22, "1")
    work(s, COORD, 14, 44)
    queue(s, WORKER, 36)
    arrow(s, COORD, 40, WORKER, 44)
    work(s, WORKER, 56, 140, "tokenize")
    arrow(s, WORKER, 134, COORD, 146, "2")
    queue(s, COORD, 138)
    work(s, COORD, 157, 194, "route")


def reserving(s):
    arrow(s, COORD, 176, D_LOOP, 212, "3", "Reserve")
    work(s, D_LOOP, 204, 226)
    queue(s, D_ENGINE, 212)
    arrow(s, D_LOOP, 216, D_ENGINE, 220)
    work(s, D_ENGINE, 231, 291, "blocks")
    queue(s, D_LOOP, 284)
    arrow(s, D_ENGINE, 286, D_LOOP, 290, "4")
    work(s, D_LOOP, 303, 325)
    arrow(s, D_LOOP, 314, COORD, 350, "", "Reserved")
    work(s, COORD, 338, 366)


def prefilling(s):
    arrow(s, COORD, 358, P_LOOP, 374, "5", "Prefill")
    work(s, P_LOOP, 366, 390)
    queue(s, P_ENGINE, 378)
    arrow(s, P_LOOP, 382, P_ENGINE, 386)
    for i in range(2):
        work(s, P_ENGINE, 398 + 110 * i, 506 + 110 * i, f"chunk {i + 1}")
    work(s, P_ENGINE, 618, 654, "head")
    for i, x in enumerate((440, 486, 534, 578)):
        arrow(s, P_ENGINE, x, SENDER, x + 8, "6" if i == 0 else "")
        work(s, SENDER, x + 6, x + 38)
        arrow(s, SENDER, x + 26, RECEIVER, x + 42, "7" if i == 0 else "")
        work(s, RECEIVER, x + 36, x + 66)
    queue(s, SENDER, 424)
    arrow(s, RECEIVER, 582, SENDER, 570, "8", "", dashed=True)
    arrow(s, P_ENGINE, 504, P_LOOP, 514)
    work(s, P_LOOP, 508, 530)
    arrow(s, P_LOOP, 520, COORD, 534, "", "Progress")
    work(s, COORD, 526, 552)


def first_token(s):
    arrow(s, P_ENGINE, 646, P_LOOP, 662, "9")
    queue(s, P_LOOP, 654)
    work(s, P_LOOP, 673, 695)
    arrow(s, P_LOOP, 684, COORD, 700, "", "token 0")
    work(s, COORD, 690, 720)
    arrow(s, COORD, 704, CLIENT, 716, "10", "first text (TTFT)")
    work(s, CLIENT, 706, 736)
    arrow(s, P_ENGINE, 652, SENDER, 668)
    work(s, SENDER, 662, 690)
    arrow(s, SENDER, 680, RECEIVER, 696, "11")
    s.text(LEFT + 674, y_of(SENDER) + ROW / 2 + 4, "COMMIT", 12, "end")
    work(s, RECEIVER, 690, 720)


def decoding(s):
    arrow(s, RECEIVER, 712, D_LOOP, 728, "12")
    queue(s, D_LOOP, 720)
    work(s, D_LOOP, 739, 761)
    queue(s, D_ENGINE, 746)
    arrow(s, D_LOOP, 750, D_ENGINE, 754)
    for i in range(4):
        work(s, D_ENGINE, 766 + 44 * i, 808 + 44 * i, "step")
    for i in range(4):
        x = 804 + 44 * i
        arrow(s, D_ENGINE, x, D_LOOP, x + 6)
        work(s, D_LOOP, x, x + 20)
        arrow(s, D_LOOP, x + 12, COORD, x + 40, "13" if i == 0 else "")
        work(s, COORD, x + 32, x + 54)
        arrow(s, COORD, x + 46, CLIENT, x + 54, "14" if i == 0 else "")
        work(s, CLIENT, x + 46, x + 66)
    arrow(s, RECEIVER, 718, SENDER, 756, "15", "STORED", dashed=True)
    work(s, SENDER, 748, 772)
    arrow(s, SENDER, 762, P_LOOP, 776)
    work(s, P_LOOP, 768, 790)
    arrow(s, P_LOOP, 780, COORD, 794, "16")
    work(s, COORD, 786, 810)


def draw():
    s = Svg(LEFT + WIDTH, TOP + ROW * len(ROWS) + 44, "A request on a time line")
    s.text(10, 28, "A request with a hand-off, from left to right in time (not to scale)", 16, bold=True)
    s.text(10, 48, "A filled box: a thread works. Three slots: a queue. Solid arrows carry the request, dashed ones go back to the sender.", 13, color=SOFT)
    s.text(10, 66, "The page explains the numbers.", 13, color=SOFT)
    rows(s)
    for part in (reading, reserving, prefilling, first_token, decoding):
        part(s)
    y = TOP + ROW * len(ROWS) + 16
    for x0, x1, name in ((146, 182, ""), (182, 350, "RESERVING"), (350, 534, "RESERVED"), (534, 698, "PREFILLING"), (698, 796, "HANDOFF"),
                         (796, 1006, "DECODING")):
        s.box(LEFT + x0, y - 10, x1 - x0, 24, "plain", name, 11)
    s.text(LEFT + 142, y + 6, "QUEUED", 11, "end")
    s.text(LEFT - 18, y + 6, "the request's state", 12, "end")
    return s
