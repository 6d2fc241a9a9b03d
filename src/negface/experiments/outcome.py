"""Results of an experiment: ``results.csv``, ``results.json`` and the comparison that the page leads with.

Sentences are made from the figures beside them; nothing here knows what they will say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .compare import (
    Estimate,
    Measured,
    Reference,
    against,
    at_equal,
    common_seeds,
    common_target,
    curves,
    estimate,
    group,
    over_seeds,
    spearman,
    to_baseline,
    to_unvaried,
)
from .grid import CEILING, FLOOR, Setting
from .nearest import NamedPictures, nearest_pairs
from .recipe import BASELINE
from .stages import EXAMINED, REPLICATES, Bench, examined_of, measures_of, read_replicates

WITH_INTERVAL = ("fdr", "diversity", "adherence", "eer", "fmr100", "fmr1000", "genuine_mean", "impostor_mean",
                 "leakage_rate", "student_accuracy")
COLUMNS = ("strategy", "weight", "seed", "contexts", "scheduler", "variation",
           *(f"{name}{end}" for name in WITH_INTERVAL for end in ("", "_low", "_high")), "student_eer",
           "adherence_rank1", "mean_weight", "n_identities", "n_images", "images_per_second", "student_seconds",
           "student_images_per_second")
MEANING = {"diversity": "diversity", "adherence": "adherence", "fdr": "FDR", "student_accuracy": "student accuracy"}


@dataclass(frozen=True)
class Done:
    """A cell that is measured: where it lies, its measures and, where a student sat the examination, its marks."""

    setting: Setting
    place: str
    measures: dict[str, Any]
    marks: dict[str, Any] | None

    def metrics(self) -> dict[str, float | int | None]:
        """All plain numbers of the cell."""
        found = {key: value for source in (self.measures["measured"], self.marks or {}) for key, value in source.items()
                 if isinstance(value, int | float) and not isinstance(value, bool)}
        trained = (self.marks or {}).get("training", {})
        return found | {"student_seconds": trained.get("seconds"), "mean_weight": self.measures.get("mean_weight"),
                        "student_images_per_second": trained.get("images_per_second")}


def collect(settings: Sequence[Setting], places: dict[Setting, str], bench: Bench) -> list[Done]:
    """Cells of the grid that are measured in this study, in the grid's order."""
    found = []
    for setting in settings:
        measures = measures_of(places[setting], bench)
        if measures is None:
            continue
        made = (bench.journal.read(f"{places[setting]}/pictures") or {"result": {}})["result"]
        found.append(Done(setting, places[setting], {**measures, **_speed(made)}, examined_of(places[setting], bench)))
    return found


def _speed(made: dict[str, Any]) -> dict[str, Any]:
    return {key: made.get(key) for key in ("images_per_second", "mean_weight", "describes_real_people")}


def row(done: Done) -> dict[str, Any]:
    """The cell's line in the table; ``None``: not measured. Benchmarks have columns of their own."""
    setting, metrics = done.setting, done.metrics()
    named = {"strategy": setting.strategy.name, "weight": setting.strategy.weight, "seed": setting.seed,
             "contexts": setting.source, "scheduler": setting.scheduler, "variation": setting.variation,
             "images_per_second": done.measures.get("images_per_second")}
    return {**{key: metrics.get(key) for key in COLUMNS}, **named,
            **{key: value for key, value in metrics.items() if ":" in key}}


def columns(table: Sequence[dict[str, Any]]) -> list[str]:
    """The table's columns: ``COLUMNS``, then those of the benchmarks."""
    return [*COLUMNS, *dict.fromkeys(key for line in table for key in line if ":" in key)]


def heading(setting: Setting, scheduler: str) -> str:
    """The page's section of a cell: its contexts, and its scheduler where it is not the experiment's."""
    return setting.source if setting.scheduler == scheduler else f"{setting.source}, {setting.scheduler}"


