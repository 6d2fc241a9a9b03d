"""Results of a run for people and programs: ``results.csv``, ``results.json`` (docs/report-schema.md), ``report.html``.

Only cells of the present study (same model, eyes, people, sampling and measuring) are put beside each other.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from negface.contexts.bank import REAL_PEOPLE_NOTE
from negface.foundation.files import write_json, write_text

from .cells import DATASET, REPLICATES, Cell, read_replicates
from .nearest import NamedPictures, nearest_pairs
from .paired import ratio
from .recipe import BASELINE
from .steps import Journal

WITH_INTERVAL = ("fdr", "eer", "fmr100", "fmr1000", "genuine_mean", "genuine_std", "impostor_mean", "impostor_std",
                 "adherence", "diversity", "pose_spread", "leakage_rate", "fdr_ratio", "diversity_ratio")
COLUMNS = ("strategy", "weight", "seed", "contexts",
           *(f"{name}{end}" for name in WITH_INTERVAL for end in ("", "_low", "_high")),
           "adherence_rank1", "leakage_chance_rate", "leakage_nearest_mean", "mean_weight", "n_identities", "n_images",
           "n_genuine", "n_impostor", "seconds", "images_per_second")
RESULTS_CSV, RESULTS_JSON, REPORT, SUMMARY = "results.csv", "results.json", "report.html", "summary.json"


def measured_cells(journal: Journal, grid: Iterable[Cell], study: str) -> list[tuple[Cell, dict[str, Any]]]:
    """Cells of the grid that are measured in this study, with the results of their records."""
    found = []
    for cell in grid:
        record = journal.read(f"{cell.name}/cell")
        if record and record["result"].get("study") == study and (journal.root / cell.name / REPLICATES).is_file():
            found.append((cell, record["result"]))
    return found


def rows(journal: Journal, found: Sequence[tuple[Cell, dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row of the table for each cell; ratios to the baseline of the same contexts and seed, paired over people."""
    baselines = {(cell.contexts, cell.seed): cell for cell, _ in found if cell.strategy.name == BASELINE}
    table = []
    for cell, result in found:
        row = {key: value for key, value in result["measured"].items() if isinstance(value, int | float)}
        row |= {"strategy": cell.strategy.name, "weight": cell.strategy.weight, "seed": cell.seed,
                "contexts": cell.contexts, "mean_weight": result["mean_weight"], "seconds": result["seconds"],
                "images_per_second": result["images_per_second"]}
        baseline = baselines.get((cell.contexts, cell.seed))
        if baseline is not None and baseline != cell:
            row |= _ratios(journal, cell, baseline)
        table.append({key: row.get(key) for key in COLUMNS})
    return table


def _ratios(journal: Journal, cell: Cell, baseline: Cell) -> dict[str, float | None]:
    mine, plain = (read_replicates(journal.root / each.name / REPLICATES) for each in (cell, baseline))
    if len(mine.fdr) != len(plain.fdr):
        return {}
    out = {}
    for name in ("fdr", "diversity"):
        values = ratio(getattr(mine, name), getattr(plain, name))
        out |= {f"{name}_ratio{end}": value for end, value in zip(("", "_low", "_high"), values, strict=True)}
    return out


def csv_text(table: Sequence[dict[str, Any]], remarks: Sequence[str], columns: Sequence[str] = COLUMNS) -> str:
    """The results table; remarks stand first, each behind ``# ``. An empty field was not measured."""
    buffer = io.StringIO()
    for remark in remarks:
        buffer.write(f"# {' '.join(remark.split())}\n")
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    for row in table:
        writer.writerow({key: _text(value) for key, value in row.items()})
    return buffer.getvalue()


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def results(title: str, table: Sequence[dict[str, Any]], found: Sequence[tuple[Cell, dict[str, Any]]], *, command: str,
            created: str, versions: dict[str, str], warnings: Sequence[str], provenance: dict[str, Any],
            root: Path | None = None, training: NamedPictures | None = None) -> dict[str, Any]:
    """The results as the report takes them; picture paths are relative to the run's folder, ``root``.

    ``training``: the faces behind the model; the nearest of them are copied beside each set.
    """
    cells = []
    for row, (cell, result) in zip(table, found, strict=True):
        measured, base = result["measured"], f"{cell.name}/{DATASET}"
        metrics = {key: row[key] for key in COLUMNS[4:]}
        cells.append({
            "strategy": cell.strategy.name, "weight": cell.strategy.weight, "seed": cell.seed,
            "contexts": cell.contexts, "metrics": metrics, "histogram": measured["histogram"], "det": measured["det"],
            "images": [[f"{base}/{file}" for file in files] for files in result["pictures"]],
            "closest_pairs": [{"a": f"{base}/{pair['a_name']}", "b": f"{base}/{pair['b_name']}",
                               "cosine": pair["cosine"], "a_identity": str(pair["a_identity"]),
                               "b_identity": str(pair["b_identity"])} for pair in measured["closest_pairs"][:6]],
            "leakage_pairs": [] if root is None else nearest_pairs(
                root, cell.name, base, measured.get("leakage_closest"), training)})
    return {"title": title, "command": command, "created": created, "versions": versions,
            "warnings": [*warnings, *release_notes(found)], "provenance": provenance, "cells": cells}


def release_notes(found: Sequence[tuple[Cell, dict[str, Any]]]) -> list[str]:
    """What must stand beside sets that describe real people."""
    kinds = dict.fromkeys(cell.contexts for cell, result in found if result["describes_real_people"])
    return [f"{kind} contexts: {REAL_PEOPLE_NOTE.split(': ')[0]}; they, or the negatives, describe real people"
            for kind in kinds]


def write_tables(root: Path, table: Sequence[dict[str, Any]], remarks: Sequence[str], data: dict[str, Any]) -> None:
    """Write ``results.csv`` and ``results.json``."""
    write_text(root / RESULTS_CSV, csv_text(table, remarks))
    write_json(root / RESULTS_JSON, data, indent=None)


def printed(table: Sequence[dict[str, Any]]) -> str:
    """The table for a terminal: FDR never without diversity and adherence."""
    head = f"{'contexts':<11}{'seed':>4}  {'strategy':<15}{'w':>5}  {'FDR [95 %]':<23}{'/ baseline':<21}{'EER':>7}" \
           f"{'adherence':>11}{'diversity':>11}{'leakage':>9}"
    lines = [head]
    for row in table:
        lines.append(
            f"{row['contexts']:<11}{row['seed']:>4}  {row['strategy']:<15}{row['weight']:>5g}  "
            f"{_bracket(row, 'fdr'):<23}{_bracket(row, 'fdr_ratio'):<21}{_number(row['eer'], '.1%'):>7}"
            f"{_number(row['adherence'], '.3f'):>11}{_number(row['diversity'], '.4f'):>11}"
            f"{_number(row['leakage_rate'], '.1%'):>9}")
    return "\n".join(lines)


def _bracket(row: dict[str, Any], name: str) -> str:
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    text = _number(value, ".3f")
    return text if low is None else f"{text} [{low:.3f}, {high:.3f}]"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
