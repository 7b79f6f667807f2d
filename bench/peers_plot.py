"""The plot of `make bench-peers`: bars by workload, one panel per model and number of threads, as SVG.

    python3 bench/peers_plot.py > docs/speed.svg     README's picture, from the table in docs/benchmarks.md
"""

import re
from pathlib import Path
from xml.sax.saxutils import escape

COLOURS = {"ort-fp32": "#9aa0a6", "ort-int8": "#5f6368", "openvino f32": "#8ab4d8", "openvino bf16": "#2b6ca3",
           "candle": "#d9a441", "bf16": "#0b6e4f", "f32": "#3f9c7a"}
LABELS = {"ort-fp32": "ONNX Runtime fp32", "ort-int8": "ONNX Runtime int8", "openvino f32": "OpenVINO f32",
          "openvino bf16": "OpenVINO bf16", "candle": "stock candle"}
MEANING = {"W1": "12 tokens", "W2": "128 tokens", "W3": "512 tokens", "W4": "64 mixed texts"}
PANEL, TOP, LEFT, BAR, GAP, LABEL = 230, 64, 56, 26, 30, 142


def _series(entry: dict) -> str:
    if entry["engine"] == "gte-small":
        return entry["precision"]
    return f"openvino {entry['precision']}" if entry["engine"] == "openvino" else entry["engine"]


def _text(x: float, y: float, text: str, size: int = 12, anchor: str = "middle", weight: str = "normal") -> str:
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}">'
            f"{escape(text)}</text>")


def _panel(entries: list, series: list, title: str, top: float, width: float, highest: float) -> list:
    """Bars of the ratios; the line at 1 is ONNX Runtime fp32."""
    height, bottom = PANEL - 76, top + PANEL - 46
    parts = [_text(LEFT, top + 8, title, 13, "start", "bold")]
    step = 1 if highest <= 6 else 2
    for value in range(0, int(highest) + 1, step):
        y = bottom - height * value / highest
        colour = "#555" if value == 1 else "#ddd"
        parts.append(f'<line x1="{LEFT}" x2="{width - 10}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{value}x", 11, "end"))
    x = LEFT + 14
    for workload in sorted({entry["workload"] for entry in entries}):
        ratios = {_series(entry): entry["ratio_to_ort_fp32"] for entry in entries if entry["workload"] == workload}
        for number, name in enumerate(one for one in series if one in ratios):
            tall = height * ratios[name] / highest
            left = x + number * BAR
            parts.append(f'<rect x="{left:.1f}" y="{bottom - tall:.1f}" width="{BAR - 3}" height="{tall:.1f}" '
                         f'fill="{COLOURS[name]}"/>')
            parts.append(_text(left + BAR / 2 - 1, bottom - tall - 4, f"{ratios[name]:.2f}", 9))
        middle = x + len(ratios) * BAR / 2
        parts.append(_text(middle, bottom + 18, f"{workload}: {MEANING[workload]}", 11))
        x += len(series) * BAR + GAP
    return parts


def svg(found: list) -> str:
    """The fastest tiers of this engine and the other engines. Forced tiers are in the table only."""
    entries = [entry for entry in found if not entry["forced"]]
    series = [name for name in COLOURS if any(_series(entry) == name for entry in entries)]
    labels = {**LABELS, **{_series(e): f"gte-small {e['kernels']}" for e in entries if e["engine"] == "gte-small"}}
    highest = max(entry["ratio_to_ort_fp32"] for entry in entries) * 1.1
    panels = list(dict.fromkeys((entry["model"], entry["threads"]) for entry in entries))
    workloads = len({entry["workload"] for entry in entries})
    width = LEFT + max(workloads * (len(series) * BAR + GAP), len(series) * LABEL) + 24
    parts = [_text(width / 2, 20, "Speed relative to ONNX Runtime fp32 (higher is faster)", 15, weight="bold")]
    x = LEFT
    for name in series:
        parts.append(f'<rect x="{x}" y="34" width="11" height="11" fill="{COLOURS[name]}"/>')
        parts.append(_text(x + 16, 44, labels[name], 11, "start"))
        x += LABEL
    for number, (model, threads) in enumerate(panels):
        chosen = [entry for entry in entries if (entry["model"], entry["threads"]) == (model, threads)]
        title = f"{model}, {threads} thread{'s' * (threads > 1)}"
        parts += _panel(chosen, series, title, TOP + number * PANEL, width, highest)
    bottom = TOP + len(panels) * PANEL
    parts.append(_text(width / 2, bottom, found[0]["cpu"], 10))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 14}" '
            f'font-family="system-ui, sans-serif"><rect width="100%" height="100%" fill="white"/>\n'
            + "\n".join(parts) + "\n</svg>\n")


PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
ROWS = {"ONNX Runtime fp32": ("ort-fp32", "f32", ""), "ONNX Runtime dynamic int8": ("ort-int8", "int8", ""),
        "OpenVINO bf16": ("openvino", "bf16", ""), "OpenVINO f32": ("openvino", "f32", ""), "stock candle": ("candle", "f32", ""),
        "gte-small bf16 (AMX)": ("gte-small", "bf16", "bf16 (AMX)"), "gte-small f32 (AVX-512)": ("gte-small", "f32", "f32 (AVX-512)")}


def of_page(text: str) -> list:
    """The figures of the first table of the page, as `svg` takes them."""
    found = []
    for line in text.splitlines():
        name, *cells = [cell.strip() for cell in line.replace("*", "").strip("| ").split("|")]
        ratios = [ratio for cell in cells for ratio in re.findall(r"\(([\d.]+)\)", cell)]
        if name in ROWS and len(ratios) == len(MEANING):
            engine, precision, kernels = ROWS[name]
            found += [{"engine": engine, "precision": precision, "kernels": kernels, "forced": False, "threads": 1,
                       "model": "gte-small's shape", "workload": workload, "ratio_to_ort_fp32": float(ratio),
                       "cpu": "Intel Xeon with AMX"} for workload, ratio in zip(MEANING, ratios)]
    return found


if __name__ == "__main__":
    print(svg(of_page(PAGE.read_text(encoding="utf-8"))), end="")
