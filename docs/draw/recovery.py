"""The two ways on when a node dies: Rebind and Replay. docs/recovery.md explains them."""
from svg import GRID, SOFT, Svg

LEFT, WIDTH, ROW = 130, 860, 46
DEAD = "#c03030"


class Panel:
    def __init__(self, s, top, title, rows):
        self.s, self.top, self.rows = s, top, [name for name, _ in rows]
        s.text(10, top - 22, title, 15, bold=True)
        for i, (name, kind) in enumerate(rows):
            y = self.y(name)
            s.box(10, y - 15, LEFT - 24, 30, kind, name, 12)
            s.line(LEFT, y, LEFT + WIDTH, y, GRID)

    def y(self, name):
        return self.top + ROW * self.rows.index(name) + ROW / 2

    def work(self, name, x0, x1, label, kind):
        self.s.box(LEFT + x0, self.y(name) - 12, x1 - x0, 24, kind, label, 11)

    def say(self, a, b, x, label, dx=14, at=0.5, color=None):
        down = 1 if self.y(b) > self.y(a) else -1
        ya, yb = self.y(a) + 12 * down, self.y(b) - 12 * down
        self.s.line(LEFT + x, ya, LEFT + x + dx, yb, color or "#222222", arrow=True)
        if label:
            self.s.text(LEFT + x + dx * at + 6, ya + (yb - ya) * at + 4, label, 11)

    def die(self, name, x):
        y = self.y(name)
        for sign in (-1, 1):
            self.s.line(LEFT + x - 9, y - 9 * sign, LEFT + x + 9, y + 9 * sign, DEAD, 3)
        self.s.line(LEFT + x, y, LEFT + WIDTH, y, "#ffffff", 2)

    def epoch(self, x0, x1, label):
        y = self.top + ROW * len(self.rows) + 4
        self.s.box(LEFT + x0, y, x1 - x0, 22, "plain", label, 11)


def rebind(s, top):
    p = Panel(s, top, "Rebind: the prefill node dies, the reservation stays",
              [("client", "client"), ("coordinator", "coordinator"), ("p0", "prefill"), ("p1", "prefill"), ("d0", "decode")])
    p.work("coordinator", 10, 60, "", "coordinator")
    p.say("coordinator", "d0", 20, "Reserve", at=0.82)
    p.say("d0", "coordinator", 84, "Reserved", at=0.2)
    p.work("d0", 26, 100, "blocks", "decode")
    p.work("coordinator", 90, 140, "", "coordinator")
    p.say("coordinator", "p0", 124, "Prefill")
    p.work("p0", 136, 290, "computes the prompt", "prefill")
    p.say("p0", "d0", 230, "KV", at=0.75)
    p.die("p0", 300)
    p.work("coordinator", 310, 420, "epoch 2", "coordinator")
    p.say("coordinator", "d0", 330, "Rebind: keeps the blocks", at=0.9)
    p.say("d0", "coordinator", 496, "Reserved", at=0.15)
    p.work("d0", 340, 510, "", "decode")
    p.work("coordinator", 500, 546, "", "coordinator")
    p.say("coordinator", "p1", 534, "Prefill", at=0.35)
    p.work("p1", 544, 690, "computes the prompt", "prefill")
    p.say("p1", "d0", 640, "KV")
    p.say("p1", "client", 684, "first token", at=0.8)
    p.work("d0", 700, 850, "writes the answer", "decode")
    p.say("d0", "client", 760, "tokens", at=0.7)
    p.epoch(10, 308, "epoch 1")
    p.epoch(308, 850, "epoch 2, the same reservation")


def replay(s, top):
    p = Panel(s, top, "Replay: the decode node dies, its stream goes on elsewhere",
              [("client", "client"), ("coordinator", "coordinator"), ("p0", "prefill"), ("d0", "decode"), ("d1", "decode")])
    p.work("d0", 10, 230, "writes the answer", "decode")
    for i in range(3):
        p.say("d0", "client", 40 + 70 * i, f"token {5 + i}", at=0.75)
    p.die("d0", 244)
    p.work("coordinator", 262, 360, "epoch 2", "coordinator")
    p.say("coordinator", "d1", 280, "Reserve", at=0.87)
    p.work("d1", 288, 370, "blocks", "decode")
    p.say("d1", "coordinator", 360, "Reserved", at=0.15)
    p.work("coordinator", 366, 412, "", "coordinator")
    p.say("coordinator", "p0", 400, "Prefill: prompt and tokens 0 to 7")
    p.work("p0", 412, 570, "computes all of it", "prefill")
    p.say("p0", "d1", 520, "KV")
    p.say("p0", "client", 562, "token 8", at=0.75)
    p.work("d1", 590, 850, "writes the rest", "decode")
    for i in range(3):
        p.say("d1", "client", 640 + 70 * i, f"token {9 + i}", at=0.8)
    p.epoch(10, 260, "epoch 1")
    p.epoch(260, 850, "epoch 2, a new reservation; the client has seen a pause")


def draw():
    s = Svg(LEFT + WIDTH + 16, 660, "Rebind and replay")
    s.text(10, 24, "When a node dies", 16, bold=True)
    s.text(10, 42, "From left to right in time, not to scale. Tokens go to the client through the coordinator; these arrows leave that out.", 12, color=SOFT)
    rebind(s, 90)
    replay(s, 400)
    return s
