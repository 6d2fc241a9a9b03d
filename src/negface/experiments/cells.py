"""One cell of the comparison: generate a set with one strategy, look at it, measure it. Same noise in all strategies.

Noise is keyed by (seed, identity, image), so cells of the same contexts and seed differ in the guidance alone.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from negface import datasets
from negface.evaluation import company
from negface.evaluation.inputs import read_pose
from negface.foundation.files import existing_file, write_bytes
from negface.generation import Inputs, Plan, Tools, generate, make_inputs, make_plan
from negface.perception import Embeddings, read_embeddings

from .banks import Contexts
from .eyes import Eyes, write_pose, write_seen
from .paired import Replicates, replicates
from .recipe import Measuring, Sampling, Strategy
from .steps import Journal

JUDGE, CONDITIONER, POSE, REPLICATES = "judge.npz", "conditioner.npz", "pose.npz", "replicates.npz"
DATASET = "dataset"


@dataclass(frozen=True)
class Cell:
    """A place in the grid."""

    contexts: str
    seed: int
    strategy: Strategy

    @property
    def name(self) -> str:
        """Folder below the run, and the stem of its records."""
        return f"cells/{self.contexts}/seed-{self.seed}/{self.strategy.label}"


@dataclass(frozen=True)
class Bench:
    """What all cells of a run share."""

    journal: Journal
    model: Path
    eyes: Eyes
    sampling: Sampling
    measuring: Measuring
    training: Callable[[], Embeddings]
    study: str
    workers: int
    force: bool


def carry_out(cell: Cell, contexts: Contexts, bench: Bench) -> None:
    """Generate and measure a cell; what is there and unchanged is kept."""
    folder = bench.journal.root / cell.name
    chosen = make_inputs(contexts.bank, cell.strategy.negatives, pool=contexts.pool, seed=cell.seed,
                         scope=cell.strategy.scope)
    plan = _plan(cell, chosen, bench)
    made = bench.journal.step(f"{cell.name}/generation", {"plan": plan.hash},
                              lambda: _generate(plan, chosen, folder, bench), [folder / DATASET / datasets.PLAN_NAME])
    bench.journal.step(f"{cell.name}/cell", {"plan": plan.hash, "study": bench.study},
                       lambda: _measure(cell, contexts, folder, bench, made), [folder / REPLICATES])


def _plan(cell: Cell, chosen: Inputs, bench: Bench) -> Plan:
    recipe = bench.sampling
    return make_plan(
        bench.model, chosen, guidance=cell.strategy.rule, identities=min(recipe.identities, len(chosen.bank)),
        images=recipe.images, steps=recipe.steps, scheduler=recipe.scheduler, seed=cell.seed, batch=recipe.batch,
        threads=recipe.threads, dtype=recipe.dtype, device=recipe.device, size=recipe.size, codec_name=recipe.codec)


def _generate(plan: Plan, chosen: Inputs, folder: Path, bench: Bench) -> dict[str, Any]:
    root = folder / DATASET
    if (root / datasets.PLAN_NAME).is_file() and _plan_hash(root) != plan.hash:
        shutil.rmtree(root)
    made = generate(plan, chosen, root, Tools(model=str(bench.model)), workers=bench.workers)
    rate = made["images_per_second"]
    return {"images": made["images"], "identities": made["identities"], "mean_weight": made["mean_weight"],
            "images_per_second": rate, "seconds": made["images"] / rate if rate else None}


def _plan_hash(root: Path) -> str | None:
    from negface.foundation.errors import FormatError
    from negface.foundation.files import read_json

    try:
        return Plan.from_dict(read_json(root / datasets.PLAN_NAME)).hash
    except FormatError:
        return None


def _measure(cell: Cell, contexts: Contexts, folder: Path, bench: Bench, made: dict[str, Any]) -> dict[str, Any]:
    eyes, recipe = bench.eyes, bench.measuring
    dataset = datasets.open(folder / DATASET)
    write_seen(folder / JUDGE, dataset, eyes.judge, flip=recipe.flip, resize=recipe.resize)
    write_seen(folder / CONDITIONER, dataset, eyes.conditioner, resize=recipe.resize)
    pose, pose_model = None, "not named"
    if eyes.pose is not None:
        write_pose(folder / POSE, dataset, eyes.pose)
        pose, pose_model = read_pose(folder / POSE)
    judged = read_embeddings(folder / JUDGE)
    measured = company.measure(
        judged, contexts=contexts.bank, conditioned=read_embeddings(folder / CONDITIONER), pose=pose,
        pose_model=pose_model, training=bench.training(), bootstrap=recipe.bootstrap, seed=recipe.seed,
        threads=eyes.threads, force=bench.force)
    repeats = replicates(judged.embeddings, judged.labels, bootstrap=recipe.bootstrap, seed=recipe.seed)
    _write_replicates(folder / REPLICATES, repeats)
    return {"cell": {"contexts": cell.contexts, "seed": cell.seed, "strategy": cell.strategy.name,
                     "weight": cell.strategy.weight}, "study": bench.study, **made, "measured": measured,
            "bank": contexts.bank.hash, "describes_real_people": contexts.bank.describes_real_people or bool(
                contexts.pool is not None and contexts.pool.describes_real_people),
            "pictures": _shown(dataset, recipe.shown_people, recipe.shown_images)}


def _shown(dataset: datasets.FaceDataset, people: int, images: int) -> list[list[str]]:
    """Files of the first people's first pictures, relative to the dataset."""
    return [[dataset.manifest[int(row)]["file"] for row in dataset.indices_of(label)[:images]]
            for label in range(min(people, len(dataset.identities)))]


def _write_replicates(path: Path, value: Replicates) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, fdr=value.fdr, diversity=value.diversity)
    write_bytes(path, buffer.getvalue())


def read_replicates(path: Path) -> Replicates:
    """Replicates of a measured cell."""
    with np.load(existing_file(path), allow_pickle=False) as archive:
        return Replicates(archive["fdr"], archive["diversity"])
