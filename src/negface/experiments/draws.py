"""Replicates for comparisons: as many as the table's p-values need, remade from the embeddings and marks a cell keeps.

Adjusted for n rows (Holm), the least p that r replicates can show is 2 n / (r + 1); r is taken so that this is below
5 %.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from negface.foundation.files import write_bytes
from negface.perception import read_embeddings

from .grid import ExperimentRecipe, Setting
from .paired import replicates
from .stages import CONDITIONER, EXAMINED, JUDGE, REPLICATES, Bench, adherence_replicates, read_replicates
from .students import accuracy_replicates

FEWEST = 10_000
A_ROW = 50


def count_of(recipe: ExperimentRecipe) -> int:
    """Replicates of the comparisons of a recipe: 10,000, or 50 for every setting where that is more. None where cells
    have none."""
    settings = {(item.source, item.scheduler, item.name, item.strategy.weight) for item in recipe.settings()}
    return max(FEWEST, A_ROW * len(settings), recipe.measuring.bootstrap) if recipe.measuring.bootstrap else 0


def of_set(setting: Setting, place: str, bench: Bench, count: int) -> dict[str, np.ndarray]:
    """``fdr``, ``diversity`` and, of a generated set, ``adherence``: float64 ``[1 + count]`` each."""
    folder, seed = bench.journal.root / place, bench.recipe.measuring.seed

    def make() -> dict[str, np.ndarray]:
        inside = (folder / JUDGE).is_file()  # a ceiling of faces that lie elsewhere has none
        judged = read_embeddings(folder / JUDGE) if inside else bench.materials.known
        drawn = replicates(judged.embeddings, judged.labels, bootstrap=count, seed=seed)
        found = {"fdr": drawn.fdr, "diversity": drawn.diversity}
        if not setting.reference:
            bank = bench.banks.get(setting.source, setting.seed).bank
            found["adherence"] = adherence_replicates(read_embeddings(folder / CONDITIONER), bank, count, seed)
        return found

    return _kept(folder / REPLICATES, count, make)


def of_student(place: str, marks: dict[str, Any], bench: Bench, count: int) -> dict[str, np.ndarray]:
    """``student_accuracy`` float64 ``[1 + count]``, from the accuracies of the folds."""
    def make() -> dict[str, np.ndarray]:
        each = [accuracy_replicates(tuple(mark["accuracies"]), name, count, bench.recipe.measuring.seed)
                for name, mark in marks["benchmarks"].items()]
        return {"student_accuracy": np.mean(each, axis=0)}

    return _kept(bench.journal.root / place / EXAMINED, count, make)


def _kept(path: Path, count: int, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """A cell's replicates; where the file holds another number they are made and take its place."""
    found = read_replicates(path)
    if all(len(values) == 1 + count for values in found.values()):
        return found
    found = make()
    buffer = io.BytesIO()
    np.savez(buffer, **found)
    write_bytes(path, buffer.getvalue())
    return found
