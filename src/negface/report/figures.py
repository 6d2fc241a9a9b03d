"""Figures as inline SVG that takes its colours and its typeface from the page, so light, dark and print all work.

matplotlib draws with placeholder colours; they become CSS variables afterwards. Small panels instead of one large
figure: on a telephone they stack and stay readable.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from .verdict import BASELINE, Row, comparable

INK, MUTED, RULE, GENUINE, IMPOSTOR, PAPER = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
SERIES = tuple(f"#0701{index:02x}" for index in range(10))
VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule", GENUINE: "--genuine", IMPOSTOR: "--impostor",
             PAPER: "--paper", **{colour: f"--s{index}" for index, colour in enumerate(SERIES)}}
FIXED = {"baseline": 0, "far": 1, "null-learned": 2, "close": 3, "mid": 4, "random": 5, "adaptive-far": 6,
         "null-zero": 7, "antipodal": 8, "previous": 9}
STYLE = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "axes.edgecolor": RULE, "axes.linewidth": 0.8,
    "axes.labelcolor": MUTED, "xtick.color": RULE, "ytick.color": RULE, "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED, "text.color": INK, "axes.spines.top": False, "axes.spines.right": False,
    "xtick.major.size": 3, "ytick.major.size": 3, "xtick.minor.size": 0, "ytick.minor.size": 0,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none", "legend.frameon": False,
    "lines.color": INK, "patch.edgecolor": INK, "lines.linewidth": 1.6, "axes.axisbelow": True,
    "lines.markeredgewidth": 1.2, "axes.titlesize": 10, "axes.titlelocation": "left", "axes.titlecolor": INK,
}


def colour_of(strategy: str) -> str:
    """The placeholder colour of a strategy: the same on every page."""
    index = FIXED.get(strategy, 1 + sum(strategy.encode()) % (len(SERIES) - 1))
    return SERIES[index]


def variable_of(strategy: str) -> str:
    """The CSS variable of a strategy's colour."""
    return VARIABLES[colour_of(strategy)]


