"""The page: validated results become what the template shows. One file, no requests, readable offline for ever."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from negface.foundation.files import ensure_folder, read_json, write_text

from . import figures
from .pictures import data_uri
from .schema import validate
from .verdict import BASELINE, REFERENCES, Row, compare, headline_pair, number, rows, verdict

MOST_PEOPLE, MOST_IMAGES, MOST_PAIRS, MOST_LEAKED = 8, 4, 6, 12
PERCENT = {"eer", "fmr100", "fmr1000", "leakage_rate", "student_accuracy", "student_eer"}
# name, heading, what it says (shown on hover), always shown even where nothing was measured
COLUMNS = (
    ("fdr", "FDR", "(genuine mean − impostor mean)² / (genuine variance + impostor variance)", True),
    ("diversity", "Diversity", "spread of a person's own images; guidance pays with it", True),
    ("adherence", "Adherence", "conditioner's cosine to the wanted identity context", True),
    ("student_accuracy", "Student, %", "accuracy of a recogniser trained on this set alone, on new people", False),
    ("student_eer", "Student EER, %", "that recogniser's equal error rate", False),
    ("eer", "EER, %", "error rate where false matches and false non-matches are equal", False),
    ("fmr100", "FMR100, %", "lowest false non-match rate with a false match rate of at most 1 %", False),
    ("fmr1000", "FMR1000, %", "lowest false non-match rate with a false match rate of at most 0.1 %", False),
    ("genuine_mean", "Genuine", "mean ± standard deviation of scores of the same person", False),
    ("impostor_mean", "Impostor", "mean ± standard deviation of scores of different people", False),
    ("leakage_rate", "Leakage, %", "images that match a training person above the threshold at FMR 0.1 %", False),
    ("n_images", "Images", "images judged, and how many a second were made on the machine named below", False),
)
GLOSSARY = (
    ("Genuine, impostor", "A pair of images of one person, and of two people. Scores are cosines under the judge."),
    ("FDR", "Fisher's discriminant ratio (μg − μi)² / (σg² + σi²): how far apart the two histograms lie."),
    ("EER, FMR100, FMR1000", "Error rates of a verifier on this dataset; lower means better separated people."),
    ("Diversity", "How much one person's images differ. A set of copies separates perfectly and teaches nothing."),
    ("Adherence", "Whether the person in the image is the one who was asked for, in the conditioner's eyes."),
    ("Leakage", "Share of images that match a person the generator was trained on, at the threshold of FMR 0.1 %."),
    ("Student", "A recogniser trained on this set and nothing else. Floor: the names of the pictures shuffled. "
                "Ceiling: pictures of people that no generator made."),
    ("Interval", "95 %, bootstrap over people. Over several seeds: the hull of the seeds' intervals; in comparisons of "
                 "settings a t interval over seeds is added."),
    ("w", "Guidance weight: prediction + w · (prediction − prediction for the negative). 0 is plain sampling."),
)


def render_file(results: str | Path, out: str | Path) -> dict[str, Any]:
    """Render a results file (JSON, ``docs/report-schema.md``); pictures lie relative to it. Returns the summary."""
    return render(read_json(results), out, folder=Path(results).parent)


def render(results: dict[str, Any], out: str | Path, *, folder: str | Path | None = None) -> dict[str, Any]:
    """Write one self-contained HTML page.

    Args:
        results: plain data as in ``docs/report-schema.md``.
        out: the page; written atomically, its folder is made.
        folder: what picture paths are relative to (default: the folder of ``out``).

    Returns: ``verdict`` (one text), ``page``, ``bytes``, ``n_cells``, ``n_pictures``, ``warnings``.
    Errors: ``FormatError`` names the fault in the results or the picture; ``OutputError`` where it cannot be written.
    """
    out = Path(out)
    results = validate(results)
    found = rows(results["cells"])
    said = verdict(found) if results["lead"] is None else _leading(results["lead"], verdict(found))
    view = {**results, "lead": _lead(results["lead"], found), "verdict": said,
            "tiles": _all_tiles(results["lead"], found), "glossary": GLOSSARY, "number": number,
            "provenance": list(flatten(results["provenance"])), "versions": list(flatten(results["versions"])),
            "sections": _sections(found, Path(folder) if folder is not None else out.parent),
            "seeds": _every_number(results["cells"])}
    page = _template().render(**view)
    ensure_folder(out.parent)
    write_text(out, page)
    return {"verdict": " ".join(text for text in said.values() if text), "page": str(out), "bytes": len(page.encode()),
            "n_cells": len(results["cells"]), "n_pictures": page.count("data:image/"), "warnings": results["warnings"]}


def _leading(lead: dict[str, Any], said: dict[str, str]) -> dict[str, str]:
    """The comparison's answer first, the declared strategy's verdict after it."""
    return {"sentence": lead["sentence"], "price": " ".join([*lead["says"], said["sentence"], said["price"]]),
            "beyond": said["beyond"]}


def _lead(lead: dict[str, Any] | None, found: list[Row]) -> dict[str, Any] | None:
    """Plots of the first section's strategies and tables, for the top of the page."""
    if lead is None or not (lead["plots"] or lead["tables"]):
        return None
    shown_rows = [row for row in found if row.contexts == found[0].contexts]
    plots = [figures.curves(shown_rows, plot["x"], plot["y"], plot["labels"]) for plot in lead["plots"]]
    legend = _legend([row for row in shown_rows if row.strategy not in REFERENCES])
    return {"tables": lead["tables"], "plots": [plot for plot in plots if plot], "legend": legend}


