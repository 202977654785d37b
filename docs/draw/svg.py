"""The few shapes that the drawings of docs/ are made of, as SVG text. No packages needed."""
from xml.sax.saxutils import escape

INK, SOFT, GRID = "#222222", "#666666", "#d8d8d8"
FILLS = {"client": "#f3e9d2", "coordinator": "#cfe3f5", "prefill": "#d9efd0", "decode": "#f9dcc4", "plain": "#eeeeee", "white": "#ffffff",
         "key": "#d6e4f0", "value": "#e2f0d9", "scale": "#fde2b8"}


class Svg:
    def __init__(self, width, height, title):
        self.width, self.height, self.title, self.parts = width, height, title, []

    def text(self, x, y, text, size=13, anchor="start", color=INK, bold=False, mono=False):
        family = ' font-family="DejaVu Sans Mono, monospace"' if mono else ""
        weight = ' font-weight="bold"' if bold else ""
        self.parts.append(f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" fill="{color}"{family}{weight}>'
                          f'{escape(text)}</text>')

    def box(self, x, y, w, h, fill="plain", label="", size=12, radius=3, dashed=False, stroke=INK):
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self.parts.append(f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="{radius}" fill="{FILLS.get(fill, fill)}" '
                          f'stroke="{stroke}" stroke-width="1"{dash}/>')
        lines = label.split("\n") if label else []
        top = y + h / 2 - (len(lines) - 1) * (size + 2) / 2 + size * 0.36
        for i, line in enumerate(lines):
            self.text(x + w / 2, top + i * (size + 2), line, size, "middle")

    def line(self, x0, y0, x1, y1, color=INK, width=1.0, dashed=False, arrow=False):
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        head = ' marker-end="url(#head)"' if arrow else ""
        self.parts.append(f'<line x1="{x0:g}" y1="{y0:g}" x2="{x1:g}" y2="{y1:g}" stroke="{color}" stroke-width="{width:g}"{dash}{head}/>')

    def badge(self, x, y, text):
        self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="9" fill="#333333"/>')
        self.text(x, y + 4, text, 11, "middle", "#ffffff", bold=True)

    def polygon(self, points, fill):
        at = " ".join(f"{x:g},{y:g}" for x, y in points)
        self.parts.append(f'<polygon points="{at}" fill="{fill}" stroke="none"/>')

    def __str__(self):
        return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" height="{self.height}" viewBox="0 0 {self.width} {self.height}" '
                f'font-family="DejaVu Sans, Verdana, sans-serif">\n<title>{escape(self.title)}</title>\n'
                '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
                f'<path d="M0,0 L8,4 L0,8 z" fill="{INK}"/></marker></defs>\n'
                '<rect width="100%" height="100%" fill="#ffffff"/>\n' + "\n".join(self.parts) + "\n</svg>\n")
