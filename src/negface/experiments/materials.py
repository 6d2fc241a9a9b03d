"""What the cells of an experiment share: the faces behind the contexts, the eyes, the banks and the benchmarks.

Made once, under a lock, by whichever process comes first; every other one finds it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from negface import datasets, population
from negface.contexts import ContextBank
from negface.evaluation.benchmarks import Benchmark
from negface.foundation.errors import InputError, MismatchError
from negface.foundation.files import ensure_folder, existing_file, existing_folder
from negface.foundation.hashing import sha256_json
from negface.generation.claims import claim
from negface.perception import Embeddings, read_embeddings

from .assets import load as shipped
from .banks import Contexts, make_contexts, see_without_identity
from .benchmarks import given_benchmarks, rendered_benchmarks
from .eyes import Eyes, faces_hash, of_people, write_seen
from .fit import model_facts
from .grid import ExperimentRecipe, PopulationFaces, Range
from .people import (
    Split,
    check_judge_training,
    check_training,
    keyed_split,
    read_split,
    training_record,
)
from .steps import Journal

LOCK, FACES = "materials.lock", "faces"
KNOWN_FACES = f"{FACES}/known"


@dataclass(frozen=True)
class Given:
    """What the command line gives beside the recipe: models, faces with their people, benchmarks by name.

    ``pictures``: where the names of pair lists start. ``threads``: of perception. ``workers``: processes that render.
    """

    model: Path | None = None
    conditioner: Path | None = None
    judge: Path | None = None
    faces: Path | None = None
    people: Path | None = None
    benchmarks: Mapping[str, Path] | None = None
    pictures: Path | None = None
    threads: int | None = None
    workers: int = 1
    force: bool = False

    def resolved(self) -> Given:
        """The same with absolute paths, for processes that start elsewhere."""
        paths = {name: value.resolve() for name, value in vars(self).items() if isinstance(value, Path)}
        named = None if self.benchmarks is None else {key: Path(value).resolve() for key, value in
                                                      self.benchmarks.items()}
        return replace(self, benchmarks=named, **paths)


@dataclass(frozen=True)
class Materials:
    """Shared by all cells.

    Attributes:
        model, facts: the pipeline and what its configuration says. eyes: conditioner and judge.
        conditioned: embeddings of all faces by the conditioner. known: those of the generator's people by the judge.
        split: ``train`` are the generator's people. faces: hash of the pictures, or of what renders them.
        known_faces: the pictures themselves where they are a folder. benchmarks: what students are examined on.
        warnings: for tables and page.
    """

    model: Path
    facts: dict[str, Any]
    eyes: Eyes
    conditioned: Embeddings
    known: Embeddings
    split: Split
    faces: str
    known_faces: Path | None
    benchmarks: tuple[Benchmark, ...]
    warnings: tuple[str, ...]

    @property
    def examined_people(self) -> tuple[str, ...]:
        """Everybody in a benchmark, as far as names tell."""
        return tuple(sorted({name for item in self.benchmarks for name in item.people}))


def prepare(recipe: ExperimentRecipe, given: Given, journal: Journal) -> Materials:
    """Make or find the materials; one process at a time.

    Errors: ``InputError`` for what is missing, ``MismatchError`` for a judge that is the conditioner or was trained on
    people of the experiment (unless forced), and for a generator, or a benchmark, that shares people it must not.
    """
    model = chosen(recipe, given, "model", "generator")
    existing_folder(model, "model folder")
    eyes = Eyes(*(existing_file(chosen(recipe, given, job, job), f"{job} file") for job in ("conditioner", "judge")),
                (), threads=given.threads, force=given.force, resize=recipe.measuring.resize)
    theirs = given_benchmarks(given.benchmarks or {}, given.pictures)
    split = _split_of(given) if given.faces else None
    asked = {**{part.what: part.people for part in recipe.parts()}, **(split.groups() if split else {}),
             **{f"benchmark {item.name}": item.people for item in theirs}}
    said = check_judge_training(eyes.judge_declaration, asked, force=given.force)
    wanted = recipe.protocols if recipe.student else None
    if recipe.student is not None and not (wanted or theirs):
        raise InputError("students are trained, and nothing examines them", where="benchmarks",
                         fix="add [protocols] to the recipe, give --benchmark NAME=FILE, or leave students out")
    if split is None and recipe.population is None:
        raise InputError("neither faces nor a population", where="experiment",
                         fix="give --faces, or write a section [population]")
    ensure_folder(journal.root)
    with claim(journal.root / LOCK, wait=True):
        faces = _from_folder(given, split, journal, eyes) if split else _rendered(recipe, given, journal, eyes)
        made = rendered_benchmarks(wanted, journal, given.workers) if wanted else []
    benchmarks = (*made, *theirs)
    if len({item.name for item in benchmarks}) < len(benchmarks):
        raise InputError("two benchmarks have one name", where="benchmarks", fix="name yours otherwise")
    found = Materials(model, model_facts(model), eyes, benchmarks=benchmarks, warnings=(), **faces)
    return replace(found, warnings=(*said, *_warnings(found)))


def chosen(recipe: ExperimentRecipe, given: Given, name: str, job: str) -> Path:
    """A model from the command line, else the shipped one where the recipe says so."""
    path = getattr(given, name)
    if path is None and getattr(recipe, name) is None:
        raise InputError(f"no {name} was given", where="experiment", fix=f'give --{name}, or write {name} = "shipped"')
    return Path(path) if path is not None else shipped(job)


def _warnings(found: Materials) -> list[str]:
    said = []
    if found.eyes.same:
        said.append("the judge is the conditioner: it grades its own work")
    if not check_training(found.model, found.split):
        said.append("the model does not say who trained it: it was not checked that test people are new to it")
    trained = set(training_record(found.model).get("identities") or ())
    for benchmark in found.benchmarks:
        people = set(benchmark.people)
        both = sorted((trained | set(found.split.train)) & people)
        if both:
            raise MismatchError(f"shares {len(both)} people with the generator's training, {both[0]!r} among them",
                                where=f"benchmark {benchmark.name}", fix="examine students on people nobody has seen")
        if not (people and trained):
            said.append(f"benchmark {benchmark.name}: it was not checked that its people are new to the generator")
    return said


def _see(journal: Journal, name: str, folder: Path, faces: str, eyes: Eyes, who: str) -> Embeddings:
    path = journal.root / "embeddings" / f"{name}-{who}.safetensors"
    declared = getattr(eyes, f"{who}_declaration").to_dict()
    journal.step(f"embeddings/{name}-{who}", {"faces": faces, "recognizer": declared, "resize": eyes.resize},
                 lambda: write_seen(path, datasets.open(folder), getattr(eyes, who), resize=eyes.resize), [path])
    return read_embeddings(path)


def _split_of(given: Given) -> Split:
    known = datasets.open(given.faces).identities
    return read_split(given.people, known) if given.people else keyed_split(known, 0.7, 0)


def _from_folder(given: Given, split: Split, journal: Journal, eyes: Eyes) -> dict[str, Any]:
    faces = faces_hash(datasets.open(given.faces))
    judged = of_people(_see(journal, "faces", Path(given.faces), faces, eyes, "judge"), split.train)
    return {"conditioned": _see(journal, "faces", Path(given.faces), faces, eyes, "conditioner"), "known": judged,
            "split": split, "faces": faces, "known_faces": Path(given.faces)}


def _rendered(recipe: ExperimentRecipe, given: Given, journal: Journal, eyes: Eyes) -> dict[str, Any]:
    """Known and new people of the recipe, rendered and embedded."""
    wanted = recipe.population
    seen = {}
    for name, part in (("known", wanted.known), ("new", wanted.new)):
        folder = render_people(journal, f"{FACES}/{name}", part, wanted, images=wanted.images, size=wanted.size,
                               workers=given.workers)
        said = sha256_json({**wanted.model_dump(mode="json", exclude={"known", "new", "ceiling"}),
                            "part": part.model_dump()})
        seen[name] = {who: _see(journal, name, folder, said, eyes, who) for who in ("conditioner", "judge")}
    split = Split(seen["known"]["judge"].identities, seen["new"]["judge"].identities)
    return {"conditioned": _joined(seen["known"]["conditioner"], seen["new"]["conditioner"]),
            "known": seen["known"]["judge"], "split": split, "known_faces": None,
            "faces": sha256_json(wanted.model_dump(mode="json", exclude={"ceiling"}))}


def render_people(journal: Journal, name: str, part: Range, faces: PopulationFaces, *, images: int,
                  size: int, workers: int = 1) -> Path:
    """A folder of rendered people below the journal's root, photographed as ``faces`` says."""
    folder = journal.root / name
    wanted = {"start": part.start, "people": part.people, "images": images, "size": size, "seed": faces.seed,
              "spreads": {key: list(value) for key, value in faces.spreads.items()}}

    def make() -> dict[str, Any]:
        shutil.rmtree(folder, ignore_errors=True)
        population.make(folder, workers=workers, **{**wanted, "spreads": dict(faces.spreads)})
        return wanted

    journal.step(name, wanted, make, [folder])
    return folder