def _legend(found: Sequence[Row]) -> list[dict[str, str]]:
    return [{"strategy": name, "colour": figures.variable_of(name)}
            for name in dict.fromkeys(row.strategy for row in found)]


@cache
def _template() -> Any:
    from importlib.resources import files

    import jinja2

    here = files(__package__)
    loader = jinja2.DictLoader({name: (here / name).read_text(encoding="utf-8") for name in ("page.html", "page.css")})
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined,
                                     trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("page.html")


def flatten(value: Any, prefix: str = "") -> Any:
    """Nested data as (dotted key, text) pairs."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from flatten(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        yield prefix, ", ".join(str(item) for item in value)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from flatten(item, f"{prefix}.{index}")
    else:
        yield prefix, "–" if value is None else str(value)


def shown(name: str, value: float | None) -> str:
    """A metric as the table shows it: rates in per cent, counts whole."""
    if value is None:
        return "not measured"
    if name in PERCENT:
        return number(100 * value, 2)
    return f"{value:,.0f}" if name.startswith("n_") else number(value)


def _all_tiles(lead: dict[str, Any] | None, found: list[Row]) -> list[dict[str, str]]:
    """The tiles that the results bring, then those of what was measured."""
    given = lead["tiles"] if lead is not None else []
    return [*({"heading": tile["heading"], "tip": "", "note": tile["note"], "after": tile["value"], "before": ""}
              for tile in given), *(tile for tile in _tiles(found) if not given or tile["after"] != shown("", None))]


def _tiles(found: list[Row]) -> list[dict[str, str]]:
    baseline, other = headline_pair(found)
    tiles = []
    for name, heading, tip, _ in COLUMNS[:4]:
        after = other.metrics.get(name) if other else None
        before = baseline.metrics.get(name) if baseline else None
        if name == "student_accuracy" and after is None and before is None:
            continue  # most runs train no student; every run should know its other figures
        change = compare(baseline, other, name) if baseline and other else "missing"
        note = {"up": "intervals apart", "down": "intervals apart", "unclear": "intervals overlap or absent",
                "missing": "no comparison"}[change]
        single, alone = shown(name, after if other else before), other or baseline
        interval = alone.interval(name) if alone and change == "missing" else None
        note = f"95 %: {shown(name, interval[0])} – {shown(name, interval[1])}" if interval else note
        tiles.append({"heading": heading, "tip": tip, "note": note, "after": single,
                      "before": shown(name, before) if before is not None and other else ""})
    return tiles


def _sections(found: list[Row], folder: Path) -> list[dict[str, Any]]:
    kinds = list(dict.fromkeys(row.contexts for row in found))
    return [_section([row for row in found if row.contexts == kind], folder, primary=kind == kinds[0])
            for kind in kinds]


def _section(found: list[Row], folder: Path, *, primary: bool) -> dict[str, Any]:
    baseline = next((row for row in found if row.strategy == BASELINE), None)
    drawn = [row for row in found if row.cell["histogram"] is not None]
    limits = figures.shown_range([row.cell["histogram"] for row in drawn]) if drawn else (-1.0, 1.0)
    top = figures.densest(drawn)
    plots = [figures.curves(found, "diversity", "fdr", ("diversity", "FDR")),
             figures.curves(found, "adherence", "fdr", ("adherence", "FDR"))]
    kind = found[0].contexts
    heading = kind.upper() if kind == "pca" else kind[:1].upper() + kind[1:]
    return {
        "heading": f"{heading} contexts", "primary": primary,
        "table": _table(found), "people": _people(found, folder),
        "histograms": [{"label": row.label, "svg": figures.histogram(row, baseline, limits, top)} for row in drawn],
        "curves": [plot for plot in plots if plot],
        "det": figures.det(_one_weight_each(found)),
        "legend": _legend(found),
        "pairs": _pairs(found, folder, "closest_pairs", MOST_PAIRS),
        "leaked": _leaked(found, folder), "rejections": _rejections(found),
    }


def _one_weight_each(found: list[Row]) -> list[Row]:
    """Of every strategy the row whose weight is nearest 0.5, so that the DET lines stay countable."""
    kept = {}
    for row in sorted(found, key=lambda row: (abs(row.weight - 0.5), row.weight)):
        kept.setdefault(row.strategy, row)
    return [row for row in found if kept[row.strategy] is row]


def _table(found: list[Row]) -> dict[str, Any]:
    columns = [column for column in COLUMNS
               if column[3] or any(row.metrics.get(column[0]) is not None for row in found)]
    highest = max((row.metrics.get("fdr_high") or row.metrics.get("fdr") or 0 for row in found), default=0) or 1
    baseline = next((row for row in found if row.strategy == BASELINE), None)
    band = _bar(baseline, highest) if baseline else None
    return {"columns": columns, "band": band, "seeds": max(row.n_seeds for row in found),
            "rows": [{"row": row, "colour": figures.variable_of(row.strategy), "bar": _bar(row, highest),
                      "cells": [_table_cell(row, name) for name, *_ in columns]} for row in found]}


def _table_cell(row: Row, name: str) -> dict[str, str]:
    value, interval = row.metrics.get(name), row.interval(name)
    spread = row.metrics.get(name.replace("_mean", "_std")) if name.endswith("_mean") else None
    rate = row.metrics.get("images_per_second") if name == "n_images" else None
    below = f"± {number(spread)}" if spread is not None else f"{number(rate)}/s" if rate is not None else ""
    if interval and value is not None and not below:
        below = f"{shown(name, interval[0])} – {shown(name, interval[1])}"
    return {"text": shown(name, value), "below": below, "missing": "missing" if value is None else ""}


def _bar(row: Row, highest: float) -> dict[str, float] | None:
    """Place of the FDR and its interval on a strip from 0 to ``highest``, in per cent."""
    value = row.metrics.get("fdr")
    if value is None:
        return None
    low, high = row.interval("fdr") or (value, value)
    left, right, middle = (max(0.0, min(100.0, 100 * item / highest)) for item in (low, high, value))
    return {"left": round(left, 2), "width": round(right - left, 2), "middle": round(middle, 2)}


def _people(found: list[Row], folder: Path) -> dict[str, Any] | None:
    have = [row for row in found if row.cell["images"]]
    if not have:
        return None
    n_people = min(MOST_PEOPLE, max(len(row.cell["images"]) for row in have))
    n_images = MOST_IMAGES if len(have) <= 4 else MOST_IMAGES - 1
    lines = []
    for person in range(n_people):
        lines.append([[data_uri(folder / path) for path in row.cell["images"][person][:n_images]]
                      if person < len(row.cell["images"]) else [] for row in have])
    return {"columns": [{"label": row.label, "colour": figures.variable_of(row.strategy)} for row in have],
            "lines": lines, "n_images": n_images}


def _rejections(found: Sequence[Row]) -> list[dict[str, Any]]:
    """What each set's steps saw and kept out, widths in per cent of the pictures the first step saw."""
    blocks = []
    for row in found:
        given = row.cell["rejections"]
        if given is None:
            continue
        most, lost = given["steps"][0]["seen"] or 1, sum(item["rejected"] for item in given["steps"])
        steps = [{**item, "share": f"{100 * item['rejected'] / (item['seen'] or 1):.1f} %",
                  "kept": round(100 * (item["seen"] - item["rejected"]) / most, 2),
                  "lost": round(100 * item["rejected"] / most, 2)} for item in given["steps"]]
        blocks.append({"label": row.label, "colour": figures.variable_of(row.strategy), "fate": given["fate"],
                       "steps": steps, "drawn": given["steps"][0]["seen"], "lost": lost})
    return blocks


