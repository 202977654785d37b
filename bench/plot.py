#!/usr/bin/env python3
"""Draws bench/results/performance.json as SVG: Baton over llama.cpp, a bar a case, a whisker for the spread.

usage: bench/plot.py [IN.json [OUT.svg]]
"""
import json
import math
import pathlib
import sys
from xml.sax.saxutils import escape

LEFT, WIDTH, ROW, TOP = 300, 520, 22, 56


def draw(result):
    rows = [(f"{r['model'].removesuffix('.gguf')}  {r['case']}", r["ratio"]) for r in result.get("peer", [])]
    rows += [(f"{r['model'].removesuffix('.gguf')}  {r['case']}", r["ratio"]) for r in result.get("serve", {}).get("results", [])]
    top = math.ceil(max([2.0, *(r["max"] for _, r in rows)]))
    step = max(1, top // 8)
    height = TOP + ROW * len(rows) + 30

    def x(ratio):
        return LEFT + WIDTH * ratio / top

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 90}" height="{height}" font-family="sans-serif" font-size="12">',
           '<rect width="100%" height="100%" fill="white"/>',
           '<text x="12" y="22" font-size="15">Baton over llama.cpp, tok/s, interleaved runs (median, min to max)</text>']
    for tick in range(0, top + 1, step):
        out.append(f'<line x1="{x(tick):.1f}" y1="{TOP - 14}" x2="{x(tick):.1f}" y2="{height - 24}" stroke="#ddd"/>'
                   f'<text x="{x(tick):.1f}" y="{height - 8}" text-anchor="middle">{tick}x</text>')
    for i, (name, r) in enumerate(rows):
        y = TOP + ROW * i
        out.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{escape(name)}</text>'
                   f'<rect x="{LEFT}" y="{y - 7}" width="{x(r["median"]) - LEFT:.1f}" height="14" fill="#4878a8"/>'
                   f'<line x1="{x(r["min"]):.1f}" y1="{y}" x2="{x(r["max"]):.1f}" y2="{y}" stroke="black" stroke-width="1.5"/>'
                   f'<text x="{x(r["max"]) + 6:.1f}" y="{y + 4}">{r["median"]:.2f}x</text>')
    out.append(f'<line x1="{x(1):.1f}" y1="{TOP - 14}" x2="{x(1):.1f}" y2="{height - 24}" stroke="#c03030" stroke-dasharray="4 3"/></svg>')
    return "\n".join(out) + "\n"


def write(path, result):
    pathlib.Path(path).write_text(draw(result))


def main():
    source = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "results/performance.json")
    write(sys.argv[2] if len(sys.argv) > 2 else source.with_suffix(".svg"), json.loads(source.read_text()))


if __name__ == "__main__":
    main()
