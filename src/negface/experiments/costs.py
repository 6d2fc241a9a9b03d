"""``--plan``: the cells of an experiment and how long they will take, from a few seconds of each kind of work."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from negface.contexts import sources
from negface.foundation.files import existing_folder
from negface.foundation.progress import format_seconds
from negface.generation import Tools, estimate, make_inputs, make_plan
from negface.generation.planning import model_facts
from negface.sampling import schedulers

from .grid import ExperimentRecipe, Setting, Student
from .materials import Given, chosen

PEOPLE, PICTURES = 8, 16


def planned(recipe: ExperimentRecipe, given: Given, *, students: bool = True, workers: int = 1,
            seconds: float = 6.0) -> dict[str, Any]:
    """The cells and an estimate.

    Returns ``cells`` (a dict for each: ``label, student, seconds``), ``n_cells, n_students, n_images``, ``seconds``
    for all of them on ``workers`` processes that do not slow each other down, ``images_per_second`` of generation with
    guidance and ``student_images_per_second`` (None without students). Materials are not counted.
    """
    settings, sampling = recipe.settings(), recipe.sampling
    images = sampling.identities * sampling.images
    steered, plain = _generation(recipe, given, seconds)
    teaching = recipe.student if students else None
    rate = student_rate(teaching) if teaching else None
    cells = []
    for setting in settings:
        taught = setting.student and rate is not None
        if setting.reference and not taught:
            continue
        making = 0.0 if setting.reference else plain + (steered - plain) * steered_share(setting, sampling.steps)
        learning = shown(teaching, images) / rate if taught and teaching and rate else 0.0
        cells.append({"label": setting.label, "student": bool(taught), "seconds": making + learning})
    total = sum(cell["seconds"] for cell in cells) / workers
    return {"cells": cells, "n_cells": len(cells), "n_students": sum(cell["student"] for cell in cells),
            "n_images": images * sum(not setting.reference for setting in settings), "seconds": total,
            "images_per_second": images / steered, "student_images_per_second": rate, "workers": workers}


def steered_share(setting: Setting, steps: int) -> float:
    """Share of the steps at which a cell's rule asks for more than the positive prediction."""
    asked = setting.strategy.rule.predicted(schedulers.from_dict({"name": setting.scheduler}).timesteps(steps))
    return sum(len(branches) > 1 for branches in asked) / len(asked)


def shown(student: Student, images: int) -> int:
    """Pictures a student's training looks at, of a set of ``images``."""
    train = student.recipe.train
    return images * train.epochs if train.epochs else (train.steps or 0) * train.batch


def _generation(recipe: ExperimentRecipe, given: Given, seconds: float) -> tuple[float, float]:
    """Seconds of a cell's pictures, with guidance and without."""
    model = existing_folder(chosen(recipe, given, "model", "generator"), "model folder")
    bank = sources.uniform(recipe.sampling.identities, model_facts(model)["dim"])
    found = []
    for strategy in ("random", "none"):
        inputs, sampling = make_inputs(bank, strategy), recipe.sampling
        plan = make_plan(model, inputs, images=sampling.images, steps=sampling.steps, scheduler=sampling.scheduler,
                         batch=sampling.batch, threads=sampling.threads, dtype=sampling.dtype, device=sampling.device,
                         size=sampling.size, codec_name=sampling.codec)
        found.append(estimate(plan, inputs, Tools(model=str(model)), seconds=seconds)["seconds"])
    return found[0], found[1]


def student_rate(student: Student) -> float:
    """Pictures a second of the student's training, from a few steps on noise."""
    from PIL import Image

    from negface.training.recognition import train_recognition

    side, train = student.recipe.model.image_size, student.recipe.train
    random = np.random.default_rng(0)
    spent = []
    with tempfile.TemporaryDirectory() as name:
        for number in range(PEOPLE * PICTURES):
            folder = Path(name) / "faces" / f"{number % PEOPLE:02d}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8)).save(folder / f"{number}.png")
        for steps in (1, 4):
            short = train.model_copy(update={"steps": steps, "epochs": None, "warmup": 0, "schedule": "cosine",
                                              "drops": ()})
            began = time.perf_counter()
            train_recognition(student.recipe.model_copy(update={"train": short}), Path(name) / "faces",
                              Path(name) / str(steps), say=lambda _: None)
            spent.append(time.perf_counter() - began)
    return 3 * train.batch / max(spent[1] - spent[0], 1e-6)


def plan_text(found: dict[str, Any]) -> str:
    """The plan for a person."""
    lines = [f"{cell['label']:<48} {'student' if cell['student'] else '':<8} {format_seconds(cell['seconds']):>8}"
             for cell in found["cells"]]
    taught = found["student_images_per_second"]
    speed = f"{found['images_per_second']:.1f} images/s" + (f", students {taught:.0f} images/s" if taught else "")
    return "\n".join([*lines, f"{found['n_cells']} cells, {found['n_students']} students, {found['n_images']:,} "
                      f"images; workers {found['workers']}: about {format_seconds(found['seconds'])} ({speed}); "
                      "rendering, measuring and examining come on top"])
