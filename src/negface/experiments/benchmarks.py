"""What students are examined on: verification benchmarks, given as files or rendered by the population's protocols."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from negface.evaluation.benchmarks import Benchmark, open_benchmark
from negface.evaluation.pair_embeddings import embed_pictures
from negface.evaluation.provenance import check_unseen
from negface.evaluation.verification import Verification, verification
from negface.foundation.errors import InputError
from negface.perception import Recognizer
from negface.population import protocols

from .grid import Protocols
from .steps import Journal


def given_benchmarks(files: Mapping[str, Path], pictures: Path | None) -> list[Benchmark]:
    """Benchmarks of the command line; ``InputError`` names the first that is missing or is no list of pairs.

    ``pictures``: where the names of pair lists start (None: where each list lies).
    """
    found = [open_benchmark(path, name=name, images=None if Path(path).suffix == ".bin" else pictures)
             for name, path in files.items()]
    templates = next((item for item in found if item.ijb is not None), None)
    if templates is not None:
        raise InputError("is a benchmark of templates; students are examined on pairs", where=templates.name,
                         fix="examine the students with negface verify afterwards")
    return found


def rendered_benchmarks(wanted: Protocols, journal: Journal, workers: int = 1) -> list[Benchmark]:
    """The population protocols of a recipe, written below ``protocols/`` of the journal's root where they are not."""
    made = []
    for name in wanted.names:
        folder = journal.root / "protocols" / name
        options = {"size": wanted.size, "seed": wanted.seed, "start": wanted.start, "people": wanted.people,
                   "pairs": wanted.pairs}
        inputs = {**options, **protocols.protocol(name, people=wanted.people, pairs=wanted.pairs).to_dict(),
                  "renderer": protocols.RENDERER}

        def write(name: str = name, folder: Path = folder, options: dict[str, Any] = options) -> dict[str, Any]:
            shutil.rmtree(folder, ignore_errors=True)
            return protocols.write(name, folder, workers=workers, **options)

        journal.step(f"protocols/{name}", inputs, write, [folder])
        made.append(open_benchmark(folder, name=name))
    return made


def examine(recognizer: Recognizer, benchmark: Benchmark, *, flip: bool = True) -> Verification:
    """Accuracy and error rates of a recogniser on a benchmark; each different picture is embedded once, resized to it.

    Errors: ``MismatchError`` for a recogniser that was trained on people of the benchmark.
    """
    check_unseen(recognizer.declaration, benchmark.people, benchmark=benchmark.name)
    return verification(embed_pictures(recognizer, benchmark.pictures, flip=flip, resize=True), benchmark.same)
