"""Processes of a cluster and the connections between them. docs/architecture.md explains it."""
from svg import SOFT, Svg

W, H = 1090, 520


def draw():
    s = Svg(W, H, "Processes and connections of a cluster")
    s.text(20, 30, "Processes and connections of a cluster", 16, bold=True)
    s.text(20, 50, "An arrow points from the side that connects to the side that listens.", 12, color=SOFT)
    for i, y in enumerate((110, 240, 370)):
        s.box(20, y, 120, 44, "client", "client", 13)
        s.line(140, y + 22, 268, 250 + (i - 1) * 24, arrow=True)
    s.text(150, 118, "HTTP, SSE", 12)
    s.box(270, 190, 200, 130, "coordinator")
    s.text(370, 215, "baton-coordinator", 14, "middle", bold=True)
    for i, line in enumerate(("coordinator.http: API", "coordinator.admin: probes", "coordinator.control: ROUTER", "no weights")):
        s.text(370, 238 + 19 * i, line, 12, "middle")
    for i in range(2):
        s.box(620 + 190 * i, 90, 160, 86, "prefill")
        s.text(700 + 190 * i, 114, f"baton-prefill p{i}", 14, "middle", bold=True)
        s.text(700 + 190 * i, 136, "model, KV pool", 12, "middle")
        s.text(700 + 190 * i, 156, "admin: metrics, probes", 12, "middle")
        s.box(620 + 190 * i, 370, 160, 106, "decode")
        s.text(700 + 190 * i, 394, f"baton-decode d{i}", 14, "middle", bold=True)
        s.text(700 + 190 * i, 416, "model, KV pool", 12, "middle")
        s.text(700 + 190 * i, 436, "kv: a ROUTER per lane", 12, "middle")
        s.text(700 + 190 * i, 456, "admin: metrics, probes", 12, "middle")
    s.line(620, 150, 472, 214, arrow=True)
    s.line(810, 172, 472, 236, arrow=True)
    s.line(620, 400, 472, 300, arrow=True)
    s.line(810, 382, 472, 276, arrow=True)
    s.text(500, 252, "control plane:", 12)
    s.text(500, 268, "one DEALER a node", 12)
    for a in range(2):
        for b in range(2):
            for lane in (-4, 4):
                s.line(720 + 190 * a + lane, 176, 720 + 190 * b + lane, 368, "#a04000", 1.4, arrow=True)
    for i, line in enumerate(("KV plane:", "kv.lanes (2)", "DEALERs from each", "prefill node to each", "decode node")):
        s.text(926, 236 + 17 * i, line, 12, color="#a04000", bold=i == 0)
    s.text(20, H - 14, "More coordinators may stand beside the first one, behind a balancer. Each node connects to all of them.", 12, color=SOFT)
    return s