def page_cell(done: Done, scheduler: str, root: Path, training: NamedPictures) -> dict[str, Any]:
    """The cell as the report takes it; pictures are relative to the experiment's folder, ``root``.

    ``training``: the generator's people, the nearest of whom are shown.
    """
    measured, base = done.measures["measured"], done.measures.get("dataset")
    line = row(done)
    words = {"strategy", "weight", "seed", "contexts", "scheduler", "variation"}
    pairs = [] if base is None else measured["closest_pairs"][:6]
    return {"strategy": done.setting.name, "weight": done.setting.strategy.weight, "seed": done.setting.seed,
            "contexts": heading(done.setting, scheduler),
            "metrics": {key: value for key, value in line.items() if key not in words},
            "histogram": measured["histogram"], "det": measured["det"],
            "images": [[f"{base}/{file}" for file in files] for files in done.measures["pictures"]],
            "closest_pairs": [{"a": f"{base}/{pair['a_name']}", "b": f"{base}/{pair['b_name']}",
                               "cosine": pair["cosine"], "a_identity": str(pair["a_identity"]),
                               "b_identity": str(pair["b_identity"])} for pair in pairs],
            "leakage_pairs": [] if base is None else nearest_pairs(
                root, done.place, base, measured.get("leakage_closest"), training)}


def measured(done: Sequence[Done], bench: Bench) -> list[Measured]:
    """Replicates of the cells, for comparison."""
    found = []
    for item in done:
        values = read_replicates(bench.journal.root / item.place / REPLICATES)
        if item.marks is not None:
            values |= read_replicates(bench.journal.root / item.place / EXAMINED)
        found.append(Measured(item.setting.name, item.setting.strategy.weight, item.setting.seed, values))
    return found


def lead(done: Sequence[Done], bench: Bench) -> dict[str, Any]:
    """What the page opens with: the answer, curves over w, tables at equal w and at equal diversity and adherence.

    Of the first section's cells; correlations are over the generated cells of all sections.
    """
    scheduler = bench.recipe.sampling.scheduler
    first = heading(done[0].setting, scheduler)
    cells = measured([item for item in done if heading(item.setting, scheduler) == first], bench)
    generated = [cell for cell in cells if cell.name not in (FLOOR, CEILING)]
    everything = measured([item for item in done if not item.setting.reference], bench)
    answer, correlations = _usefulness(everything)
    tables = [*_equal_w(generated), *_equal_company(generated), *correlations]
    return {"sentence": answer or _unanswered(generated), "says": _ends(cells), "tables": tables,
            "plots": [{"x": "diversity", "y": y, "labels": ["diversity", MEANING[y]]}
                      for y in ("fdr", "student_accuracy")]
            + [{"x": "fdr", "y": "student_accuracy", "labels": ["FDR", "student accuracy"]}]}


def _usefulness(cells: Sequence[Measured]) -> tuple[str, list[dict[str, Any]]]:
    """Does a more separable set make a better recogniser? Rank correlations over all cells with a student."""
    lines, answer = [], ""
    for x in ("fdr", "diversity", "adherence"):
        found = spearman(cells, x, "student_accuracy")
        if found is None:
            continue
        value, count = found
        lines.append([MEANING[x], str(count), _number(value, 2), _p(value)])
        if x == "fdr":
            answer = _answer(value, count)
    table = {"title": "Does a more separable set make a better recogniser?", "columns":
             ["over the cells, student accuracy against", "cells", "Spearman's ρ", "p"], "rows": lines,
             "say": "Rank correlation over generated cells with a student; a replicate of the interval draws cells, "
                    "people and folds."}
    return answer, [table] if lines else []


def _answer(value: Estimate, count: int) -> str:
    figures = f"Spearman's ρ between FDR and student accuracy is {_number(value, 2)} over {count} cells"
    if not math.isfinite(value.value):
        return f"Whether a more separable set makes a better recogniser stays open: all {count} students are alike."
    if value.low is None or value.high is None:
        return f"Whether a more separable set makes a better recogniser stays open: {figures}, without an interval."
    if value.low > 0:
        return f"A more separable set makes a better recogniser here: {figures}."
    if value.high < 0:
        return f"A more separable set makes a worse recogniser here: {figures}."
    return f"A more separable set does not surely make a better recogniser: {figures}."


