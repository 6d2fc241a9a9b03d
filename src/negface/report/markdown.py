"""Results as a Markdown page for ``docs/results``: the lead's answer, plots, tables, and every setting over its seeds.

All text and numbers come from the results; only the reading of them is left to the author, in a section that another
writing of the page keeps.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from negface.foundation.errors import InputError
from negface.foundation.files import read_json, write_bytes, write_text

from .schema import validate
from .verdict import BASELINE, Row, comparable, number
from .verdict import rows as rows_of

READING = "## Reading"
"""The author's section: from this heading to the end of the page."""
PERCENT = ("eer", "student_accuracy", "student_eer")
SHOWN = (("fdr", "FDR"), ("diversity", "diversity"), ("adherence", "adherence"), ("eer", "EER %"),
         ("student_accuracy", "student %"))


def markdown(results: str | os.PathLike, out: str | os.PathLike) -> dict[str, Any]:
    """Write the Markdown page of a results file (docs/report-schema.md), its plots beside it as SVG.

    A page that is there keeps what its author wrote from ``## Reading`` on.

    Returns ``{"page", "plots"}``. Raises ``InputError`` for a page that does not end in ``.md``.
    """
    out = Path(out)
    if out.suffix != ".md":
        raise InputError("must end in .md", where=out)
    data = validate(read_json(results))
    rows, lead = rows_of(data["cells"]), data["lead"]
    plots = []
    for plot in lead["plots"] if lead else ():
        place = out.with_name(f"{out.stem}-{plot['y'].replace('_', '-')}-{plot['x']}.svg")
        write_bytes(place, _drawn(plot, [row for row in rows if row.contexts == rows[0].contexts]))
        plots.append(place)
    write_text(out, _page(data, rows, [place.name for place in plots]) + _reading(out))
    return {"page": str(out), "plots": [str(place) for place in plots]}


def _reading(page: Path) -> str:
    written = page.read_text() if page.is_file() else ""
    at = written.find(f"\n{READING}\n")
    return written[at:] if at >= 0 else ""


def _page(data: dict[str, Any], rows: Sequence[Row], plots: Sequence[str]) -> str:
    lead = data["lead"] or {"sentence": "", "says": [], "tables": []}
    first = [f"# {data['title']}", lead["sentence"], *lead["says"],
             *(f"![{name.removesuffix('.svg')}]({name})" for name in plots)]
    tables = [part for table in lead["tables"] for part in (
        f"## {table['title']}", _table(table["columns"], table["rows"]), table["say"])]
    made = [f"- `{data['command']}`" if data["command"] else "", f"- {data['created']}" if data["created"] else "",
            "- " + ", ".join(f"{name} {version}" for name, version in data["versions"].items()),
            *(f"- {warning}" for warning in data["warnings"])]
    parts = [*first, *tables, "## Every setting", *_settings(rows),
             "Means over seeds; an interval is the hull of the seeds' 95 % intervals (bootstrap over people, students: "
             "over folds). Diversity is the genuine standard deviation. FDR is not to be read without diversity and "
             "adherence beside it.", "## Made by", "\n".join(line for line in made if line)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _settings(rows: Sequence[Row]) -> list[str]:
    """A table for each kind of contexts; benchmarks of students have columns of their own."""
    parts = []
    for contexts in dict.fromkeys(row.contexts for row in rows):
        mine = [row for row in rows if row.contexts == contexts]
        benchmarks = dict.fromkeys(key for row in mine for key in row.metrics if key.startswith("student_accuracy:"))
        shown = [item for item in SHOWN if any(row.metrics.get(item[0]) is not None for row in mine)]
        names = ["setting", "seeds", *(said for _, said in shown), *(key.partition(":")[2] for key in benchmarks)]
        lines = [[row.label, str(row.n_seeds), *(_measured(row, name) for name, _ in shown),
                  *(_measured(row, key) for key in benchmarks)] for row in mine]
        parts += [f"Contexts: {contexts}.", _table(names, lines)]
    return parts


def _measured(row: Row, name: str) -> str:
    scale = 100 if name.partition(":")[0] in PERCENT else 1
    value, bounds = row.metrics.get(name), row.interval(name)
    if value is None:
        return "–"
    text = number(scale * value)
    return text if bounds is None else f"{text} [{number(scale * bounds[0])}, {number(scale * bounds[1])}]"


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (columns, ["---"] * len(columns), *lines))


def _drawn(plot: dict[str, Any], rows: Sequence[Row]) -> bytes:
    """Every strategy along w from the baseline, with intervals (SVG), over the seeds that all points share."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasSVG(figure)
    axis = figure.subplots()
    have, seeds = comparable(rows, (plot["x"], plot["y"]))
    plain = [row for row in have if row.strategy == BASELINE]
    for count, strategy in enumerate(dict.fromkeys(row.strategy for row in have)):
        line = [row for row in have if row.strategy == strategy]
        colour, marker = ("black", "s") if strategy == BASELINE else (f"C{count % 10}", "o" if count < 10 else "^")
        xs, ys = ([row.metrics[plot[name]] for row in line] for name in "xy")
        if strategy != BASELINE and " + " not in strategy:
            path = [*plain, *line]
            axis.plot(*([row.metrics[plot[name]] for row in path] for name in "xy"), color=colour, linewidth=0.8)
        axis.errorbar(xs, ys, xerr=_bars(line, plot["x"]), yerr=_bars(line, plot["y"]), fmt=marker, color=colour,
                      linewidth=0.8, markersize=5, label=strategy)
    axis.set_xlabel(plot["labels"][0])
    axis.set_ylabel(plot["labels"][1])
    if have:
        axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
        named = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
        axis.set_title(f"{named}; lines follow w from the baseline", fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _bars(line: Sequence[Row], name: str) -> list[list[float]]:
    values = [(row.metrics[name], row.interval(name) or (row.metrics[name],) * 2) for row in line]
    return [[max(value - low, 0) for value, (low, _) in values], [max(high - value, 0) for value, (_, high) in values]]
