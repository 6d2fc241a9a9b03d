"""One picture that says what the tool does: people in rows, plain and with far negatives, above their histograms.

It is what the README opens with; the numbers under it come from the results, never by hand.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from negface.foundation.errors import InputError
from negface.foundation.files import atomic_path, read_json

from .schema import validate
from .verdict import Row, headline_pair, number
from .verdict import rows as rows_of

PEOPLE, IMAGES = 5, 6
GENUINE, IMPOSTOR, INK, MUTED = "#1b7f79", "#c8553d", "#1c1c1c", "#6b6b6b"
TITLES = {"baseline": "plain sampling"}


def opening(results: str | os.PathLike, out: str | os.PathLike) -> dict[str, Any]:
    """Draw the opening picture of a results file (docs/report-schema.md) as a PNG.

    The left half is the baseline, the right half the headline strategy (far, w = 0.5), with the same people and the
    same noise.

    Raises:
        InputError: the results lack one of the two, their histograms or their pictures.
    """
    results = Path(results)
    found = rows_of(validate(read_json(results))["cells"])
    pair = headline_pair([row for row in found if row.contexts == found[0].contexts])
    if None in pair:
        raise InputError("has no baseline and far at w = 0.5 on the same contexts", where=results)
    halves = [(row, _faces(row, results.parent), row.cell.get("histogram")) for row in pair]
    if not all(faces is not None and histogram for _, faces, histogram in halves):
        raise InputError("has cells without pictures or histograms", where=results)
    with atomic_path(out) as temporary:
        _draw(halves, temporary)
    return {"people": PEOPLE, "images": IMAGES, "strategies": [row.label for row, _, _ in halves]}


def _faces(row: Row, folder: Path) -> np.ndarray | None:
    """Rows of pictures as one uint8 array."""
    lines = []
    for files in (row.cell.get("images") or [])[:PEOPLE]:
        pictures = []
        for name in files[:IMAGES]:
            with Image.open(folder / name) as picture:
                pictures.append(np.asarray(picture.convert("RGB")))
        lines.append(np.concatenate(pictures, 1))
    if not lines or len({line.shape for line in lines}) != 1:
        return None
    return np.concatenate(lines, 0)


def _draw(halves: list[tuple[Row, np.ndarray, dict[str, Any]]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.9), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2, height_ratios=(2.5, 1))
    top = 0.0
    for column, (row, faces, histogram) in enumerate(halves):
        above, below = axes[0, column], axes[1, column]
        above.imshow(faces, interpolation="lanczos")
        above.set_axis_off()
        title = TITLES.get(row.strategy, f"{row.strategy} negatives, w = {row.weight:g}")
        above.set_title(title, fontsize=14, loc="left", color=INK)
        edges = np.asarray(histogram["edges"], float)
        middles = (edges[1:] + edges[:-1]) / 2
        for name, colour in (("impostor", IMPOSTOR), ("genuine", GENUINE)):
            counts = np.asarray(histogram[name], float)
            density = counts / max(counts.sum(), 1) / np.diff(edges)
            below.fill_between(middles, density, color=colour, alpha=0.45, linewidth=0, step="mid",
                               label={"impostor": "different people", "genuine": "same person"}[name])
            top = max(top, float(density.max()))
        below.set_xlabel(f"cosine between two pictures, by the judge\nFDR {_bracket(row, 'fdr')}   diversity "
                         f"{_value(row, 'diversity')}   adherence {_value(row, 'adherence')}", color=INK, fontsize=10)
        below.set_yticks([])
        for side in ("top", "right", "left"):
            below.spines[side].set_visible(False)
        below.tick_params(colors=MUTED)
    for below in axes[1]:
        below.set_ylim(0, 1.05 * top)
        below.set_xlim(-0.6, 1.0)
    axes[1, 0].legend(frameon=False, fontsize=10, loc="upper left")
    figure.savefig(path, format="png", dpi=100)


def _value(row: Row, name: str) -> str:
    value = row.metrics.get(name)
    return "not measured" if value is None else number(value)


def _bracket(row: Row, name: str) -> str:
    interval = row.interval(name)
    text = _value(row, name)
    return text if interval is None else f"{text} [{number(interval[0])}, {number(interval[1])}]"
