"""``run``: a folder of faces in, a dataset and its verdict out. Resumable; what is there and unchanged is not remade.

Order: embed faces, train, then for each kind of contexts and seed all strategies; tables after every cell, the page
after every kind, so that a run that is stopped has something to show.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import negface
from negface import datasets
from negface.evaluation._separability import PROTOCOL
from negface.foundation.errors import InputError, MismatchError
from negface.foundation.files import ensure_folder, existing_file, existing_folder, write_json
from negface.foundation.hashing import sha256_file, sha256_json
from negface.generation.machine import processor, versions
from negface.perception import Embeddings, read_embeddings, same_recognizer
from negface.report import render

from . import tables
from .banks import Contexts, make_contexts, see_without_identity
from .cells import Bench, Cell, carry_out
from .eyes import Eyes, faces_hash, of_people, write_seen
from .fit import fit, model_facts
from .nearest import NamedPictures
from .people import Split, check_judge_training, check_training, keyed_split, read_split
from .recipe import RunRecipe, check_run_recipe
from .steps import Journal

EMBEDDINGS = ("conditioner", "conditioner-mirrored", "judge")


def say_aloud(text: str) -> None:
    """Status lines go to standard error."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Setup:
    """What a run is given besides its recipe.

    Args:
        faces: anything ``negface.datasets.open`` reads; None where ``seen`` stands for them.
        conditioner, judge: recogniser files.
        seen: files of embeddings of faces that are not at hand, by ``conditioner`` and ``judge``; needs ``model``.
        people: CSV ``person,split``; None: a keyed split. pose: head-pose files to be averaged.
        autoencoder: a trained autoencoder. model: a trained pipeline (nothing is trained).
        contexts, strategies: restrict the grid. threads: of generation (decides bytes) and perception; None: the
            recipe's, and all processors. workers: processes of generation. force: accept a judge that is the
            conditioner. command: as typed, for the record. notes: further warnings for tables and report.
    """

    faces: Path | None
    conditioner: Path
    judge: Path
    out: Path
    seen: Mapping[str, Path] | None = None
    people: Path | None = None
    pose: tuple[Path, ...] = ()
    autoencoder: Path | None = None
    model: Path | None = None
    contexts: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()
    threads: int | None = None
    workers: int = 1
    force: bool = False
    command: str = ""
    notes: tuple[str, ...] = ()
    say: Callable[[str], None] = field(default=say_aloud, compare=False)


def run(recipe: RunRecipe, setup: Setup) -> dict[str, Any]:
    """Carry out a run recipe.

    Returns the summary, which also stands in ``summary.json``: ``verdict``, ``table`` (a dict for each cell),
    ``warnings``, ``steps_made``, ``steps_kept``, ``seconds``, paths of ``report``, ``results`` and ``model``.

    Errors: ``MismatchError`` for a judge that is the conditioner or was trained on people of the faces (unless
    forced) and for a model trained on test people; whatever the single steps raise. What was finished stays, and the
    same call goes on from there.
    """
    started = time.monotonic()
    whole = check_run_recipe(recipe)
    chosen = whole.restricted(setup.contexts, setup.strategies)
    if setup.threads is not None:
        update = {"sampling": whole.sampling.model_copy(update={"threads": setup.threads})}
        whole, chosen = whole.model_copy(update=update), chosen.model_copy(update=update)
    _check(setup)
    eyes = Eyes(setup.conditioner, setup.judge, setup.pose, threads=setup.threads, force=setup.force,
                resize=recipe.measuring.resize)
    dataset = datasets.open(setup.faces) if setup.faces is not None else None
    known = dataset.identities if dataset is not None else read_embeddings(setup.seen["conditioner"]).identities
    split = (read_split(setup.people, known) if setup.people is not None
             else keyed_split(known, recipe.people.train_share, recipe.people.seed))
    warnings = _warnings(chosen, setup, eyes, split)
    journal = Journal(ensure_folder(setup.out), setup.say)
    split.save(setup.out / "people.csv")
    if dataset is not None:
        faces = faces_hash(dataset)
        paths = _see_faces(journal, dataset, eyes, faces, training=setup.model is None)
    else:
        faces, paths = _already_seen(setup.seen, eyes)
    model = setup.model
    if model is None:
        model = fit(chosen, journal, setup.faces, paths, split, autoencoder=setup.autoencoder, say=setup.say,
                    content={"faces": faces, "conditioner": eyes.conditioner_declaration.sha256})
    facts = model_facts(model)
    study = sha256_json({"protocol": PROTOCOL, "model": facts["hash"], "eyes": eyes.describe(), "faces": faces,
                         "people": split.hash, "sampling": whole.sampling.model_dump(mode="json"),
                         "measuring": whole.measuring.model_dump(mode="json")})
    conditioned = read_embeddings(paths["conditioner"])
    bench = Bench(journal, model, eyes, whole.sampling, whole.measuring, _training(paths["judge"], split), study,
                  setup.workers, setup.force)
    writer = _Writer(whole, setup, journal, study, facts, split, eyes, warnings)
    _grid(chosen, bench, conditioned, split, writer)
    return writer.finish(model, time.monotonic() - started)


