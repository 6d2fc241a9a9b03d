"""``experiment``: carry out a declared grid, cell by cell, on any number of processes; one table and one page.

A process takes a cell by claim and does all its stages; what was finished stays, and the same call goes on from there.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from negface.contexts.bank import REAL_PEOPLE_NOTE
from negface.foundation.errors import IncompleteError, InputError, NegFaceError
from negface.foundation.files import ensure_folder, write_json, write_text
from negface.foundation.progress import format_seconds
from negface.foundation.threads import torch_threads
from negface.generation.claims import claim
from negface.generation.machine import versions
from negface.generation.ray_engine import check_address, full_address, import_ray
from negface.generation.run import check_engine
from negface.report import render

from . import outcome
from .cluster import on_a_cluster
from .grid import ExperimentRecipe, Setting, check_experiment
from .materials import KNOWN_FACES, Banks, Given, prepare
from .nearest import NamedPictures
from .runner import say_aloud
from .stages import Bench, carry_out, finished
from .steps import Journal
from .tables import REPORT, RESULTS_CSV, RESULTS_JSON, SUMMARY, csv_text

PAGE_EVERY = 60.0


@dataclass(frozen=True)
class ExperimentSetup:
    """What an experiment is given besides its recipe.

    Args:
        out: folder; one begun is resumed. given: models, faces, benchmarks. students: train them (where the recipe
            does). workers: processes of this machine (default 1, this one), or tasks of a cluster that work beside it
            (default: as many as there is room for). engine: ``local`` or ``ray``. address: of a running cluster;
            without it one is started here. command: as typed, for the record.
    """

    out: Path
    given: Given = field(default_factory=Given)
    students: bool = True
    workers: int | None = None
    engine: str = "local"
    address: str | None = None
    command: str = ""
    say: Callable[[str], None] = field(default=say_aloud, compare=False)


def experiment(recipe: ExperimentRecipe, setup: ExperimentSetup) -> dict[str, Any]:
    """Carry out an experiment.

    Returns the summary, which also stands in ``summary.json``: ``verdict``, ``table``, ``warnings``, ``n_cells``,
    ``steps_made``, ``steps_kept``, ``seconds``, paths of ``report`` and ``results``.

    Errors: what ``prepare`` refuses; ``IncompleteError`` where cells failed, after all others were done and written.
    """
    started = time.monotonic()
    _check(setup)
    recipe = check_experiment(recipe)
    bench = open_bench(recipe, setup.out, setup.given, students=setup.students, say=setup.say)
    writer = _Writer(bench, setup)
    with _helpers(recipe, setup) as tell, _threads(recipe, 2 if setup.engine == "ray" else setup.workers or 1):
        def after_cell(setting: Setting) -> None:
            writer.after_cell(setting)
            tell()

        failed = work(bench, writer.places, after_cell=after_cell)
        failed |= work(bench, writer.places, after_cell=after_cell, wait=True, passed_over=set(failed))
    summary = writer.finish(time.monotonic() - started, list(failed.values()))
    if failed:
        first = next(iter(failed.values()))
        raise IncompleteError(f"{len(failed)} of {len(writer.places)} cells failed: {first}", where=setup.out,
                              fix="all others are in the table; run the same command again")
    return summary


def _check(setup: ExperimentSetup) -> None:
    if setup.workers is not None and setup.workers < 1:
        raise InputError(f"must be at least 1, not {setup.workers}", where="workers")
    check_engine(setup.engine, setup.address)
    if setup.engine == "ray":  # before hours of preparation, not after
        import_ray()
        if setup.address not in (None, "auto"):
            check_address(full_address(setup.address))


def open_bench(recipe: ExperimentRecipe, out: Path, given: Given, *, students: bool = True,
               say: Callable[[str], None] = say_aloud) -> Bench:
    """Materials and banks of an experiment's folder."""
    journal = Journal(out, say)
    # Without students nothing is examined, so no benchmark is asked for.
    part = recipe if students else recipe.model_copy(update={"student": None, "references": ()})
    materials = prepare(part, given, journal)
    return Bench(part, materials, Banks(part, materials, journal), journal, students)


