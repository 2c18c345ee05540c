#!/usr/bin/env python3
"""Makes one table and the plots of what tools/bench_expert_memory.sh measured.

    tools/plot_benches.py RESULTS IMAGES

RESULTS is a folder with end_to_end.csv (augur_bench_expert_memory) and NAME.json for each
microbenchmark (Google Benchmark). The table goes to stdout as Markdown, the plots to IMAGES as SVG.
They carry colours for light and dark pages both.
"""

import csv
import json
import math
import pathlib
import re
import sys
from xml.sax.saxutils import escape

# Told apart by brightness as well as by hue, on white and on black.
COLOURS = ["#6b7280", "#2563eb", "#d97706", "#059669", "#db2777", "#7c3aed", "#dc2626",
           "#0891b2"]
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #1f2937 }
  .title { font-size: 14px; font-weight: 600 }
  .ground { fill: #ffffff }
  .grid { stroke: #d1d5db; stroke-width: 1 }
  .axis { stroke: #4b5563; stroke-width: 1 }
  .line { fill: none; stroke-width: 2 }
  .dashed { stroke-dasharray: 6 4 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e5e7eb }
    .ground { fill: #111827 }
    .grid { stroke: #374151 }
    .axis { stroke: #9ca3af }
  }
"""
WIDTH = 760
PLOT_HEIGHT = 260
LEFT, RIGHT, TOP = 70, 20, 46


def number(value, num_digits=3):
    """A number as short as so many digits tell it."""
    if value == 0:
        return "0"
    digits = max(0, num_digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def linear_ticks(largest):
    """Round values from 0 to at least `largest`, in at most six steps."""
    power = 10.0 ** (math.floor(math.log10(largest)) - 1)
    step = next(f * power for f in (2, 5, 10, 20, 50) if largest <= 6 * f * power)
    return [i * step for i in range(math.ceil(largest / step - 1e-9) + 1)]


def log_ticks(smallest, largest):
    """1, 2, 5, 10, ... from at most `smallest` to at least `largest`."""
    ticks = [
        factor * 10.0**power
        for power in range(math.floor(math.log10(smallest)) - 1, math.ceil(math.log10(largest)) + 1)
        for factor in (1, 2, 5)
    ]
    first = max(i for i, tick in enumerate(ticks) if tick <= smallest)
    last = min((i for i, tick in enumerate(ticks) if tick >= largest), default=len(ticks) - 1)
    return ticks[first : last + 1]


class Chart:
    """An SVG of one or more panels side by side, with a legend below them."""

    def __init__(self, title, unit, num_panels=1):
        self.title = title
        self.unit = unit
        self.parts = []
        self.legend = []
        self.panel_width = (WIDTH - RIGHT - LEFT * num_panels) / num_panels

    def colour(self, name, is_dashed=False):
        """The colour of a series, which the legend then names."""
        for known, colour, _ in self.legend:
            if known == name:
                return colour
        colour = COLOURS[len(self.legend) % len(COLOURS)]
        self.legend.append((name, colour, is_dashed))
        return colour

    def panel(self, idx, heading, ticks, is_log=False):
        """Draws the frame of a panel; returns its left edge and the map from value to y."""
        left = LEFT + idx * (self.panel_width + LEFT)
        low, high = ticks[0], ticks[-1]

        def y_of(value):
            if is_log:
                share = math.log(value / low) / math.log(high / low)
            else:
                share = (value - low) / (high - low)
            return TOP + PLOT_HEIGHT * (1 - share)

        for tick in ticks:
            y = y_of(tick)
            self.parts.append(
                f'<line class="grid" x1="{left:.1f}" y1="{y:.1f}" '
                f'x2="{left + self.panel_width:.1f}" y2="{y:.1f}"/>'
            )
            self.text(left - 6, y + 4, number(tick), "end")
        bottom = TOP + PLOT_HEIGHT
        self.parts.append(
            f'<path class="axis" fill="none" d="M{left:.1f} {TOP} V{bottom} '
            f'H{left + self.panel_width:.1f}"/>'
        )
        self.text(left, TOP - 8, f"{heading}{', ' if heading else ''}{self.unit}", "start")
        return left, y_of

    def text(self, x, y, text, anchor, css="", rotate=None):
        turn = f' transform="rotate({rotate} {x:.1f} {y:.1f})"' if rotate else ""
        name = f' class="{css}"' if css else ""
        self.parts.append(
            f'<text{name} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turn}>{escape(text)}</text>'
        )

    def svg(self):
        """The whole picture."""
        top = TOP + PLOT_HEIGHT + 62
        rows, x = [[]], LEFT
        for entry in self.legend:
            width = 44 + 7 * len(entry[0])
            if x + width > WIDTH - RIGHT and rows[-1]:
                rows.append([])
                x = LEFT
            rows[-1].append((x, entry))
            x += width
        for i, row in enumerate(rows):
            for x, (name, colour, is_dashed) in row:
                y = top + 20 * i
                dash = " dashed" if is_dashed else ""
                self.parts.append(
                    f'<line class="line{dash}" stroke="{colour}" stroke-width="6" '
                    f'x1="{x}" y1="{y - 4}" x2="{x + 20}" y2="{y - 4}"/>'
                )
                self.text(x + 25, y, name, "start")
        height = top + 20 * len(rows)
        self.text(LEFT, 18, self.title, "start", "title")
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" role="img">\n'
            f"<title>{escape(self.title)}</title>\n<style>{STYLE}</style>\n"
            f'<rect class="ground" width="{WIDTH}" height="{height}"/>\n'
            + "\n".join(self.parts)
            + "\n</svg>\n"
        )


def line_chart(title, unit, x_label, panels, is_log=False):
    """`panels`: (heading, {series: [(x, y)]}, {series drawn dashed}) each."""
    chart = Chart(title, unit, len(panels))
    values = [y for _, series, _ in panels for points in series.values() for _, y in points]
    positive = [y for y in values if y > 0] or [1]
    ticks = log_ticks(min(positive), max(positive)) if is_log else linear_ticks(max(positive))
    for idx, (heading, series, dashed) in enumerate(panels):
        left, y_of = chart.panel(idx, heading, ticks, is_log)
        xs = sorted({x for points in series.values() for x, _ in points})
        span = (xs[-1] - xs[0]) or 1

        def x_of(x, left=left, first=xs[0], span=span):
            return left + 12 + (chart.panel_width - 24) * (x - first) / span

        for x in xs:
            chart.text(x_of(x), TOP + PLOT_HEIGHT + 16, number(x), "middle")
        chart.text(left + chart.panel_width / 2, TOP + PLOT_HEIGHT + 34, x_label, "middle")
        for name, points in series.items():
            is_dashed = name in dashed
            colour = chart.colour(name, is_dashed)
            drawn = [(x_of(x), y_of(y)) for x, y in points if y > 0 or not is_log]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
            dash = " dashed" if is_dashed else ""
            chart.parts.append(f'<polyline class="line{dash}" stroke="{colour}" points="{path}"/>')
            if is_dashed:
                continue
            for x, y in drawn:
                chart.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
    return chart.svg()


def bar_chart(title, unit, groups):
    """`groups`: {group: {series: value}}. Every bar carries its value."""
    chart = Chart(title, unit)
    largest = max((v for bars in groups.values() for v in bars.values()), default=0) or 1
    left, y_of = chart.panel(0, "", linear_ticks(largest))
    group_width = chart.panel_width / len(groups)
    for i, (group, bars) in enumerate(groups.items()):
        width = (group_width - 16) / max(1, len(bars))
        x = left + i * group_width + 8
        chart.text(x + (group_width - 16) / 2, TOP + PLOT_HEIGHT + 16, group, "middle")
        for name, value in bars.items():
            y = y_of(value)
            chart.parts.append(
                f'<rect x="{x + 1:.1f}" y="{y:.1f}" width="{max(1, width - 2):.1f}" '
                f'height="{TOP + PLOT_HEIGHT - y:.1f}" fill="{chart.colour(name)}"/>'
            )
            chart.text(x + width / 2, y - 4, number(value, 2), "middle")
            x += width
    return chart.svg()


def read_end_to_end(path):
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise ValueError(f"{path}: no rows")
    return [{k: v if k == "prefetch" else float(v) for k, v in row.items()} for row in rows]


def read_micro(path):
    """{name: entry} of a Google Benchmark JSON; times are seconds of a core."""
    with open(path, encoding="utf-8") as file:
        entries = json.load(file)["benchmarks"]
    seconds = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
    result = {}
    for entry in entries:
        if entry.get("error_occurred") or entry.get("run_type") == "aggregate":
            continue
        unit = seconds[entry["time_unit"]]
        name = re.sub(r"/(real_time|manual_time|min_time:[^/]*)", "", entry["name"])
        result[name] = {**entry, "seconds": entry["real_time"] * unit,
                        "cpu_seconds": entry["cpu_time"] * unit}
    return result


def plots_of_end_to_end(rows):
    batches = sorted({row["batch"] for row in rows})
    speed, wait = [], []
    for batch in batches:
        pooled = [row for row in rows if row["batch"] == batch and row["pool_percent"] > 0]
        resident = [row for row in rows if row["batch"] == batch and row["pool_percent"] == 0]
        of_reader = {}
        for row in pooled:
            of_reader.setdefault(row["prefetch"], []).append(row)

        def points(name, column, of_reader=of_reader):
            return [(row["pool_percent"], row[column]) for row in of_reader.get(name, [])]

        lines = {name: points(name, "tokens_per_s") for name in of_reader}
        if resident and pooled:
            pools = [row["pool_percent"] for row in pooled]
            rate = resident[0]["tokens_per_s"]
            lines["in memory"] = [(min(pools), rate), (max(pools), rate)]
        speed.append((f"batch {batch:.0f}", lines, {"in memory"}))
        waits = {
            "layers waited, off": points("off", "stall_ms_per_token"),
            "layers waited, all": points("all", "stall_ms_per_token"),
            "the disk needs for the bytes demanded, off": points("off", "disk_ms_per_token"),
        }
        wait.append((f"batch {batch:.0f}", {k: v for k, v in waits.items() if v},
                     {"the disk needs for the bytes demanded, off"}))
    pools = sorted({row["pool_percent"] for row in rows if row["pool_percent"] > 0})
    shown = min(pools, key=lambda pool: abs(pool - 25))
    traffic = {}
    for row in rows:
        if row["batch"] == batches[0] and row["pool_percent"] == shown:
            traffic[row["prefetch"]] = {"on demand": row["demand_mb_per_token"],
                                        "read ahead": row["prefetched_mb_per_token"]}
    x_label = "share of the experts in the pool, %"
    return {
        "expert-memory-speed.svg": line_chart(
            "Decoding by size of the pool and who reads ahead", "tokens/s", x_label, speed, True),
        "expert-memory-wait.svg": line_chart(
            "Waiting for experts, beside the bound of the disk", "ms per token", x_label, wait),
        "expert-memory-traffic.svg": bar_chart(
            f"Bytes read per generated token, pool of {shown:.0f} %, batch {batches[0]:.0f}", "MB",
            traffic),
    }


def gating_plot(gating):
    groups = {}
    for name, entry in gating.items():
        kind, shape, *rest = name.split("/")
        options = dict(part.split(":") for part in rest if ":" in part)
        if kind == "gate" and options["threads"] == "1" and "of_read" in entry:
            rows = options["rows"]
            series = f"{rows} row{'s' if rows != '1' else ''}"
            groups.setdefault(shape, {})[series] = 100 * entry["of_read"]
    return bar_chart("The gate: rate at which its weights are read, beside reading memory",
                     "% of the read rate of one thread", groups)


def pool_plot(pool):
    groups = {}
    for name, entry in pool.items():
        kind, *rest = name.split("/")
        if kind == "layer" and rest[-1] == "rows:1":
            groups.setdefault(rest[0].replace("_", " "), {})[rest[1]] = 1e6 * entry["cpu_seconds"]
    return bar_chart("The pool's bookkeeping at decode, one row, 48 layers of 128 experts, top-8",
                     "us per layer", groups)


# What the table shows of each microbenchmark; the files hold all of it.
SHOWN = {
    "gating": r"(top_k|grouped_top_k|gate)/(?!demo)(?!.*threads:2)",
    "predictor": r".*distances:1$",
    "route_cache": r"BM_Gate|.*dims:16",
}


def print_table(rows, micro):
    print("| benchmark | time | beside |\n| --- | --- | --- |")
    for bench, entries in micro.items():
        for name, entry in entries.items():
            if not re.match(SHOWN.get(bench, ""), name):
                continue
            notes = []
            if "per_row" in entry:
                notes.append(f"{number(1e9 * entry['per_row'])} ns a row")
            if "per_expert" in entry:
                notes.append(f"{number(1e9 * entry['per_expert'])} ns an expert")
            if "hit_rate" in entry:
                notes.append(f"hits {entry['hit_rate']:.3f}")
            for share, bound in (("of_read", "reading memory"), ("of_peak", "products")):
                if share in entry:
                    notes.append(f"{100 * entry[share]:.0f} % of {bound}")
            if "bytes_per_second" in entry:
                notes.append(f"{entry['bytes_per_second'] * 1e-9:.2f} GB/s")
            name = name.removeprefix("BM_")
            print(f"| {bench}: {name} | {number(1e6 * entry['seconds'])} us | {', '.join(notes)} |")
    print("\n| batch | pool | prefetch | tokens/s | hits | misses | stall ms | disk ms | demand MB "
          "| prefetched MB | wasted |\n|" + " --- |" * 11)
    for row in rows:
        pool = f"{row['pool_percent']:.0f} %" if row["pool_percent"] > 0 else "all in memory"
        print(f"| {row['batch']:.0f} | {pool} | {row['prefetch']} | {number(row['tokens_per_s'])} "
              f"| {row['hit_rate']:.3f} | {row['misses_per_token']:.2f} "
              f"| {row['stall_ms_per_token']:.3f} | {row['disk_ms_per_token']:.3f} "
              f"| {row['demand_mb_per_token']:.3f} | {row['prefetched_mb_per_token']:.3f} "
              f"| {row['wasted_share']:.2f} |")


def main(arguments):
    if len(arguments) != 2:
        sys.exit(__doc__)
    results, images = map(pathlib.Path, arguments)
    rows = read_end_to_end(results / "end_to_end.csv")
    micro = {path.stem: read_micro(path) for path in sorted(results.glob("*.json"))}
    print_table(rows, micro)
    plots = plots_of_end_to_end(rows)
    plots["gating.svg"] = gating_plot(micro["gating"])
    plots["expert-pool.svg"] = pool_plot(micro["expert_pool"])
    images.mkdir(parents=True, exist_ok=True)
    for name, svg in plots.items():
        (images / name).write_text(svg, encoding="utf-8")
    print(f"\nplots: {', '.join(str(images / name) for name in plots)}")


if __name__ == "__main__":
    main(sys.argv[1:])
