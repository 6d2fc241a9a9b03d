"""The stages of one cell: pictures, measures, student, examination; each is kept while what decides it is the same.

A cell's folder is named by the hash of its plan, so a changed recipe works beside, and never over, what is there.
"""

from __future__ import annotations

import io
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from negface import datasets
from negface.contexts import ContextBank
from negface.evaluation import company
from negface.evaluation._separability import PROTOCOL
from negface.evaluation.bootstrap import multiplicities
from negface.foundation.files import existing_file, write_bytes
from negface.foundation.hashing import sha256_json
from negface.generation import Inputs, Plan, Tools, generate, make_inputs, make_plan
from negface.perception import Embeddings, read_embeddings

from .eyes import write_seen
from .grid import ExperimentRecipe, Setting, variation_of
from .materials import Banks, Materials, benchmark_hashes
from .paired import replicates
from .recipe import BASELINE, strategy
from .references import Pictures, ceiling_pictures, floor_pictures
from .steps import Journal
from .students import REPLICATES as EXAMINED
from .students import examine_student, train_student

JUDGE, CONDITIONER, REPLICATES, DATASET = "judge.npz", "conditioner.npz", "replicates.npz", "dataset"


@dataclass(frozen=True)
class Bench:
    """What all cells share. ``students``: whether this run trains any."""

    recipe: ExperimentRecipe
    materials: Materials
    banks: Banks
    journal: Journal
    students: bool = True

    def inputs(self, setting: Setting) -> Inputs:
        """Identities and negatives of a generated cell."""
        contexts = self.banks.get(setting.source, setting.seed)
        return make_inputs(contexts.bank, setting.strategy.negatives, pool=contexts.pool, seed=setting.seed,
                           scope=setting.strategy.scope, variation=variation_of(setting.variation, setting.seed))

    def plan(self, setting: Setting, chosen: Inputs) -> Plan:
        """Plan of a generated cell."""
        recipe = self.recipe.sampling
        return make_plan(
            self.materials.model, chosen, guidance=setting.strategy.rule,
            identities=min(recipe.identities, len(chosen.bank)), images=recipe.images, steps=recipe.steps,
            scheduler=setting.scheduler, seed=setting.seed, batch=recipe.batch, threads=recipe.threads,
            dtype=recipe.dtype, device=recipe.device, size=recipe.size, codec_name=recipe.codec)

    def content(self, setting: Setting) -> str:
        """Hash of all that decides a cell's pictures."""
        if not setting.reference:
            return self.plan(setting, self.inputs(setting)).hash
        said: dict[str, Any] = {"reference": setting.strategy.name, "seed": setting.seed}
        if setting.strategy.name == "floor":
            said["pictures"] = self.content(baseline_of(setting))
        else:
            sampling, people = self.recipe.sampling, self.recipe.population
            said |= {"faces": self.materials.faces, "split": self.materials.split.hash}
            if self.materials.known_faces is None:
                said |= {"population": people.model_dump(mode="json"), "size": sampling.size,
                         "counts": [sampling.identities, sampling.images]}
        return sha256_json(said)

    def place(self, setting: Setting) -> str:
        """Folder of a cell below the experiment's root; the names of its records start with it."""
        return f"cells/{setting.label}-{self.content(setting)[:10]}"


def baseline_of(setting: Setting) -> Setting:
    """The baseline whose pictures the floor is made from."""
    return Setting(setting.source, setting.seed, strategy(BASELINE, 0.0), setting.scheduler)


def carry_out(setting: Setting, bench: Bench) -> None:
    """All stages of a cell; what is there and unchanged is kept."""
    place = bench.place(setting)
    pictures = _pictures(setting, place, bench)
    _measure(setting, place, pictures, bench)
    if setting.student and bench.students and bench.recipe.student is not None:
        _teach(setting, place, pictures, bench)


def finished(setting: Setting, bench: Bench, place: str) -> bool:
    """Whether a cell has all that this experiment asks of it."""
    return measures_of(place, bench) is not None and (
        not (setting.student and bench.students and bench.recipe.student) or examined_of(place, bench) is not None)


def measures_of(place: str, bench: Bench) -> dict[str, Any] | None:
    """What a cell measured in this study; None before."""
    return _current(bench, f"{place}/measures", study(bench), bench.journal.root / place / REPLICATES)


def examined_of(place: str, bench: Bench) -> dict[str, Any] | None:
    """What the student of a cell reached in this study; None before."""
    return _current(bench, f"{place}/examination", _examination(bench), bench.journal.root / place / EXAMINED)


def _current(bench: Bench, name: str, key: str, file: Path) -> dict[str, Any] | None:
    record = bench.journal.read(name)
    return record["result"] if record and record["inputs"].get("study") == key and file.is_file() else None


def study(bench: Bench) -> str:
    """What decides a cell's measures besides its pictures."""
    materials = bench.materials
    return sha256_json({"protocol": PROTOCOL, "eyes": materials.eyes.describe(), "faces": materials.faces,
                        "people": materials.split.hash, "measuring": bench.recipe.measuring.model_dump(mode="json")})


def _examination(bench: Bench) -> str:
    """What decides a student and its marks besides its pictures."""
    taught = bench.recipe.student.model_dump(mode="json") if bench.recipe.student else None
    return sha256_json({"student": taught, "benchmarks": benchmark_hashes(bench.materials),
                        "bootstrap": [bench.recipe.measuring.bootstrap, bench.recipe.measuring.seed]})