def places_of(bench: Bench) -> dict[Setting, str]:
    """Every cell's folder; makes the banks, so a cell that cannot be is refused before any is begun."""
    return {setting: bench.place(setting) for setting in bench.recipe.settings()}


def work(bench: Bench, places: dict[Setting, str], *, after_cell: Callable[[Setting], None] | None = None,
         wait: bool = False, passed_over: Collection[Setting] = ()) -> dict[Setting, str]:
    """Take and finish cells that nobody else holds; with ``wait`` also those, once they are let go.

    Returns what failed and why; wrong inputs are raised. What only another cell's pictures keep from being made fails
    with ``wait`` alone.
    """
    failed = {}
    for setting, place in places.items():
        if setting in passed_over or finished(setting, bench, place):
            continue
        ensure_folder(bench.journal.root / place)
        with claim(bench.journal.root / f"{place}.lock", wait=wait) as mine:
            if not mine or finished(setting, bench, place):
                continue
            try:
                carry_out(setting, bench)
            except InputError:
                raise
            except NegFaceError as error:
                if wait or not isinstance(error, IncompleteError):
                    failed[setting] = f"{place}: {error}"
                continue
        if after_cell is not None:
            after_cell(setting)
    return failed


@contextlib.contextmanager
def _threads(recipe: ExperimentRecipe, workers: int) -> Iterator[None]:
    """Processes side by side keep to their own cores."""
    if workers == 1:
        yield
        return
    with torch_threads(recipe.sampling.threads):
        yield


@contextlib.contextmanager
def _helpers(recipe: ExperimentRecipe, setup: ExperimentSetup) -> Iterator[Callable[[], None]]:
    """The other processes; they take cells until none is free, and end with this one. Yields what tells of nodes that
    take none."""
    if setup.engine == "ray":
        take = partial(_take_cells, recipe.model_dump(mode="json"), setup.out.resolve(), setup.given.resolved(),
                       setup.students)
        with on_a_cluster(take, setup.out.resolve(), address=setup.address, workers=setup.workers, say=setup.say,
                          threads=recipe.sampling.threads, device=recipe.sampling.device) as tell:
            yield tell
        return
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_helper, daemon=True, name=f"negface-experiment-{number}", args=(
        recipe.model_dump(mode="json"), setup.out, setup.given, setup.students))
        for number in range(1, setup.workers or 1)]
    for process in processes:
        process.start()
    try:
        yield lambda: None
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _helper(recipe: dict[str, Any], out: Path, given: Given, students: bool) -> None:
    with contextlib.suppress(NegFaceError):  # the first process meets the same error, and says it
        _take_cells(recipe, out, given, students)


def _take_cells(recipe: dict[str, Any], out: Path, given: Given, students: bool) -> None:
    """Take cells of an experiment that is under way until none is free."""
    parsed = ExperimentRecipe.model_validate(recipe)
    with _threads(parsed, 2):
        bench = open_bench(parsed, out, given, students=students, say=lambda _: None)
        work(bench, places_of(bench))


