"""Results of an experiment: ``results.csv``, ``results.json`` and the comparison that the page leads with.

Sentences are made from the figures beside them; nothing here knows what they will say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import draws
from .compare import (
    VARIED,
    Correlation,
    Reference,
    against,
    at_equal,
    common_seeds,
    common_target,
    curves,
    each_other,
    group,
    spearman,
    spread_of_runs,
    to_baseline,
    to_unvaried,
)
from .grid import CEILING, FLOOR, Setting
from .intervals import Estimate, Measured, Spread, estimate, holm, over_seeds
from .nearest import NamedPictures, nearest_pairs
from .recipe import BASELINE
from .stages import Bench, examined_of, measures_of

WITH_INTERVAL = ("fdr", "diversity", "adherence", "eer", "fmr100", "fmr1000", "genuine_mean", "impostor_mean",
                 "leakage_rate", "student_accuracy")
COLUMNS = ("strategy", "weight", "seed", "contexts", "scheduler", "variation",
           *(f"{name}{end}" for name in WITH_INTERVAL for end in ("", "_low", "_high")), "student_eer",
           "adherence_rank1", "mean_weight", "n_identities", "n_images", "images_per_second", "student_seconds",
           "student_images_per_second", "guidance")
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
             "guidance": setting.strategy.guidance, "images_per_second": done.measures.get("images_per_second")}
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
    words = {"strategy", "weight", "seed", "contexts", "scheduler", "variation", "guidance"}
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
    count, scheduler = draws.count_of(bench.recipe), bench.recipe.sampling.scheduler
    for item in done:
        values = draws.of_set(item.setting, item.place, bench, count)
        if item.marks is not None:
            values |= draws.of_student(item.place, item.marks, bench, count)
        found.append(Measured(item.setting.name, item.setting.strategy.weight, item.setting.seed, values,
                              heading(item.setting, scheduler)))
    return found


def lead(done: Sequence[Done], bench: Bench) -> dict[str, Any]:
    """What the page opens with: the answer, curves over w, tables at equal w and at equal diversity and adherence.

    Of the first section's cells; correlations are over the generated cells of all sections.
    """
    everything = measured(done, bench)
    cells = [cell for cell in everything if cell.stratum == everything[0].stratum]
    generated = [cell for cell in cells if cell.name not in (FLOOR, CEILING)]
    answer, correlations = _usefulness([cell for cell in everything if cell.name not in (FLOOR, CEILING)])
    tables = [*_equal_w(generated), *_equal_company(generated), *correlations]
    return {"sentence": answer or _unanswered(generated), "says": [*_ends(cells), *_sureties(generated)],
            "tables": tables, "plots": [{"x": "diversity", "y": y, "labels": ["diversity", MEANING[y]]}
                                        for y in ("fdr", "student_accuracy")]
            + [{"x": "fdr", "y": "student_accuracy", "labels": ["FDR", "student accuracy"]}]}


def _usefulness(cells: Sequence[Measured]) -> tuple[str, list[dict[str, Any]]]:
    """Does a more separable set make a better recogniser? Rank correlations over all settings with a student."""
    found = {(x, 0.0): spearman(cells, x, "student_accuracy") for x in ("fdr", "diversity", "adherence")}
    have = {key: item for key, item in found.items() if item is not None}
    rhos = holm({key: item.rho for key, item in have.items()})
    lines = [[MEANING[key[0]], str(item.n_settings), str(item.n_cells), _number(rhos[key], 2), _p(rhos[key])]
             for key, item in have.items()]
    table = {"title": "Does a more separable set make a better recogniser?", "columns":
             ["over the settings, student accuracy against", "settings", "cells", "Spearman's ρ", "p"], "rows": lines,
             "say": "Rank correlation over settings with a student, each the mean of its seeds, within contexts and "
                    "scheduler; a replicate of the interval draws settings with all their seeds, people and folds. p "
                    "is adjusted for the number of rows (Holm)."}
    separable = have.get(("fdr", 0.0))
    return _answer(separable) if separable else "", [table] if lines else []


def _answer(found: Correlation) -> str:
    value, over = found.rho, f"{found.n_settings} settings ({found.n_cells} cells)"
    figures = f"Spearman's ρ between FDR and student accuracy is {_number(value, 2)} over {over}"
    if not math.isfinite(value.value):
        return f"Whether a more separable set makes a better recogniser stays open: the students of {over} are alike."
    if value.low is None or value.high is None:
        return f"Whether a more separable set makes a better recogniser stays open: {figures}, without an interval."
    if value.low > 0:
        return f"A more separable set makes a better recogniser here: {figures}."
    if value.high < 0:
        return f"A more separable set makes a worse recogniser here: {figures}."
    return f"A more separable set does not surely make a better recogniser: {figures}."


def _unanswered(cells: Sequence[Measured]) -> str:
    if any("student_accuracy" in cell.values for cell in cells):
        return "Whether a more separable set makes a better recogniser takes at least four settings with a student."
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
        seeds = common_seeds(mine) if mine else []
        values = over_seeds(mine, "student_accuracy", seeds)
        if values is not None:
            said.append(f"{name} {_number(estimate(values, len(seeds)), 3)}")
    return [f"Student accuracy: {'; '.join(said)}."] if said else []


def _sureties(cells: Sequence[Measured]) -> list[str]:
    """What is sure against the baseline at equal w, and what is not."""
    said = []
    for metric, ratio in (("fdr", True), ("student_accuracy", False)):
        found = against(cells, metric, to_baseline, ratio=ratio)
        verdicts: dict[str, list[tuple[str, float]]] = {}
        for place, item in found.items():
            way = "surely higher" if item.value > ratio else "surely lower"
            verdicts.setdefault(way if item.sure else "no sure difference" if item.p is not None else
                                "not tested, for want of a second seed", []).append(place)
        if found:
            parts = "; ".join(f"{verdict}: {_listed(places)}" for verdict, places in sorted(verdicts.items()))
            said.append(f"{MEANING[metric][0].upper()}{MEANING[metric][1:]} against the baseline, {parts}.")
    pairs = each_other(cells, "student_accuracy", ratio=False)
    if pairs:
        above = [(pair if item.value > 0 else pair[::-1]) for pair, item in pairs.items() if item.sure]
        said.append(f"Student accuracy of strategies against each other, surely higher ({len(above)} of {len(pairs)} "
                    f"pairs): {'; '.join(' than '.join(map(_named, pair)) for pair in above) or 'none'}.")
    return said


def _listed(places: Sequence[tuple[str, float]]) -> str:
    """``far (w 0.5, 1), random (w 0.5)``; what has no weight stands alone."""
    weights: dict[str, list[str]] = {}
    for name, weight in sorted(places, key=lambda place: place[1]):
        weights.setdefault(name, []).append(f"{weight:g}")
    return ", ".join(name if name.partition(VARIED)[0] == BASELINE else f"{name} (w {', '.join(each)})"
                     for name, each in weights.items())


def _equal_w(cells: Sequence[Measured]) -> list[dict[str, Any]]:
    """At equal w: against the baseline; strategies against each other; with variation against without."""
    return [*_against(cells, to_baseline, "At equal w, against the baseline"), *_each_other(cells),
            *_against(cells, to_unvaried, "Variation of the context, against the same strategy without")]


def _against(cells: Sequence[Measured], reference: Reference, title: str) -> list[dict[str, Any]]:
    ratios = {name: against(cells, name, reference, ratio=True) for name in ("fdr", "diversity", "adherence")}
    students = against(cells, "student_accuracy", reference, ratio=False)
    rows = []
    for (name, weight), fdr in ratios["fdr"].items():
        others = [ratios[key].get((name, weight)) for key in ("diversity", "adherence")]
        student = students.get((name, weight))
        rows.append([name, f"{weight:g}", _seeds(fdr), _number(fdr, 2), _p(fdr),
                     *(_number(item, 2) for item in others), _seeds(student), _number(student, 3, signed=True),
                     _p(student)])
    table = {"title": title, "columns": [
        "strategy", "w", "seeds", "FDR ratio", "p", "diversity ratio", "adherence ratio", "student seeds",
        "student accuracy difference", "p"], "rows": rows, "say":
        "Paired: the same people, and the same folds, are drawn for both. Over several seeds the interval and p of "
        "sets hold what another run would change too (t over seeds); with one seed they are of people alone. "
        f"{_of_students(spread_of_runs(cells, 'student_accuracy'))} p is two-sided and adjusted for the number of rows "
        "(Holm), intervals are not; ≤: the least that the replicates can show."}
    return [table] if rows else []


def _each_other(cells: Sequence[Measured]) -> list[dict[str, Any]]:
    """The ranking of strategies: every pair of those with most seeds, and with a student where some have one."""
    taught = [cell for cell in cells if "student_accuracy" in cell.values] or cells
    students = each_other(taught, "student_accuracy", ratio=False)
    rows = [[*map(_named, pair), str(item.runs), _number(item, 2), _p(item),
             _number(students.get(pair), 3, signed=True), _p(students.get(pair))]
            for pair, item in each_other(taught, "fdr", ratio=True).items()]
    table = {"title": "Strategies against each other", "columns": [
        "strategy", "against", "seeds", "FDR ratio", "p", "student accuracy difference", "p"], "rows": rows, "say":
        "Paired and adjusted as above, for the number of pairs."}
    return [table] if rows else []


def _named(place: tuple[str, float]) -> str:
    return f"{place[0]}, w = {place[1]:g}"


def _of_students(spread: Spread | None) -> str:
    if spread is None:
        return "A student's difference over one seed is of the folds alone, and not tested."
    return ("A student's difference holds it by the spread of training runs that all settings with several seeds show "
            f"together (standard deviation {spread.deviation:.4f}, {spread.freedom} degrees of freedom), so one seed "
            "is tested too.")


def _equal_company(cells: Sequence[Measured]) -> list[dict[str, Any]]:
    """Every strategy's FDR and student accuracy where its diversity, or adherence, is the same."""
    tables = []
    for x in ("diversity", "adherence"):
        for y in ("fdr", "student_accuracy"):
            made, left_out = curves(cells, x, y)
            target = common_target(made)
            if target is None:
                continue
            reference = "null-learned" if any(item.name == "null-learned" for item in made) else made[0].name
            spread = spread_of_runs(cells, y)
            each, ratios = at_equal(made, target, reference, spread)
            how = "ratio to" if spread is None else "difference to"
            rows = [[item.name, _number(each.get(item.name), 3),
                     _number(ratios.get(item.name), 3, signed=spread is not None), _p(ratios.get(item.name))]
                    for item in made]
            tables.append({
                "title": f"{MEANING[y][0].upper()}{MEANING[y][1:]} at equal {x} ({target:.4g})",
                "columns": ["strategy", MEANING[y], f"{how} {reference}", "p"], "rows": rows,
                "say": f"Each strategy is followed along w from the baseline until its {x} is {target:.4g}, half way "
                       f"to the end of the middle curve by length; – where it never is. "
                       f"{_whose(made[0].seeds, spread)}"
                       + (f" Could not be compared: {'; '.join(map(' '.join, _reasons(left_out)))}."
                          if left_out else "")})
    return tables