def _leaked(found: Sequence[Row], folder: Path) -> list[dict[str, Any]]:
    """Pairs of generated and training pictures, each block with its leakage and that by chance."""
    metrics = {row.label: row.metrics for row in found}
    blocks = _pairs(found, folder, "leakage_pairs", MOST_LEAKED)
    for block in blocks:
        rate, chance = (metrics[block["label"]].get(name) for name in ("leakage_rate", "leakage_chance_rate"))
        said = [] if rate is None else [f"{shown('leakage_rate', rate)} % of its pictures match a training person"]
        said += [] if chance is None else [f"{shown('leakage_rate', chance)} % of training pictures match another one"]
        block["say"] = "; ".join(said)
    return blocks


def _pairs(found: Sequence[Row], folder: Path, key: str, most: int) -> list[dict[str, Any]]:
    blocks = []
    for row in found:
        pairs = sorted(row.cell[key], key=lambda pair: -(pair["cosine"] or 0))[:most]
        if pairs:
            blocks.append({"label": row.label, "say": "", "colour": figures.variable_of(row.strategy), "pairs": [
                {**pair, "a": data_uri(folder / pair["a"]), "b": data_uri(folder / pair["b"])} for pair in pairs]})
    return blocks


def _every_number(cells: list[dict[str, Any]]) -> dict[str, Any]:
    keys = list(dict.fromkeys(key for cell in cells for key in cell["metrics"]))
    plain = [key for key in keys if not key.endswith(("_low", "_high"))]
    return {"keys": plain, "rows": [
        [cell["contexts"], cell["strategy"], f"{cell['weight']:g}", str(cell["seed"]),
         *(_with_interval(cell["metrics"], key) for key in plain)] for cell in cells]}


def _with_interval(metrics: dict[str, float | None], key: str) -> str:
    low, high = metrics.get(f"{key}_low"), metrics.get(f"{key}_high")
    value = metrics.get(key)
    text = "–" if value is None else f"{value:.6g}"
    return text if low is None or high is None else f"{text} [{low:.4g}, {high:.4g}]"