def draw(name: str, size: tuple[float, float], paint: Callable[[Any], None], description: str) -> str:
    """Run ``paint(axes)`` on a fresh figure of ``size`` inches; returns SVG text with page colours.

    ``name`` keeps the ids of several figures on one page apart; ``description`` is what a screen reader says.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name, "svg.id": None}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _dress(buffer.getvalue(), description)


def _dress(svg: str, description: str) -> str:
    svg = svg[svg.index("<svg"):]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r'font: [^;"]*?([\d.]+px) [^;"]*', r"font-size: \1", svg)  # the shorthand of older matplotlib
    svg = re.sub(r' font-family: [^;"]*;', "", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    label = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1).replace("\n", " ")


def _density(counts: Sequence[float], edges: np.ndarray) -> np.ndarray:
    counts = np.asarray(counts, float)
    return counts / max(counts.sum(), 1e-12) / np.diff(edges)


def _coarser(histogram: dict[str, Any], bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges, genuine and impostor densities with neighbouring bins put together until about ``bins`` are left."""
    edges = np.asarray(histogram["edges"], float)
    step = max(1, (len(edges) - 1) // bins)
    kept = edges[::step] if (len(edges) - 1) % step == 0 else np.append(edges[:-1:step], edges[-1])
    starts = np.arange(0, len(edges) - 1, step)
    sums = [np.add.reduceat(np.asarray(histogram[key], float), starts) for key in ("genuine", "impostor")]
    return kept, _density(sums[0], kept), _density(sums[1], kept)


def shown_range(histograms: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """The range of scores that holds nearly all of every histogram, so that panels can be compared."""
    low, high = np.inf, -np.inf
    for histogram in histograms:
        edges = np.asarray(histogram["edges"], float)
        for key in ("genuine", "impostor"):
            share = np.cumsum(histogram[key]) / max(np.sum(histogram[key]), 1e-12)
            low = min(low, edges[np.searchsorted(share, 0.001)])
            high = max(high, edges[min(np.searchsorted(share, 0.999) + 1, len(edges) - 1)])
    margin = 0.05 * (high - low)
    return low - margin, high + margin


def histogram(row: Row, baseline: Row | None, limits: tuple[float, float], top: float | None = None) -> str:
    """Genuine and impostor densities of a setting, filled; those of the baseline as outlines behind it."""
    def paint(axes: Any) -> None:
        bins = max(12, int(50 * 2 / max(limits[1] - limits[0], 1e-6)))
        edges, genuine, impostor = _coarser(row.cell["histogram"], bins)
        for values, colour in ((impostor, IMPOSTOR), (genuine, GENUINE)):
            axes.stairs(values, edges, fill=True, color=colour, alpha=0.45, linewidth=0)
            axes.stairs(values, edges, color=colour, linewidth=1.2)
        if baseline is not None and baseline is not row and baseline.cell["histogram"] is not None:
            edges, genuine, impostor = _coarser(baseline.cell["histogram"], bins)
            for values in (impostor, genuine):
                axes.stairs(values, edges, color=INK, linewidth=0.8, linestyle=(0, (2, 1.5)), alpha=0.75)
        axes.set(xlim=limits, ylim=(0, top), yticks=[], xlabel="cosine under the judge")
        axes.spines["left"].set_visible(False)

    size = (3.3, 1.75)
    return draw(f"histogram-{row.contexts}-{row.label}", size, paint,
                f"Genuine and impostor score histograms of {row.label}")


def densest(found: Sequence[Row]) -> float:
    """The highest density of several histograms, for one vertical scale."""
    peaks = [max(_coarser(row.cell["histogram"], 60)[1:][side].max() for side in (0, 1))
             for row in found if row.cell["histogram"] is not None]
    return 1.05 * max(peaks, default=1.0)


def curves(found: Sequence[Row], x: str, y: str, labels: tuple[str, str]) -> str | None:
    """Metric ``y`` against ``x``: one line a strategy over its weights, opened by the baseline (w = 0); error bars are
    95 % intervals. Over the seeds that all points share. ``None`` where fewer than two settings have both."""
    have, seeds = comparable(found, (x, y))
    if len(have) < 2:
        return None
    baseline = next((row for row in have if row.strategy == BASELINE), None)

    def paint(axes: Any) -> None:
        for strategy in dict.fromkeys(row.strategy for row in have):
            points = sorted((row for row in have if row.strategy == strategy), key=lambda row: row.weight)
            if len(points) > 1 and baseline is not None and strategy != BASELINE:
                path = [baseline, *points]
                axes.plot([row.metrics[x] for row in path], [row.metrics[y] for row in path], zorder=2,
                          color=colour_of(strategy), linewidth=1.2, alpha=0.8)
            for row in points:
                _point(axes, row, x, y, weighted=len(points) > 1)
        axes.set(xlabel=labels[0], ylabel=labels[1])
        axes.margins(0.12)
        axes.grid(color=RULE, alpha=0.5, linewidth=0.5)
        if len(seeds) < max(row.n_seeds for row in found):
            axes.set_title(f"seeds that all points share: {', '.join(map(str, seeds))}", fontsize=7.5, color=MUTED)

    return draw(f"curve-{found[0].contexts}-{x}-{y}", (3.9, 3.1), paint, f"{labels[1]} against {labels[0]} by strategy")


def _point(axes: Any, row: Row, x: str, y: str, weighted: bool) -> None:
    at, colour = (row.metrics[x], row.metrics[y]), colour_of(row.strategy)
    for name, side in ((x, "xerr"), (y, "yerr")):
        interval = row.interval(name)
        if interval is not None:
            spread = [[max(0, row.metrics[name] - interval[0])], [max(0, interval[1] - row.metrics[name])]]
            axes.errorbar(*at, **{side: spread}, color=colour, linewidth=0.9, alpha=0.55, zorder=1)
    axes.plot(*at, marker="D" if row.strategy == BASELINE else "o", markersize=6, markerfacecolor=colour,
              markeredgecolor=PAPER, zorder=3)
    if weighted and row.strategy != BASELINE:
        axes.annotate(f"w {row.weight:g}", at, (6, 5), textcoords="offset points", fontsize=7.5, color=MUTED)


def _thinned(x: np.ndarray, y: np.ndarray, step: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """A curve without the points that fall where the one before them fell, at the resolution of a screen."""
    places = np.stack([x, y], 1) // step
    kept = np.append(True, np.any(np.diff(places, axis=0) != 0, axis=1))
    kept[-1] = True
    return x[kept], y[kept]


def det(found: Sequence[Row]) -> str | None:
    """Detection error trade-off: false non-match against false match, both on normal-deviate axes."""
    have = [row for row in found if row.cell["det"] is not None and row.cell["det"]["fmr"]]
    if not have:
        return None
    ticks = [0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95]
    deviate = np.vectorize(lambda rate: NormalDist().inv_cdf(min(max(rate, 1e-5), 1 - 1e-5)))

    def paint(axes: Any) -> None:
        low, high = deviate(0.0005), deviate(0.97)
        axes.plot([low, high], [low, high], color=RULE, linewidth=0.8)
        for row in have:
            axes.plot(*_thinned(deviate(row.cell["det"]["fmr"]), deviate(row.cell["det"]["fnmr"])), label=row.label,
                      color=colour_of(row.strategy), linestyle="--" if row.strategy == BASELINE else "-")
        places, names = deviate(ticks), [f"{100 * tick:g} %" for tick in ticks]
        axes.set(xlim=(low, high), ylim=(low, high), xlabel="false match rate", ylabel="false non-match rate")
        axes.set_xticks(places, names)
        axes.set_yticks(places, names)
        axes.grid(color=RULE, alpha=0.5, linewidth=0.5)

    return draw(f"det-{have[0].contexts}", (3.9, 3.1), paint, "Detection error trade-off curves by strategy")