def _whose(seeds: Sequence[int], spread: Spread | None) -> str:
    named = ", ".join(map(str, seeds))
    if len(seeds) > 1:
        return f"Over the seeds that all points share: {named}."
    if spread is not None:
        return (f"All points share seed {named} alone; the difference holds what another training run would change, "
                "the accuracy does not.")
    return f"All points share seed {named} alone, so nothing here holds what another run would change."


def _reasons(left_out: Mapping[str, str]) -> list[tuple[str, str]]:
    """Strategies by why they were left out: ``("far, close", "(no student)")``."""
    named: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        named.setdefault(reason, []).append(name)
    return [(", ".join(names), f"({reason})") for reason, names in named.items()]


def _seeds(value: Estimate | None) -> str:
    return "–" if value is None else str(value.runs)


def _number(value: Estimate | None, digits: int, *, signed: bool = False) -> str:
    if value is None:
        return "–"
    if not math.isfinite(value.value):
        return "–"
    sign = "+" if signed else ""
    text = f"{value.value:{sign}.{digits}f}"
    return text if value.low is None else f"{text} [{value.low:{sign}.{digits}f}, {value.high:{sign}.{digits}f}]"


def _p(value: Estimate | None) -> str:
    if value is None or value.p is None:
        return "–"
    if value.limit:
        return f"≤ {math.ceil(1000 * value.p) / 1000:.3f}"
    return f"{value.p:.3f}" if value.p >= 0.001 else "< 0.001"
