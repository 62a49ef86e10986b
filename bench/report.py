"""Makes tables, plots, a page and the generated part of docs/PERFORMANCE.md out of measured data."""

import base64
import html
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from statistics import median

import plan

BEGIN = "<!-- Written by `make bench-docs` from here: change bench/, not this. -->"
END = "<!-- To here. -->"


def shown(variant):
    """A variant's name for readers."""
    return "colib" if variant == "ours" else variant.removeprefix("peer:")


def number(value):
    """Three digits, or all before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


@dataclass
class Row:
    """A target, and how it was met."""

    target: plan.Target
    ours: float
    unit: str
    reference: float | None
    middle: float
    low: float
    high: float
    rounds: int
    peers: list  # (name, median, median of ours / theirs; None where either is zero)

    @property
    def met(self):
        return self.middle >= self.target.bound if self.target.least else self.middle <= self.target.bound

    def cells(self):
        sign = {"ratio": " ×", "difference": " more", "value": ""}[self.target.kind]
        side = "≥" if self.target.least else "≤"
        reference = "" if self.reference is None else f"{number(self.reference)} ({shown(self.target.reference)})"
        spread = "" if self.rounds == 1 else f"{number(self.low)}..{number(self.high)}"
        return [
            self.target.title,
            f"{number(self.ours)} {self.unit}",
            reference,
            f"{number(self.middle)}{sign}",
            spread,
            f"{side} {self.target.bound:g}{sign}",
            "met" if self.met else "NOT MET",
            ", ".join(
                f"{name} {number(value)}" + (f" ({number(ratio)} ×)" if ratio else "")
                for name, value, ratio in self.peers
            ),
        ]


HEADINGS = ["work", "colib", "reference", "result", "min..max", "wanted", "", "peers (colib / theirs)"]


class Results:
    """Measured data by work and size."""

    def __init__(self, everything):
        self.machine = everything["machine"]
        self.peer = everything.get("peer")
        self.series = {(one["work"], one["x"], one["variant"]): one for one in everything["results"]}

    def values(self, work, x, variant):
        one = self.series.get((work, x, variant))
        return None if one is None else {int(key): value for key, value in one["values"].items()}

    def variants(self, work, x):
        return [variant for of, size, variant in self.series if (of, size) == (work, x)]

    @staticmethod
    def together(ours, theirs, combine):
        """Round by round, where both were measured."""
        return [combine(ours[key], theirs[key]) for key in sorted(ours.keys() & theirs.keys())]

    def found(self, target):
        """The target with its size and reference filled in."""
        size, reference = target.x, target.reference
        if size == plan.ANY:
            size = next((x for work, x, variant in self.series if (work, variant) == (target.work, "ours")), 0)
        if reference == "BENCH_PEER":
            reference = f"peer:{self.peer}"
        alike = {
            work: one["median"]
            for (work, x, variant), one in self.series.items()
            if (x, variant) == (size, "ours") and fnmatch(work, target.work)
        }
        worst = min if target.least else max
        work = worst(alike, key=alike.get) if alike else target.work
        return replace(target, work=work, x=size, reference=reference)

    def row(self, target):
        target = self.found(target)
        ours = self.values(target.work, target.x, "ours")
        if ours is None:
            return None
        reference = None
        if target.kind == "value":
            results = list(ours.values())
        else:
            theirs = self.values(target.work, target.x, target.reference)
            if theirs is None:
                return None
            reference = median(theirs.values())
            combine = (lambda a, b: a / b) if target.kind == "ratio" else (lambda a, b: a - b)
            results = self.together(ours, theirs, combine)
        if not results:
            return None
        peers = []
        for variant in self.variants(target.work, target.x):
            if variant.startswith("peer:"):
                theirs = self.values(target.work, target.x, variant)
                both = ours.keys() & theirs.keys()
                ratios = [ours[key] / theirs[key] for key in both if ours[key] and theirs[key]]
                peers.append((shown(variant), median(theirs.values()), median(ratios) if ratios else None))
        unit = self.series[target.work, target.x, "ours"]["unit"]
        spread = (median(results), min(results), max(results), len(results))
        return Row(target, median(ours.values()), unit, reference, *spread, peers)

    def rows(self):
        return [row for row in map(self.row, plan.TARGETS) if row]

    def missing(self):
        return [target.title for target in plan.TARGETS if self.row(target) is None]

    def others(self):
        """What was measured and has no target: work, x, then (variant, median) pairs."""
        known = {(row.target.work, row.target.x) for row in self.rows()}
        works = {}
        for (work, x, variant), one in self.series.items():
            if (work, x) not in known:
                works.setdefault((work, x), []).append((variant, one))
        return works

    def other_rows(self):
        rows = []
        for (work, x), variants in sorted(self.others().items()):
            variants.sort(key=lambda pair: pair[0])
            medians = ", ".join(f"{shown(variant)} {number(one['median'])}" for variant, one in variants)
            rows.append([work, f"{x:,}" if x else "", medians, variants[0][1]["unit"]])
        return rows

    def about(self):
        machine = self.machine
        return (
            f"colib {machine['colib']}, {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
            f"Linux {machine['kernel']}, {machine['libc']}, {machine['date']}"
        )

    def text(self):
        lines = ["", self.about(), "", *aligned(HEADINGS, [row.cells() for row in self.rows()])]
        if other := self.other_rows():
            lines += ["", *aligned(["work", "n", "medians", "unit"], other)]
        if missing := self.missing():
            lines += ["", "Not measured in this run: " + "; ".join(missing)]
        return "\n".join(lines)


def aligned(headings, rows):
    widths = [max(len(cell) for cell in column) for column in zip(headings, *rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in [headings, *rows]]


def markdown(headings, rows):
    return ["| " + " | ".join(line) + " |" for line in [headings, ["---"] * len(headings), *rows]]


# ---- plots -------------------------------------------------------------------------------------

COLOURS = {"ours": "#1565c0", "limit": "#9e9e9e"}
PEER_COLOURS = ["#ef6c00", "#2e7d32", "#8e24aa", "#c62828"]


def colours(variants):
    peers = iter(PEER_COLOURS * 3)
    return {variant: COLOURS.get(variant) or next(peers) for variant in sorted(variants)}


def new_figure(width, height):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(width, height), dpi=110)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return plt, figure, axes


def save(plt, figure, path):
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)
    return path


def plot_bars(results, works, title, unit, path, logarithmic=True):
    """Medians side by side, each work (its name, size and label) with its own limit and peers."""
    present = [(work, x, label) for work, x, label in works if results.values(work, x, "ours")]
    if not present:
        return None
    colour = colours({variant for work, x, _ in present for variant in results.variants(work, x)})
    order = sorted(colour, key=lambda name: (name.startswith("peer:"), name))
    plt, figure, axes = new_figure(9, 4)
    width = 0.84 / len(order)
    for index, variant in enumerate(order):
        for place, (work, x, _) in enumerate(present):
            values = results.values(work, x, variant)
            if values:
                at = place + (index - (len(order) - 1) / 2) * width
                bar = axes.bar(at, median(values.values()), width, color=colour[variant])
                axes.bar_label(bar, fmt="%.3g", fontsize=6)
    if logarithmic:
        axes.set_yscale("log")
    axes.set_ylabel(unit + (" (logarithmic)" if logarithmic else ""))
    axes.set_xticks(range(len(present)), [label for _, _, label in present], fontsize=8)
    axes.set_title(title)
    keys = [plt.Rectangle((0, 0), 1, 1, color=colour[variant]) for variant in order]
    axes.legend(keys, [shown(variant) for variant in order], fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return save(plt, figure, path)


def plot_lines(results, works, title, unit, path):
    """Medians over the size."""
    lines = {}
    for (work, x, variant), one in sorted(results.series.items()):
        if work in works and x:
            lines.setdefault((work, variant), []).append((x, one["median"]))
    if not lines:
        return None
    plt, figure, axes = new_figure(8, 4)
    work_colour = dict(zip(works, ["#1565c0", "#ef6c00", "#2e7d32", "#8e24aa", "#00838f", "#c62828"]))
    dashes = {"ours": "-", "limit": ":"}
    for (work, variant), points in lines.items():
        label = f"{works[work]}" + ("" if variant == "ours" else f" ({shown(variant)})")
        style = {"marker": "o", "markersize": 3, "color": work_colour[work], "label": label}
        axes.plot(*zip(*points), dashes.get(variant, "--"), **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylabel(unit)
    axes.set_title(title)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return save(plt, figure, path)


def plot_targets(results, path):
    """How far each ratio is from what was wanted: 1 is just met."""
    rows = [row for row in results.rows() if row.target.kind == "ratio"]
    if not rows:
        return None
    plt, figure, axes = new_figure(8, 0.32 * len(rows) + 1)
    for place, row in enumerate(reversed(rows)):
        share = row.target.bound / row.middle if row.target.least else row.middle / row.target.bound
        axes.barh(place, share, color="#1565c0" if row.met else "#c62828", height=0.6)
        label = f"{number(row.middle)} × {shown(row.target.reference)}"
        axes.text(0.01, place, label, va="center", fontsize=7, color="white")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(rows)), [row.target.title for row in reversed(rows)], fontsize=7)
    axes.set_title("Measured, as a share of what is allowed", fontsize=10)
    return save(plt, figure, path)


def plots(results, folder):
    """All plots that the data allow."""
    growth = {
        "growth-create": "create",
        "growth-switch": "switch",
        "growth-wait": "wait and wake",
        "growth-timer": "timer",
        "growth-create-private": "create, private stack",
        "growth-switch-private": "switch, private stack",
    }
    switches = [
        ("switch-static", 0, "resume + yield\nstatic"),
        ("switch-shared", 0, "resume + yield\nshared"),
        ("create-static", 0, "create + run\n+ release"),
        ("copy-switch-256-static", 0, "copy stack\n256 B"),
        ("copy-switch-4096-static", 0, "copy stack\n4 KiB"),
        ("copy-switch-32768-static", 0, "copy stack\n32 KiB"),
    ]
    echo = [
        (f"echo-{style}-cpu", n, f"{how}\n{n:,} connections")
        for n in (50, 1000, 10000)
        for style, how in (("poll", "co_poll"), ("plain", "plain style"))
    ]
    made = [
        plot_bars(results, switches, "Switches and creation", "ns of CPU", folder / "performance-switch.png"),
        plot_bars(
            results, echo, "Echo server, one request", "µs of server CPU", folder / "performance-echo.png", logarithmic=False
        ),
        plot_lines(results, growth, "One operation, of more coroutines", "ns of CPU", folder / "performance-growth.png"),
        plot_targets(results, folder / "performance-targets.png"),
    ]
    return [path for path in made if path]


# ---- page and document -------------------------------------------------------------------------


def html_table(headings, rows):
    def line(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + line(headings, "th") + "".join(line(row, "td") for row in rows) + "</table>"


def write_page(results, folder):
    """One page that needs nothing else."""
    pictures = "".join(
        f'<p><img alt="{path.stem}" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"></p>'
        for path in plots(results, folder)
    )
    page = folder / "index.html"
    page.write_text(
        "<!doctype html><html lang=en><meta charset=utf-8><title>colib: benchmarks</title>"
        "<style>body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}"
        "td,th{border-bottom:1px solid #ccc;padding:2px 8px;text-align:left}img{max-width:100%}</style>"
        f"<h1>colib: benchmarks</h1><p>{html.escape(results.about())}</p>"
        + html_table(HEADINGS, [row.cells() for row in results.rows()])
        + pictures
        + "<h2>Measured beside</h2>"
        + html_table(["work", "n", "medians", "unit"], results.other_rows())
        + "\n"
    )
    return page


def write_docs(results, docs, folder):
    """Puts the table and the plots between the two marks of docs/PERFORMANCE.md."""
    lines = [BEGIN, "", f"Measured with {results.about()}.", ""]
    lines += markdown(HEADINGS, [row.cells() for row in results.rows()])
    for path in plots(results, folder):
        (docs / path.name).write_bytes(path.read_bytes())
        lines += ["", f"![{path.stem.removeprefix('performance-')}]({path.name})"]
    lines += ["", "Beside these:", "", *markdown(["work", "n", "medians", "unit"], results.other_rows()), "", END]
    document = docs / "PERFORMANCE.md"
    text = document.read_text()
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"{document} lacks the two marks that the generated part lies between")
    document.write_text(before + "\n".join(lines) + after)