def _unanswered(cells: Sequence[Measured]) -> str:
    if any("student_accuracy" in cell.values for cell in cells):
        return "Whether a more separable set makes a better recogniser takes at least four cells with a student."
    found = against(cells, "fdr", to_baseline, ratio=True)
    sure = [item for item in found.values() if item.sure]
    up = sum(item.value > 1 for item in sure)
    return (f"Of {len(found)} settings, {up} surely raise separability above the baseline and {len(sure) - up} surely "
            "lower it; no student says whether that is of use.")


def _ends(cells: Sequence[Measured]) -> list[str]:
    """Where the scale begins and ends: floor, baseline, ceiling."""
    said = []
    for name in (FLOOR, BASELINE, CEILING):
        mine = [cell for cell in group(cells, name) if "student_accuracy" in cell.values]
        values = over_seeds(mine, "student_accuracy", common_seeds(mine)) if mine else None
        if values is not None:
            said.append(f"{name} {_number(estimate(values), 3)}")
    return [f"Student accuracy: {'; '.join(said)}."] if said else []


def _equal_w(cells: Sequence[Measured]) -> list[dict[str, Any]]:
    """At equal w: against the baseline; with variation against without."""
    return [*_against(cells, to_baseline, "At equal w, against the baseline"),
            *_against(cells, to_unvaried, "Variation of the context, against the same strategy without")]


def _against(cells: Sequence[Measured], reference: Reference, title: str) -> list[dict[str, Any]]:
    ratios = {name: against(cells, name, reference, ratio=True) for name in ("fdr", "diversity", "adherence")}
    students = against(cells, "student_accuracy", reference, ratio=False)
    rows = []
    for (name, weight), fdr in ratios["fdr"].items():
        others = [ratios[key].get((name, weight)) for key in ("diversity", "adherence")]
        student = students.get((name, weight))
        rows.append([name, f"{weight:g}", _number(fdr, 2), _p(fdr), *(_number(item, 2) for item in others),
                     _number(student, 3, signed=True), _p(student)])
    table = {"title": title, "columns": ["strategy", "w", "FDR ratio", "p", "diversity ratio", "adherence ratio",
                                         "student accuracy difference", "p"], "rows": rows,
             "say": "Paired: the same people, and the same folds, are drawn for both. p is two-sided and adjusted for "
                    "the number of rows (Holm)."}
    return [table] if rows else []


def _equal_company(cells: Sequence[Measured]) -> list[dict[str, Any]]:
    """Every strategy's FDR and student accuracy where its diversity, or adherence, is the same."""
    tables = []
    for x in ("diversity", "adherence"):
        for y in ("fdr", "student_accuracy"):
            made = curves(cells, x, y)
            target = common_target(made)
            if target is None:
                continue
            reference = "null-learned" if any(item.name == "null-learned" for item in made) else made[0].name
            each, ratios = at_equal(made, target, reference)
            rows = [[item.name, _number(each.get(item.name), 3), _number(ratios.get(item.name), 3),
                     _p(ratios.get(item.name))] for item in made]
            tables.append({
                "title": f"{MEANING[y][0].upper()}{MEANING[y][1:]} at equal {x} ({target:.4g})",
                "columns": ["strategy", MEANING[y], f"ratio to {reference}", "p"], "rows": rows,
                "say": f"Each strategy is followed along w from the baseline until its {x} is {target:.4g}, half way "
                       "to the end of the shortest curve; – where it never is."})
    return tables


def _number(value: Estimate | None, digits: int, *, signed: bool = False) -> str:
    if value is None:
        return "–"
    if not math.isfinite(value.value):
        return "–"
    sign = "+" if signed else ""
    text = f"{value.value:{sign}.{digits}f}"
    return text if value.low is None else f"{text} [{value.low:{sign}.{digits}f}, {value.high:{sign}.{digits}f}]"


def _p(value: Estimate | None) -> str:
    return "–" if value is None or value.p is None else f"{value.p:.3f}" if value.p >= 0.001 else "< 0.001"