def _check(setup: Setup) -> None:
    """What can be refused before anything is made."""
    if setup.faces is None and (not setup.seen or setup.model is None):
        raise InputError("no faces were given", where="run", fix="give faces, or a model and embeddings of its faces")
    for path in (setup.conditioner, setup.judge, *setup.pose):
        existing_file(path, "model file")
    if setup.model is not None:
        existing_folder(setup.model, "model folder")
        if setup.autoencoder is not None:
            raise InputError("a trained model brings its autoencoder", where="--autoencoder", fix="leave it out")
    if setup.workers < 1:
        raise InputError(f"must be at least 1, not {setup.workers}", where="workers")


def _warnings(recipe: RunRecipe, setup: Setup, eyes: Eyes, split: Split) -> list[str]:
    found = list(setup.notes)
    if eyes.same:
        found.append("the judge is the conditioner: it grades its own work")
    found += check_judge_training(eyes.judge_declaration, split.groups(), force=setup.force)
    for what, given in (("model", setup.model), ("autoencoder", setup.autoencoder)):
        if given is not None and not check_training(given, split):
            found.append(f"the {what} does not say who trained it: it was not checked that test people are new to it")
    if "authentic" in recipe.contexts and len(split.test) < recipe.sampling.identities:
        found.append(f"{len(split.test)} test people for {recipe.sampling.identities} authentic identities")
    if split.left_out:
        found.append(f"{len(split.left_out)} people of the faces are in neither split and were left out")
    return found


def _see_faces(journal: Journal, dataset: datasets.FaceDataset, eyes: Eyes, faces: str, *,
               training: bool) -> dict[str, Path]:
    """Embeddings of the real faces: by the conditioner, of their mirror images (where there is training), and by the
    judge (for leakage)."""
    paths = {}
    for name in EMBEDDINGS:
        mirrored = name.endswith("mirrored")
        if mirrored and not training:
            continue
        who = "judge" if name == "judge" else "conditioner"
        path = paths[name] = journal.root / "embeddings" / f"{name}.safetensors"
        declared = getattr(eyes, f"{who}_declaration").to_dict()
        journal.step(f"embeddings/{name}", {"faces": faces, "recognizer": declared, "resize": eyes.resize},
                     lambda who=who, path=path, mirrored=mirrored: write_seen(
                         path, dataset, getattr(eyes, who), resize=eyes.resize, mirrored=mirrored), [path])
    return paths


def _already_seen(seen: Mapping[str, Path], eyes: Eyes) -> tuple[str, dict[str, Path]]:
    """Embeddings that were given, if they are those of the eyes; and a hash that stands for the faces."""
    for who in ("conditioner", "judge"):
        made_by, wanted = read_embeddings(seen[who]).recognizer, getattr(eyes, f"{who}_declaration").identity
        if not same_recognizer(made_by, wanted):
            raise MismatchError(f"was made by {made_by}, the {who} is {wanted}", where=seen[who],
                                fix=f"embed the faces with the {who}")
    return sha256_json({who: sha256_file(path) for who, path in sorted(seen.items())}), dict(seen)


def _training(judged: Path, split: Split) -> Callable[[], Embeddings]:
    """Embeddings of the training people by the judge, read when a cell is first measured."""
    return lru_cache(maxsize=1)(lambda: of_people(read_embeddings(judged), split.train))


def _grid(recipe: RunRecipe, bench: Bench, conditioned: Embeddings, split: Split, writer: _Writer) -> None:
    """All strategies of one kind of contexts and seed, then the next; a page after each kind."""
    def without_identity(seed: int) -> Any:
        return see_without_identity(bench.model, bench.eyes.conditioner, bench.sampling, seed,
                                    resize=bench.measuring.resize)

    contexts: dict[tuple[str, int], Contexts] = {}
    grid = [Cell(*place) for place in recipe.grid()]
    for number, cell in enumerate(grid):
        place = (cell.contexts, cell.seed)
        if place not in contexts:
            contexts = {place: _contexts(cell, bench, conditioned, split, without_identity)}
        before = len(bench.journal.made)
        carry_out(cell, contexts[place], bench)
        if len(bench.journal.made) > before:
            writer.tables()
        last = number + 1 == len(grid) or grid[number + 1].contexts != cell.contexts
        if last and bench.journal.made:
            writer.page()


def _contexts(cell: Cell, bench: Bench, conditioned: Embeddings, split: Split,
              without_identity: Callable[[int], Any]) -> Contexts:
    """The bank (and pool) of a cell, kept in ``banks/``."""
    from negface.contexts import ContextBank

    folder = bench.journal.root / "banks"
    name = f"{cell.contexts}-{cell.seed}"
    bank, pool = folder / f"{name}.safetensors", folder / f"{name}-pool.safetensors"

    def make() -> dict[str, Any]:
        made = make_contexts(cell.contexts, cell.seed, bench.sampling, conditioned, split, without_identity)
        made.bank.save(bank)
        if made.pool is not None:
            made.pool.save(pool)
        return {"n": len(made.bank), "hash": made.bank.hash, "pool": made.pool.hash if made.pool else None}

    result = bench.journal.step(f"banks/{name}", {"study": bench.study}, make, [bank])
    return Contexts(ContextBank.load(bank), ContextBank.load(pool) if result["pool"] else None)