def _pictures(setting: Setting, place: str, bench: Bench) -> Pictures:
    root, journal = bench.journal.root / place, bench.journal
    if setting.strategy.name == "ceiling":
        return ceiling_pictures(setting, root, bench.recipe, bench.materials, journal, place)
    if setting.strategy.name == "floor":
        source = journal.root / bench.place(baseline_of(setting)) / DATASET
        return floor_pictures(setting, source, root / DATASET, journal, place)
    chosen = bench.inputs(setting)
    plan = bench.plan(setting, chosen)

    def make() -> dict[str, Any]:
        made = generate(plan, chosen, root / DATASET, Tools(model=str(bench.materials.model)))
        return {"images": made["images"], "images_per_second": made["images_per_second"],
                "mean_weight": made["mean_weight"], "describes_real_people": chosen.describes_real_people}

    result = journal.step(f"{place}/pictures", {"plan": plan.hash}, make, [root / DATASET / datasets.PLAN_NAME])
    return Pictures(root / DATASET, None, result)


def _measure(setting: Setting, place: str, pictures: Pictures, bench: Bench) -> None:
    folder = bench.journal.root / place

    def make() -> dict[str, Any]:
        eyes, recipe, materials = bench.materials.eyes, bench.recipe.measuring, bench.materials
        dataset = datasets.open(pictures.folder)
        if pictures.identities is None:
            write_seen(folder / JUDGE, dataset, eyes.judge, flip=recipe.flip, resize=recipe.resize)
            judged = read_embeddings(folder / JUDGE)
        else:
            judged = materials.known
        options: dict[str, Any] = {}
        bank = None
        if not setting.reference:
            bank = bench.banks.get(setting.source, setting.seed).bank
            write_seen(folder / CONDITIONER, dataset, eyes.conditioner, resize=recipe.resize)
            options = {"contexts": bank, "conditioned": read_embeddings(folder / CONDITIONER)}
        if pictures.identities is None:
            options["training"] = materials.known
        measured = company.measure(judged, bootstrap=recipe.bootstrap, seed=recipe.seed, threads=eyes.threads,
                                   force=eyes.same or False, **options)
        _write_replicates(folder / REPLICATES, judged, options.get("conditioned"), bank, bench)
        inside = pictures.identities is None
        return {"measured": measured, "pictures": _shown(dataset, pictures, recipe.shown_people, recipe.shown_images),
                "dataset": pictures.folder.relative_to(bench.journal.root).as_posix() if inside else None}

    bench.journal.step(f"{place}/measures", {"pictures": place, "study": study(bench)}, make, [folder / REPLICATES])


def _shown(dataset: datasets.FaceDataset, pictures: Pictures, people: int, images: int) -> list[list[str]]:
    """Files of the first people's first pictures; none of faces that lie outside the experiment."""
    if pictures.identities is not None:
        return []
    return [[dataset.manifest[int(row)]["file"] for row in dataset.indices_of(label)[:images]]
            for label in range(min(people, len(dataset.identities)))]


def _write_replicates(path: Path, judged: Embeddings, conditioned: Embeddings | None, bank: ContextBank | None,
                      bench: Bench) -> None:
    recipe = bench.recipe.measuring
    repeats = replicates(judged.embeddings, judged.labels, bootstrap=recipe.bootstrap, seed=recipe.seed)
    arrays = {"fdr": repeats.fdr, "diversity": repeats.diversity}
    if conditioned is not None and bank is not None:
        arrays["adherence"] = adherence_replicates(conditioned, bank, recipe.bootstrap, recipe.seed)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def adherence_replicates(conditioned: Embeddings, bank: ContextBank, bootstrap: int, seed: int) -> np.ndarray:
    """Mean cosine to the wanted context and its replicates, float64 ``[1 + r]``; the people drawn are those of
    ``paired.replicates`` with the same seed."""
    vectors = np.asarray(conditioned.embeddings, np.float64)
    cosines = np.einsum("nd,nd->n", vectors, bank.contexts[company.wanted_rows(conditioned, bank)].astype(np.float64))
    codes = np.unique(conditioned.labels, return_inverse=True)[1]
    sums, counts = np.bincount(codes, cosines), np.bincount(codes)
    weights = np.concatenate([np.ones((len(counts), 1)), multiplicities(len(counts), bootstrap, seed)], axis=1)
    return (sums @ weights) / (counts @ weights)


def _teach(setting: Setting, place: str, pictures: Pictures, bench: Bench) -> None:
    """Train the student, examine it, and leave only the student."""
    root, student = bench.journal.root / place, bench.recipe.student
    inputs = {"pictures": place, "student": student.model_dump(mode="json"), "identities": pictures.identities}
    folder = root / f"student-{sha256_json(inputs)[:8]}"
    trained = bench.journal.step(f"{place}/training", inputs, lambda: train_student(
        student, pictures, folder, seed=setting.seed, held_out=bench.materials.examined_people, say=bench.journal.say),
        [folder / "model"])

    def examine() -> dict[str, Any]:
        found = examine_student(folder / "model", bench.materials, student, root / EXAMINED,
                                bootstrap=bench.recipe.measuring.bootstrap, seed=bench.recipe.measuring.seed)
        return {**found, "training": trained}

    bench.journal.step(f"{place}/examination", {"pictures": place, "study": _examination(bench)}, examine,
                       [root / EXAMINED])
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)


def read_replicates(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a cell's replicates."""
    with np.load(existing_file(path), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