class _Writer:
    """Table, page and summary, from the records of all cells, whoever made them."""

    def __init__(self, bench: Bench, setup: ExperimentSetup):
        self.bench, self.setup, self.places = bench, setup, places_of(bench)
        self.training = NamedPictures(bench.materials.known_faces or setup.out / KNOWN_FACES)
        self.began = self.page_written = time.monotonic()
        self.made = 0

    def after_cell(self, setting: Setting) -> None:
        """Tables after every cell, the page now and then."""
        self.made += 1
        left = sum(not finished(item, self.bench, place) for item, place in self.places.items())
        seconds = (time.monotonic() - self.began) / self.made * left / (self.setup.workers or 1)
        self.bench.journal.say(f"{self.places[setting]} done; {left} of {len(self.places)} cells left"
                               + (f", about {format_seconds(seconds)}" if left else ""))
        data = self.tables()
        if data and time.monotonic() - self.page_written > PAGE_EVERY:
            self._page(data)

    def tables(self) -> dict[str, Any] | None:
        """Write ``results.csv`` and ``results.json``; the report's data, or None before the first cell."""
        done = outcome.collect(list(self.places), self.places, self.bench)
        if not done:
            return None
        table = [outcome.row(item) for item in done]
        warnings = self._warnings(done)
        scheduler = self.bench.recipe.sampling.scheduler
        data = {"title": self.bench.recipe.title, "command": self.setup.command, "versions": versions(),
                "created": time.strftime("%Y-%m-%d %H:%M"), "warnings": warnings, "provenance": self._provenance(),
                "lead": outcome.lead(done, self.bench),
                "cells": [outcome.page_cell(item, scheduler, self.setup.out, self.training) for item in done]}
        write_text(self.setup.out / RESULTS_CSV, csv_text(table, self._remarks(warnings), outcome.columns(table)))
        write_json(self.setup.out / RESULTS_JSON, data, indent=None)
        self.table = table
        return data

    def _page(self, data: dict[str, Any]) -> dict[str, Any]:
        self.page_written = time.monotonic()
        return render(data, self.setup.out / REPORT, folder=self.setup.out)

    def finish(self, seconds: float, failed: list[str]) -> dict[str, Any]:
        """Write everything and ``summary.json``; returns the summary."""
        data = self.tables()
        if data is None:
            raise IncompleteError(f"no cell could be made: {failed[0] if failed else 'none was free'}",
                                  where=self.setup.out)
        page, journal = self._page(data), self.bench.journal
        summary = {"verdict": page["verdict"], "warnings": data["warnings"], "n_cells": len(self.table),
                   "n_wanted": len(self.places), "failed": failed, "steps_made": len(journal.made),
                   "steps_kept": len(journal.kept), "seconds": round(seconds, 1), "report": REPORT,
                   "results": RESULTS_CSV, "lead": data["lead"], "table": self.table}
        write_json(self.setup.out / SUMMARY, summary)
        return {**summary, "report": str(self.setup.out / REPORT), "results": str(self.setup.out / RESULTS_CSV)}

    def _warnings(self, done: list[outcome.Done]) -> list[str]:
        missing = len(self.places) - len(done)
        kinds = dict.fromkeys(item.setting.source for item in done if item.measures.get("describes_real_people"))
        return [*self.bench.materials.warnings,
                *([f"{missing} of {len(self.places)} cells are not measured yet"] if missing else []),
                *(f"{kind} contexts: {REAL_PEOPLE_NOTE.split(': ')[0]}; they, or the negatives, describe real people"
                  for kind in kinds)]

    def _provenance(self) -> dict[str, Any]:
        materials, recipe = self.bench.materials, self.bench.recipe
        return {"model": materials.facts, "conditioner": materials.eyes.conditioner_declaration.identity,
                "judge": materials.eyes.judge_declaration.identity,
                "people": {"known": len(materials.split.train), "new": len(materials.split.test),
                           "split": materials.split.hash},
                "benchmarks": [item.name for item in materials.benchmarks],
                "sampling": recipe.sampling.model_dump(mode="json"),
                "measuring": recipe.measuring.model_dump(mode="json"),
                "student": recipe.student.model_dump(mode="json") if recipe.student else None}

    def _remarks(self, warnings: list[str]) -> list[str]:
        materials, recipe = self.bench.materials, self.bench.recipe
        sampling = recipe.sampling
        return [self.setup.command or "negface.experiments.experiment", recipe.title,
                ", ".join(f"{name} {version}" for name, version in versions().items()),
                f"model {materials.facts['hash'][:12]}; conditioner {materials.eyes.conditioner_declaration.name}, "
                f"judge {materials.eyes.judge_declaration.name}; benchmarks "
                f"{', '.join(item.name for item in materials.benchmarks) or 'none'}",
                f"first {sampling.identities} of a bank of {sampling.bank} x {sampling.images} images, "
                f"{sampling.steps} steps, {sampling.dtype}; intervals 95 %, bootstrap over people (sets) and folds "
                f"(students) x {recipe.measuring.bootstrap}", *(f"note: {warning}" for warning in warnings)]
