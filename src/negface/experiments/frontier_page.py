"""The frontier for readers: a Markdown page with its table, the curve beside it; all text comes from the figures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from negface.foundation.files import write_bytes, write_text

from .frontier import REFERENCE, markdown

PANELS = (("fdr", "FDR", 1), ("eer", "EER, %", 100), ("diversity", "diversity (genuine std)", 1),
          ("adherence", "adherence", 1))
KINDS = {"": "everywhere", "-interval": "on an interval", "-reuse2": "negative reused, k = 2",
         "-reuse3": "negative reused, k = 3", "-fast-decoder": "the default preset with the fast decoder"}
MARKERS = {"ddpm": "s", "ddim": "o", "dpmpp": "D", "unipc": "^", "distilled": "*"}


def write_page(path: Path, table: Sequence[dict[str, Any]], verdict: str, remarks: Sequence[str]) -> None:
    """Write the page at ``path`` and its curve beside it, ``path`` with the ending ``.svg``."""
    picture = path.with_suffix(".svg")
    write_bytes(picture, curve(table))
    made = "\n".join(f"- {remark}" for remark in remarks[:-1])
    write_text(path, f"# The frontier: quality against predictions\n\n{verdict}\n\n![curve]({picture.name})\n\n"
                     f"{markdown(table)}\n\nIntervals are 95 %, bootstrap over people. \"FDR / DDPM-1000\" is paired: "
                     f"the same people from the same starting noise, first seed. FDR is not to be read without "
                     f"diversity and adherence beside it.\n\nMade by:\n\n{made}\n")


def curve(table: Sequence[dict[str, Any]]) -> bytes:
    """Four panels over the number of predictions (SVG); bars are 95 % intervals, the band is the reference's."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots(2, 2, sharex=True)
    reference = next((row for row in table if row["setting"] == REFERENCE), None)
    for axis, (name, label, scale) in zip(axes.flat, PANELS, strict=True):
        if reference is not None:
            axis.axhspan(scale * reference[f"{name}_low"], scale * reference[f"{name}_high"], alpha=0.12, color="grey",
                         label=REFERENCE)
        for number, (ending, said) in enumerate(KINDS.items()):
            _points(axis, [row for row in table if _kind(row) == ending], name, scale, f"C{number}", said)
        axis.set_xscale("log")
        axis.set_xlim(min(row["predictions"] for row in table) / 1.5, max(row["predictions"] for row in table) * 1.5)
        axis.set_ylabel(label)
    for axis in axes[1]:
        axis.set_xlabel("predictions an image")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    figure.suptitle("square DDPM, circle DDIM, diamond DPM-Solver++ 2M, triangle UniPC, star student", fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _kind(row: dict[str, Any]) -> str:
    return next((ending for ending in KINDS if ending and row["setting"].endswith(ending)), "")


def _points(axis: Any, rows: Sequence[dict[str, Any]], name: str, scale: float, colour: str, label: str) -> None:
    for number, row in enumerate(row for row in rows if row[name] is not None):
        value, low, high = (scale * row[f"{name}{end}"] for end in ("", "_low", "_high"))
        axis.errorbar(row["predictions"], value, [[max(value - low, 0)], [max(high - value, 0)]], color=colour,
                      marker=MARKERS[row["scheduler"]], markersize=10 if row.get("default_preset") else 5, linewidth=1,
                      label=label if number == 0 else None)
