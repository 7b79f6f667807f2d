"""A plot of named figures as SVG: panels of horizontal bars, each panel with a unit and a scale of its own."""

from xml.sax.saxutils import escape

LABEL, BAR, VALUE, ROW, TOP, HEAD, GAP = 330, 380, 90, 22, 46, 30, 16
COLOURS = ["#0b6e4f", "#9aa0a6", "#8ab4d8", "#d9a441"]


def _text(x: float, y: float, text: str, size: int = 12, anchor: str = "start", weight: str = "normal") -> str:
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}">'
            f"{escape(text)}</text>")


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def svg(title: str, panels: list, note: str = "") -> str:
    """`panels` are (heading, unit, rows); a row is (label, value, number of its series). Panels without rows are left out."""
    width, y = LABEL + BAR + VALUE, TOP
    parts = [_text(width / 2, 22, title, 15, "middle", "bold")]
    for heading, unit, rows in [panel for panel in panels if panel[2]]:
        parts.append(_text(12, y + 14, f"{heading}, {unit}", 13, weight="bold"))
        y += HEAD
        highest = max(value for _, value, _ in rows) or 1
        for label, value, series in rows:
            long = BAR * max(0.0, value) / highest
            parts.append(_text(LABEL - 10, y + 13, label, 11, "end"))
            parts.append(f'<rect x="{LABEL}" y="{y + 2}" width="{long:.1f}" height="{ROW - 6}" fill="{COLOURS[series % len(COLOURS)]}"/>')
            parts.append(_text(LABEL + long + 6, y + 13, _shown(value), 11))
            y += ROW
        y += GAP
    parts.append(_text(width / 2, y + 4, note, 10, "middle"))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y + 16}" font-family="system-ui, sans-serif">'
            '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n")