def _joined(first: Embeddings, second: Embeddings) -> Embeddings:
    """Two sets of different people as one."""
    return Embeddings(np.concatenate([first.embeddings, second.embeddings]),
                      np.concatenate([first.labels, second.labels + len(first.identities)]),
                      (*first.identities, *second.identities), (), first.provenance)


class Banks:
    """Contexts by (source, seed), kept in ``banks/``."""

    def __init__(self, recipe: ExperimentRecipe, materials: Materials, journal: Journal):
        self.recipe, self.materials, self.journal = recipe, materials, journal
        self.get = lru_cache(maxsize=4)(self._get)

    def _get(self, source: str, seed: int) -> Contexts:
        folder, name = self.journal.root / "banks", f"{source}-{seed}"
        bank, pool = folder / f"{name}.safetensors", folder / f"{name}-pool.safetensors"
        materials, sampling = self.materials, self.recipe.sampling
        inputs = {"faces": materials.faces, "people": materials.split.hash, "bank": sampling.bank,
                  "conditioner": materials.eyes.conditioner_declaration.sha256}
        if source == "two-stage":
            inputs |= {"model": materials.facts["hash"], "sampling": sampling.model_dump(mode="json")}

        def make() -> dict[str, Any]:
            made = make_contexts(source, seed, sampling, materials.conditioned, materials.split,
                                 self._without_identity)
            made.bank.save(bank)
            if made.pool is not None:
                made.pool.save(pool)
            return {"n": len(made.bank), "hash": made.bank.hash, "pool": made.pool.hash if made.pool else None}

        folder.mkdir(parents=True, exist_ok=True)
        with claim(folder / f"{name}.lock", wait=True):
            result = self.journal.step(f"banks/{name}", inputs, make, [bank])
        return Contexts(ContextBank.load(bank), ContextBank.load(pool) if result["pool"] else None)

    def _without_identity(self, seed: int) -> np.ndarray:
        return see_without_identity(self.materials.model, self.materials.eyes.conditioner, self.recipe.sampling, seed,
                                    resize=self.recipe.measuring.resize)


def benchmark_hashes(materials: Materials) -> dict[str, str]:
    """What names the examination: each benchmark's file by content."""
    return {item.name: item.sha256 for item in materials.benchmarks}