class _Writer:
    """Tables, page and summary of a run, from the records of its cells."""

    def __init__(self, recipe: RunRecipe, setup: Setup, journal: Journal, study: str, facts: dict[str, Any],
                 split: Split, eyes: Eyes, warnings: list[str]):
        self.recipe, self.setup, self.journal, self.study, self.facts = recipe, setup, journal, study, facts
        self.split, self.eyes, self.warnings = split, eyes, warnings
        self.training = NamedPictures(setup.faces) if setup.faces is not None else None
        self.table: list[dict[str, Any]] = []
        self.data: dict[str, Any] = {}

    def tables(self) -> None:
        """Write ``results.csv`` and ``results.json`` of all cells measured so far."""
        found = tables.measured_cells(self.journal, [Cell(*place) for place in self.recipe.grid()], self.study)
        self.table = tables.rows(self.journal, found)
        self.data = tables.results(
            self.recipe.title, self.table, found, command=self.setup.command, created=time.strftime("%Y-%m-%d %H:%M"),
            versions=versions(), warnings=self.warnings, provenance=self._provenance(), root=self.setup.out,
            training=self.training)
        tables.write_tables(self.setup.out, self.table, self._remarks(self.data["warnings"]), self.data)

    def page(self) -> dict[str, Any]:
        """Write ``report.html``."""
        if not self.data:
            self.tables()
        return render(self.data, self.setup.out / tables.REPORT, folder=self.setup.out)

    def finish(self, model: Path, seconds: float) -> dict[str, Any]:
        """Write ``summary.json``; the page too if it is missing. Returns the summary."""
        self.tables()
        page = self.page()
        journal, out = self.journal, self.setup.out
        summary = {"verdict": page["verdict"], "warnings": self.data["warnings"], "n_cells": len(self.table),
                   "steps_made": len(journal.made), "steps_kept": len(journal.kept), "seconds": round(seconds, 1),
                   "report": str(out / tables.REPORT), "results": str(out / tables.RESULTS_CSV), "model": str(model),
                   "model_facts": self.facts, "people": self._people(), "table": self.table}
        write_json(out / tables.SUMMARY, {**summary, **{key: Path(summary[key]).name for key in ("report", "results")},
                                          "model": os.path.relpath(model, out)})
        return summary

    def _people(self) -> dict[str, Any]:
        return {"train": len(self.split.train), "test": len(self.split.test), "split": self.split.hash,
                "table": self.setup.people.name if self.setup.people else None}

    def _provenance(self) -> dict[str, Any]:
        return {"model": self.facts, "people": self._people(),
                "conditioner": self.eyes.conditioner_declaration.identity,
                "judge": self.eyes.judge_declaration.identity,
                "judge_is_conditioner": self.eyes.same, "study": self.study, "protocol": PROTOCOL,
                "sampling": self.recipe.sampling.model_dump(mode="json"),
                "measuring": self.recipe.measuring.model_dump(mode="json"), "machine": machine(self.recipe)}

    def _remarks(self, warnings: list[str]) -> list[str]:
        facts, people, sampling = self.facts, self._people(), self.recipe.sampling
        said = [self.setup.command or "negface.experiments.run", self.recipe.title,
                ", ".join(f"{name} {version}" for name, version in versions().items()) + f"; {machine(self.recipe)}",
                f"model {facts['hash'][:12]}: {facts['image_size']} px, denoiser {facts['denoiser_parameters']:,} "
                f"parameters on {'x'.join(map(str, facts['latents']))} latents, {facts['condition_type']}; autoencoder "
                f"{facts['autoencoder_parameters']:,}{_trained(facts['training'])}",
                f"conditioner {self.eyes.conditioner_declaration.name}, judge {self.eyes.judge_declaration.name}; "
                f"{people['train']} people trained, {people['test']} held out (split {people['split'][:12]})",
                f"first {sampling.identities} of a bank of {sampling.bank} x {sampling.images} images, "
                f"{sampling.scheduler} {sampling.steps} steps, {sampling.dtype}; {PROTOCOL}; intervals 95 %, bootstrap "
                f"over people x {self.recipe.measuring.bootstrap}; ratios to the baseline of the same contexts and "
                "seed, same people resampled"]
        return [*said, *(f"note: {warning}" for warning in warnings)]


def _trained(facts: dict[str, Any]) -> str:
    if not facts:
        return ""
    return (f"; denoiser trained {facts['steps']:,} steps in {facts['seconds'] / 60:.0f} min on {facts['n_images']:,} "
            f"pictures of {facts['n_identities']:,} people")


def machine(recipe: RunRecipe) -> str:
    """The kind of machine: processor, cores, system."""
    return f"{processor(recipe.sampling.device)}, {os.cpu_count()} cores, {platform.system()}; negface " \
           f"{negface.__version__}"
