"""A request on a time line: every process, thread and queue that it passes. docs/architecture.md explains the numbers."""
from svg import GRID, SOFT, Svg

LEFT, WIDTH, TOP, ROW = 250, 1230, 70, 62
ROWS = [  # (process, thread, what it does)
    ("client", "client", "any OpenAI client"),
    ("coordinator", "worker", "work.c"),
    ("coordinator", "loop", "HTTP, queue, control plane"),
    ("prefill", "loop", "control plane"),
    ("prefill", "engine", "with its compute team"),
    ("prefill", "KV sender", "kv_send.c"),
    ("decode", "KV receivers", "one for each lane, kv_recv.c"),
    ("decode", "loop", "control plane"),
    ("decode", "engine", "with its compute team"),
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
        s.text(LEFT - 18, y + 18, does, 10, "end", SOFT)
        s.line(LEFT, y, LEFT + WIDTH - 10, y, GRID, 1)


def work(s, row, x0, x1, label="", size=11):
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
        s.text(LEFT + x0 + (x1 - x0) * 0.5 + 13, ya + (yb - ya) * 0.5 + 4, label, 11)


def reading(s):
    work(s, CLIENT, 4, 40, "POST")
    arrow(s, CLIENT, 22, COORD, 22, "1")
    work(s, COORD, 14, 44)
    queue(s, WORKER, 36)
    arrow(s, COORD, 40, WORKER, 44)
    work(s, WORKER, 56, 140, "tokenize")
    arrow(s, WORKER, 134, COORD, 146, "2")
    queue(s, COORD, 138)
    work(s, COORD, 157, 187, "route")


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
    for i in range(3):
        work(s, P_ENGINE, 398 + 110 * i, 506 + 110 * i, f"chunk {i + 1}")
    work(s, P_ENGINE, 728, 764, "head")
    for i, x in enumerate((440, 490, 550, 600, 660, 714)):
        arrow(s, P_ENGINE, x, SENDER, x + 8, "6" if i == 0 else "")
        work(s, SENDER, x + 6, x + 38)
        arrow(s, SENDER, x + 26, RECEIVER, x + 42, "7" if i == 0 else "")
        work(s, RECEIVER, x + 36, x + 66)
    queue(s, SENDER, 424)
    arrow(s, RECEIVER, 596, SENDER, 588, "8", "", dashed=True)
    arrow(s, P_ENGINE, 504, P_LOOP, 514)
    work(s, P_LOOP, 508, 530)
    arrow(s, P_LOOP, 520, COORD, 534, "", "Progress")
    work(s, COORD, 526, 552)


def first_token(s):
    arrow(s, P_ENGINE, 756, P_LOOP, 772, "9")
    queue(s, P_LOOP, 764)
    work(s, P_LOOP, 783, 805)
    arrow(s, P_LOOP, 794, COORD, 810, "", "token 0")
    work(s, COORD, 800, 830)
    arrow(s, COORD, 814, CLIENT, 826, "10", "first text (TTFT)")
    work(s, CLIENT, 816, 846)
    arrow(s, P_ENGINE, 762, SENDER, 778)
    work(s, SENDER, 772, 800)
    arrow(s, SENDER, 790, RECEIVER, 806, "11")
    s.text(LEFT + 784, y_of(SENDER) + ROW / 2 + 4, "COMMIT", 11, "end")
    work(s, RECEIVER, 800, 830)


def decoding(s):
    arrow(s, RECEIVER, 822, D_LOOP, 838, "12")
    queue(s, D_LOOP, 830)
    work(s, D_LOOP, 849, 871)
    queue(s, D_ENGINE, 856)
    arrow(s, D_LOOP, 860, D_ENGINE, 864)
    for i in range(6):
        work(s, D_ENGINE, 876 + 44 * i, 918 + 44 * i, "step")
    for i in range(6):
        x = 914 + 44 * i
        arrow(s, D_ENGINE, x, D_LOOP, x + 6)
        work(s, D_LOOP, x, x + 20)
        arrow(s, D_LOOP, x + 12, COORD, x + 40, "13" if i == 0 else "")
        work(s, COORD, x + 32, x + 54)
        arrow(s, COORD, x + 46, CLIENT, x + 54, "14" if i == 0 else "")
        work(s, CLIENT, x + 46, x + 66)
    arrow(s, RECEIVER, 828, SENDER, 866, "15", "STORED", dashed=True)
    work(s, SENDER, 858, 882)
    arrow(s, SENDER, 872, P_LOOP, 886)
    work(s, P_LOOP, 878, 900)
    arrow(s, P_LOOP, 890, COORD, 904, "16")
    work(s, COORD, 896, 920)


def draw():
    s = Svg(LEFT + WIDTH, TOP + ROW * len(ROWS) + 44, "A request on a time line")
    s.text(10, 26, "A request with a hand-off, from left to right in time (not to scale)", 16, bold=True)
    s.text(10, 46, "A filled box: a thread works. Three slots: a queue. Solid arrows carry the request, dashed ones go back to the sender. "
                   "The page explains the numbers.", 12, color=SOFT)
    rows(s)
    for part in (reading, reserving, prefilling, first_token, decoding):
        part(s)
    y = TOP + ROW * len(ROWS) + 16
    for x0, x1, name in ((146, 182, ""), (182, 350, "RESERVING"), (350, 534, "RESERVED"), (534, 808, "PREFILLING"), (808, 906, "HANDOFF"),
                         (906, 1214, "DECODING")):
        s.box(LEFT + x0, y - 10, x1 - x0, 24, "plain", name, 10)
    s.text(LEFT + 142, y + 6, "QUEUED", 10, "end")
    s.text(LEFT - 18, y + 6, "the request's state", 12, "end")
    return s
