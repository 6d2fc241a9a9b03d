"""The declared step ``curate``: a dataset in, what the filters keep out, and a line for every picture on its fate.

Pictures are copied byte for byte; what the source's manifest said of a picture stays with it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from .. import datasets
from ..datasets.copying import new_place, suffix_of
from ..foundation.errors import IncompleteError, InputError
from ..foundation.files import atomic_folder, write_json
from ..foundation.progress import Progress
from .align_dataset import output_names
from .filters import Loader
from .screening import Rejection, Screen, counts
from .steps import Step, ordered

FATES_NAME, CURATION_NAME = "curation.jsonl", "curation.json"
TOO_FEW = "too few left"
_PLACE = ("shard", "file", "offset", "length", "label", "identity", "unit")  # of a row: where it was, not what it is


def curate_dataset(source: str | os.PathLike, steps: Sequence[Step], out: str | os.PathLike | None = None, *,
                   least_images: int = 1, batch: int = 64, threads: int | None = None) -> dict[str, Any]:
    """Apply filters to a dataset.

    Args:
        source: anything ``negface.datasets.open`` reads.
        steps: the filters, in order (copies are looked for last).
        out: a new folder of identity folders with a manifest; ``None`` only counts.
        least_images: people of whom fewer pictures stay are left out whole.
        batch: pictures judged at a time. threads: of the recogniser, all processors by default. Neither changes a fate.

    Returns:
        the summary, also in ``curation.json``: steps as declared, pictures seen and rejected by each, people lost.

    Raises:
        InputError: a filter that does not fit the data. IncompleteError: no picture is left (nothing is written).
    """
    if least_images < 1:
        raise InputError(f"must be at least 1, not {least_images}", where="least_images")
    steps, place = ordered(list(steps)), None if out is None else new_place(out)
    screen, dataset = Screen(steps, Loader(threads=threads)), datasets.open(source)
    fates = _fates(screen, dataset, batch)
    kept = np.array([fate is None for fate in fates])
    few = np.bincount(dataset.labels[kept], minlength=len(dataset.identities)) < least_images
    for index in np.flatnonzero(kept & few[dataset.labels]):
        fates[index] = Rejection(TOO_FEW, None)
    summary = _summary(dataset, steps, fates, least_images)
    if place is None:
        return summary
    if not summary["n_kept"]:
        raise IncompleteError("no picture passes", where=source, fix=f"look at the counts: {summary['counts']}")
    with atomic_folder(place) as folder:
        names = _write(dataset, fates, folder)
        datasets.write_rows(folder / FATES_NAME, _fate_rows(dataset, fates, names))
        write_json(folder / CURATION_NAME, summary)
    return summary


def _fates(screen: Screen, dataset: datasets.FaceDataset, batch: int) -> list[Rejection | None]:
    """The fate of every picture in order; the next batch is read while one is judged."""
    screening, fates = screen.start(), []
    with Progress("curating", len(dataset), unit="images") as bar:
        for rows, images in _batches(dataset, batch):
            fates += screening.judge(images, [dataset.identities[dataset.labels[row]] for row in rows])
            bar.advance(len(rows))
    return fates


def _batches(dataset: datasets.FaceDataset, batch: int) -> Iterator[tuple[range, list[np.ndarray]]]:
    spans = [range(start, min(start + batch, len(dataset))) for start in range(0, len(dataset), batch)]
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(lambda span: [dataset[row][0] for row in span], spans[0])
        for number, span in enumerate(spans):
            images = coming.result()
            if number + 1 < len(spans):
                coming = reader.submit(lambda span: [dataset[row][0] for row in span], spans[number + 1])
            yield span, images


def _write(dataset: datasets.FaceDataset, fates: list[Rejection | None], folder: Path) -> list[str | None]:
    """Copy what stays and write its manifest, labels counted anew; returns the file of every picture."""
    label_of = {old: new for new, old in enumerate(sorted({int(dataset.labels[row]) for row, fate in enumerate(fates)
                                                          if fate is None}))}
    names: list[str | None] = [None] * len(fates)
    rows = []
    for index, stem in enumerate(output_names(dataset, "")):
        if fates[index] is not None:
            continue
        data, row = dataset.read(index), dataset.manifest[index]
        name = names[index] = stem + suffix_of(data, row["file"], dataset.name(index))
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        kept = {key: value for key, value in row.items() if key not in _PLACE}
        label = int(dataset.labels[index])
        rows.append({**kept, "label": label_of[label], "identity": dataset.identities[label], "file": name})
    datasets.write_rows(folder / datasets.MANIFEST_NAME, rows)
    return names


def _fate_rows(dataset: datasets.FaceDataset, fates: list[Rejection | None],
               names: list[str | None]) -> Iterator[dict[str, Any]]:
    for index, (fate, name) in enumerate(zip(fates, names)):
        yield {"identity": dataset.identities[dataset.labels[index]], "source": dataset.manifest[index]["file"],
               "file": name, "step": fate.step if fate else None, "value": fate.value if fate else None}


def _summary(dataset: datasets.FaceDataset, steps: list[Step], fates: list[Rejection | None],
             least_images: int) -> dict[str, Any]:
    kept = [row for row, fate in enumerate(fates) if fate is None]
    people = {int(dataset.labels[row]) for row in kept}
    rejected = Counter(fate.step for fate in fates if fate is not None)
    names = [step.name for step in steps] + ([TOO_FEW] if least_images > 1 else [])
    return {"step": "curate", "n_source": len(dataset), "n_kept": len(kept), "n_identities": len(people),
            "filters": [step.declared for step in steps], "least_images": least_images,
            "counts": counts(names, rejected, len(kept)),
            "identities_lost": [name for label, name in enumerate(dataset.identities) if label not in people],
            "converted": dict(sorted(dataset.notes.items()))}
