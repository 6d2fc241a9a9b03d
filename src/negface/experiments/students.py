"""Students: recognisers trained on one set and examined on people nobody has seen, with replicates for paired tests.

Replicates draw the folds of each benchmark (whose people are apart, in population protocols) with replacement; the
same folds are drawn for every student, so two students can be compared pair by pair.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from negface import datasets
from negface.evaluation.bootstrap import interval, multiplicities
from negface.foundation.files import write_bytes
from negface.foundation.noise import keyed_generator
from negface.perception import load_recognizer

from .benchmarks import examine
from .grid import Student
from .materials import Materials
from .references import Pictures

REPLICATES = "student.npz"


def train_student(student: Student, pictures: Pictures, folder: Path, *, seed: int, held_out: Iterable[str],
                  say: Callable[[str], None]) -> dict[str, Any]:
    """Train a student on a set; resumes what ``folder`` holds. Returns seconds, counts and images a second.

    ``held_out``: people of the benchmarks; ``MismatchError`` before the first step if the set has any of them.
    """
    from negface.training.recognition import train_recognition

    dataset = datasets.open(pictures.folder)
    made = train_recognition(student.for_seed(seed), dataset, folder, name="student", identities=pictures.identities,
                             held_out=tuple(held_out), say=say)
    return {key: made[key] for key in ("steps", "loss", "n_images", "n_identities", "seconds", "images_per_second")}


def weights_of(model: Path) -> Path:
    """The weights file in a trained recogniser's folder."""
    return next(path for path in sorted(model.iterdir()) if path.suffix == ".safetensors")


def examine_student(model: Path, materials: Materials, student: Student, out: Path, *, bootstrap: int,
                    seed: int) -> dict[str, Any]:
    """Marks of a student: ``student_accuracy`` and ``student_eer`` over all benchmarks, and each benchmark's.

    Writes the replicates of the accuracy to ``out`` (``student_accuracy`` float64 ``[1 + r]``).
    """
    recognizer = load_recognizer(weights_of(model), threads=materials.eyes.threads)
    marks = {item.name: examine(recognizer, item, flip=student.flip) for item in materials.benchmarks}
    repeats = np.mean([accuracy_replicates(mark.accuracies, name, bootstrap, seed) for name, mark in marks.items()],
                      axis=0)
    buffer = io.BytesIO()
    np.savez(buffer, student_accuracy=repeats)
    write_bytes(out, buffer.getvalue())
    low, high = interval(repeats[1:])
    each = {f"student_accuracy:{name}": mark.accuracy for name, mark in marks.items()}
    return {"student_accuracy": float(repeats[0]), "student_accuracy_low": low, "student_accuracy_high": high,
            "student_eer": float(np.mean([mark.eer for mark in marks.values()])), **each,
            **{f"student_eer:{name}": mark.eer for name, mark in marks.items()},
            "benchmarks": {name: mark.to_dict() for name, mark in marks.items()}}


def accuracy_replicates(accuracies: tuple[float, ...], name: str, bootstrap: int, seed: int) -> np.ndarray:
    """Mean accuracy over folds and its replicates, float64 ``[1 + r]``; the draw is keyed by the benchmark's name."""
    folds = np.asarray(accuracies)
    drawn = _drawn(name, len(folds), bootstrap, seed)
    return np.concatenate([[folds.mean()], folds @ drawn / len(folds)])


def _drawn(name: str, folds: int, bootstrap: int, seed: int) -> np.ndarray:
    """How often each fold is drawn, ``[folds, r]``: shuffled by name, so that benchmarks are drawn independently."""
    counts = multiplicities(folds, bootstrap, seed)
    return counts[:, keyed_generator("folds", name, seed).permutation(counts.shape[1])]
